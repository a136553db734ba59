"""PyTorch tensors are taken as they are; PyTorch itself is not needed to test it.

`Tensor` answers as torch.Tensor 2.13 does: `numpy` refuses bfloat16 without `view`, a
parameter without `force=True`, and a tensor on `meta` always. `__array__` does as `numpy()`.
"""

import types

import ml_dtypes
import numpy as np
import pytest

from porting import diagnose, infer_mapping, port_checkpoint, save_params, unport_checkpoint
from porting.errors import ArgumentError
from porting.tensors import array_of, without_torch

RNG = np.random.default_rng(0)


class Tensor:
    def __init__(self, array, *, grad=False, device="cpu", layout="strided"):
        self.array, self.grad, self.layout = array, grad, layout
        self.shape, self.itemsize = array.shape, array.dtype.itemsize
        self.dtype = f"torch.{array.dtype}"
        self.device = types.SimpleNamespace(type=device)

    def numpy(self, *, force=False):
        if self.grad and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.device.type == "meta" or self.layout != "strided":
            raise TypeError(f"can't convert {self.layout} tensor to numpy.")
        if self.array.dtype.kind == "V":
            raise TypeError("Got unsupported ScalarType")
        return self.array

    __array__ = numpy

    def detach(self):
        return Tensor(self.array, device=self.device.type, layout=self.layout)

    def view(self, dtype):
        return Tensor(self.array.view(dtype))

    def float(self):
        return Tensor(self.array.astype(np.float32), grad=self.grad)


class Module:
    def state_dict(self):
        return {}


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    stub = types.ModuleType("torch")
    stub.Tensor, stub.uint8, stub.uint16 = Tensor, np.uint8, np.uint16
    monkeypatch.setitem(__import__("sys").modules, "torch", stub)


def arrays(dtype):
    shapes = {"fc.weight": (4, 4), "fc.bias": (4,), "out.weight": (3, 4), "out.bias": (3,)}
    return {key: RNG.normal(size=shape).astype(dtype) for key, shape in shapes.items()}


def target(dtype=np.float32):
    layers = {"fc": (4, 4), "out": (4, 3)}
    return {
        "params": {
            name: {"kernel": np.zeros(shape, dtype), "bias": np.zeros(shape[1], dtype)}
            for name, shape in layers.items()
        }
    }


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_a_state_dict_of_tensors_is_ported_diagnosed_and_brought_home(dtype, grad, tmp_path):
    given = arrays(dtype)
    state = {key: Tensor(array, grad=grad) for key, array in given.items()}
    variables, report = port_checkpoint(state, target())
    kernel = variables["params"]["fc"]["kernel"]
    assert kernel.dtype == dtype
    assert kernel.tobytes() == given["fc.weight"].T.tobytes()
    assert report.types == {str(np.dtype(dtype))}
    assert infer_mapping(state, target()).leaves["params/fc/kernel"].apply(state).dtype == dtype
    assert diagnose(state, variables).ok
    variables["params"]["fc"]["kernel"] = given["fc.weight"]
    assert diagnose(state, variables).leaves["params/fc/kernel"].status == "wrong_layout"
    variables["params"]["fc"]["kernel"] = kernel
    home = unport_checkpoint(variables, state, report.mapping)
    for key, array in given.items():
        assert home[key].dtype == dtype
        assert home[key].tobytes() == array.tobytes()
    assert save_params(tmp_path / "p.safetensors", state).leaves == len(state)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("port", [np.float32, ml_dtypes.bfloat16])
def test_the_line_that_fixes_a_leaf_runs_on_tensors(dtype, port):
    """Tensors of PyTorch have no `transpose(1, 0)` of NumPy, and no `astype`."""
    given = arrays(dtype)
    state = {key: Tensor(array, grad=True) for key, array in given.items()}
    variables, _ = port_checkpoint({k: a.astype(port) for k, a in given.items()}, target(port))
    right = variables["params"]["fc"]["kernel"]
    variables["params"]["fc"]["kernel"] = np.asarray(right.T, order="C")
    verdict = diagnose(state, variables).leaves["params/fc/kernel"]
    made = eval(verdict.fix, {"source": state, "np": np, "ml_dtypes": ml_dtypes})
    want = given["fc.weight"].T
    assert np.array_equal(made.astype(np.float32), want.astype(np.float32))
    assert made.dtype == (port if np.can_cast(dtype, port) else dtype)


def test_a_tensor_is_viewed_not_copied():
    array = RNG.normal(size=(3, 4)).astype(ml_dtypes.bfloat16)
    assert np.shares_memory(without_torch(Tensor(array)), array)


def test_a_tensor_without_data_is_mapped_and_not_ported():
    state = {key: Tensor(array, device="meta") for key, array in arrays(np.float32).items()}
    assert not infer_mapping(state, target()).unmapped
    with pytest.raises(ArgumentError, match="holds no numbers"):
        port_checkpoint(state, target())


def test_what_numpy_cannot_read_is_refused():
    with pytest.raises(ArgumentError, match="dense"):
        without_torch(Tensor(np.eye(3), layout="sparse"))
    with pytest.raises(ArgumentError, match="holds no numbers"):
        array_of(types.SimpleNamespace(shape=(3,), dtype="float32"))
    with pytest.raises(ArgumentError, match="state_dict"):
        infer_mapping(Module(), target())


def test_bytes_without_a_type_are_no_numbers():
    with pytest.raises(ArgumentError, match="holds no numbers"):
        array_of(np.zeros(4, "V4"))
