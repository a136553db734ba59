"""Faults of weight norm and spectral norm, whose tensors are fused into one kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from porting.faults.row import Fault, Port, Transform, change
from porting.leaves import norm_except


def _axis(port: Port) -> int | None:
    """The kernel's axis for PyTorch's `dim`; `None` for one norm over everything."""
    dim = port.config["dim"]
    if dim in (None, -1):
        return None
    channels = (-2, -1) if "Transpose" in port.layer else (-1, -2)
    return channels[dim] if dim < 2 else dim - 2


def _edit(edit: Callable[[np.ndarray, int | None], np.ndarray]) -> Transform:
    return lambda port: change(lambda p: ["params/kernel"], lambda k: edit(k, _axis(port)))(port)


def _other_norm(kernel: np.ndarray, axis: int | None) -> np.ndarray:
    """v · g / ‖v‖ with the norm over other axes; v is the kernel and g its right norm."""
    other = -1 if axis is None else None
    return kernel * norm_except(kernel, axis) / norm_except(kernel, other)


def _unit(kernel: np.ndarray, axis: int | None) -> np.ndarray:
    return kernel / norm_except(kernel, axis)


def _is(prefix: str) -> Callable[[Port], bool]:
    return lambda port: port.layer.startswith(prefix)


ROWS = (
    Fault(
        "weight_norm_axes",
        "Weight norm over other axes",
        "Every shape fits; every output channel has another length.",
        "dim is an option: 0 by default, 2 in wav2vec 2.0, None for one norm over everything.",
        "weight = v * g / norm(v, over all axes but dim)",
        "torch.nn.utils.parametrizations.weight_norm: dim",
        _edit(_other_norm),
        "values",
        fits=_is("WeightNorm"),
    ),
    Fault(
        "weight_norm_length_lost",
        "Weight norm without its length",
        "Every shape fits; every output channel has length one.",
        "original0 (or weight_g) was passed over, and original1 taken for the weight.",
        "weight = v * g / norm(v)",
        "torch.nn.utils.parametrizations.weight_norm: original0, original1",
        _edit(_unit),
        "values",
        fits=_is("WeightNorm"),
    ),
    Fault(
        "spectral_norm_lost",
        "Spectral norm left out",
        "Every output is too large by the weight's largest singular value. Injected as twice the "
        "kernel, for that value is divided out of it.",
        "The stored weight is the one before the division.",
        "weight = original / (u @ matrix @ v)",
        "torch.nn.utils.parametrizations.spectral_norm",
        change(lambda port: ["params/kernel"], lambda k: k * k.dtype.type(2)),
        "values",
        fits=_is("SpectralNorm"),
    ),
)
