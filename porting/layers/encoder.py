"""`torch.nn.TransformerEncoderLayer`, with the norms first or last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.attention import (
    FLAX,
    HEADS,
    KEY_BIAS,
    TORCH,
    batch_first,
    check_masks,
    linen_attention,
    mha_keywords,
    mha_reference,
    nnx_attention,
    projections,
)
from porting.layers.norm import normalise
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import TRANSPOSE, identity
from porting.leaves import Leaf
from porting.special import erf

#: PyTorch's names of the activation: (NumPy, JAX). Both gelu are the erf form.
ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "relu": (lambda x: np.maximum(x, 0), jax.nn.relu),
    "gelu": (
        lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))),
        lambda x: jax.nn.gelu(x, approximate=False),
    ),
}


def _attention(c: Config) -> Config:
    """The options of the attention inside."""
    return Config(
        embed_dim=c.d_model,
        num_heads=c.nhead,
        bias=c.bias,
        kdim=None,
        vdim=None,
        attn_mask=c.src_mask,
        key_padding_mask=c.src_key_padding_mask,
        is_causal=c.is_causal,
        batch_first=True,
    )


def _keys(c: Config) -> dict[str, tuple[int, ...]]:
    e, f = c.d_model, c.dim_feedforward
    shapes = {
        "self_attn.in_proj_weight": (3 * e, e),
        "self_attn.in_proj_bias": (3 * e,),
        "self_attn.out_proj.weight": (e, e),
        "self_attn.out_proj.bias": (e,),
        "linear1.weight": (f, e),
        "linear1.bias": (f,),
        "linear2.weight": (e, f),
        "linear2.bias": (e,),
        "norm1.weight": (e,),
        "norm1.bias": (e,),
        "norm2.weight": (e,),
        "norm2.bias": (e,),
    }
    return {k: s for k, s in shapes.items() if c.bias or not k.endswith("bias")}


def _sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    wide, narrow = shapes["linear1.weight"]
    _check_heads(c, narrow)
    return {"d_model": narrow, "dim_feedforward": wide}


def _check_heads(c: Config, width: int) -> None:
    if c.nhead is None:
        raise ArgumentError("Pass nhead: the shapes do not tell it.")
    if width % c.nhead:
        raise ArgumentError(f"d_model = {width} is no multiple of nhead = {c.nhead}.")


def _sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    narrow, wide = shapes["params/linear1/kernel"]
    heads = shapes["params/self_attn/query/kernel"][1]
    return {"d_model": narrow, "dim_feedforward": wide, "nhead": heads}


def _leaves(c: Config) -> list[Leaf]:
    rows = projections("params/self_attn/", "self_attn.", _attention(c))
    for name, kernel, rule in (
        ("linear1", "kernel", TRANSPOSE),
        ("linear2", "kernel", TRANSPOSE),
        ("norm1", "scale", identity(1)),
        ("norm2", "scale", identity(1)),
    ):
        rows.append(Leaf(f"params/{name}/{kernel}", (f"{name}.weight",), rule))
        if c.bias:
            rows.append(Leaf(f"params/{name}/bias", (f"{name}.bias",), identity(1)))
    return rows


def encode(x: Any, parts: dict[str, Callable[[Any], Any]], norm_first: bool) -> Any:
    """The order of the parts; written once for the reference and both Flax modules."""

    def feed(h: Any) -> Any:
        return parts["linear2"](parts["activation"](parts["linear1"](h)))

    if norm_first:
        x = x + parts["attention"](parts["norm1"](x))
        return x + feed(parts["norm2"](x))
    x = parts["norm1"](x + parts["attention"](x))
    return parts["norm2"](x + feed(x))


def _reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    inner = _attention(c)

    def linear(name: str) -> Callable[[Any], Any]:
        return lambda h: h @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)

    def norm(name: str) -> Callable[[Any], Any]:
        return lambda h: (
            normalise(h, (-1,), c.layer_norm_eps) * state[f"{name}.weight"]
            + state.get(f"{name}.bias", 0.0)
        )

    parts = {name: linear(name) for name in ("linear1", "linear2")}
    parts |= {name: norm(name) for name in ("norm1", "norm2")}
    parts["activation"] = ACTIVATIONS[c.activation][0]
    parts["attention"] = lambda h: mha_reference(state, (h,) * 3, inner, "self_attn.")
    x = inputs[0]
    batched = batch_first(x, c) if x.ndim == 3 else x[None]
    out = encode(batched, parts, c.norm_first)
    return batch_first(out, c) if x.ndim == 3 else out[0]


def _norm_options(c: Config) -> dict[str, Any]:
    return {"epsilon": c.layer_norm_eps, "use_bias": c.bias, "use_fast_variance": False}


class LinenEncoderLayer(linen.Module):
    """PyTorch's encoder layer; its submodules keep PyTorch's names."""

    config: Any

    def setup(self) -> None:
        c = self.config
        self.self_attn = linen_attention(_attention(c))
        self.linear1 = linen.Dense(c.dim_feedforward, use_bias=c.bias)
        self.linear2 = linen.Dense(c.d_model, use_bias=c.bias)
        self.norm1 = linen.LayerNorm(**_norm_options(c))
        self.norm2 = linen.LayerNorm(**_norm_options(c))

    def __call__(self, x: Any, mask: Any = None) -> Any:
        return _run(self, x, mask, self.config)


class NNXEncoderLayer(nnx.Module):
    """PyTorch's encoder layer; its attributes keep PyTorch's names."""

    def __init__(self, c: Config, **kw: Any) -> None:
        self.config = nnx.static(c)
        self.self_attn = nnx_attention(_attention(c), **kw)
        self.linear1 = nnx.Linear(c.d_model, c.dim_feedforward, use_bias=c.bias, **kw)
        self.linear2 = nnx.Linear(c.dim_feedforward, c.d_model, use_bias=c.bias, **kw)
        self.norm1 = nnx.LayerNorm(c.d_model, **_norm_options(c), **kw)
        self.norm2 = nnx.LayerNorm(c.d_model, **_norm_options(c), **kw)

    def __call__(self, x: Any, mask: Any = None) -> Any:
        return _run(self, x, mask, self.config)


def _run(module: Any, x: Any, mask: Any, c: Config) -> Any:
    names = ("linear1", "linear2", "norm1", "norm2")
    parts = {name: getattr(module, name) for name in names}
    parts["activation"] = ACTIVATIONS[c.activation][1]
    parts["attention"] = lambda h: module.self_attn(h, mask=mask)
    return encode(x, parts, c.norm_first)


def _keywords(c: Config, inputs: tuple[Any, ...]) -> dict[str, Any]:
    return mha_keywords(_attention(c), (inputs[0], inputs[0]))


def _check_masks(given: tuple[np.ndarray, ...], c: Config) -> None:
    inner = _attention(c)
    inner.batch_first = c.batch_first
    check_masks(given, inner)


def _check(c: Config, state: State | None, api: str) -> None:
    if c.activation not in ACTIVATIONS:
        raise ArgumentError(f"activation = {c.activation!r}. Use one of {', '.join(ACTIVATIONS)}.")


def _inputs(c: Config) -> tuple[Input, ...]:
    outer = ("batch?", "time") if c.batch_first else ("time?", "batch")
    return (Input("src", (*outer, c.d_model)),)


ENCODER_LAYER = Layer(
    name="TransformerEncoderLayer",
    family="encoder",
    title="Transformer encoder layer, pre- or post-norm",
    options={
        "d_model": None,
        "nhead": None,
        "dim_feedforward": 2048,
        "dropout": 0.1,
        "activation": "relu",
        "layer_norm_eps": 1e-5,
        "batch_first": False,
        "norm_first": False,
        "bias": True,
        "src_mask": None,
        "src_key_padding_mask": None,
        "is_causal": False,
    },
    example={
        "d_model": 15,
        "nhead": 3,
        "dim_feedforward": 7,
        "norm_first": True,
        "batch_first": True,
    },
    keys=_keys,
    sizes=_sizes,
    sizes_back=_sizes_back,
    leaves=_leaves,
    linen=LinenEncoderLayer,
    nnx=NNXEncoderLayer,
    reference=_reference,
    inputs=_inputs,
    into=batch_first,
    out_of=batch_first,
    keywords=_keywords,
    examine=_check_masks,
    check=_check,
    pitfalls=(
        "norm_first is False by default: the post-norm order has the same leaves.",
        "The two norms can be exchanged; PyTorch's eps is 1e-5, Flax's 1e-6.",
        "gelu is the erf form; JAX's default is the tanh form.",
        HEADS,
        KEY_BIAS,
    ),
    differs="One tree.",
    sources=(TORCH + "TransformerEncoderLayer.html", FLAX),
)

ROWS = (ENCODER_LAYER,)
