"""Convolutions and transposed convolutions, in one, two and three dimensions."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
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
MODES = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}
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
    _check_groups(c)


def _check_groups(c: Config) -> None:
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
        window = tuple(
            slice(a * d, a * d + (n - 1) * s + 1, s)
            for a, d, n, s in zip(at, dilation, size, stride, strict=True)
        )
        total += np.einsum("bgi...,goi->bgo...", x[(..., *window)], weight[(..., *at)])
    return total.reshape(batch, out, *size)


def _per_channel(bias: np.ndarray, rank: int) -> np.ndarray:
    return bias.reshape(-1, *[1] * rank)


def _conv_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    rank = c.rank
    x = inputs[0]
    x = x if x.ndim == rank + 2 else x[None]
    x = np.pad(x, [(0, 0), (0, 0), *_pads(c)], mode=MODES[c.padding_mode])
    out = correlate(x, state["weight"], spread(c.stride, rank), spread(c.dilation, rank), c.groups)
    out = out if "bias" not in state else out + _per_channel(state["bias"], rank)
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


def _transpose_room(given: tuple[np.ndarray, ...], c: Config) -> None:
    space = given[0].shape[-c.rank :]
    strides = spread(c.stride, c.rank)
    numbers = zip(space, strides, _transpose_pads(c), c.kernel_size, strict=False)
    dilation = spread(c.dilation, c.rank)
    sizes = [
        (n - 1) * s + 1 + sum(p) - d * (k - 1)
        for (n, s, p, k), d in zip(numbers, dilation, strict=False)
    ]
    room("Transposed convolution", sizes, space, c.out_channels)


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

    def __call__(self, x: Any) -> Any:
        lead = [(0, 0)] * (x.ndim - len(self.pads) - 1)
        return super().__call__(jnp.pad(x, [*lead, *self.pads, (0, 0)], mode=self.mode))


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


_CONV_OPTIONS = {
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
        _check_rank(kernel, rank)
        found = {"out_channels": out, "in_channels": per_group * c.groups}
        return found | {"kernel_size": tuple(kernel)}

    def sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
        *kernel, per_group, out = shapes["params/kernel"]
        _check_rank(kernel, rank)
        found = {"out_channels": out, "in_channels": per_group * c.groups}
        return found | {"kernel_size": tuple(kernel)}

    return Layer(
        name=f"Conv{rank}d",
        family="conv",
        title=f"Convolution in {rank}D",
        options=_CONV_OPTIONS,
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


def _check_rank(kernel: list[int], rank: int) -> None:
    if len(kernel) != rank:
        raise ValueError


# Transposed convolutions.


def _transpose_keys(c: Config) -> dict[str, tuple[int, ...]]:
    kernel = spread(c.kernel_size, c.rank)
    keys = {"weight": (c.in_channels, c.out_channels // c.groups, *kernel)}
    return keys | ({"bias": (c.out_channels,)} if c.bias else {})


def _transpose_pads(c: Config) -> list[tuple[int, int]]:
    rank = c.rank
    options = (spread(o, rank) for o in (c.dilation, c.padding, c.output_padding))
    return [
        (d * (k - 1) - p, d * (k - 1) - p + extra)
        for k, d, p, extra in zip(c.kernel_size, *options, strict=True)
    ]


def _transpose_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    """Each input element adds its kernel to the output: the transpose of the convolution."""
    rank = c.rank
    x = inputs[0] if inputs[0].ndim == rank + 2 else inputs[0][None]
    stride, dilation = spread(c.stride, rank), spread(c.dilation, rank)
    pads, extra = spread(c.padding, rank), spread(c.output_padding, rank)
    batch, channels, *space = x.shape
    weight = state["weight"].reshape(c.groups, channels // c.groups, -1, *c.kernel_size)
    x = x.reshape(batch, c.groups, -1, *space)
    numbers = list(zip(space, stride, dilation, c.kernel_size, strict=True))
    size = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in numbers]
    room = [n + e for n, e in zip(size, extra, strict=True)]
    total = np.zeros((batch, c.groups, c.out_channels // c.groups, *room))
    for at in product(*map(range, c.kernel_size)):
        window = tuple(
            slice(a * d, a * d + (n - 1) * s + 1, s)
            for a, (n, s, d, _) in zip(at, numbers, strict=True)
        )
        total[(..., *window)] += np.einsum("bgi...,gio->bgo...", x, weight[(..., *at)])
    crop = tuple(slice(p, n - p + e) for p, n, e in zip(pads, size, extra, strict=True))
    out = total[(..., *crop)].reshape(batch, c.out_channels, *(s.stop - s.start for s in crop))
    out = out if "bias" not in state else out + _per_channel(state["bias"], rank)
    return out if inputs[0].ndim == rank + 2 else out[0]


def _grouped_transpose(x: Any, kernel: Any, bias: Any, c: Config) -> Any:
    """A transposed convolution with groups: a convolution of the input spread out by stride."""
    rank = c.rank
    space = "DHW"[3 - rank :]
    batched = x if x.ndim == rank + 2 else x[None]
    out = jax.lax.conv_general_dilated(
        batched,
        kernel,
        window_strides=(1,) * rank,
        padding=_transpose_pads(c),
        lhs_dilation=spread(c.stride, rank),
        rhs_dilation=spread(c.dilation, rank),
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=c.groups,
    )
    out = out if bias is None else out + bias
    return out if x.ndim == rank + 2 else out[0]


class _LinenGrouped(linen.Module):
    """A transposed convolution with groups, which Flax lacks."""

    config: Any

    @linen.compact
    def __call__(self, x: Any) -> Any:
        c = self.config
        shape = (*c.kernel_size, c.in_channels // c.groups, c.out_channels)
        kernel = self.param("kernel", linen.initializers.lecun_normal(), shape)
        bias = None
        if c.bias:
            bias = self.param("bias", linen.initializers.zeros_init(), (c.out_channels,))
        return _grouped_transpose(x, kernel, bias, c)


class _NNXGrouped(nnx.Module):
    """A transposed convolution with groups, which Flax lacks."""

    def __init__(self, c: Config, *, param_dtype: Any, rngs: nnx.Rngs) -> None:
        shape = (*c.kernel_size, c.in_channels // c.groups, c.out_channels)
        init = nnx.initializers.lecun_normal()
        self.config = nnx.static(c)
        self.kernel = nnx.Param(init(rngs.params(), shape, param_dtype))
        bias = nnx.Param(jnp.zeros((c.out_channels,), param_dtype)) if c.bias else None
        self.bias = nnx.data(bias)

    def __call__(self, x: Any) -> Any:
        bias = None if self.bias is None else self.bias[...]
        return _grouped_transpose(x, self.kernel[...], bias, self.config)


def _transpose_options(c: Config) -> dict[str, Any]:
    rank = c.rank
    return {
        "strides": spread(c.stride, rank),
        "kernel_dilation": spread(c.dilation, rank),
        "padding": _transpose_pads(c),
        "use_bias": c.bias,
    }


def _linen_transpose(c: Config) -> linen.Module:
    if c.groups > 1:
        return _LinenGrouped(c)
    return linen.ConvTranspose(c.out_channels, c.kernel_size, **_transpose_options(c))


def _nnx_transpose(c: Config, **kw: Any) -> nnx.Module:
    if c.groups > 1:
        return _NNXGrouped(c, **kw)
    options = _transpose_options(c)
    return nnx.ConvTranspose(c.in_channels, c.out_channels, c.kernel_size, **options, **kw)


def _check_transpose(c: Config, state: State | None, api: str) -> None:
    rank = c.rank
    if c.padding_mode != "zeros":
        raise ArgumentError(
            "A transposed convolution has padding_mode 'zeros' only, in PyTorch too."
        )
    extra, stride, dilation = (spread(o, rank) for o in (c.output_padding, c.stride, c.dilation))
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True) if e):
        raise ArgumentError(
            f"output_padding = {c.output_padding} must be smaller than stride or dilation."
        )
    _check_groups(c)


def _conv_transpose(rank: int) -> Layer:
    space = SPATIAL[rank]
    flipped = " ".join(f"-{axis}" for axis in space.split())

    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        channels, per_group, *kernel = shapes["weight"]
        _check_rank(kernel, rank)
        found = {"in_channels": channels, "out_channels": per_group * c.groups}
        return found | {"kernel_size": tuple(kernel)}

    def sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
        *kernel, per_group, out = shapes["params/kernel"]
        _check_rank(kernel, rank)
        found = {"in_channels": per_group * c.groups, "out_channels": out}
        return found | {"kernel_size": tuple(kernel)}

    def leaves(c: Config) -> list[Leaf]:
        rule = Rule(f"(g i) o {space} -> {flipped} i (g o)", {"g": c.groups})
        if c.groups == 1:
            rule = Rule(f"i o {space} -> {flipped} i o")
        return [Leaf("params/kernel", ("weight",), rule), *bias_leaf(c)]

    return Layer(
        name=f"ConvTranspose{rank}d",
        family="conv",
        title=f"Transposed convolution in {rank}D",
        options=_CONV_OPTIONS | {"output_padding": 0},
        example={
            "in_channels": 3,
            "out_channels": 5,
            "kernel_size": (2, 3, 5)[:rank],
            "stride": 2,
        },
        keys=_transpose_keys,
        sizes=sizes,
        sizes_back=sizes_back,
        leaves=leaves,
        linen=_linen_transpose,
        nnx=_nnx_transpose,
        reference=_transpose_reference,
        inputs=lambda c: (Input("input", ("batch?", c.in_channels, *AXIS_NAMES[rank])),),
        into=lambda x, c: channels_last(x, rank),
        out_of=lambda x, c: channels_first(x, rank),
        facts={"rank": rank},
        examine=_transpose_room,
        check=_check_transpose,
        terms=lambda c: int(np.prod(c.kernel_size)) * c.in_channels // c.groups,
        pitfalls=(
            "PyTorch stores (in, out, *k), the other way round than a convolution.",
            "With transpose_kernel=False the spatial axes are flipped; with True they are not, "
            "and in and out change places.",
            "'SAME' or 'VALID' pads elsewhere: pass the pairs.",
        ),
        differs="Neither has groups: lax.conv_general_dilated with lhs_dilation in both.",
        sources=(
            f"{TORCH}ConvTranspose{rank}d.html",
            "https://github.com/google/flax/issues/3137",
            GUIDE,
        ),
    )


ROWS = (*map(_conv, (1, 2, 3)), *map(_conv_transpose, (1, 2, 3)))
