"""Builders of checkpoint files, right and hostile, for the tests and the fuzz script."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "checkpoint"


def safetensors(header: dict | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def row(shape: list, begin: int, end: int, kind: str = "F32") -> dict:
    """One row of a safetensors header."""
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def torch_zip(data_pkl: bytes, storages: dict[str, bytes] | None = None, **options) -> bytes:
    """A zip file as `torch.save` makes it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", options.get("method", zipfile.ZIP_STORED)) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/byteorder", options.get("byteorder", "little"))
        for key, data in (storages or {}).items():
            info = zipfile.ZipInfo(f"archive/data/{key}")
            info.compress_type = archive.compression
            pad = -(buffer.tell() + 34 + len(info.filename)) % 64  # PyTorch aligns its storages
            info.extra = struct.pack("<2H", 0x4246, pad) + bytes(pad)
            archive.writestr(info, data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


class _Named:
    """Pickles as a global of any name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    """Pickles as a call."""

    def __init__(self, function: _Named, *arguments: object) -> None:
        self.function, self.arguments = function, arguments


class _Storage:
    """Pickles as a persistent id."""

    def __init__(self, *identifier: object) -> None:
        self.identifier = identifier


class _Pickler(pickle._Pickler):  # the Python one, whose parts can be replaced
    def persistent_id(self, value: object) -> object:
        return value.identifier if isinstance(value, _Storage) else None

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Named):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def pickled(value: object) -> bytes:
    """`value` with its calls, names and storages, as protocol 2."""
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


def name(module: str, attribute: str) -> object:
    """A global."""
    return _Named(module, attribute)


def call(module: str, attribute: str, *arguments: object) -> object:
    """A call of a global."""
    return _Call(_Named(module, attribute), *arguments)


def tensor(
    shape: object = (3, 2),
    stride: object = (2, 1),
    offset: object = 0,
    count: object = 6,
    kind: str = "FloatStorage",
    key: object = "0",
) -> object:
    """A tensor as PyTorch pickles it."""
    storage = _Storage("storage", _Named("torch", kind), key, "cpu", count)
    hooks = call("collections", "OrderedDict")
    rebuild = ("torch._utils", "_rebuild_tensor_v2")
    return call(*rebuild, storage, offset, shape, stride, False, hooks)


def state(value: object, storage: bytes = bytes(24)) -> bytes:
    """A `.pt` file with one storage."""
    return torch_zip(pickled(value), {"0": storage})


def npy(array: np.ndarray) -> bytes:
    """An `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(text: str, data: bytes = b"") -> bytes:
    """An `.npy` file with any header."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1") + data


def npz(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An `.npz` file, also with equal names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, data in members:
            info = zipfile.ZipInfo(member)
            info.compress_type = method
            archive.writestr(info, data)
    return buffer.getvalue()


def overlapping_npz(count: int = 50) -> bytes:
    """A zip bomb without nesting: `count` members share the same compressed bytes."""
    plain = npy(np.zeros(10_000, np.float32))
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(plain) + deflate.flush()
    crc = zlib.crc32(plain)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(packed), len(plain), 5, 0)
    body, directory = local + b"a.npy" + packed, b""
    for _ in range(count):
        fields = (20, 20, 0, 8, 0, 0, crc, len(packed), len(plain), 5, 0, 0, 0, 0, 0, 0)
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + b"a.npy"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end


def member_inside_a_member() -> bytes:
    """A zip file whose second member lies in the bytes of the first: both names are real."""
    inner = npy(np.zeros(3, np.float32))
    local = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(inner), len(inner), len(inner), 5, 0
    )
    nested = local + b"b.npy" + inner
    data = npz([("a.npy", npy(np.frombuffer(nested, np.uint8)))])
    where, end = data.index(nested), data.rindex(b"PK\5\6")
    start = data.rindex(b"PK\1\2")
    sizes = (zlib.crc32(inner), len(inner), len(inner))
    fields = (20, 20, 0, 0, 0, 0, *sizes, 5, 0, 0, 0, 0, 0, where)
    directory = data[start:end] + struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + b"b.npy"
    closing = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), start, 0)
    return data[:start] + directory + closing


def msgpack_array(shape: bytes, kind: bytes, data: bytes) -> bytes:
    """Flax's extension for an array; `shape` is msgpack."""
    body = b"\x93" + shape + bytes([0xA0 + len(kind)]) + kind
    body += b"\xc5" + struct.pack(">H", len(data)) + data
    return b"\xc8" + struct.pack(">H", len(body)) + b"\1" + body


def seeds() -> dict[str, bytes]:
    """One right file for every reader, to be mutated."""
    header = {"a": row([3, 2], 0, 24), "b": row([5], 24, 34, "BF16"), "c": row([], 34, 35, "BOOL")}
    arrays = {"w": np.arange(15, dtype=np.float32).reshape(3, 5), "b": np.arange(3, dtype=np.int8)}
    members = [(f"{key}.npy", npy(array)) for key, array in arrays.items()]
    index = {"metadata": {}, "weight_map": {"a": "one.safetensors"}}
    return {
        "safetensors": safetensors(header, bytes(35)),
        "torch zip": (GOLDEN / "nested.pt").read_bytes(),
        "torch legacy": (GOLDEN / "nested_legacy.pt").read_bytes(),
        "torch protocol 4": (GOLDEN / "state_protocol4.pt").read_bytes(),
        "npz stored": npz(members),
        "npz deflated": npz(members, zipfile.ZIP_DEFLATED),
        "npy": npy(arrays["w"]),
        "msgpack": (GOLDEN / "flax.msgpack").read_bytes(),
        "index": json.dumps(index).encode(),
    }
