"""Maximum, average and adaptive pooling."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen

from porting.errors import ArgumentError, UnsupportedError
from porting.layers.conv import GUIDE, Index
from porting.layers.dense import TORCH
from porting.layers.row import Config, Layer, State, room, spread
from porting.layers.shaping import functions, spatial
from porting.limits import elements


def _window(c: Config) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, stride and padding, a number for each axis."""
    if c.kernel_size is None:
        raise ArgumentError("Pass kernel_size: a pooling layer has no weight that tells it.")
    kernel = spread(c.kernel_size, c.rank)
    stride = kernel if c.stride is None else spread(c.stride, c.rank)
    return kernel, stride, spread(c.padding, c.rank)


def _pool_size(n: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    """PyTorch's number of windows; with ceil_mode none starts in the padding on the right."""
    size = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
    return size - 1 if ceil_mode and (size - 1) * s >= n + p else size


def _pool_pads(c: Config, space: tuple[int, ...]) -> list[tuple[int, int]]:
    """Padding before and after each axis; ceil_mode pads more on the right."""
    pads = []
    for n, k, s, p in zip(space, *_window(c), strict=True):
        size = _pool_size(n, k, s, p, c.ceil_mode)
        pads.append((p, max((size - 1) * s + k - n - p, p if not c.ceil_mode else 0)))
    return pads


def _max_pool(x: Any, c: Config) -> Any:
    kernel, stride, _ = _window(c)
    return linen.max_pool(x, kernel, stride, _pool_pads(c, x.shape[-c.rank - 1 : -1]))


def _avg_pool(x: Any, c: Config) -> Any:
    kernel, stride, _ = _window(c)
    space = x.shape[-c.rank - 1 : -1]
    total = linen.avg_pool(x, kernel, stride, _pool_pads(c, space)) * np.prod(kernel)
    return total / jnp.asarray(_divisors(c, space)[..., None], x.dtype)


def _divisors(c: Config, space: tuple[int, ...]) -> np.ndarray:
    """What PyTorch divides each window's sum by, of the output's spatial shape."""
    kernel, stride, padding = _window(c)
    counts = np.ones((1,) * c.rank)
    for axis, (n, k, s, p) in enumerate(zip(space, kernel, stride, padding, strict=True)):
        starts = np.arange(_pool_size(n, k, s, p, c.ceil_mode)) * s - p
        low, high = (0, n) if not c.count_include_pad else (-p, n + p)
        count = np.minimum(starts + k, high) - np.maximum(starts, low)
        counts = counts * count.reshape([-1 if a == axis else 1 for a in range(c.rank)])
    return counts if c.divisor_override is None else np.full_like(counts, c.divisor_override)


def _windows(x: np.ndarray, c: Config, fill: float) -> np.ndarray:
    """Every window of the padded x, its elements on a new first axis."""
    kernel, stride, padding = _window(c)
    space = x.shape[-c.rank :]
    pads = [(0, 0)] * (x.ndim - c.rank) + _pool_pads(c, space)
    padded = np.pad(x, pads, constant_values=fill)
    sizes = [
        _pool_size(n, k, s, p, c.ceil_mode)
        for n, k, s, p in zip(space, kernel, stride, padding, strict=True)
    ]
    windows = []
    for at in product(*map(range, kernel)):
        steps = zip(at, sizes, stride, strict=True)
        place: Index = (..., *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in steps))
        windows.append(padded[place])
    return np.stack(windows)


def _max_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    return _windows(inputs[0], c, -np.inf).max(0)


def _avg_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    return _windows(x, c, 0.0).sum(0) / _divisors(c, x.shape[-c.rank :])


def _check_pool(c: Config, state: State | None, api: str) -> None:
    kernel, _, padding = _window(c)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ArgumentError(f"padding = {c.padding} is more than half of kernel_size.")
    if any(d != 1 for d in spread(getattr(c, "dilation", 1), c.rank)):
        raise UnsupportedError(
            "Flax's max_pool has no dilation. Call jax.lax.reduce_window with window_dilation."
        )


def _pool_room(given: tuple[np.ndarray, ...], c: Config) -> None:
    """Raise unless there is room for a window in the input."""
    space = given[0].shape[-c.rank :]
    numbers = zip(space, *_window(c), strict=False)
    sizes = [_pool_size(n, k, s, p, c.ceil_mode) for n, k, s, p in numbers]
    room("Pooling", sizes, space, 1)


