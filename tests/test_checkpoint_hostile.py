"""Hostile and damaged files: each is refused with a sentence, fast, and nothing runs."""

import gc
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.read_limits import values
from porting import limits
from porting.checkpoint import open_checkpoint
from porting.errors import CheckpointError, LimitError, PortingError
from tests import checkpoint_files as make

ROW = make.row([3, 2], 0, 24)
BODY = bytes(24)
PLAIN = make.tensor()


def _deep_tuple(depth: int) -> bytes:
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."


def _laughs(levels: int) -> bytes:
    """Lists of ten references to the list before: 10**levels values when walked."""
    body = b"\x80\x02]q\x00"
    for level in range(levels):
        body += b"]q" + bytes([level + 1]) + b"(" + (b"h" + bytes([level])) * 10 + b"e"
    return body + b"."


LOOP = b"\x80\x02]q\x00h\x00a."  # a list that holds itself
DICT_LOOP = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."

PICKLES: dict[str, bytes] = {
    "os.system": make.pickled({"w": make.call("os", "system", "touch /tmp/pwned")}),
    "posix.system": make.pickled(make.call("posix", "system", "id")),
    "eval": make.pickled({"w": PLAIN, "x": make.call("builtins", "eval", "1")}),
    "exec of Python 2": make.pickled(make.call("__builtin__", "execfile", "x")),
    "getattr": make.pickled(make.call("builtins", "getattr", PLAIN, "x")),
    "subprocess": make.pickled(make.call("subprocess", "Popen", ["id"])),
    "runpy": make.pickled(make.call("runpy", "_run_code", "1", {})),
    "name only": make.pickled({"w": PLAIN, "f": make.name("os", "system")}),
    "dotted name": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "torch.hub": make.pickled({"w": PLAIN, "x": make.call("torch.hub", "load", "a", "b")}),
    "load from bytes": make.pickled(make.call("torch.storage", "_load_from_bytes", b"x")),
    "numpy runstring": make.pickled(
        {"w": PLAIN, "x": make.call("numpy.testing._private.utils", "runstring", "1", {})}
    ),
    "pip": make.pickled({"w": PLAIN, "x": make.call("pip", "main", ["install", "x"])}),
    "opcode INST": b"(S'id'\nios\nsystem\n.",
    "opcode OBJ": b"\x80\x02(cos\nsystem\nS'id'\no.",
    "opcode EXT": b"\x80\x02\x82\x01.",
    "opcode PERSID": b"P0\n.",
    "rebuild in rebuild": make.pickled(
        make.call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            make.name("torch._tensor", "_rebuild_from_type_v2"),
            make.name("torch", "Tensor"),
            (),
            None,
        )
    ),
    "not a tensor's numbers": make.pickled({"w": make.call("torch._utils", "_rebuild_tensor", 1)}),
    "no storage": make.pickled(
        {"w": make.call("torch._utils", "_rebuild_tensor_v2", 1, 0, (2,), (1,))}
    ),
    "bill of laughs": _laughs(12),
    "list in itself": LOOP,
    "dict in itself": DICT_LOOP,
    "deep tuple": _deep_tuple(100_000),
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "memo out of nothing": b"\x80\x02h\x05.",
    "stack under": b"\x80\x02a.",
    "stop at once": b"\x80\x02.",
    "no stop": b"\x80\x02}",
    "mark under": b"\x80\x02t.",
    "huge integer": b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b".",
    "text longer than the file": b"\x80\x02X\xff\xff\xff\x7fab.",
    "lone surrogate": make.pickled({"w": PLAIN}).replace(
        b"\x01\x00\x00\x00w", b"\x03\x00\x00\x00\xed\xa0\x80"
    ),
    "too many opcodes": b"\x80\x02" + b"]" * (limits.PICKLE_OPCODES + 5),
    "number for a name": make.pickled({"w": make.tensor(key=5)}),
    "long name": make.pickled({"w" * 600: PLAIN}),
    "rank 64": make.pickled({"w": make.tensor((1,) * 64, (1,) * 64)}),
    "negative offset": make.pickled({"w": make.tensor(offset=-1)}),
    "offset past the end": make.pickled({"w": make.tensor(offset=1)}),
    "negative stride": make.pickled({"w": make.tensor(stride=(-2, 1))}),
    "stride past the end": make.pickled({"w": make.tensor(stride=(3, 1))}),
    "fewer strides": make.pickled({"w": make.tensor(stride=(1,))}),
    "negative size": make.pickled({"w": make.tensor(shape=(-3, 2))}),
    "boolean size": make.pickled({"w": make.tensor(shape=(True, 2))}),
    "list for a shape": make.pickled({"w": make.tensor(shape=[3, 2])}),
    "giant shape": make.pickled({"w": make.tensor(shape=(2**40, 2**40))}),
    "giant shape of one number": make.pickled({"w": make.tensor((2**20, 2**20), (0, 0))}),
    "giant count": make.pickled({"w": make.tensor(count=2**50)}),
    "missing storage": make.pickled({"w": make.tensor(key="9")}),
    "storage path": make.pickled({"w": make.tensor(key="../data.pkl")}),
    "quantized": make.pickled({"w": make.tensor(kind="QInt8Storage")}),
    "storage of nothing": make.pickled({"w": make.tensor(kind="NoStorage")}),
    "two of one name": make.pickled({"a": {"b.c": PLAIN}, "a.b": {"c": PLAIN}}),
    "only an optimizer": make.pickled({"optimizer": {"state": {0: {"exp_avg": PLAIN}}}}),
}

