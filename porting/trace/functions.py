"""Layers as float64 NumPy functions of an input and leaves, in Flax's layout.

They are slow and plain: they exist so that a layer can be run with another epsilon, padding
or mask, and its output be compared with a recording.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Leaves = Mapping[str, np.ndarray]


def _erf(x: np.ndarray) -> np.ndarray:
    from porting.special import erf

    return np.asarray(erf(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _softcap(most: float, x: np.ndarray) -> np.ndarray:
    return most * np.tanh(x / most)


#: Functions of one array that stand between layers.
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no activation": lambda x: x,
    "GELU (erf)": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "GELU (tanh)": lambda x: (
        0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "quick GELU": lambda x: x * _sigmoid(1.702 * x),
    "SiLU": lambda x: x * _sigmoid(x),
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "squared ReLU": lambda x: np.maximum(x, 0) ** 2,
    "leaky ReLU (0.01)": lambda x: np.where(x > 0, x, 0.01 * x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(x, 0),
    **{f"softcap {most}": functools.partial(_softcap, most) for most in (30, 50)},
}


def dense(
    x: np.ndarray, leaves: Leaves, kernel: str = "as it is", bias: str = "added"
) -> np.ndarray:
    """x · kernel + bias; a kernel of several axes contracts the last axes of x.

    >>> dense(np.ones((1, 3)), {"kernel": np.ones((3, 2)), "bias": np.ones(2)}).tolist()
    [[4.0, 4.0]]
    """
    w = leaves["kernel"].T if kernel == "transposed" else leaves["kernel"]
    axes = next(n for n in range(1, w.ndim) if w.shape[:n] == x.shape[-n:])
    y = np.tensordot(x, w, axes)
    return y + leaves["bias"] if bias == "added" and "bias" in leaves else y


def norm(
    x: np.ndarray,
    leaves: Leaves,
    epsilon: float = 1e-5,
    mean: str = "subtracted",
    scale: str = "w",
    variance: str = "biased",
) -> np.ndarray:
    """A layer norm or RMS norm over the last axis.

    >>> norm(np.array([[1.0, 3.0]]), {"scale": np.ones(2)}, epsilon=0.0).tolist()
    [[-1.0, 1.0]]
    """
    x = x - x.mean(-1, keepdims=True) if mean == "subtracted" else x
    terms = x.shape[-1] - (variance == "unbiased")
    y = x / np.sqrt(np.sum(x**2, -1, keepdims=True) / terms + epsilon)
    weight = leaves.get("scale", np.ones(())) + (scale == "1 + w")
    return y * weight + leaves.get("bias", np.zeros(()))


def batch_norm(
    x: np.ndarray, leaves: Leaves, epsilon: float = 1e-5, statistics: str = "running"
) -> np.ndarray:
    """A batch norm over the last axis, with its own or the batch's statistics.

    >>> leaves = {"mean": np.ones(1), "var": np.full(1, 4.0)}
    >>> batch_norm(np.array([[3.0]]), leaves, epsilon=0.0).tolist()
    [[1.0]]
    """
    axes = tuple(range(x.ndim - 1))
    mean, var = leaves["mean"], leaves["var"]
    if statistics == "of the batch":
        mean, var = x.mean(axes), x.var(axes)
    y = (x - mean) / np.sqrt(var + epsilon)
    return y * leaves.get("scale", np.ones(())) + leaves.get("bias", np.zeros(()))


def group_norm(
    x: np.ndarray, leaves: Leaves, epsilon: float = 1e-5, groups: int = 32
) -> np.ndarray:
    """A group norm: consecutive channels of the last axis, all positions.

    >>> group_norm(np.array([[1.0, 3.0]]), {}, 0.0, 1).tolist()
    [[-1.0, 1.0]]
    """
    parts = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, var = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    y = ((parts - mean) / np.sqrt(var + epsilon)).reshape(x.shape)
    return y * leaves.get("scale", np.ones(())) + leaves.get("bias", np.zeros(()))


def embed(ids: np.ndarray, leaves: Leaves, offset: int = 0, scale: str = "1") -> np.ndarray:
    """Rows of a table; ids that fall outside give NaN.

    >>> embed(np.array([1]), {"embedding": np.eye(2)}).tolist()
    [[0.0, 1.0]]
    """
    table = leaves["embedding"]
    rows = np.asarray(ids) + offset
    inside = (rows >= 0) & (rows < len(table))
    found = np.where(inside[..., None], table[np.where(inside, rows, 0)], np.nan)
    return found * math.sqrt(table.shape[-1]) if scale == "√width" else found


def pads(
    padding: str, size: Sequence[int], kernel: Sequence[int], stride: int, dilation: int
) -> list[tuple[int, int]]:
    """How many zeros stand before and behind each axis.

    >>> pads("SAME", (6,), (3,), 2, 1), pads("1 on each side", (6,), (3,), 2, 1)
    ([(0, 1)], [(1, 1)])
    """
    if padding[0].isdigit():
        numbers = [int(word) for word in padding.split() if word.isdigit()]
        return [(numbers[0], numbers[-1]) for _ in size]
    found = []
    for length, taps in zip(size, kernel, strict=True):
        total = max((-(-length // stride) - 1) * stride + (taps - 1) * dilation + 1 - length, 0)
        low = total - total // 2 if padding == "SAME_LOWER" else total // 2
        found.append((low, total - low))
    return found


def conv_transpose(
    x: np.ndarray,
    leaves: Leaves,
    padding: str = "SAME",
    stride: int = 2,
    kernel: str = "as it is",
) -> np.ndarray:
    """A transposed convolution: a convolution of the input with zeros between its positions.

    >>> x, leaves = np.ones((1, 2, 1)), {"kernel": np.ones((2, 1, 1))}
    >>> conv_transpose(x, leaves, "1 before, 1 behind")[0, :, 0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    size = [(n - 1) * stride + 1 for n in x.shape[1:-1]]
    wide = np.zeros((x.shape[0], *size, x.shape[-1]))
    wide[(slice(None), *(slice(None, None, stride),) * len(size))] = x
    if padding == "SAME":  # as jax.lax.conv_transpose has it
        taps = leaves["kernel"].shape[0]
        total = taps + stride - 2
        low = taps - 1 if stride > taps - 1 else -(-total // 2)
        padding = f"{low} before, {total - low} behind"
    return conv(wide, leaves, padding, 1, 1, kernel)


#: The last word of a padding -> NumPy's name of it.
_MODES: dict[str, Literal["wrap", "reflect", "constant"]] = {
    "circular": "wrap",
    "reflected": "reflect",
}


def conv(
    x: np.ndarray,
    leaves: Leaves,
    padding: str = "0 on each side",
    stride: int = 1,
    dilation: int = 1,
    kernel: str = "as it is",
) -> np.ndarray:
    """A convolution over the axes between the first and the last.

    >>> x, leaves = np.ones((1, 5, 1)), {"kernel": np.ones((3, 1, 1))}
    >>> conv(x, leaves, "1 on each side")[0, :, 0].tolist()
    [2.0, 3.0, 3.0, 3.0, 2.0]
    """
    w = leaves["kernel"]
    rank = w.ndim - 2
    if kernel == "flipped":
        w = w[(slice(None, None, -1),) * rank]
    if kernel == "height and width exchanged":
        w = np.swapaxes(w, 0, 1)
    around = pads(padding, x.shape[1:-1], w.shape[:rank], stride, dilation)
    x = np.pad(x, [(0, 0), *around, (0, 0)], mode=_MODES.get(padding.split()[-1], "constant"))
    span = tuple((taps - 1) * dilation + 1 for taps in w.shape[:rank])
    axes = tuple(range(1, rank + 1))
    windows = sliding_window_view(x, span, axes)
    step = (slice(None, None, stride),) * rank
    windows = windows[(slice(None), *step, slice(None), *(slice(None, None, dilation),) * rank)]
    groups = windows.shape[rank + 1] // w.shape[-2]
    parts = zip(np.split(windows, groups, rank + 1), np.split(w, groups, -1), strict=True)
    taps = list(range(rank + 1, 2 * rank + 2)), [rank, *range(rank)]
    y = np.concatenate([np.tensordot(a, b, taps) for a, b in parts], -1)
    return y + leaves["bias"] if "bias" in leaves else y


def identifiers(operands: Mapping[str, np.ndarray], shape: tuple[int, ...], ids: str) -> np.ndarray:
    """Integers that a model makes itself: constants, positions.

    >>> identifiers({}, (1, 3), "positions from 2").tolist()
    [[2, 3, 4]]
    """
    if ids.startswith("positions"):
        return np.broadcast_to(np.arange(shape[-1]) + int(ids.split()[-1]), shape)
    if ids.startswith("all "):
        return np.full(shape, int(ids.split()[-1]))
    return operands[ids]
