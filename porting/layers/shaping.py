"""Layers without weights that move or pool: pooling, resizing, pixel shuffle, flatten."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from porting.errors import ArgumentError, UnsupportedError
from porting.layers.conv import AXIS_NAMES, GUIDE, channels_first, channels_last
from porting.layers.dense import TORCH
from porting.layers.modules import LinenFunction, NNXFunction
from porting.layers.row import Config, Input, Layer, State, room, spread
from porting.layouts import Rule
from porting.limits import DIMENSION, elements

SAME_MODULE = "Neither is a module: a function in both, here wrapped in one."


def _functions(apply: Callable[[Any, Config], Any]) -> dict[str, Any]:
    """Both modules of a layer that is a function of its input."""
    return {
        "linen": lambda c: LinenFunction(partial(apply, c=c)),
        "nnx": lambda c, **_: NNXFunction(partial(apply, c=c)),
    }


def _spatial(rank: int) -> dict[str, Any]:
    return {
        "family": "shaping",
        "inputs": lambda c: (Input("input", ("batch?", "channels", *AXIS_NAMES[rank])),),
        "into": lambda x, c: channels_last(x, rank),
        "out_of": lambda x, c: channels_first(x, rank),
        "facts": {"rank": rank},
        "differs": SAME_MODULE,
    }


# Pooling.


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
    return np.stack(
        [
            padded[
                (
                    ...,
                    *(
                        slice(a, a + (n - 1) * s + 1, s)
                        for a, n, s in zip(at, sizes, stride, strict=True)
                    ),
                )
            ]
            for at in product(*map(range, kernel))
        ]
    )


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
        **_functions(_max_pool),
        **_spatial(rank),
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
        **_functions(_avg_pool),
        **_spatial(rank),
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
    spatial = _spatial(rank)
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
        **_functions(lambda x, c: _adaptive(x, c, jnp, -rank - 1)),
        **(spatial | {"facts": {"rank": rank, "maximum": maximum}}),
    )


# Resizing.

_MODES = {"nearest": 0, "linear": 1, "bilinear": 2, "trilinear": 3}


def _target(x: Any, c: Config, first: int) -> list[tuple[int, int, float]]:
    """(old size, new size, scale) of each spatial axis. PyTorch keeps a given scale_factor."""
    rank = x.ndim - 2
    found = []
    for axis in range(rank):
        n = x.shape[first + axis]
        if c.size is not None:
            new = spread(c.size, rank)[axis]
            found.append((n, new, new / n))
        else:
            factor = c.scale_factor
            factor = factor[axis] if isinstance(factor, (tuple, list)) else factor
            new = int(np.floor(n * factor))
            exact = factor if not c.recompute_scale_factor else new / n
            found.append((n, new, float(exact)))
    return found


def _matrix(n: int, new: int, scale: float, c: Config) -> np.ndarray:
    """The (new, n) matrix of one axis: what PyTorch multiplies by, in float64."""
    at = np.arange(new)
    if c.mode == "nearest":
        chosen = np.minimum(np.floor(at / scale).astype(int), n - 1)
        return np.eye(n)[chosen]
    if c.align_corners:
        place = at * ((n - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = np.maximum((at + 0.5) / scale - 0.5, 0)
    low = np.minimum(place.astype(int), n - 1)
    high = np.minimum(low + 1, n - 1)
    part = (place - low)[:, None]
    return np.eye(n)[low] * (1 - part) + np.eye(n)[high] * part


def _resize(x: Any, c: Config, api: Any, first: int) -> Any:
    """Every spatial axis through its matrix."""
    for axis, (n, new, scale) in enumerate(_target(x, c, first)):
        matrix = api.asarray(_matrix(n, new, scale, c), x.dtype)
        moved = api.moveaxis(x, first + axis, -1) @ matrix.T
        x = api.moveaxis(moved, -1, first + axis)
    return x


def _resize_flax(x: Any, c: Config) -> Any:
    """`jax.image` where it agrees with PyTorch; else the same sums as a product."""
    target = _target(x, c, 1)
    shape = (x.shape[0], *(new for _, new, _ in target), x.shape[-1])
    plain = all(np.isclose(scale, new / n) for n, new, scale in target) and not c.align_corners
    whole = all(new % n == 0 for n, new, _ in target)
    if plain and c.mode == "nearest" and whole:
        return jax.image.resize(x, shape, "nearest")
    if plain and c.mode != "nearest":
        return jax.image.resize(x, shape, "linear", antialias=False)
    return _resize(x, c, jnp, 1)


def _check_resize(c: Config, state: State | None, api: str) -> None:
    if c.mode == "bicubic":
        raise UnsupportedError(
            "jax.image.resize has the bicubic kernel with a = −0.5, PyTorch with a = −0.75. "
            "Multiply each axis by a matrix of PyTorch's weights, or use bilinear, which agrees."
        )
    if c.mode not in _MODES:
        raise ArgumentError(f"mode = {c.mode!r}. Use one of {', '.join(_MODES)}.")
    if (c.size is None) == (c.scale_factor is None):
        raise ArgumentError("Pass either size or scale_factor.")
    factors = c.scale_factor if isinstance(c.scale_factor, (tuple, list)) else (c.scale_factor,)
    for factor in factors:
        number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
        if factor is not None and not (number and 0 < factor < DIMENSION):
            raise ArgumentError(f"scale_factor = {factor!r}. Pass a number above 0.")
    if c.align_corners and c.mode == "nearest":
        raise ArgumentError("align_corners goes with the linear modes only, in PyTorch too.")


def _resize_room(given: tuple[np.ndarray, ...], c: Config) -> None:
    """Raise unless the output exists and is small enough to make."""
    x = given[0]
    for option in (c.size, c.scale_factor):
        if isinstance(option, (tuple, list)) and len(option) != x.ndim - 2:
            raise ArgumentError(f"{option} does not name one number for each of {x.ndim - 2} axes.")
    sizes = [new for _, new, _ in _target(x, c, 2)]
    room("Upsample", sizes, x.shape[2:], x.shape[1])


UPSAMPLE = Layer(
    name="Upsample",
    family="shaping",
    title="Resize: nearest, linear, bilinear, trilinear",
    options={
        "size": None,
        "scale_factor": None,
        "mode": "nearest",
        "align_corners": None,
        "recompute_scale_factor": None,
    },
    example={"scale_factor": 2, "mode": "bilinear"},
    reference=lambda state, x, c: _resize(x[0], c, np, 2),
    inputs=lambda c: (
        Input("input", ("batch", "channels", *AXIS_NAMES[_MODES[c.mode] or 2]))
        if _MODES.get(c.mode)
        else Input("input", ("batch", "channels", "height", "width?", "depth?")),
    ),
    into=lambda x, c: np.moveaxis(x, 1, -1),
    out_of=lambda x, c: np.moveaxis(x, -1, 1),
    examine=_resize_room,
    check=_check_resize,
    pitfalls=(
        "jax.image.resize antialiases when it shrinks, PyTorch does not: antialias=False.",
        "Nearest: PyTorch takes floor(i / scale), jax.image.resize the pixel centres; they "
        "differ unless the factor is whole.",
        "align_corners=True samples other places. Bicubic has another kernel.",
    ),
    differs=SAME_MODULE,
    sources=(
        TORCH + "Upsample.html",
        "https://docs.jax.dev/en/latest/_autosummary/jax.image.resize.html",
    ),
    **_functions(_resize_flax),
)


# Pixel shuffle: one rule in each layout.


def _factor(c: Config, key: str) -> int:
    value = getattr(c, key)
    if value is None:
        raise ArgumentError(f"Pass {key}: this layer has no weight that tells it.")
    return int(value)


def _shuffle_layer(name: str, key: str, torch_rule: str, flax_rule: str) -> Layer:
    def rule(pattern: str, c: Config) -> Rule:
        return Rule(pattern, {"r": _factor(c, key), "s": _factor(c, key)})

    def channels(c: Config) -> int | str:
        return "channels"

    return Layer(
        name=name,
        family="shaping",
        title=f"{name}: channels to space"
        if name == "PixelShuffle"
        else f"{name}: space to channels",
        options={key: None},
        example={key: 2},
        reference=lambda state, x, c: rule(torch_rule, c).apply(x[0]),
        inputs=lambda c: (Input("input", ("batch", *_shuffle_axes(name, _factor(c, key)))),),
        into=lambda x, c: np.moveaxis(x, 1, -1),
        out_of=lambda x, c: np.moveaxis(x, -1, 1),
        pitfalls=("The channels are (C, r, r); read as (r, r, C) they fit.",),
        differs=SAME_MODULE,
        sources=(f"{TORCH}{name}.html",),
        **_functions(lambda x, c: rule(flax_rule, c).apply(x)),
    )


def _shuffle_axes(name: str, r: int) -> tuple[str, str, str]:
    return (
        ("shuffled", "height", "width") if name == "PixelShuffle" else ("channels", "even", "even")
    )


PIXEL_SHUFFLE = _shuffle_layer(
    "PixelShuffle",
    "upscale_factor",
    "b (c r s) h w -> b c (h r) (w s)",
    "b h w (c r s) -> b (h r) (w s) c",
)
PIXEL_UNSHUFFLE = _shuffle_layer(
    "PixelUnshuffle",
    "downscale_factor",
    "b c (h r) (w s) -> b (c r s) h w",
    "b (h r) (w s) c -> b h w (c r s)",
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
    UPSAMPLE,
    PIXEL_SHUFFLE,
    PIXEL_UNSHUFFLE,
)
