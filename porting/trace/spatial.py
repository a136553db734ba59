"""Pooling and resizing of channels-last images as float64 NumPy functions, for the variants."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

WINDOWS = (2, 3, 4, 5, 7)
STRIDES = (2, 1, 3, 4)
POOLS = ("average pool", "average pool without its padding", "max pool")
SAME = "SAME padding (more behind than before)"
RESIZES = ("nearest", "linear", "cubic (a = -0.5)", "cubic (a = -0.75)")
GRIDS = ("", ", antialiased", ", corners aligned")


def operations(given: Sequence[int], wanted: Sequence[int]) -> list[str]:
    """What may take an image of one size (channels left out) to one of another.

    >>> operations((4, 4), (2, 2))[:2]
    ['average pool of 2, stride 2, padding 0', 'max pool of 2, stride 2, padding 0']
    """
    given, wanted = tuple(given), tuple(wanted)
    if given == wanted:
        return ["nothing", *(f"average pool of {n}, stride 1, padding {n // 2}" for n in (3, 5))]
    found = []
    for window, stride in itertools.product(WINDOWS, STRIDES):
        for padding in range(window // 2 + 1):
            size = tuple((n + 2 * padding - window) // stride + 1 for n in given)
            if size == wanted:
                kinds = POOLS if padding else (POOLS[0], POOLS[2])
                found += [
                    f"{kind} of {window}, stride {stride}, padding {padding}" for kind in kinds
                ]
    for window, stride in itertools.product(WINDOWS, STRIDES):
        ends = [_same(n, window, stride) for n in given]
        if tuple(-(-n // stride) for n in given) == wanted and any(a != b for a, b in ends):
            kinds = (POOLS[2], POOLS[0], POOLS[1])
            found += [f"{kind} of {window}, stride {stride}, {SAME}" for kind in kinds]
    return found + [f"{kind} resize{grid}" for kind in RESIZES for grid in GRIDS]


def _same(length: int, window: int, stride: int) -> tuple[int, int]:
    """What SAME adds before and behind an axis."""
    total = max((-(-length // stride) - 1) * stride + window - length, 0)
    return total // 2, total - total // 2


def spatial(x: np.ndarray, size: Sequence[int], operation: str) -> np.ndarray:
    """An image of (batch, positions, channels), pooled or resized to `size`.

    >>> spatial(np.ones((1, 4, 4, 2)), (2, 2), "linear resize").shape
    (1, 2, 2, 2)
    """
    if "resize" not in operation:
        return _pool(x, operation)
    for axis, length in enumerate(size, 1):
        weights = _weights(x.shape[axis], length, operation)
        x = np.moveaxis(np.tensordot(x, weights, (axis, 1)), -1, axis)
    return x


def _pool(x: np.ndarray, operation: str) -> np.ndarray:
    window, stride, *padding = map(int, re.findall(r"\d+", operation))
    rank = x.ndim - 2
    both = (padding[0], padding[0]) if padding else None
    ends = [both or _same(n, window, stride) for n in x.shape[1:-1]]
    if operation.startswith("max"):
        return _over_windows(x, ends, window, stride, np.maximum, -np.inf)
    total = _over_windows(x, ends, window, stride, np.add, 0.0)
    if "without" not in operation:
        return total / window**rank
    ones = np.ones((1, *x.shape[1:-1], 1))
    return total / _over_windows(ones, ends, window, stride, np.add, 0.0)


def _over_windows(
    x: np.ndarray,
    ends: Sequence[tuple[int, int]],
    window: int,
    stride: int,
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
    fill: float,
) -> np.ndarray:
    """The elements of each window joined, one axis after the other."""
    x = np.pad(x, [(0, 0), *ends, (0, 0)], constant_values=fill)
    for axis in range(1, x.ndim - 1):
        last = x.shape[axis] - window
        taps = (x[(slice(None),) * axis + (slice(n, n + last + 1, stride),)] for n in range(window))
        x = functools.reduce(join, taps)
    return x


def _weights(given: int, wanted: int, operation: str) -> np.ndarray:
    """(wanted, given): what each position of the result takes of those of the image."""
    step = given / wanted
    at = (np.arange(wanted) + 0.5) * step - 0.5
    if "corners" in operation:
        at = np.linspace(0, given - 1, wanted)
    if operation.startswith("nearest"):
        at = np.floor(np.arange(wanted) * step) if "anti" not in operation else np.round(at)
        return (at[:, None] == np.arange(given)).astype(float)
    wide = max(step, 1.0) if "antialiased" in operation else 1.0
    apart = np.abs(at[:, None] - np.arange(given)) / wide
    if operation.startswith("linear"):
        weights = np.maximum(1 - apart, 0)
    else:
        a = float(re.findall(r"-[\d.]+", operation)[0])
        near = ((a + 2) * apart - (a + 3)) * apart**2 + 1
        far = ((a * apart - 5 * a) * apart + 8 * a) * apart - 4 * a
        weights = np.where(apart < 1, near, np.where(apart < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)
