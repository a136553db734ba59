"""Right files of every format are read as what they hold, lazily, and nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from porting.checkpoint import Spec, open_checkpoint
from porting.checkpoint.hub import fetch
from porting.errors import CheckpointError, LimitError
from tests import checkpoint_files as make

GOLDEN = make.GOLDEN


def expected(group: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "expected.npz") as arrays:
        return {k.partition("/")[2]: arrays[k] for k in arrays if k.startswith(f"{group}/")}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def same(array: np.ndarray, right: np.ndarray) -> None:
    assert array.shape == right.shape
    assert not array.flags.writeable
    np.testing.assert_array_equal(array.astype(right.dtype), right)


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("types.pt", "types"),
        ("types_legacy.pt", "types"),
        ("types.safetensors", "types"),
        ("strided.pt", "strided"),
        ("strided_legacy.pt", "strided"),
        ("state.pt", "state"),
        ("state_legacy.pt", "state"),
        ("state_protocol4.pt", "state"),
        ("nested.pt", "state"),
        ("nested_legacy.pt", "state"),
    ],
)
def test_arrays_are_those_of_pytorch(file, group):
    right = expected(group)
    with open_checkpoint(GOLDEN / file) as checkpoint:
        assert set(checkpoint) <= set(right)
        assert len(checkpoint) >= len(right) - 4  # the 8-bit floats, or complex128
        for key, array in checkpoint.items():
            spec = checkpoint.specs[key]
            assert (spec.shape, spec.dtype, spec.nbytes) == (array.shape, array.dtype, array.nbytes)
            if group != "state" or not file.startswith("nested"):  # training changed the statistics
                same(array, right[key])


@pytest.mark.parametrize("file", ["types.pt", "types.safetensors"])
def test_types_are_those_of_ml_dtypes(file):
    with open_checkpoint(GOLDEN / file) as checkpoint:
        for key, spec in checkpoint.specs.items():
            if key.startswith("t."):
                assert spec.dtype.name == key[2:]


def test_a_pt_file_keeps_the_order_of_definition_and_a_safetensors_file_does_not():
    with open_checkpoint(GOLDEN / "state.pt") as checkpoint:
        assert checkpoint.ordered
        assert list(checkpoint)[:3] == ["embed.weight", "conv.weight", "conv.bias"]
        assert checkpoint.format == "PyTorch"
        assert checkpoint.files == (GOLDEN / "state.pt",)
    with open_checkpoint(GOLDEN / "types.safetensors") as checkpoint:
        assert not checkpoint.ordered
        assert checkpoint.metadata == {"format": "pt"}


def test_tied_keys_share_their_bytes_and_views_of_one_storage_are_no_ties():
    with open_checkpoint(GOLDEN / "strided.pt") as checkpoint:
        assert checkpoint.aliases == {"tied.b": "tied.a"}
        assert np.shares_memory(checkpoint["tied.a"], checkpoint["tied.b"])
        assert checkpoint["transposed"].strides == (4, 28)
        assert checkpoint["expanded"].strides == (0, 4)
    with open_checkpoint(GOLDEN / "state.pt") as checkpoint:
        assert checkpoint.aliases == {"head.weight": "embed.weight"}


def test_the_state_dict_inside_is_found_and_the_rest_is_noted():
    with open_checkpoint(GOLDEN / "nested.pt") as checkpoint:
        assert next(iter(checkpoint)) == "embed.weight"
        assert checkpoint.notes == (
            "The weights are those under 'model_state_dict'.",
            "Left out 'optimizer_state_dict': 6 tensors.",
            "Left out what is no tensor: 'epoch', 'best_loss', 'args'.",
        )


NESTINGS = {
    "flat": ({"a.w": 0, "b.w": 1}, ["a.w", "b.w"]),
    "state_dict": ({"state_dict": {"a.w": 0}, "epoch": 3}, ["a.w"]),
    "state_dict beside others": ({"state_dict": {"a.w": 0}, "mean": 1}, ["a.w"]),
    "model and ema": ({"model": {"a.w": 0}, "model_ema": {"a.w": 1}}, ["a.w"]),
    "params": ({"params": {"a.w": 0}}, ["a.w"]),
    "wrapped twice": ({"model": {"state_dict": {"a.w": 0}}}, ["a.w"]),
    "unknown wrapper": ({"my_best_net": {"a.w": 0, "b": 1}}, ["a.w", "b"]),
    "a layer is no wrapper": ({"dense": {"w": 0, "b": 1}}, ["dense.w", "dense.b"]),
    "two models": ({"enc": {"w": 0}, "dec": {"w": 1}}, ["enc.w", "dec.w"]),
    "two state_dicts": (
        {"enc_state_dict": {"a.w": 0}, "dec_state_dict": {"a.w": 1}},
        ["enc_state_dict.a.w", "dec_state_dict.a.w"],
    ),
    "lists": ({"layers": [{"w": 0}, {"w": 1}]}, ["layers.0.w", "layers.1.w"]),
    "optimizer": ({"net": {"a.w": 0}, "optimizer": {"state": {0: {"m": 1}}}}, ["a.w"]),
    "optimizer by its make": (
        {"a.w": 0, "sgd": {"state": {0: {"m": 1}}, "param_groups": []}},
        ["a.w"],
    ),
}


@pytest.mark.parametrize("case", NESTINGS)
def test_nestings(case, tmp_path):
    def with_tensors(value):
        if isinstance(value, dict):
            return {k: with_tensors(v) for k, v in value.items()}
        if isinstance(value, list):
            return [with_tensors(v) for v in value]
        return make.tensor() if value in (0, 1) else value

    value, keys = NESTINGS[case]
    path = write(tmp_path / "m.pt", make.state(with_tensors(value)))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == keys


def test_an_unknown_object_beside_the_weights_is_left_out(tmp_path):
    config = make.call("mylib.config", "Config", 1, "a")
    path = write(
        tmp_path / "m.pt", make.state({"config": config, "state_dict": {"w": make.tensor()}})
    )
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == ["w"]
        assert checkpoint.notes[-1] == "Left out what is no tensor: 'config'."


@pytest.mark.parametrize(
    "callee",
    [
        *("__builtin__.xrange", "builtins.Ellipsis", "builtins.type", "random.Random"),
        *("array.array", "array._array_reconstructor", "re._compile", "ipaddress.IPv4Address"),
        *("signal.Signals", "torch._C.Generator", "numpy.random._pickle.__bit_generator_ctor"),
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    ],
)
def test_plain_data_of_training_is_not_accused(callee, tmp_path):
    value = make.call(*callee.rsplit(".", 1), 1)
    path = write(tmp_path / "m.pt", make.state({"w": make.tensor(), "state": value}))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == ["w"]


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("module.pt", r"whole pickled object \('__main__\.Net'\).*save the state_dict instead"),
        ("module_legacy.pt", r"whole pickled object \('__main__\.Net'\).*save the state_dict"),
        ("quantized.pt", "'weight' is quantized; call `.dequantize"),
        ("quantized_legacy.pt", "QInt8Storage"),
        ("sparse.pt", "'weight' is sparse; call `.to_dense"),
        ("conjugated.pt", "'weight' is a conjugated"),
        ("nothing.pt", "holds no tensors. Save the model's state_dict"),
        ("plain.pickle", "is a plain pickle"),
    ],
)
def test_what_pytorch_can_save_and_no_array_can_hold_is_refused(file, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(GOLDEN / file)


def test_one_tensor_and_a_parameter():
    for file, key in (
        ("single.pt", "tensor"),
        ("single_legacy.pt", "tensor"),
        ("parameter.pt", "weight"),
    ):
        with open_checkpoint(GOLDEN / file) as checkpoint:
            same(checkpoint[key], np.arange(6, dtype=np.float32).reshape(2, 3))


def test_flax_msgpack_with_chunks_and_scalars():
    with open_checkpoint(GOLDEN / "flax.msgpack") as checkpoint:
        assert checkpoint.format == "Flax msgpack"
        assert set(checkpoint) == {
            *("params/dense/kernel", "params/bias", "scale", "list/0", "list/1")
        }
        same(checkpoint["params/dense/kernel"], np.arange(15, dtype=np.float32).reshape(3, 5))
        assert checkpoint["params/bias"].dtype == ml_dtypes.bfloat16
        assert checkpoint["scale"].shape == ()
        assert float(checkpoint["scale"]) == 2.5
        assert checkpoint.notes == ("Left out what is no array: 'step', 'name'.",)


NUMPY = {
    "f4": np.arange(15, dtype=np.float32).reshape(3, 5),
    "fortran": np.asfortranarray(np.arange(15.0).reshape(3, 5)),
    "big": np.arange(7, dtype=">i4"),
    "big complex": np.arange(3).astype(">c16") * 1j,
    "bool": np.array([True, False]),
    "scalar": np.float16(2.5) * np.ones(()),
    "empty": np.zeros((0, 3), np.uint8),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz(method, tmp_path):
    members = [(f"{k}.npy", make.npy(v)) for k, v in NUMPY.items()]
    members += [("names.npy", make.npy(np.array(["a"]))), ("read.me", b"hello")]
    path = write(tmp_path / "a.npz", make.npz(members, method))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint) == list(NUMPY)
        assert all(spec.dtype.isnative for spec in checkpoint.specs.values())
        for key, right in NUMPY.items():
            same(checkpoint[key], right)
        assert checkpoint.notes == (
            "Left out 'names': text, not numbers.",
            "Left out 'read.me': not an array.",
        )


@pytest.mark.parametrize("key", NUMPY)
def test_npy(key, tmp_path):
    with open_checkpoint(write(tmp_path / "a.npy", make.npy(NUMPY[key]))) as checkpoint:
        same(checkpoint["array"], NUMPY[key])


def test_bfloat16_in_an_npz_is_read_and_noted(tmp_path):
    array = np.arange(3).astype(ml_dtypes.bfloat16)
    path = write(tmp_path / "a.npz", make.npz([("w.npy", make.npy(array.view("V2")))]))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint["w"].dtype == ml_dtypes.bfloat16
        assert checkpoint.notes == (
            "'w' is stored as 2-byte blocks without a type; read as bfloat16.",
        )


def test_four_bit_floats_have_the_first_value_in_the_low_bits(tmp_path):
    header = {"w": make.row([2, 2], 0, 2, "F4")}
    path = write(tmp_path / "m.safetensors", make.safetensors(header, bytes([0x21, 0x43])))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint["w"].astype(np.float32).tolist() == [[0.5, 1.0], [1.5, 2.0]]
        assert checkpoint.specs["w"] == Spec((2, 2), np.dtype(ml_dtypes.float4_e2m1fn))


def test_a_header_of_any_length_is_told_from_a_pickle(tmp_path):
    path = tmp_path / "model.bin"
    for length in (640, 896, 1_152, 1_408):  # their first bytes are those of a pickle
        text = json.dumps({"a": make.row([2], 0, 8)}).encode().ljust(length)
        path.write_bytes(make.safetensors(text, bytes(8)))
        assert path.read_bytes()[0] == 0x80
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.format == "safetensors"


def test_a_tensor_that_is_not_aligned_is_copied_into_alignment(tmp_path):
    header = {"a": make.row([1], 0, 1, "U8"), "b": make.row([2], 1, 9, "F32")}
    data = b"\7" + np.array([1.5, 2.5], np.float32).tobytes()
    path = write(tmp_path / "m.safetensors", make.safetensors(header, data))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint["b"].flags.aligned
        same(checkpoint["b"], np.array([1.5, 2.5], np.float32))


def _shards(folder: Path) -> list[Path]:
    files = {
        "m-1-of-2.safetensors": make.safetensors({"a": make.row([3], 0, 12)}, bytes(12)),
        "m-2-of-2.safetensors": make.safetensors({"b": make.row([2], 0, 8)}, bytes(8)),
        "m.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}
        ).encode(),
    }
    return [write(folder / name, data) for name, data in files.items()]


def test_shards_are_read_by_index_all_together_or_by_folder(tmp_path):
    one, two, index = _shards(tmp_path)
    for given in (index, [index, two, one], [str(one), str(two)]):
        with open_checkpoint(given) as checkpoint:
            assert set(checkpoint) == {"a", "b"}
            assert checkpoint.format == "safetensors, sharded"
            assert checkpoint["b"].shape == (2,)
    with open_checkpoint(tmp_path, allow_directories=True) as checkpoint:
        assert set(checkpoint) == {"a", "b"}


@pytest.mark.parametrize("kind", ["bin", "msgpack"])
def test_shards_of_other_formats(kind, tmp_path):
    array = make.msgpack_array(b"\x92\x03\x02", b"float32", bytes(24))
    for number, key in enumerate("ab", 1):
        tied = {key: make.tensor(), f"{key}2": make.tensor()}
        data = make.state(tied) if kind == "bin" else b"\x81\xa1" + key.encode() + array
        write(tmp_path / f"model-{number}-of-2.{kind}", data)
    places = {"a": f"model-1-of-2.{kind}", "b": f"model-2-of-2.{kind}"}
    index = tmp_path / f"model.{kind}.index.json"
    write(index, json.dumps({"metadata": {}, "weight_map": places}).encode())
    for paths in (index, tmp_path, [tmp_path / name for name in places.values()]):
        with open_checkpoint(paths, allow_directories=True) as checkpoint:
            assert [key for key in checkpoint if len(key) == 1] == ["a", "b"]
            assert checkpoint["b"].shape == (3, 2)
            assert checkpoint.format.endswith(", sharded")
            assert checkpoint.aliases == ({"a2": "a", "b2": "b"} if kind == "bin" else {})


@pytest.mark.parametrize("dtype", ["U3", "S3", "M8[s]", "m8[ms]"])
def test_texts_and_dates_in_an_npz_are_left_out(dtype, tmp_path):
    members = {"note": np.zeros(3, dtype), "weight": np.ones((2, 3), np.float32)}
    np.savez(tmp_path / "m.npz", **members)
    with open_checkpoint(tmp_path / "m.npz") as checkpoint:
        assert list(checkpoint) == ["weight"]
        assert checkpoint.notes[0].startswith("Left out 'note': ")


def test_shards_that_do_not_fit_are_refused(tmp_path):
    one, two, index = _shards(tmp_path)
    with pytest.raises(CheckpointError, match=r"'m-1-of-2.safetensors', which is not among"):
        open_checkpoint([index, two])
    with pytest.raises(CheckpointError, match=r"'a' is also in m-1-of-2"):
        open_checkpoint([one, one])
    with pytest.raises(CheckpointError, match=r"is PyTorch, and m-1-of-2\.safetensors is"):
        open_checkpoint([one, GOLDEN / "state.pt"])
    with pytest.raises(CheckpointError, match="are both an index"):
        open_checkpoint([index, index, one, two])
    write(two, one.read_bytes())
    with pytest.raises(CheckpointError, match="'a' is also in"):
        open_checkpoint(index)
    write(two, make.safetensors({"c": make.row([2], 0, 8)}, bytes(8)))
    with pytest.raises(CheckpointError, match="1 tensor not where the index says: 'b'"):
        open_checkpoint(index)
    with pytest.raises(LimitError, match="70 files"):
        open_checkpoint([one] * 71)


@pytest.mark.parametrize(
    "name", ["../m.safetensors", "/etc/passwd", "a/b.bin", "m.json", "m.safetensors\n", 7]
)
def test_an_index_cannot_point_elsewhere(name, tmp_path):
    text = json.dumps({"weight_map": {"a": name}}).encode()
    with pytest.raises(CheckpointError, match="not the plain name"):
        open_checkpoint(write(tmp_path / "m.index.json", text))


def test_opening_reads_headers_only_and_views_outlive_the_checkpoint(tmp_path):
    path = write(
        tmp_path / "m.safetensors", make.safetensors({"a": make.row([3], 0, 12)}, bytes(12))
    )
    checkpoint = open_checkpoint(path)
    view = checkpoint["a"]
    checkpoint.close()
    checkpoint.close()
    assert view.tolist() == [0, 0, 0]
    assert list(checkpoint) == ["a"]
    assert "a" in checkpoint
    with pytest.raises(CheckpointError, match="'a' cannot be read: the checkpoint is closed"):
        checkpoint["a"]


def test_a_missing_key_is_a_key_error():
    with open_checkpoint(GOLDEN / "state.pt") as checkpoint:
        assert checkpoint.get("nope") is None
        with pytest.raises(KeyError):
            checkpoint["nope"]


def test_the_reader_needs_neither_jax_nor_flax_nor_torch():
    code = (
        "import sys; from porting.checkpoint import open_checkpoint; "
        f"open_checkpoint({str(GOLDEN / 'flax.msgpack')!r}); "
        "print(sorted({'jax', 'flax', 'torch', 'gradio', 'plotly', 'orbax', 'huggingface_hub'} "
        "& set(sys.modules)))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"


class _Hub:
    """A stand-in for huggingface_hub: a folder in place of the network."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names, self.fetched, self.tokens = folder, names, [], []

    def model_info(self, repo_id, *, revision=None, files_metadata=False, token=None):
        if repo_id == "no/body":
            raise OSError("Repository Not Found\nmore")
        self.tokens.append(token)
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=10) for n in self.names])

    def hf_hub_download(self, repo_id, filename, *, revision=None, token=None):
        self.fetched.append((repo_id, filename, revision))
        self.tokens.append(token)
        return str(self.folder / filename)