_POOL = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False}


def _max_layer(rank: int) -> Layer:
    return Layer(
        name=f"MaxPool{rank}d",
        title=f"Maximum pooling in {rank}D",
        options=_POOL | {"dilation": 1},
        example={"kernel_size": 3, "stride": 2, "padding": 1},
        reference=_max_reference,
        examine=_pool_room,
        check=_check_pool,
        pitfalls=(
            "PyTorch's stride defaults to the kernel size, Flax's to 1.",
            "At stride 2, 'SAME' pads elsewhere. The padding is minus infinity, not 0.",
        ),
        sources=(f"{TORCH}MaxPool{rank}d.html", GUIDE),
        **functions(_max_pool),
        **spatial(rank),
    )


def _avg_layer(rank: int) -> Layer:
    return Layer(
        name=f"AvgPool{rank}d",
        title=f"Average pooling in {rank}D",
        options=_POOL | {"count_include_pad": True, "divisor_override": None},
        example={"kernel_size": 3, "stride": 2, "padding": 1},
        reference=_avg_reference,
        examine=_pool_room,
        check=_check_pool,
        pitfalls=(
            "PyTorch's stride defaults to the kernel size, Flax's to 1.",
            "count_include_pad is True in both; ceil_mode's extra padding never counts.",
        ),
        sources=(f"{TORCH}AvgPool{rank}d.html", GUIDE),
        **functions(_avg_pool),
        **spatial(rank),
    )


def _bins(x: Any, c: Config, axis: int) -> tuple[int, list[tuple[int, int]]]:
    """For adaptive pooling: the windows of one spatial axis, PyTorch's floor and ceil."""
    sizes = c.output_size
    sizes = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
    sizes = sizes * (c.rank // len(sizes))
    n = x.shape[axis]
    count = n if sizes[axis] is None else int(sizes[axis])
    return count, [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]


def _adaptive(x: Any, c: Config, api: Any, first: int) -> Any:
    """Reduce each spatial axis, from `first` on, to windows of nearly equal size."""
    reduce = api.max if c.maximum else api.mean
    for axis in range(c.rank):
        sized = _Sized(tuple(x.shape[first + a] for a in range(c.rank)))
        _, bins = _bins(sized, c, axis)
        at = x.ndim + first + axis if first < 0 else first + axis
        index = (slice(None),) * at
        x = api.stack([reduce(x[(*index, slice(a, b))], axis=at) for a, b in bins], axis=at)
    return x


def _check_adaptive(c: Config, state: State | None, api: str) -> None:
    sizes = c.output_size if isinstance(c.output_size, (tuple, list)) else (c.output_size,)
    if c.output_size is None or len(sizes) not in (1, c.rank):
        raise ArgumentError(f"output_size = {c.output_size!r}. Pass {c.rank} sizes, or one.")
    elements({"output": [n or 1 for n in sizes]})


class _Sized:
    """A shape alone."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def _adaptive_layer(name: str, title: str, maximum: bool, rank: int) -> Layer:
    shared = spatial(rank)
    return Layer(
        name=f"{name}{rank}d",
        title=f"{title} in {rank}D",
        options={"output_size": None},
        example={"output_size": (2, 3, 2)[:rank]},
        check=_check_adaptive,
        reference=lambda state, x, c: _adaptive(x[0], c, np, -rank),
        pitfalls=(
            "Where the size does not divide, windows overlap: floor and ceil of i · n / out.",
        ),
        sources=(f"{TORCH}{name}{rank}d.html",),
        **functions(lambda x, c: _adaptive(x, c, jnp, -rank - 1)),
        **(shared | {"facts": {"rank": rank, "maximum": maximum}}),
    )


_RANKS = (1, 2, 3)
_ADAPTIVE = (
    ("AdaptiveAvgPool", "Adaptive average pooling", False),
    ("AdaptiveMaxPool", "Adaptive maximum pooling", True),
)

ROWS = (
    *map(_max_layer, _RANKS),
    *map(_avg_layer, _RANKS),
    *(_adaptive_layer(*kind, rank) for kind in _ADAPTIVE for rank in _RANKS),
)
