"""Normalisation layers. PyTorch's epsilon is 1e-5 where Flax's default is 1e-6."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.dense import FLAX, TORCH
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import Rule, identity
from porting.leaves import ONE_PLUS, Leaf

FAST_VARIANCE = (
    "Flax computes E[x²] − E[x]² by default, which loses digits where the mean is large "
    "against the spread; use_fast_variance=False computes as PyTorch does."
)


def scale_and_bias(weight: bool, bias: bool, rank: int = 1) -> list[Leaf]:
    """The rows of `scale` (PyTorch's `weight`) and `bias`, those of them that there are."""
    rows = [Leaf("params/scale", ("weight",), identity(rank))] if weight else []
    return rows + ([Leaf("params/bias", ("bias",), identity(rank))] if bias else [])


def normalise(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    """(x − mean) / √(var + eps), with the biased variance."""
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(x.var(axes, keepdims=True) + eps)


def along_channels(x: np.ndarray, state: State, key: str, other: float) -> Any:
    """A vector `(C,)` of the state beside activations `(N, C, *space)`; `other` where it has none."""
    return state[key].reshape(-1, *[1] * (x.ndim - 2)) if key in state else other


def affine_channels(x: np.ndarray, state: State) -> np.ndarray:
    """`x · weight + bias` along the channels `(N, C, *space)`."""
    scale = along_channels(x, state, "weight", 1.0)
    return x * scale + along_channels(x, state, "bias", 0.0)


def channel_last(x: Any, c: Config) -> Any:
    """`(N, C, *space)` as `(N, *space, C)`."""
    return np.moveaxis(x, 1, -1)


def channel_second(x: Any, c: Config) -> Any:
    """`(N, *space, C)` as `(N, C, *space)`."""
    return np.moveaxis(x, -1, 1)


# LayerNorm and RMSNorm, over the last axes.


def _layer_keys(c: Config) -> dict[str, tuple[int, ...]]:
    shape = _shape(c.normalized_shape)
    keys = {"weight": shape} if c.elementwise_affine else {}
    return keys | ({"bias": shape} if c.elementwise_affine and getattr(c, "bias", False) else {})


def _shape(value: Any) -> tuple[int, ...]:
    if value is None:
        raise ArgumentError("Pass normalized_shape: this layer has no weight that tells it.")
    return (int(value),) if isinstance(value, (int, np.integer)) else tuple(value)


def _layer_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    found = shapes.get("weight", shapes.get("params/scale"))
    if found is None:
        return {"normalized_shape": _shape(c.normalized_shape)}
    return {"normalized_shape": tuple(found)}


def _axes(c: Config) -> tuple[int, ...]:
    return tuple(range(-len(_shape(c.normalized_shape)), 0))


def _layer_leaves(c: Config) -> list[Leaf]:
    bias = c.elementwise_affine and getattr(c, "bias", False)
    return scale_and_bias(c.elementwise_affine, bias, len(_shape(c.normalized_shape)))


def _flat_leaves(c: Config) -> list[Leaf]:
    """The NNX norms hold scale and bias flat, also over several axes."""
    axes = " ".join("abcdefgh"[: len(_shape(c.normalized_shape))])
    return [
        Leaf(leaf.path.partition("/")[2], leaf.sources, Rule(f"{axes} -> ({axes})"), leaf.join)
        for leaf in _layer_leaves(c)
    ]


def _count(c: Config) -> int:
    return int(np.prod(_shape(c.normalized_shape)))


FLAT = "Over several axes Linen holds scale and bias in their shape, NNX flat."


def _layer_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    out = normalise(inputs[0], _axes(c), c.eps)
    return out * state.get("weight", 1.0) + state.get("bias", 0.0)


def _layer_options(c: Config) -> dict[str, Any]:
    return {
        "epsilon": c.eps,
        "use_scale": c.elementwise_affine,
        "use_bias": c.elementwise_affine and c.bias,
        "reduction_axes": _axes(c),
        "feature_axes": _axes(c),
        "use_fast_variance": False,
    }


LAYER_NORM = Layer(
    name="LayerNorm",
    family="norm",
    title="Layer normalisation over the last axes",
    options={"normalized_shape": None, "eps": 1e-5, "elementwise_affine": True, "bias": True},
    example={"normalized_shape": (7,)},
    keys=_layer_keys,
    sizes=_layer_sizes,
    sizes_back=_layer_sizes,
    leaves=_layer_leaves,
    linen=lambda c: linen.LayerNorm(**_layer_options(c)),
    nnx=lambda c, **kw: nnx.LayerNorm(_count(c), **_layer_options(c), **kw),
    nnx_leaves=_flat_leaves,
    differs=FLAT,
    reference=_layer_reference,
    inputs=lambda c: (Input("input", ("...", *_shape(c.normalized_shape))),),
    pitfalls=(
        "PyTorch's eps is 1e-5, Flax's 1e-6: it shows on rows of small numbers.",
        "scale and bias have one shape and can be exchanged.",
        FAST_VARIANCE,
    ),
    sources=(TORCH + "LayerNorm.html", FLAX),
)


def _settle_eps(c: Config, state: State | None, api: str) -> None:
    """eps=None means the machine epsilon of the layer's dtype."""
    if c.eps is None:
        c.eps = float(ml_dtypes.finfo(c.dtype).eps)


def _rms(x: np.ndarray, c: Config) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, _axes(c), keepdims=True) + c.eps)


