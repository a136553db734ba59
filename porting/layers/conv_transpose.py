"""Transposed convolutions in one, two and three dimensions."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.conv import (
    AXIS_NAMES,
    CONV_OPTIONS,
    GUIDE,
    SPATIAL,
    Index,
    channels_first,
    channels_last,
    check_groups,
    check_rank,
    per_channel,
)
from porting.layers.dense import TORCH, bias_leaf
from porting.layers.row import Config, Input, Layer, Shapes, State, room, spread
from porting.layouts import Rule
from porting.leaves import Leaf


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
        window = (
            slice(a * d, a * d + (n - 1) * s + 1, s)
            for a, (n, s, d, _) in zip(at, numbers, strict=True)
        )
        target: Index = (..., *window)
        place: Index = (..., *at)
        total[target] += np.einsum("bgi...,gio->bgo...", x, weight[place])
    crop = tuple(slice(p, n - p + e) for p, n, e in zip(pads, size, extra, strict=True))
    kept: Index = (..., *crop)
    out = total[kept].reshape(batch, c.out_channels, *(s.stop - s.start for s in crop))
    out = out if "bias" not in state else out + per_channel(state["bias"], rank)
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
    check_groups(c)


def _conv_transpose(rank: int) -> Layer:
    space = SPATIAL[rank]
    flipped = " ".join(f"-{axis}" for axis in space.split())

    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        channels, per_group, *kernel = shapes["weight"]
        check_rank(kernel, rank)
        found = {"in_channels": channels, "out_channels": per_group * c.groups}
        return found | {"kernel_size": tuple(kernel)}

    def sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
        *kernel, per_group, out = shapes["params/kernel"]
        check_rank(kernel, rank)
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
        options=CONV_OPTIONS | {"output_padding": 0},
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


ROWS = tuple(map(_conv_transpose, (1, 2, 3)))
