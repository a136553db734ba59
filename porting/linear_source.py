"""The linear layers of a checkpoint: a 2-D weight and the bias beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from porting.errors import ArgumentError, CoverageError

FLOATS = ("float16", "bfloat16", "float32", "float64")


def matrices_of(specs: Mapping[str, Any]) -> list[str]:
    """The keys of all 2-D floating tensors.

    >>> matrices_of({"fc.weight": np.zeros((2, 3)), "fc.bias": np.zeros(2)})
    ['fc.weight']
    """
    return [
        key
        for key, spec in specs.items()
        if len(spec.shape) == 2 and 0 not in spec.shape and str(spec.dtype) in FLOATS
    ]


def read_linear(checkpoint: Mapping[str, Any], key: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The weight `(out, in)` and the bias `(out,)` beside it, or `None`, both float32.

    Raises:
        CoverageError: there is no such tensor.
        ArgumentError: it is not a 2-D floating tensor.

    >>> weight, bias = read_linear({"fc.weight": np.zeros((2, 3)), "fc.bias": np.zeros(2)}, "fc.weight")
    >>> weight.shape, bias.shape
    ((2, 3), (2,))
    """
    if key not in checkpoint:
        raise CoverageError(f"The file has no tensor named {key!r}. Choose one of its 2-D tensors.")
    weight = checkpoint[key]
    if weight.ndim != 2 or str(weight.dtype) not in FLOATS:
        raise ArgumentError(
            f"{key} is {weight.dtype} of shape {weight.shape}. Choose a 2-D floating tensor."
        )
    name = key.removesuffix("weight") + "bias"
    bias = checkpoint[name] if name != key and name in checkpoint else None
    if bias is not None and bias.shape != weight.shape[:1]:
        bias = None
    return np.asarray(weight, np.float32), None if bias is None else np.asarray(bias, np.float32)
