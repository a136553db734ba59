"""The packed projections of GPT-2, GPT-NeoX and BLOOM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from porting.errors import ArgumentError
from porting.layers.attention import (
    CALL_MASKS,
    HEADS,
    HF,
    additive_mask,
    attend,
    check_heads,
    check_masks,
    linen_attention,
    mha_keywords,
    nnx_attention,
)
from porting.layers.rotation import Rotation
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import Rule, identity
from porting.leaves import Leaf


def self_attention(
    state: State, x: np.ndarray, c: Config, parts: list[np.ndarray], out: tuple[str, bool]
) -> np.ndarray:
    """Attention of one batch-first sequence and its output projection."""
    added = additive_mask(c, (x.shape[1], x.shape[1]))
    joined = attend(parts[0], parts[1], parts[2], added).reshape(*x.shape[:2], -1)
    key, is_conv1d = out
    weight = state[f"{key}.weight"]
    return joined @ (weight if is_conv1d else weight.T) + state.get(f"{key}.bias", 0.0)


def self_inputs(c: Config) -> tuple[Input, ...]:
    """The one input of self-attention: `(batch, time, embed_dim)`."""
    return (Input("hidden_states", ("batch", "time", c.embed_dim)),)


def self_keywords(c: Config, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """What Flax's attention is called with where query, key and value are one input."""
    return mha_keywords(c, (inputs[0], inputs[0]))


def biased_leaves(name: str, key: str, kernel: Rule, bias: Rule, has_bias: bool) -> list[Leaf]:
    """The rows of a kernel and, if it has one, of its bias."""
    rows = [Leaf(f"params/{name}/kernel", (f"{key}.weight",), kernel)]
    return rows + ([Leaf(f"params/{name}/bias", (f"{key}.bias",), bias)] if has_bias else [])


def _gpt2_leaves(c: Config) -> list[Leaf]:
    sizes = {"qkv": 3, "h": c.num_heads}
    rows = []
    for j, name in enumerate(("query", "key", "value")):
        kernel = Rule(f"e (qkv={j} h d) -> e h d", sizes)
        rows += biased_leaves(name, "c_attn", kernel, Rule(f"(qkv={j} h d) -> h d", sizes), True)
    out = Rule("(h d) o -> h d o", {"h": c.num_heads})
    return rows + biased_leaves("out", "c_proj", out, identity(1), True)


def _gpt2_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    packed = x @ state["c_attn.weight"] + state["c_attn.bias"]
    parts = [p.reshape(*x.shape[:2], c.num_heads, -1) for p in np.split(packed, 3, axis=-1)]
    return self_attention(state, x, c, parts, ("c_proj", True))


def _packed_sizes(key: str, axis: int) -> Callable[[Shapes, Config], dict[str, Any]]:
    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        width = c.embed_dim or shapes[key][axis]
        check_heads(c, width)
        return {"embed_dim": width}

    return sizes


def _packed_sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    embed_dim, heads, _ = shapes["params/query/kernel"]
    return {"embed_dim": embed_dim, "num_heads": heads}


HF_ROW: dict[str, Any] = {
    "facts": {"bias": True, "kdim": None, "vdim": None},
    "family": "attention",
    "inputs": self_inputs,
    "keywords": self_keywords,
    "examine": check_masks,
    "linen": linen_attention,
    "nnx": nnx_attention,
}

GPT2 = Layer(
    name="GPT2Attention",
    title="GPT-2's attention: packed Conv1D projections, causal",
    options={"embed_dim": None, "num_heads": None} | CALL_MASKS | {"is_causal": True},
    example={"num_heads": 3, "embed_dim": 15},
    keys=lambda c: {
        "c_attn.weight": (c.embed_dim, 3 * c.embed_dim),
        "c_attn.bias": (3 * c.embed_dim,),
        "c_proj.weight": (c.embed_dim, c.embed_dim),
        "c_proj.bias": (c.embed_dim,),
    },
    sizes=_packed_sizes("c_attn.weight", 0),
    sizes_back=_packed_sizes_back,
    leaves=_gpt2_leaves,
    reference=_gpt2_reference,
    ignored={
        "bias": "it is the causal mask, kept as a buffer",
        "masked_bias": "it is the number that stands for minus infinity, kept as a buffer",
    },
    pitfalls=(
        "c_attn is a Conv1D, stored (in, out): q, k and v are blocks of columns.",
        "c_proj is square: transposing it fits.",
        "The buffer `bias` is the causal mask, not a bias.",
        HEADS,
    ),
    sources=(HF + "gpt2/modeling_gpt2.py",),
    **HF_ROW,
)


