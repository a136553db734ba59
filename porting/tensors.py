"""PyTorch tensors as NumPy views, without importing PyTorch: who passes one has loaded it."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np

from porting.errors import ArgumentError


def without_torch(value: Any) -> Any:
    """A PyTorch tensor (or parameter) as a NumPy view of its memory; anything else as it is.

    A tensor without data (on the device `meta`) keeps its place: it has a shape to map by.

    Raises:
        ArgumentError: NumPy has no such tensor (sparse, quantised).

    >>> without_torch(np.ones(3))
    array([1., 1., 1.])
    """
    if not is_torch(value) or value.device.type == "meta":
        return value
    name = str(value.dtype).rpartition(".")[2]
    narrow = getattr(ml_dtypes, name, None)  # bfloat16 and the 8-bit floats: not in NumPy
    try:
        if narrow is None:
            return value.numpy(force=True)
        bits = getattr(sys.modules["torch"], f"uint{8 * value.itemsize}")
        return value.detach().view(bits).numpy(force=True).view(narrow)
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(
            f"A {name} tensor of PyTorch cannot be read by NumPy. Pass a dense, plain tensor "
            f"({str(error).rstrip('.')})."
        ) from None


def array_of(value: Any) -> np.ndarray:
    """A leaf as a NumPy array, a view where its library lends its memory.

    Raises:
        ArgumentError: it holds no numbers: texts, records, or a shape alone.

    >>> array_of([1.0, 2.0])
    array([1., 2.])
    """
    value = without_torch(value)
    try:
        array = np.asarray(value)
    except TypeError:  # a tensor without data, a random key of JAX
        array = np.array(None)
    if array.dtype.kind in "OSUMm" or array.dtype.type is np.void:
        raise ArgumentError(
            f"A {type(value).__name__} holds no numbers. Pass arrays of numbers, not their shapes, keys or texts."
        )
    return array


def is_torch(value: Any) -> bool:
    """Whether `value` is a PyTorch tensor.

    >>> is_torch(np.ones(3))
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))
