"""What is saved is read back and compared; what cannot be saved leaves nothing behind."""

import logging
import os

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from porting.checkpoint import open_checkpoint, save_params, writers
from porting.errors import ArgumentError, CheckpointError

KERNEL = np.arange(35, dtype=np.float32).reshape(5, 7)
VARIABLES = {
    "params": {
        "transposed": KERNEL.T,
        "fortran": np.asfortranarray(KERNEL),
        "slice": KERNEL[:, 1:6:2],
        "broadcast": np.broadcast_to(np.float32(3), (2, 3)),
        "scalar": np.float32(2.5) * np.ones(()),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "swapped": np.arange(3, dtype=">f4"),
        "nan": np.array([np.nan, -0.0, np.inf], np.float32),
    },
    "batch_stats": {"norm": {"mean": jnp.arange(5.0)}, "flag": np.array([True, False])},
}
SUFFIXES = (".safetensors", ".msgpack", ".npz", ".orbax", "")


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", np.asarray(value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_there_and_back_is_bit_equal(suffix, tmp_path):
    path = tmp_path / f"params{suffix}"
    report = save_params(path, VARIABLES)
    assert report.leaves == 10
    assert str(report).startswith(f"params{suffix}: 10 leaves, ")
    assert os.listdir(tmp_path) == [path.name]
    with open_checkpoint(path, allow_directories=True) as checkpoint:
        right = dict(leaves(VARIABLES))
        assert set(checkpoint) == set(right)
        for key, array in right.items():
            assert checkpoint[key].dtype == array.dtype.newbyteorder("=")
            assert checkpoint[key].shape == array.shape
            assert checkpoint[key].tobytes() == array.astype(checkpoint[key].dtype).tobytes()
        assert report.nbytes == checkpoint.nbytes