HEADERS: dict[str, bytes] = {
    "header too long": make.safetensors(b"{", length=limits.HEADER_BYTES + 1),
    "header longer than the file": make.safetensors({"a": ROW}, length=10_000),
    "length of 2**64 - 1": b"\xff" * 8 + b"{}",
    "not JSON": make.safetensors(b"{'a': 1}"),
    "not UTF-8": make.safetensors(b'{"\xff": 1}'),
    "deep JSON": make.safetensors(b'{"a":' * 200_000),
    "deep lists": make.safetensors(b'{"a":' + b"[" * 500_000),
    "huge number": make.safetensors(b'{"a":' + b"9" * 10_000 + b"}"),
    "a key twice": make.safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(ROW).encode(),) * 2), BODY),
    "a field twice": make.safetensors(
        b'{"a":{"dtype":"F32","dtype":"F64","shape":[3,2],"data_offsets":[0,24]}}', BODY
    ),
    "overlap": make.safetensors({"a": ROW, "b": make.row([3, 2], 12, 36)}, bytes(36)),
    "same bytes": make.safetensors({"a": ROW, "b": ROW}, BODY),
    "gap": make.safetensors({"a": make.row([3, 2], 8, 32)}, bytes(32)),
    "cut short": make.safetensors({"a": ROW}, BODY[:-1]),
    "bytes behind": make.safetensors({"a": ROW}, bytes(25)),
    "negative offset": make.safetensors({"a": make.row([3, 2], -24, 0)}, BODY),
    "offsets turned": make.safetensors({"a": make.row([3, 2], 24, 0)}, BODY),
    "offset a text": make.safetensors({"a": make.row([3, 2], "0", 24)}, BODY),
    "size a float": make.safetensors({"a": make.row([3.0, 2], 0, 24)}, BODY),
    "size a boolean": make.safetensors({"a": make.row([True, 6], 0, 24)}, BODY),
    "negative sizes": make.safetensors({"a": make.row([-3, -2], 0, 24)}, BODY),
    "shape a text": make.safetensors({"a": make.row("32", 0, 24)}, BODY),
    "shape of other bytes": make.safetensors({"a": make.row([3, 3], 0, 24)}, BODY),
    "giant shape": make.safetensors({"a": make.row([2**40, 2**40], 0, 24)}, BODY),
    "giant shape times nothing": make.safetensors({"a": make.row([2**47, 2**47, 0], 0, 0)}),
    "rank 64": make.safetensors({"a": make.row([1] * 64, 0, 4)}, bytes(4)),
    "unknown type": make.safetensors({"a": make.row([3, 2], 0, 24, "F33")}, BODY),
    "six bits": make.safetensors({"a": make.row([32], 0, 24, "F6_E2M3")}, BODY),
    "half a nibble": make.safetensors({"a": make.row([3], 0, 2, "F4")}, bytes(2)),
    "type a list": make.safetensors({"a": make.row([3, 2], 0, 24, ["F32"])}, BODY),  # type: ignore[arg-type]
    "no shape": make.safetensors({"a": {"dtype": "F32", "data_offsets": [0, 24]}}, BODY),
    "row a number": make.safetensors({"a": 1}, BODY),
    "metadata a list": make.safetensors({"__metadata__": []}),
    "long name": make.safetensors({"a" * 513: ROW}, BODY),
    "surrogate": make.safetensors(b'{"\\ud800":%s}' % json.dumps(ROW).encode(), BODY),
    "too many tensors": make.safetensors(
        {str(i): make.row([0], 0, 0) for i in range(limits.TENSORS + 1)}
    ),
    "boolean of 7": make.safetensors({"a": make.row([1], 0, 1, "BOOL")}, b"\7"),
}

