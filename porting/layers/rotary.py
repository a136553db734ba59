"""Rotary position embedding, and grouped-query attention, which uses it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.attention import CALL_MASKS, HEADS, HF, attention, check_heads, score_bias
from porting.layers.modules import LinenFunction, NNXFunction
from porting.layers.packed import HF_ROW, biased_leaves, self_attention
from porting.layers.rotation import Rotation
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import Rule, identity
from porting.leaves import Leaf


def _rotation(c: Config) -> Rotation:
    return Rotation(c.rotary_dim or c.dim, c.base, c.interleaved)


def _turn(x: Any, c: Config) -> Any:
    return _rotation(c).turn(x, jnp, -2)


def _check_rotary(c: Config, state: State | None, api: str) -> None:
    width = c.rotary_dim or c.dim
    if c.dim is None or c.dim < 2 or c.dim % 2 or width % 2 or width > c.dim:
        raise ArgumentError(
            f"RotaryEmbedding: dim = {c.dim}, rotary_dim = {c.rotary_dim}. Pass the even head_dim, "
            "and an even rotary_dim within it."
        )


ROTARY = Layer(
    name="RotaryEmbedding",
    family="attention",
    title="Rotary position embedding of queries and keys",
    options={"dim": None, "base": 10000.0, "interleaved": False, "rotary_dim": None},
    example={"dim": 10},
    sizes=lambda shapes, c: {"dim": 2 * shapes["inv_freq"][0]} if "inv_freq" in shapes else {},
    linen=lambda c: LinenFunction(partial(_turn, c=c)),
    nnx=lambda c, **kw: NNXFunction(partial(_turn, c=c)),
    reference=lambda state, x, c: _rotation(c).turn(x[0], np, -2),
    inputs=lambda c: (Input("x", ("...", "time", c.dim)),),
    check=_check_rotary,
    ignored={"inv_freq": "it is computed from the base, kept as a buffer"},
    pitfalls=(
        "Half-split (transformers) and interleaved (Meta's Llama, GPT-J) pair other features; "
        "position 0 hides it.",
        "base is 10000 by default and 500000 or 1000000 in newer models.",
        "GPT-NeoX rotates only the first quarter of a head: rotary_dim.",
    ),
    differs="Neither has it: the same few lines of jax.numpy in both.",
    sources=(HF + "llama/modeling_llama.py", "https://arxiv.org/abs/2104.09864"),
)


# Grouped-query attention.


def _gqa_keys(c: Config) -> dict[str, tuple[int, ...]]:
    wide, narrow = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    widths = {"q_proj": wide, "k_proj": narrow, "v_proj": narrow}
    keys: dict[str, tuple[int, ...]] = {}
    for name, width in widths.items():
        keys[f"{name}.weight"] = (width, c.embed_dim)
        keys |= {f"{name}.bias": (width,)} if c.bias else {}
    keys["o_proj.weight"] = (c.embed_dim, wide)
    return keys | ({"o_proj.bias": (c.embed_dim,)} if c.out_bias else {})


def _gqa_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    wide, embed_dim = shapes["q_proj.weight"]
    check_heads(c, wide)
    head_dim = wide // c.num_heads
    return {
        "embed_dim": embed_dim,
        "head_dim": head_dim,
        "num_kv_heads": shapes["k_proj.weight"][0] // head_dim,
        "bias": "q_proj.bias" in shapes,
        "out_bias": "o_proj.bias" in shapes,
    }


def _gqa_sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    embed_dim, heads, head_dim = shapes["params/query/kernel"]
    return {
        "embed_dim": embed_dim,
        "num_heads": heads,
        "head_dim": head_dim,
        "num_kv_heads": shapes["params/key/kernel"][1],
        "bias": "params/query/bias" in shapes,
        "out_bias": "params/out/bias" in shapes,
    }


def _gqa_leaves(c: Config) -> list[Leaf]:
    rows = []
    for name, heads in (("query", c.num_heads), ("key", c.num_kv_heads), ("value", c.num_kv_heads)):
        head = {"h": heads}
        kernel, bias = Rule("(h d) e -> e h d", head), Rule("(h d) -> h d", head)
        if c.rotary == "interleaved" and name != "value":
            sizes = head | {"two": 2}
            kernel = Rule("(h d two) e -> e h (two d)", sizes)
            bias = Rule("(h d two) -> h (two d)", sizes)
        rows += biased_leaves(name, f"{name[0]}_proj", kernel, bias, c.bias)
    out = Rule("o (h d) -> h d o", {"h": c.num_heads})
    return rows + biased_leaves("out", "o_proj", out, identity(1), c.out_bias)


def _checkpoint_rotation(c: Config) -> Rotation | None:
    """The rotation that the checkpoint was trained with."""
    return Rotation(c.head_dim, c.base, c.rotary == "interleaved") if c.rotary else None


def _ported_rotation(c: Config) -> Rotation | None:
    """The rotation of the port: half-split, whatever it was; the leaves are permuted for it."""
    return Rotation(c.head_dim, c.base) if c.rotary else None


def _gqa_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x, parts, rotation = inputs[0], [], _checkpoint_rotation(c)
    for name in ("q_proj", "k_proj", "v_proj"):
        part = x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)
        part = part.reshape(*x.shape[:2], -1, c.head_dim)
        if rotation and name != "v_proj":
            part = rotation.turn(part, np, -3)
        parts.append(part)
    return self_attention(state, x, c, parts, ("o_proj", False))


class _LinenGrouped(linen.Module):
    """Grouped-query attention, which Linen lacks, from four `DenseGeneral`."""

    config: Any

    @linen.compact
    def __call__(self, x: Any, mask: Any = None) -> Any:
        c = self.config
        query, key, value = (
            linen.DenseGeneral((heads, c.head_dim), use_bias=c.bias, name=name)(x)
            for name, heads in (
                ("query", c.num_heads),
                ("key", c.num_kv_heads),
                ("value", c.num_kv_heads),
            )
        )
        out = attention(query, key, value, mask, score_bias(c), _ported_rotation(c))
        return linen.DenseGeneral(c.embed_dim, axis=(-2, -1), use_bias=c.out_bias, name="out")(out)


def _nnx_grouped(c: Config, **kw: Any) -> nnx.Module:
    module = nnx.MultiHeadAttention(
        num_heads=c.num_heads,
        num_kv_heads=c.num_kv_heads,
        in_features=c.embed_dim,
        qkv_features=c.num_heads * c.head_dim,
        use_bias=c.bias,
        decode=False,
        attention_fn=partial(attention, bias=score_bias(c), rotation=_ported_rotation(c)),
        **kw,
    )
    if c.bias != c.out_bias:  # the constructor knows one switch for all four
        shape = (c.num_heads, c.head_dim)
        module.out = nnx.LinearGeneral(shape, c.embed_dim, axis=(-2, -1), use_bias=c.out_bias, **kw)
    return module


def _check_gqa(c: Config, state: State | None, api: str) -> None:
    if c.num_kv_heads < 1 or c.num_heads % c.num_kv_heads:
        raise ArgumentError(
            f"num_heads = {c.num_heads} is no multiple of num_kv_heads = {c.num_kv_heads}."
        )
    if c.rotary not in (None, "half-split", "interleaved"):
        raise ArgumentError(
            f"rotary = {c.rotary!r}. Use None, 'half-split' (transformers) or 'interleaved'."
        )


GQA = Layer(
    name="GroupedQueryAttention",
    title="Grouped-query attention, as in Llama and Mistral",
    options={
        "embed_dim": None,
        "num_heads": None,
        "num_kv_heads": None,
        "head_dim": None,
        "bias": None,
        "out_bias": None,
        "rotary": None,
        "base": 10000.0,
        **CALL_MASKS,
    },
    example={
        "embed_dim": 11,
        "num_heads": 6,
        "num_kv_heads": 2,
        "head_dim": 4,
        "bias": True,
        "out_bias": True,
        "rotary": "half-split",
        "is_causal": True,
    },
    keys=_gqa_keys,
    sizes=_gqa_sizes,
    sizes_back=_gqa_sizes_back,
    leaves=_gqa_leaves,
    reference=_gqa_reference,
    check=_check_gqa,
    pitfalls=(
        "Query heads share key heads in consecutive groups (repeat, not tile).",
        "An interleaved rotation is brought to the half-split one by permuting the rows of q "
        "and k, never of v and o.",
        HEADS,
    ),
    differs="nnx.MultiHeadAttention has num_kv_heads; Linen does not: four DenseGeneral.",
    sources=(HF + "llama/modeling_llama.py", "https://arxiv.org/abs/2305.13245"),
    **(HF_ROW | {"facts": {}, "linen": _LinenGrouped, "nnx": _nnx_grouped}),
)

ROWS = (GQA, ROTARY)