def _rms_options(c: Config) -> dict[str, Any]:
    return {
        "epsilon": c.eps,
        "use_scale": c.elementwise_affine,
        "reduction_axes": _axes(c),
        "feature_axes": _axes(c),
    }


_RMS: dict[str, Any] = {
    "family": "norm",
    "keys": _layer_keys,
    "linen": lambda c: linen.RMSNorm(**_rms_options(c)),
    "nnx": lambda c, **kw: nnx.RMSNorm(_count(c), **_rms_options(c), **kw),
    "inputs": lambda c: (Input("x", ("...", *_shape(c.normalized_shape))),),
}

RMS_NORM = Layer(
    name="RMSNorm",
    title="Root mean square normalisation",
    options={"normalized_shape": None, "eps": None, "elementwise_affine": True},
    example={"normalized_shape": (7,)},
    sizes=_layer_sizes,
    sizes_back=_layer_sizes,
    leaves=_layer_leaves,
    nnx_leaves=_flat_leaves,
    differs=FLAT,
    check=_settle_eps,
    reference=lambda state, x, c: _rms(x[0], c) * state.get("weight", 1.0),
    pitfalls=(
        "eps=None means the machine epsilon of the input's dtype, 1.19e-7 in float32; Llama "
        "and T5 use 1e-6 or 1e-5, Flax's default is 1e-6.",
        "Gemma multiplies by 1 + weight.",
    ),
    sources=(TORCH + "RMSNorm.html", FLAX),
    **_RMS,
)


def _gemma_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    (dim,) = shapes["weight"] if "weight" in shapes else shapes["params/scale"]
    c.normalized_shape = (dim,)
    return {"dim": dim}


GEMMA_RMS_NORM = Layer(
    name="GemmaRMSNorm",
    title="Gemma's RMSNorm: multiplies by 1 + weight",
    options={"dim": None, "eps": 1e-6},
    example={"dim": 7},
    sizes=_gemma_sizes,
    sizes_back=_gemma_sizes,
    leaves=lambda c: [Leaf("params/scale", ("weight",), identity(1), ONE_PLUS)],
    reference=lambda state, x, c: _rms(x[0], c) * (1.0 + state["weight"]),
    loses="1 + w rounds away the last bits of a small w",
    pitfalls=("The weight is stored around 0: ported as it is, the layer nearly vanishes.",),
    sources=(
        "https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/models/gemma/modeling_gemma.py",
    ),
    facts={"elementwise_affine": True},
    **(_RMS | {"keys": lambda c: {"weight": (c.dim,)}}),
)


# GroupNorm and InstanceNorm.


def _group_keys(c: Config) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("weight", "bias") if c.affine else (), (c.num_channels,))


def _group_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    found = shapes.get("weight", shapes.get("params/scale", (c.num_channels,)))
    if c.num_channels is not None:
        found = (c.num_channels,)
    if c.num_groups is None or found[0] is None:
        raise ArgumentError("GroupNorm: pass num_groups (and num_channels, if not affine).")
    if found[0] % c.num_groups:
        raise ArgumentError(f"GroupNorm: {found[0]} channels are no {c.num_groups} equal groups.")
    return {"num_channels": found[0]}


def _group_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    grouped = x.reshape(x.shape[0], c.num_groups, -1)
    return affine_channels(normalise(grouped, (2,), c.eps).reshape(x.shape), state)


def _group_options(c: Config) -> dict[str, Any]:
    return {
        "num_groups": c.num_groups,
        "epsilon": c.eps,
        "use_scale": c.affine,
        "use_bias": c.affine,
        "use_fast_variance": False,
    }


GROUP_NORM = Layer(
    name="GroupNorm",
    family="norm",
    title="Group normalisation",
    options={"num_groups": None, "num_channels": None, "eps": 1e-5, "affine": True},
    example={"num_groups": 2, "num_channels": 6},
    keys=_group_keys,
    sizes=_group_sizes,
    sizes_back=_group_sizes,
    leaves=lambda c: scale_and_bias(c.affine, c.affine),
    linen=lambda c: linen.GroupNorm(**_group_options(c)),
    nnx=lambda c, **kw: nnx.GroupNorm(c.num_channels, **_group_options(c), **kw),
    reference=_group_reference,
    inputs=lambda c: (Input("input", ("batch", c.num_channels, "height?", "width?")),),
    into=channel_last,
    out_of=channel_second,
    pitfalls=(
        "Flax's defaults are 32 groups and eps 1e-6.",
        "Groups are consecutive channels in both.",
        FAST_VARIANCE,
    ),
    sources=(TORCH + "GroupNorm.html", FLAX),
)

ROWS = (LAYER_NORM, GROUP_NORM, RMS_NORM, GEMMA_RMS_NORM)