_ZEROS = make.npy(np.zeros(20_000_000, np.float32))
_ARRAY = make.npy(np.arange(6.0))
_LONG = make.npy(np.arange(3_001.0))
_DESCR = "{'descr': %s, 'fortran_order': False, 'shape': (%s), }\n"

ARCHIVES: dict[str, bytes] = {
    "zip bomb": make.npz([("a.npy", _ZEROS)], zipfile.ZIP_DEFLATED),
    "overlapping members": make.overlapping_npz(),
    "overlapping names": make.member_inside_a_member(),
    "late checksum": make.npz([("a.npy", _LONG)]).replace(_LONG, _LONG[:-1] + b"\1"),
    "a member twice": make.npz([("a.npy", _ARRAY), ("b.npy", _ARRAY)]).replace(b"b.npy", b"a.npy"),
    "an array twice": make.npz([("a.npy", _ARRAY), ("a", _ARRAY)]),
    "objects": make.npy(np.array([print, {}], dtype=object)),
    "objects in npz": make.npz([("a.npy", make.npy(np.array([{}], dtype=object)))]),
    "fields": make.npy(np.zeros(3, [("a", "f4")])),
    "long double": make.npy_header(_DESCR % ("'<f16'", "3,"), bytes(48)),
    "header runs": make.npy_header("{'descr': __import__('os').system('id')}"),
    "header deep": make.npy_header("(" * 9_000),
    "header cut": make.npy_header(_DESCR % ("'<f4'", "3,"))[:20],
    "shape of other bytes": make.npy_header(_DESCR % ("'<f4'", "3,"), bytes(13)),
    "giant shape": make.npy_header(_DESCR % ("'<f4'", f"{2**40}, {2**40}"), bytes(12)),
    "giant size": make.npy_header(_DESCR % ("'<f4'", "9" * 400), bytes(12)),
    "rank 64": make.npy_header(_DESCR % ("'<f4'", "1, " * 64), bytes(4)),
    "negative size": make.npy_header(_DESCR % ("'<f4'", "-3,"), bytes(12)),
    "only the magic": b"\x93NUMPY",
    "only the zip magic": b"PK\3\4",
    "empty zip": b"PK\5\6" + bytes(18),
    "hidden members": make.npz([("a.npy", _ARRAY), ("b.npy", _ARRAY)]).replace(
        struct.pack("<2H", 2, 2), struct.pack("<2H", 1, 1)
    ),
    "too many members": make.npz([(f"{i}", b"") for i in range(limits.ARCHIVE_MEMBERS + 1)]),
    "zip of nothing": make.npz([("readme.txt", b"hello")]),
    "wrong checksum": make.npz([("a.npy", _ARRAY)]).replace(_ARRAY, _ARRAY[:-1] + b"\1"),
    "compressed storage": make.torch_zip(
        make.pickled({"w": PLAIN}), {"0": BODY}, method=zipfile.ZIP_DEFLATED
    ),
    "other byte order": make.torch_zip(make.pickled({"w": PLAIN}), {"0": BODY}, byteorder="big"),
    "storage too small": make.state({"w": PLAIN}, BODY[:-1]),
    "pickle too large": make.torch_zip(bytes(limits.PICKLE_BYTES + 1)),
    "TorchScript": make.npz([("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b"\x80\x02).")]),
    "two pickles": make.npz([("a/data.pkl", b"\x80\x02}."), ("b/data.pkl", b"\x80\x02}.")]),
    "plain pickle": pickle.dumps({"a": 1}, 2),
    "plain pickle of code": pickle.dumps(os.system, 4),
}

_MSG = make.msgpack_array(b"\x92\x03\x02", b"float32", BODY)

MSGPACKS: dict[str, bytes] = {
    "deep tables": b"\x81\xa1a" * 100_000 + b"\xc0",
    "deep lists": b"\x81\xa1a" + b"\x91" * 500_000,
    "a table of 2**32 - 1": b"\xdf\xff\xff\xff\xff\xa1a\xc0",
    "a text of 2**32 - 1": b"\x81\xdb\xff\xff\xff\xffab",
    "data of 2**32 - 1": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01ab",
    "many nothings": b"\xde\xff\xff" + b"\xa1a\xdc\xff\xff" + b"\xc0" * 600_000,
    "unused byte": b"\x81\xa1a\xc1",
    "cut short": (b"\x81\xa1a" + _MSG)[:-3],
    "bytes behind": b"\x81\xa1a" + _MSG + b"\0",
    "no arrays": b"\x81\xa1a\x01",
    "a key twice": b"\x82\xa1a" + _MSG + b"\xa1a" + _MSG,
    "a path twice": b"\x82\xa3a/b" + _MSG + b"\xa1a\x81\xa1b" + _MSG,
    "key a number": b"\x81\x01" + _MSG,
    "key not UTF-8": b"\x81\xa1\xff" + _MSG,
    "long key": b"\x81\xda\x10\x00" + b"a" * 4096 + _MSG,
    "rank 64": b"\x81\xa1a"
    + make.msgpack_array(b"\xdc\x00\x40" + b"\1" * 64, b"float32", bytes(4)),
    "rank 2**32 - 1": b"\x81\xa1a" + make.msgpack_array(b"\xdd\xff\xff\xff\xff", b"float32", BODY),
    "negative size": b"\x81\xa1a" + make.msgpack_array(b"\x92\xfd\xfe", b"float32", BODY),
    "size a text": b"\x81\xa1a" + make.msgpack_array(b"\x92\xa1a\x02", b"float32", BODY),
    "giant shape": b"\x81\xa1a" + make.msgpack_array(b"\x91\xcf" + b"\x7f" * 8, b"float32", BODY),
    "object type": b"\x81\xa1a" + make.msgpack_array(b"\x91\x03", b"object", BODY),
    "type runs": b"\x81\xa1a" + make.msgpack_array(b"\x91\x03", b"f4,O", BODY),
    "chunks of nothing": b"\x81\xa1a\x81\xb9__msgpack_chunked_array__\xc3",
}

FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "web page": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "git-LFS pointer",
    ),
    "JSON": (b'{"a": 1}', "is JSON"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
    "GGUF": (b"GGUF" + bytes(60), "GGUF"),
    "gzip": (b"\x1f\x8b" + bytes(60), "gzip"),
    "text": (b"hello there", "is not a checkpoint"),
    "zeros": (bytes(600), "is not a checkpoint"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "tar archive"),
    "one byte": (b"\x80", "msgpack"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(60), "is a picture"),
    "no such file": (b"Entry not found", "is an answer of the Hub"),
}

CASES: dict[str, bytes] = {
    **{f"pickle: {k}": make.torch_zip(v, {"0": BODY}) for k, v in PICKLES.items()},
    **{f"bare pickle: {k}": v for k, v in PICKLES.items() if v[:1] == b"\x80"},
    **{f"safetensors: {k}": v for k, v in HEADERS.items()},
    **{f"archive: {k}": v for k, v in ARCHIVES.items()},
    **{f"msgpack: {k}": v for k, v in MSGPACKS.items()},
    **{f"foreign: {k}": v for k, (v, _) in FOREIGN.items()},
}


def _read_all(path: os.PathLike[str]) -> None:
    with open_checkpoint(path) as checkpoint:
        for key in checkpoint:
            checkpoint[key]


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(*_: object, **__: object) -> None:
        raise AssertionError("the file ran something")

    for function in ("system", "popen", "execv", "posix_spawn"):
        monkeypatch.setattr(os, function, ran)
    for function in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, function, ran)


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused_and_names_itself(case, tmp_path):
    path = tmp_path / "hostile.bin"
    path.write_bytes(CASES[case])
    with pytest.raises(PortingError) as caught:
        _read_all(path)
    text = str(caught.value)
    assert text.startswith("hostile.bin"), text
    assert len(text) < 500, text
    assert text.isprintable(), text
    assert os.listdir(tmp_path) == ["hostile.bin"]


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_another_kind_is_named(case, tmp_path):
    data, sentence = FOREIGN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(path)


