"""Convolutions in one, two and three dimensions."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.dense import FLAX, TORCH, bias_leaf
from porting.layers.row import Config, Input, Layer, Shapes, State, room, spread
from porting.layouts import Rule
from porting.leaves import Leaf
from porting.limits import elements

SPATIAL = {1: "w", 2: "h w", 3: "d h w"}  #: the names of the spatial axes
AXIS_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
MODES: dict[str, Any] = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "replicate": "edge",
}
Index = tuple[Any, ...]
GUIDE = "https://flax.readthedocs.io/en/latest/guides/converting_and_upgrading/convert_pytorch_to_flax.html"


def channels_last(x: Any, rank: int) -> Any:
    """(B, C, *S) or (C, *S) -> channels last."""
    return np.moveaxis(x, -rank - 1, -1)


def channels_first(x: Any, rank: int) -> Any:
    """(B, *S, C) or (*S, C) -> channels first."""
    return np.moveaxis(x, -1, -rank - 1)


def _pads(c: Config) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis, as PyTorch counts it."""
    rank = c.rank
    if c.padding == "valid":
        return [(0, 0)] * rank
    if c.padding == "same":
        total = [d * (k - 1) for d, k in zip(spread(c.dilation, rank), c.kernel_size, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    return [(p, p) for p in spread(c.padding, rank)]


def _check_conv(c: Config, state: State | None, api: str) -> None:
    rank = c.rank
    if isinstance(c.padding, str) and c.padding not in ("same", "valid"):
        raise ArgumentError(f"padding = {c.padding!r}. Pass a number, 'same' or 'valid'.")
    if c.padding == "same" and any(s != 1 for s in spread(c.stride, rank)):
        raise ArgumentError("padding = 'same' needs stride 1: PyTorch refuses it otherwise.")
    if c.padding_mode not in MODES:
        raise ArgumentError(f"padding_mode = {c.padding_mode!r}. Use one of {', '.join(MODES)}.")
    check_groups(c)


def check_groups(c: Config) -> None:
    """Raise where the groups do not divide both numbers of channels."""
    if c.groups < 1 or c.in_channels % c.groups or c.out_channels % c.groups:
        raise ArgumentError(
            f"groups = {c.groups} does not divide in_channels = {c.in_channels} and "
            f"out_channels = {c.out_channels}."
        )


def _conv_keys(c: Config) -> dict[str, tuple[int, ...]]:
    kernel = spread(c.kernel_size, c.rank)
    keys = {"weight": (c.out_channels, c.in_channels // c.groups, *kernel)}
    return keys | ({"bias": (c.out_channels,)} if c.bias else {})


def correlate(
    x: np.ndarray, weight: np.ndarray, stride: Any, dilation: Any, groups: int
) -> np.ndarray:
    """A convolution without padding: x (B, I, *S), weight (O, I/g, *k) -> (B, O, *S')."""
    batch, _, *space = x.shape
    out, _, *kernel = weight.shape
    size = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(space, dilation, kernel, stride, strict=True)
    ]
    x = x.reshape(batch, groups, -1, *space)
    weight = weight.reshape(groups, out // groups, -1, *kernel)
    total = np.zeros((batch, groups, out // groups, *size))
    for at in product(*map(range, kernel)):
        window = (
            slice(a * d, a * d + (n - 1) * s + 1, s)
            for a, d, n, s in zip(at, dilation, size, stride, strict=True)
        )
        source: Index = (..., *window)
        place: Index = (..., *at)
        total += np.einsum("bgi...,goi->bgo...", x[source], weight[place])
    return total.reshape(batch, out, *size)


def per_channel(bias: np.ndarray, rank: int) -> np.ndarray:
    """A bias `(C,)` as `(C, 1, …)`, to be added to activations `(N, C, *space)` of `rank` axes of space."""
    return bias.reshape(-1, *[1] * rank)


def _conv_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    rank = c.rank
    x = inputs[0]
    x = x if x.ndim == rank + 2 else x[None]
    x = np.pad(x, [(0, 0), (0, 0), *_pads(c)], mode=MODES[c.padding_mode])
    out = correlate(x, state["weight"], spread(c.stride, rank), spread(c.dilation, rank), c.groups)
    out = out if "bias" not in state else out + per_channel(state["bias"], rank)
    return out if inputs[0].ndim == rank + 2 else out[0]


def _conv_room(given: tuple[np.ndarray, ...], c: Config) -> None:
    """Raise unless there is room for a window in the input."""
    space = given[0].shape[-c.rank :]
    options = (spread(o, c.rank) for o in (c.dilation, c.stride))
    numbers = zip(space, _pads(c), c.kernel_size, *options, strict=False)
    sizes = [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, p, k, d, s in numbers]
    room("Convolution", sizes, space, c.out_channels)
    elements({"padded input": [n + sum(p) for n, p in zip(space, _pads(c), strict=False)]})
    if c.padding_mode in ("reflect", "circular"):
        most = [n - (c.padding_mode == "reflect") for n in space]
        if any(max(p) > m for p, m in zip(_pads(c), most, strict=False)):
            raise ArgumentError(
                f"padding_mode {c.padding_mode!r} cannot pad a spatial size {space} that far."
            )


class _LinenPadded(linen.Conv):
    """`Conv` behind an explicit padding: Flax's own modes fix how much they pad."""

    pads: Any = ()
    mode: str = "wrap"

    def __call__(self, x: Any) -> Any:
        lead = [(0, 0)] * (x.ndim - len(self.pads) - 1)
        return super().__call__(jnp.pad(x, [*lead, *self.pads, (0, 0)], mode=self.mode))


class _NNXPadded(nnx.Conv):
    """`Conv` behind an explicit padding: Flax's own modes fix how much they pad."""

    def __init__(self, *args: Any, pads: Any, mode: str, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.pads, self.mode = tuple(pads), mode

    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        lead = [(0, 0)] * (inputs.ndim - len(self.pads) - 1)
        padded = jnp.pad(inputs, [*lead, *self.pads, (0, 0)], mode=self.mode)
        return super().__call__(padded, out_sharding)


def _conv_options(c: Config) -> dict[str, Any]:
    rank = c.rank
    plain = c.padding_mode == "zeros"
    options = {
        "strides": spread(c.stride, rank),
        "kernel_dilation": spread(c.dilation, rank),
        "feature_group_count": c.groups,
        "padding": _pads(c) if plain else "VALID",
        "use_bias": c.bias,
    }
    return options if plain else options | {"pads": tuple(_pads(c)), "mode": MODES[c.padding_mode]}


def _linen_conv(c: Config) -> linen.Module:
    kind = linen.Conv if c.padding_mode == "zeros" else _LinenPadded
    return kind(c.out_channels, c.kernel_size, **_conv_options(c))


def _nnx_conv(c: Config, **kw: Any) -> nnx.Module:
    kind = nnx.Conv if c.padding_mode == "zeros" else _NNXPadded
    return kind(c.in_channels, c.out_channels, c.kernel_size, **_conv_options(c), **kw)


CONV_OPTIONS = {
    "in_channels": None,
    "out_channels": None,
    "kernel_size": None,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "bias": True,
    "padding_mode": "zeros",
}


def _conv(rank: int) -> Layer:
    space = SPATIAL[rank]

    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        out, per_group, *kernel = shapes["weight"]
        check_rank(kernel, rank)
        found = {"out_channels": out, "in_channels": per_group * c.groups}
        return found | {"kernel_size": tuple(kernel)}

    def sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
        *kernel, per_group, out = shapes["params/kernel"]
        check_rank(kernel, rank)
        found = {"out_channels": out, "in_channels": per_group * c.groups}
        return found | {"kernel_size": tuple(kernel)}

    return Layer(
        name=f"Conv{rank}d",
        family="conv",
        title=f"Convolution in {rank}D",
        options=CONV_OPTIONS,
        example={"in_channels": 3, "out_channels": 5, "kernel_size": (2, 3, 5)[:rank]},
        keys=_conv_keys,
        sizes=sizes,
        sizes_back=sizes_back,
        leaves=lambda c: [
            Leaf("params/kernel", ("weight",), Rule(f"o i {space} -> {space} i o")),
            *bias_leaf(c),
        ],
        linen=_linen_conv,
        nnx=_nnx_conv,
        reference=_conv_reference,
        inputs=lambda c: (Input("input", ("batch?", c.in_channels, *AXIS_NAMES[rank])),),
        into=lambda x, c: channels_last(x, rank),
        out_of=lambda x, c: channels_first(x, rank),
        facts={"rank": rank},
        examine=_conv_room,
        check=_check_conv,
        terms=lambda c: int(np.prod(c.kernel_size)) * c.in_channels // c.groups,
        pitfalls=(
            "A cubic kernel fits in every order: in and out, or height and width, exchanged.",
            "At stride 2, 'SAME' pads elsewhere than PyTorch's number: same shape, other values.",
            "A constant image hides exchanged spatial axes; an odd size hides 'SAME'.",
        ),
        differs="padding_mode reflect, circular and replicate: an explicit jnp.pad in both.",
        sources=(f"{TORCH}Conv{rank}d.html", FLAX, GUIDE),
    )


def check_rank(kernel: list[int], rank: int) -> None:
    """Raise ValueError where a kernel has not `rank` sizes."""
    if len(kernel) != rank:
        raise ValueError


ROWS = tuple(map(_conv, (1, 2, 3)))