@pytest.mark.parametrize("suffix", [".safetensors", ".msgpack"])
@pytest.mark.parametrize("kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.complex64])
def test_rare_types_are_kept(suffix, kind, tmp_path):
    save_params(tmp_path / f"p{suffix}", {"w": np.arange(3).astype(kind)})
    with open_checkpoint(tmp_path / f"p{suffix}") as checkpoint:
        assert checkpoint["w"].dtype == kind
        assert checkpoint["w"].astype(np.complex64).tolist() == [0, 1, 2]


def test_a_flat_mapping_a_checkpoint_and_an_nnx_module_are_saved(tmp_path):
    save_params(tmp_path / "a.npz", {"params/kernel": KERNEL})
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        save_params(tmp_path / "b.msgpack", checkpoint)
    with open_checkpoint(tmp_path / "b.msgpack") as checkpoint:
        assert np.array_equal(checkpoint["params/kernel"], KERNEL)
    save_params(tmp_path / "c.safetensors", nnx.Linear(3, 5, rngs=nnx.Rngs(0)))
    with open_checkpoint(tmp_path / "c.safetensors") as checkpoint:
        assert {k: s.shape for k, s in checkpoint.specs.items()} == {"bias": (5,), "kernel": (3, 5)}


def test_a_checkpoint_may_be_saved_over_itself(tmp_path):
    path = tmp_path / "a.safetensors"
    save_params(path, {"w": KERNEL})
    with open_checkpoint(path) as checkpoint:
        save_params(path, checkpoint)
        assert np.array_equal(checkpoint["w"], KERNEL)


def test_safetensors_are_those_of_the_library(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    save_params(
        tmp_path / "a.safetensors", {"w": KERNEL.T, "b": KERNEL[0]}, metadata={"format": "pt"}
    )
    back = safetensors.load_file(tmp_path / "a.safetensors")
    assert np.array_equal(back["w"], KERNEL.T)
    assert np.array_equal(back["b"], KERNEL[0])
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        assert checkpoint.metadata == {"format": "pt"}


def test_a_file_that_reads_back_otherwise_is_removed(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_params(path, {"w": KERNEL})
    before = path.read_bytes()
    monkeypatch.setattr(writers, "_bytes_of", lambda array: bytes(array.nbytes))
    with pytest.raises(CheckpointError) as caught:
        save_params(path, {"w": KERNEL, "zeros": np.zeros(3)})
    assert str(caught.value) == (
        "a.safetensors was not saved: read back, 1 leaf differ from what was written, the first "
        "'w'. Nothing was kept; choose another format."
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize(
    ("name", "variables", "error", "sentence"),
    [
        ("a.txt", {"w": KERNEL}, ArgumentError, "suffix that names no format"),
        ("a.npz", {}, ArgumentError, "no array to save"),
        ("a.npz", {"w": "text"}, ArgumentError, "w holds a str"),
        ("a.npz", {"w": np.array([{}])}, CheckpointError, "'w' has the type object"),
        (
            "a.npz",
            {"w": KERNEL.astype(ml_dtypes.int4)},
            CheckpointError,
            "int4, which NumPy .npz cannot",
        ),
        (
            "a.safetensors",
            {"w": KERNEL.astype(complex)},
            CheckpointError,
            "complex128, which safet",
        ),
        ("a.msgpack", {"a": KERNEL, "a/b": KERNEL}, ArgumentError, "both a leaf and a branch"),
        ("a.msgpack", {"a/b": KERNEL, "a": KERNEL}, ArgumentError, "both a leaf and a branch"),
        ("no/a.npz", {"w": KERNEL}, CheckpointError, "a.npz cannot be written: No such file"),
        ("a.npz", {"w": KERNEL[None, None, None, None, None, None, None]}, Exception, "9 axes"),
        ("a.orbax", {"w": np.zeros((0, 3))}, CheckpointError, "Orbax cannot write"),
    ],
)
def test_what_cannot_be_saved_is_explained_and_leaves_nothing(
    name, variables, error, sentence, tmp_path
):
    with pytest.raises(error, match=sentence):
        save_params(tmp_path / name, variables)
    assert os.listdir(tmp_path) == []


def test_an_orbax_directory_is_not_overwritten_and_not_read_unasked(tmp_path):
    save_params(tmp_path / "p.orbax", {"w": KERNEL})
    with pytest.raises(CheckpointError, match="exists"):
        save_params(tmp_path / "p.orbax", {"w": KERNEL})
    with pytest.raises(CheckpointError, match="is a directory"):
        open_checkpoint(tmp_path / "p.orbax")


def test_what_orbax_itself_wrote_is_read(tmp_path):
    import orbax.checkpoint as ocp

    tree = {"params": {"w": KERNEL, "half": jnp.ones(3, jnp.bfloat16), "list": [jnp.zeros(2)]}}
    ocp.PyTreeCheckpointer().save(tmp_path / "pytree", tree)
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "standard", tree)
        writer.save(tmp_path / "nnx", nnx.state(nnx.Linear(3, 5, rngs=nnx.Rngs(0))))
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(7, args=ocp.args.StandardSave(tree))
    for name in ("pytree", "standard", "run/7", "run/7/default"):
        with open_checkpoint(tmp_path / name, allow_directories=True) as checkpoint:
            assert checkpoint.keys() == {"params/w", "params/half", "params/list/0"}, name
            assert checkpoint["params/w"].tobytes() == KERNEL.tobytes()
            assert checkpoint["params/half"].dtype == ml_dtypes.bfloat16
    with open_checkpoint(tmp_path / "nnx", allow_directories=True) as checkpoint:
        assert checkpoint.keys() == {"kernel", "bias"}
    with pytest.raises(CheckpointError, match="'run' holds 1 step of training: 7"):
        open_checkpoint(tmp_path / "run", allow_directories=True)
    save_params(tmp_path / "named value", {"a": {"value": KERNEL}})


def test_a_full_disk_is_a_sentence_from_orbax_too(tmp_path, monkeypatch, caplog):
    import orbax.checkpoint as ocp

    def full(self, path, tree):
        path.mkdir()
        logging.getLogger("absl").error("Traceback (most recent call last)")
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [28]")

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", full)
    with pytest.raises(CheckpointError) as caught:
        save_params(tmp_path / "p.orbax", {"w": KERNEL})
    assert str(caught.value) == (
        "p.orbax cannot be written: No space left on device. Choose another folder, or make room."
    )
    assert caplog.records == []
    assert os.listdir(tmp_path) == []


def test_a_link_inside_an_orbax_directory_is_refused(tmp_path):
    save_params(tmp_path / "p", {"w": KERNEL})
    os.symlink("/etc/hostname", tmp_path / "p" / "d" / "chunk")
    with pytest.raises(CheckpointError, match="'chunk' inside it is a link"):
        open_checkpoint(tmp_path / "p", allow_directories=True)


def test_every_tensor_of_a_saved_file_is_aligned_and_so_a_view(tmp_path):
    save_params(tmp_path / "a.safetensors", {"a": np.ones(3, np.int8), "b": np.ones(5)})
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        assert np.shares_memory(checkpoint["b"], checkpoint["b"])