HUBS = {
    "one file": (["README.md", "model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
    "shards": (
        ["m-1-of-2.safetensors", "m-2-of-2.safetensors", "m.safetensors.index.json", "x.bin"],
        ["m.safetensors.index.json", "m-1-of-2.safetensors", "m-2-of-2.safetensors"],
    ),
    "PyTorch only": (["config.json", "pytorch_model.bin"], ["pytorch_model.bin"]),
    "Flax only": (["flax_model.msgpack"], ["flax_model.msgpack"]),
    "PyTorch shards": (
        ["pytorch_model.bin.index.json", "pytorch_model-1-of-1.bin", "training_args.bin"],
        ["pytorch_model.bin.index.json", "pytorch_model-1-of-1.bin"],
    ),
}


@pytest.mark.parametrize("case", HUBS)
def test_the_hub_is_asked_for_one_checkpoint(case, tmp_path):
    names, wanted = HUBS[case]
    hub = _Hub(tmp_path, names)
    found = fetch("hf://owner/name@main", client=hub)
    assert found == [tmp_path / name for name in wanted]
    assert hub.fetched == [("owner/name", name, "main") for name in wanted]
    assert set(hub.tokens) == {None}


def test_the_hub_is_asked_for_the_file_that_is_named(tmp_path):
    hub = _Hub(tmp_path, ["sub/model.pt", "model.safetensors"])
    assert fetch("hf://owner/name/sub/model.pt", client=hub) == [tmp_path / "sub/model.pt"]


def test_an_app_neither_downloads_without_end_nor_lends_its_token(tmp_path):
    hub = _Hub(tmp_path, ["model.safetensors"])
    fetch("hf://owner/name", 10, hub)
    assert set(hub.tokens) == {False}
    with pytest.raises(LimitError, match="10 bytes to download; the limit here is 9"):
        fetch("hf://owner/name", 9, hub)
    assert len(hub.fetched) == 1


def test_an_address_is_opened_like_a_file(tmp_path, monkeypatch):
    write(tmp_path / "model.safetensors", make.safetensors({"a": make.row([3], 0, 12)}, bytes(12)))
    monkeypatch.setattr(
        "porting.checkpoint.hub._client", lambda: _Hub(tmp_path, ["model.safetensors"])
    )
    with open_checkpoint("hf://owner/name") as checkpoint:
        assert checkpoint["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("address", "names", "sentence"),
    [
        ("hf://owner", [], "is not an address on the Hub"),
        ("hf://owner/name/../../etc/passwd", [], "is not an address on the Hub"),
        ("hf://owner/name", ["README.md"], "has no weights"),
        ("hf://owner/name", ["a.pt", "b.pt"], "several checkpoints: a.pt, b.pt. Add the name"),
        ("hf://no/body", [], r"cannot be fetched: 'Repository Not Found'"),
    ],
)
def test_an_address_that_leads_nowhere_is_explained(address, names, sentence, tmp_path):
    with pytest.raises(CheckpointError, match=sentence):
        fetch(address, client=_Hub(tmp_path, names))


def test_a_file_in_the_hub_cache_is_a_link_and_is_read(tmp_path):
    real = write(tmp_path / "blob", (GOLDEN / "state.pt").read_bytes())
    os.symlink(real, tmp_path / "model.bin")
    with open_checkpoint(tmp_path / "model.bin") as checkpoint:
        assert len(checkpoint) == 9


def test_the_bomb_with_one_member_is_a_right_file(tmp_path):
    path = write(tmp_path / "a.npz", make.overlapping_npz(1))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint["a"].shape == (10_000,)
