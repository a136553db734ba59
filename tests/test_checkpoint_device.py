"""A ported tree as JAX arrays: the same bits, in one copy, with little memory beside it."""

import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from porting.checkpoint import open_checkpoint, save_params, to_jax
from porting.errors import ArgumentError, CheckpointError

#: A fresh process: the highest memory of `to_jax`, in bytes above what it had before.
PEAK = """
import sys
from pathlib import Path
import numpy as np
from porting.checkpoint import open_checkpoint, to_jax

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

to_jax({"a": np.ones((3, 2), np.float32).T})
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
tree = {key: array.T for key, array in open_checkpoint(sys.argv[1]).items()}
made = to_jax(tree)
print(memory("VmHWM") - before)
"""


def same(array: jax.Array, want: np.ndarray) -> bool:
    got = np.asarray(array)
    return got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()


def test_every_bit_and_type_is_kept():
    draw = np.random.default_rng(0)
    kinds = ("float32", "float16", "int32", "uint8", "complex64", "bool")
    tree = {kind: draw.integers(0, 2, (7, 5, 3)).astype(kind).transpose(2, 0, 1) for kind in kinds}
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"):
        tree[name] = draw.standard_normal((11, 5)).astype(getattr(ml_dtypes, name)).T
    tree |= {"scalar": np.array(3.0, np.float32), "empty": np.zeros((0, 3), np.float32)}
    tree["nan"] = np.array([np.nan, -0.0, np.inf], np.float32)
    tree["wide"] = draw.standard_normal((4_999, 17), np.float32).T  # longer than 1024 lines of 16
    tree["tall"] = draw.standard_normal((17, 4_999), np.float32).T
    tree["turned"] = draw.standard_normal((300, 301), np.float32)[::-1, ::-1]
    made = to_jax(tree)
    assert list(made) == list(tree)
    assert all(isinstance(array, jax.Array) for array in made.values())
    assert [key for key in tree if not same(made[key], tree[key])] == []


def test_the_shape_of_an_nnx_tree_is_kept():
    ones = np.ones((3, 2), np.float32)
    made = to_jax({"layers": {0: {"kernel": ones}, "norm": {"scale": ones[0]}}, "list": [ones]})
    assert made["layers"].keys() == {0, "norm"}
    assert same(made["layers"][0]["kernel"], ones)
    assert same(made["list"][0], ones)


def test_jax_shares_nothing_with_the_source():
    for shape in ((7, 5), (512, 512)):
        source = np.zeros(shape, np.float32)
        made = to_jax({"as it is": source, "turned": source.T})
        source += 1
        assert not any(np.asarray(array).any() for array in made.values())


def test_what_jax_would_narrow_is_refused_at_once():
    tree = {f"layer_{i}": {"kernel": np.zeros(3)} for i in range(3)}
    tree["step"] = {"count": np.zeros((), np.int64)}
    tree["six"] = {"kernel": np.zeros(3, ml_dtypes.float6_e2m3fn)}
    with pytest.raises(ArgumentError) as caught:
        to_jax(tree)
    assert str(caught.value).splitlines() == [
        "JAX cannot hold these leaves as they are. Pass dtype= to port_checkpoint, or turn on "
        '64-bit types with jax.config.update("jax_enable_x64", True):',
        "layer_{0,1,2}/kernel is float64, which JAX would narrow to float32",
        "step/count is int64, which JAX would narrow to int32",
        "six/kernel is float6_e2m3fn, which JAX lacks",
    ]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for memory")
def test_peak_memory_is_the_file_and_its_largest_tensor(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {f"{i}": draw.standard_normal((1_024, 2_048), np.float32) for i in range(12)}
    path = tmp_path / "model.safetensors"
    save_params(path, arrays)
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(path)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= path.stat().st_size + arrays["0"].nbytes


def test_a_file_that_is_cut_while_it_is_open_does_not_end_the_process(tmp_path):
    path = tmp_path / "model.safetensors"
    save_params(path, {"a": np.ones((300, 300), np.float32)})
    with open_checkpoint(path) as checkpoint:
        path.write_bytes(b"short")
        with pytest.raises(CheckpointError) as caught:
            checkpoint["a"]
    assert str(caught.value) == (
        "model.safetensors was cut short or written anew while it was open. Open it again."
    )