def test_the_call_that_a_pickle_asks_for_is_named(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(CASES["pickle: os.system"])
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(caught.value) == (
        "model.pt: its pickle asks to run 'os.system' when it is loaded, which no checkpoint "
        "needs. Nothing was run. Do not open this file with torch.load; get the weights as "
        "safetensors."
    )


def test_a_limit_names_the_tensor_the_limit_and_the_way_out(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(CASES["safetensors: rank 64"])
    with pytest.raises(LimitError) as caught:
        open_checkpoint(path)
    assert str(caught.value) == (
        "model.safetensors: tensor 'a' has 64 axes; the limit is 8. Reshape it before saving."
    )


def test_the_cap_of_the_caller_holds(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(make.safetensors({"a": ROW}, BODY))
    open_checkpoint(path, max_bytes=24).close()
    with pytest.raises(LimitError, match=r"24 bytes when read; the limit here is 23"):
        open_checkpoint(path, max_bytes=23)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux what is open")
def test_a_refusal_leaves_no_handle_behind(tmp_path):
    before = os.listdir("/proc/self/fd")
    for number, data in enumerate(CASES.values()):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(data)
        with pytest.raises(PortingError):
            _read_all(path)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_pipe_a_device_and_a_directory_are_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero", tmp_path / "missing", "a\0b"):
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


def test_names_that_are_legal_and_odd_are_read(tmp_path):
    names = ["<img src=x onerror=alert(1)>", "../../etc/passwd", "", "a\nb", "ü" * 512]
    header = {n: make.row([2], 8 * i, 8 * i + 8) for i, n in enumerate(names)}
    path = tmp_path / "model.safetensors"
    path.write_bytes(make.safetensors(header, bytes(40)))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == names


def test_a_bomb_without_a_repeat_is_only_large(tmp_path):
    path = tmp_path / "small.npz"
    path.write_bytes(
        make.npz([("a.npy", make.npy(np.zeros(7_001, np.float32)))], zipfile.ZIP_DEFLATED)
    )
    with open_checkpoint(path) as checkpoint:
        assert checkpoint["a"].shape == (7_001,)


def test_members_may_not_expand_beyond_what_they_declare(tmp_path):
    data = make.npz([("a.npy", make.npy(np.zeros(7_001, np.float32)))], zipfile.ZIP_DEFLATED)
    real, small = struct.pack("<L", 7_001 * 4 + 128), struct.pack("<L", 128 + 4)
    header = make.npy(np.zeros(1, np.float32))
    assert len(header) == 132
    path = tmp_path / "lying.npz"
    path.write_bytes(data.replace(real, small))
    with pytest.raises(CheckpointError, match="is damaged"):
        _read_all(path)
    assert zlib.crc32(header)


def test_an_overlap_is_refused_as_such(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(CASES["archive: overlapping names"])
    with pytest.raises(CheckpointError, match=r"'b\.npy' overlaps another"):
        open_checkpoint(path)


def test_msgpack_past_the_limit_of_its_values_is_refused(tmp_path):
    """How long that takes is measured by `benchmarks/read_limits.py`."""
    path = tmp_path / "model.msgpack"
    path.write_bytes(values())
    with pytest.raises(LimitError, match="more than 100,000 values"):
        open_checkpoint(path)