def _neox_leaves(c: Config) -> list[Leaf]:
    sizes = {"qkv": 3, "h": c.num_heads}
    rows = []
    for j, name in enumerate(("query", "key", "value")):
        kernel = Rule(f"(h qkv={j} d) e -> e h d", sizes)
        bias = Rule(f"(h qkv={j} d) -> h d", sizes)
        rows += biased_leaves(name, "query_key_value", kernel, bias, True)
    out = Rule("o (h d) -> h d o", {"h": c.num_heads})
    return rows + biased_leaves("out", "dense", out, identity(1), True)


def _neox_rotation(c: Config) -> Rotation | None:
    """The first rotary_pct of every head turns, half-split."""
    width = int(c.embed_dim // c.num_heads * c.rotary_pct)
    return Rotation(width, c.rotary_emb_base) if width else None


def _check_neox(c: Config, state: State | None, api: str) -> None:
    width = int(c.embed_dim // c.num_heads * c.rotary_pct)
    if c.rotary_pct > 1 or width % 2:
        raise ArgumentError(
            f"rotary_pct = {c.rotary_pct} of head_dim = {c.embed_dim // c.num_heads} are {width} "
            "features. Pass a share from 0 to 1 that is an even number of them."
        )


def _neox_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    packed = x @ state["query_key_value.weight"].T + state["query_key_value.bias"]
    packed = packed.reshape(*x.shape[:2], c.num_heads, 3, -1)
    parts = [packed[:, :, :, j] for j in range(3)]
    rotation = _neox_rotation(c)
    if rotation:
        parts[:2] = (rotation.turn(part, np, -3) for part in parts[:2])
    return self_attention(state, x, c, parts, ("dense", False))


NEOX = Layer(
    name="GPTNeoXAttention",
    title="GPT-NeoX's and BLOOM's attention: packed per head",
    options={
        "embed_dim": None,
        "num_heads": None,
        "rotary_pct": 0.0,
        "rotary_emb_base": 10000.0,
        **CALL_MASKS,
    },
    example={"num_heads": 3, "embed_dim": 15},
    keys=lambda c: {
        "query_key_value.weight": (3 * c.embed_dim, c.embed_dim),
        "query_key_value.bias": (3 * c.embed_dim,),
        "dense.weight": (c.embed_dim, c.embed_dim),
        "dense.bias": (c.embed_dim,),
    },
    sizes=_packed_sizes("query_key_value.weight", 1),
    sizes_back=_packed_sizes_back,
    leaves=_neox_leaves,
    reference=_neox_reference,
    ignored={
        "bias": "it is the causal mask, kept as a buffer",
        "masked_bias": "it is the number that stands for minus infinity, kept as a buffer",
        "rotary_emb.inv_freq": "it is computed from the base, kept as a buffer",
    },
    pitfalls=(
        "The rows are [q; k; v] for each head; read as three blocks they fit as well.",
        "The mask and the rotary embedding come from the model, so they are off here: pass "
        "is_causal=True and, for GPT-NeoX itself, rotary_pct=0.25.",
        HEADS,
    ),
    sources=(HF + "gpt_neox/modeling_gpt_neox.py",),
    check=_check_neox,
    **(
        HF_ROW
        | {
            "linen": lambda c: linen_attention(c, _neox_rotation(c)),
            "nnx": lambda c, **kw: nnx_attention(c, _neox_rotation(c), **kw),
        }
    ),
)

ROWS = (GPT2, NEOX)
