"""Layers without weights that resize or move: Upsample, PixelShuffle, PixelUnshuffle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from porting.errors import ArgumentError, UnsupportedError
from porting.layers.conv import AXIS_NAMES, channels_first, channels_last
from porting.layers.dense import TORCH
from porting.layers.modules import LinenFunction, NNXFunction
from porting.layers.row import Config, Input, Layer, State, room, spread
from porting.layouts import Rule
from porting.limits import DIMENSION

SAME_MODULE = "Neither is a module: a function in both, here wrapped in one."


def functions(apply: Callable[..., Any]) -> dict[str, Any]:
    """Both modules of a layer that is a function of its input."""
    return {
        "linen": lambda c: LinenFunction(partial(apply, c=c)),
        "nnx": lambda c, **_: NNXFunction(partial(apply, c=c)),
    }


def spatial(rank: int) -> dict[str, Any]:
    """What the rows of layers on `rank` axes of space have in common."""
    return {
        "family": "shaping",
        "inputs": lambda c: (Input("input", ("batch?", "channels", *AXIS_NAMES[rank])),),
        "into": lambda x, c: channels_last(x, rank),
        "out_of": lambda x, c: channels_first(x, rank),
        "facts": {"rank": rank},
        "differs": SAME_MODULE,
    }


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
    **functions(_resize_flax),
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
        **functions(lambda x, c: rule(flax_rule, c).apply(x)),
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

ROWS = (UPSAMPLE, PIXEL_SHUFFLE, PIXEL_UNSHUFFLE)
