"""Attention: PyTorch's packed projections, GPT-2, GPT-NeoX, grouped queries, rotary embedding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from flax.nnx.nn.attention import dot_product_attention_weights

from porting.errors import ArgumentError, UnsupportedError
from porting.layers.dense import TORCH
from porting.layers.modules import LinenFunction, NNXFunction
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import Rule, identity
from porting.leaves import Leaf

FLAX = "https://flax.readthedocs.io/en/latest/api_reference/flax.linen/layers.html"
HF = "https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/models/"
HEADS = "Heads and head_dim can be exchanged where they are equal."
KEY_BIAS = "Without rotary embedding a key bias cancels in the softmax: no output shows it."


# Masks. PyTorch: True = ignore, and a float mask is added. Flax: True = attend.


def additive_mask(c: Config, length: tuple[int, int]) -> np.ndarray | None:
    """All masks as one array of numbers to add, broadcastable to (B, H, T, S), or None.

    Args:
        c: with `attn_mask` (T, S) or (B·H, T, S), `key_padding_mask` (B, S), `is_causal`.
        length: T and S.
    """
    target, source = length
    total = None
    if c.is_causal and c.attn_mask is None:
        causal = np.triu(np.ones((target, source), bool), 1)
        total = _as_added(causal)
    if c.attn_mask is not None:
        added = _as_added(np.asarray(c.attn_mask))
        if added.shape[-2:] != (target, source) or added.ndim not in (2, 3):
            raise ArgumentError(
                f"attn_mask has shape {added.shape}; expected {(target, source)} or "
                f"(batch · num_heads, {target}, {source})."
            )
        if added.ndim == 3:
            added = added.reshape(-1, c.num_heads, target, source)
        total = added
    if c.key_padding_mask is not None:
        padding = _as_added(np.asarray(c.key_padding_mask))
        if padding.ndim != 2 or padding.shape[1] != source:
            raise ArgumentError(
                f"key_padding_mask has shape {padding.shape}; expected (batch, {source})."
            )
        padding = padding[:, None, None, :]
        total = padding if total is None else total + padding
    return total


def _as_added(mask: np.ndarray) -> np.ndarray:
    if mask.dtype == bool:
        return np.where(mask, -np.inf, 0.0)
    return np.asarray(mask, np.float64)


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(s) / Σ exp(s) over the last axis; NaN where every score is minus infinity."""
    with np.errstate(invalid="ignore"):
        shifted = np.exp(scores - scores.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)


def attend(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, added: np.ndarray | None
) -> np.ndarray:
    """softmax(q kᵀ / √d + mask) v in NumPy; (B, T, H, D), (B, S, K, D) -> (B, T, H, D).

    K key heads are shared by consecutive groups of H / K query heads.
    """
    key, value = (np.repeat(a, query.shape[2] // a.shape[2], axis=2) for a in (key, value))
    scores = np.einsum("bthd,bshd->bhts", query, key) / np.sqrt(query.shape[-1])
    weights = softmax(scores if added is None else scores + added)
    return np.einsum("bhts,bshd->bthd", weights, value)


def flax_mask(added: np.ndarray | None, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The mask of ignored places as Flax's `mask` (B, H, T, S): True = attend."""
    kept = np.ones(shape, bool) if added is None else np.broadcast_to(np.isfinite(added), shape)
    if not kept.any(-1).all():
        raise UnsupportedError(
            "A row of the mask ignores every key. PyTorch gives NaN there, Flax an average of "
            "all values: leave one key to attend to, or drop that row's output yourself."
        )
    return kept


def score_bias(c: Config) -> np.ndarray | None:
    """The numbers that float masks add to the scores, where they are more than 0 and −inf."""
    masks = [np.asarray(m) for m in (c.attn_mask, c.key_padding_mask) if m is not None]
    if not any(np.any(m[np.isfinite(m)] != 0) for m in masks if m.dtype != bool):
        return None
    length = masks[0].shape[-2:] if c.attn_mask is not None else (1, masks[0].shape[1])
    added = additive_mask(c, length)
    return np.where(np.isfinite(added), added, 0.0)


def attention(
    query: Any, key: Any, value: Any, mask: Any = None, bias: Any = None, **_: Any
) -> Any:
    """Attention from Flax's own weights, softmax in the dtype of the query.

    `nnx.dot_product_attention` hands over to `jax.nn.dot_product_attention`, whose softmax
    is float32 even inside `jax.enable_x64`.
    """
    bias = None if bias is None else jnp.asarray(bias, query.dtype)
    weights = dot_product_attention_weights(query, key, bias=bias, mask=mask, deterministic=True)
    value = jnp.repeat(value, query.shape[-2] // value.shape[-2], axis=-2)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


# nn.MultiheadAttention.


def _mha_keys(c: Config) -> dict[str, tuple[int, ...]]:
    e, k, v = c.embed_dim, c.kdim or c.embed_dim, c.vdim or c.embed_dim
    keys: dict[str, tuple[int, ...]] = {"in_proj_weight": (3 * e, e)}
    if _is_split(c):
        keys = {"q_proj_weight": (e, e), "k_proj_weight": (e, k), "v_proj_weight": (e, v)}
    keys |= {"in_proj_bias": (3 * e,)} if c.bias else {}
    keys |= {"out_proj.weight": (e, e)}
    return keys | ({"out_proj.bias": (e,)} if c.bias else {})


def _is_split(c: Config) -> bool:
    return {c.kdim or c.embed_dim, c.vdim or c.embed_dim} != {c.embed_dim}


def _mha_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    _check_heads(c, shapes["out_proj.weight"][0])
    found = {"embed_dim": shapes["out_proj.weight"][0]}
    for name in ("k", "v"):
        if f"{name}_proj_weight" in shapes:
            found[f"{name}dim"] = shapes[f"{name}_proj_weight"][1]
    return found


def _check_heads(c: Config, width: int) -> None:
    if c.num_heads is None:
        raise ArgumentError("Pass num_heads: the shapes do not tell it.")
    if width % c.num_heads:
        raise ArgumentError(f"embed_dim = {width} is no multiple of num_heads = {c.num_heads}.")


def _mha_sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    embed_dim, heads, _ = shapes["params/query/kernel"]
    kdim, vdim = (shapes[f"params/{n}/kernel"][0] for n in ("key", "value"))
    return {"embed_dim": embed_dim, "num_heads": heads, "kdim": kdim, "vdim": vdim}


def projections(prefix: str, source: str, c: Config) -> list[Leaf]:
    """The leaves of a Flax attention module at `prefix`, from the keys at `source`.

    The tree of `linen.MultiHeadDotProductAttention` and `nnx.MultiHeadAttention`.
    """
    heads = {"h": c.num_heads}
    rows = []
    for j, (name, letter) in enumerate(zip(("query", "key", "value"), "qkv", strict=True)):
        packed = {"qkv": 3} | heads
        if _is_split(c):
            key, rule = f"{source}{letter}_proj_weight", Rule("(h d) e -> e h d", heads)
        else:
            key, rule = f"{source}in_proj_weight", Rule(f"(qkv={j} h d) e -> e h d", packed)
        rows.append(Leaf(f"{prefix}{name}/kernel", (key,), rule))
        if c.bias:
            rule = Rule(f"(qkv={j} h d) -> h d", packed)
            rows.append(Leaf(f"{prefix}{name}/bias", (f"{source}in_proj_bias",), rule))
    out = Rule("o (h d) -> h d o", heads)
    rows.append(Leaf(f"{prefix}out/kernel", (f"{source}out_proj.weight",), out))
    if c.bias:
        rows.append(Leaf(f"{prefix}out/bias", (f"{source}out_proj.bias",), identity(1)))
    return rows


def mha_reference(
    state: State, inputs: tuple[np.ndarray, ...], c: Config, prefix: str = ""
) -> np.ndarray:
    """`torch.nn.MultiheadAttention` on batch-first (B, T, E) inputs."""
    e = c.embed_dim
    if _is_split(c):
        weights = [state[f"{prefix}{n}_proj_weight"] for n in "qkv"]
    else:
        weights = list(state[f"{prefix}in_proj_weight"].reshape(3, e, e))
    biases = state[f"{prefix}in_proj_bias"].reshape(3, e) if c.bias else np.zeros((3, e))
    parts = [
        (x @ w.T + b).reshape(*x.shape[:2], c.num_heads, -1)
        for x, w, b in zip(inputs, weights, biases, strict=True)
    ]
    added = additive_mask(c, (inputs[0].shape[1], inputs[1].shape[1]))
    out = (
        attend(*parts, added).reshape(*inputs[0].shape[:2], e) @ state[f"{prefix}out_proj.weight"].T
    )
    return out + state[f"{prefix}out_proj.bias"] if c.bias else out


def batch_first(x: Any, c: Config) -> Any:
    """(T, B, E) or (T, E) -> (B, T, E); back again as well."""
    return x if x.ndim < 3 or c.batch_first else np.swapaxes(x, 0, 1)


def _mha_layout(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    moved = tuple(batch_first(x, c) if x.ndim == 3 else x[None] for x in inputs)
    out = mha_reference(state, moved, c)
    return batch_first(out, c) if inputs[0].ndim == 3 else out[0]


def mha_keywords(c: Config, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """`mask=`, always: Linen warns about some shapes where it gets none."""
    query, key = inputs[0], inputs[1]
    length = query.shape[-2], key.shape[-2]
    batch = query.shape[0] if query.ndim == 3 else 1
    kept = flax_mask(additive_mask(c, length), (batch, c.num_heads, *length))
    return {"mask": jnp.asarray(kept if query.ndim == 3 else kept[0])}


def linen_attention(c: Config) -> linen.Module:
    bias = score_bias(c)
    return linen.MultiHeadDotProductAttention(
        num_heads=c.num_heads,
        qkv_features=c.embed_dim,
        out_features=c.embed_dim,
        use_bias=c.bias,
        **({} if bias is None else {"attention_fn": partial(attention, bias=bias)}),
    )


def nnx_attention(c: Config, **kw: Any) -> nnx.Module:
    kdim, vdim = c.kdim or c.embed_dim, c.vdim or c.embed_dim
    module = nnx.MultiHeadAttention(
        num_heads=c.num_heads,
        in_features=c.embed_dim,
        in_kv_features=kdim,
        use_bias=c.bias,
        decode=False,
        attention_fn=partial(attention, bias=score_bias(c)),
        **kw,
    )
    if vdim != kdim:  # the constructor knows one size for both
        shape = (c.num_heads, c.embed_dim // c.num_heads)
        module.value = nnx.LinearGeneral(vdim, shape, use_bias=c.bias, **kw)
    return module


def _check_mha(c: Config, state: State | None, api: str) -> None:
    for option, what in (("add_bias_kv", "bias_k and bias_v"), ("add_zero_attn", "a zero key")):
        if getattr(c, option) and api != "reference":
            raise UnsupportedError(
                f"MultiheadAttention({option}=True) appends {what} to the sequence, which no "
                "Flax attention does. Append it to key and value in your own module, after "
                "their projections."
            )


def _thrice(given: tuple[np.ndarray, ...], c: Config) -> tuple[np.ndarray, ...]:
    return given * 3 if len(given) == 1 else given


def _sequence(name: str, width: int | None, c: Config, time: str = "time") -> Input:
    outer = ("batch?", time) if c.batch_first else (f"{time}", "batch?")
    return Input(name, (*outer, width or "features"))


def _mha_inputs(c: Config) -> tuple[Input, ...]:
    def one(name: str, width: int, time: str) -> Input:
        axes = ("batch?", time, width) if c.batch_first else (f"{time}?", "batch", width)
        return Input(name, axes)

    kdim, vdim = c.kdim or c.embed_dim, c.vdim or c.embed_dim
    parts = (("query", c.embed_dim, "time"), ("key", kdim, "source"), ("value", vdim, "source"))
    return tuple(one(*part) for part in parts)


CALL_MASKS = {"attn_mask": None, "key_padding_mask": None, "is_causal": False}

MHA = Layer(
    name="MultiheadAttention",
    family="attention",
    title="Multi-head attention with a packed input projection",
    options={
        "embed_dim": None,
        "num_heads": None,
        "dropout": 0.0,
        "bias": True,
        "add_bias_kv": False,
        "add_zero_attn": False,
        "kdim": None,
        "vdim": None,
        "batch_first": False,
        **CALL_MASKS,
    },
    example={"embed_dim": 15, "num_heads": 3, "batch_first": True},
    keys=_mha_keys,
    sizes=_mha_sizes,
    sizes_back=_mha_sizes_back,
    leaves=lambda c: projections("params/", "", c),
    linen=linen_attention,
    nnx=nnx_attention,
    reference=_mha_layout,
    inputs=_mha_inputs,
    accept=_thrice,
    into=batch_first,
    out_of=batch_first,
    keywords=mha_keywords,
    check=_check_mha,
    pitfalls=(
        "in_proj_weight is [q; k; v] in rows; one token or identical rows hide q and k exchanged.",
        "A PyTorch mask says True = ignore, a Flax mask True = attend.",
        "out_proj is transposed before it is split into heads.",
        "Linen takes a value of as many tokens as features for a misplaced mask, and warns.",
        HEADS,
        KEY_BIAS,
    ),
    differs="One tree. nnx.MultiHeadAttention has one in_kv_features: where kdim and vdim "
    "differ its `value` is replaced. Its default attention has a float32 softmax even under "
    "enable_x64. Neither adds a float mask: attention_fn does.",
    sources=(TORCH + "MultiheadAttention.html", FLAX),
)


# Packed and separate projections of transformers, on one shared machinery.


def _self_attention(
    state: State, x: np.ndarray, c: Config, parts: list[np.ndarray], out: tuple[str, bool]
) -> np.ndarray:
    """Attention of one batch-first sequence and its output projection."""
    added = additive_mask(c, (x.shape[1], x.shape[1]))
    joined = attend(*parts, added).reshape(*x.shape[:2], -1)
    key, is_conv1d = out
    weight = state[f"{key}.weight"]
    return joined @ (weight if is_conv1d else weight.T) + state.get(f"{key}.bias", 0.0)


def _self_inputs(c: Config) -> tuple[Input, ...]:
    return (Input("hidden_states", ("batch", "time", c.embed_dim)),)


def _self_keywords(c: Config, inputs: tuple[Any, ...]) -> dict[str, Any]:
    return mha_keywords(c, (inputs[0], inputs[0]))


def _biased_leaves(name: str, key: str, kernel: Rule, bias: Rule, has_bias: bool) -> list[Leaf]:
    rows = [Leaf(f"params/{name}/kernel", (f"{key}.weight",), kernel)]
    return rows + ([Leaf(f"params/{name}/bias", (f"{key}.bias",), bias)] if has_bias else [])


def _gpt2_leaves(c: Config) -> list[Leaf]:
    sizes = {"qkv": 3, "h": c.num_heads}
    rows = []
    for j, name in enumerate(("query", "key", "value")):
        kernel = Rule(f"e (qkv={j} h d) -> e h d", sizes)
        rows += _biased_leaves(name, "c_attn", kernel, Rule(f"(qkv={j} h d) -> h d", sizes), True)
    out = Rule("(h d) o -> h d o", {"h": c.num_heads})
    return rows + _biased_leaves("out", "c_proj", out, identity(1), True)


def _gpt2_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    packed = x @ state["c_attn.weight"] + state["c_attn.bias"]
    parts = [p.reshape(*x.shape[:2], c.num_heads, -1) for p in np.split(packed, 3, axis=-1)]
    return _self_attention(state, x, c, parts, ("c_proj", True))


def _packed_sizes(key: str, axis: int) -> Callable[[Shapes, Config], dict[str, Any]]:
    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        width = c.embed_dim or shapes[key][axis]
        _check_heads(c, width)
        return {"embed_dim": width}

    return sizes


def _packed_sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    embed_dim, heads, _ = shapes["params/query/kernel"]
    return {"embed_dim": embed_dim, "num_heads": heads}


_HF: dict[str, Any] = {
    "facts": {"bias": True, "kdim": None, "vdim": None},
    "family": "attention",
    "inputs": _self_inputs,
    "keywords": _self_keywords,
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
    **_HF,
)


def _neox_leaves(c: Config) -> list[Leaf]:
    sizes = {"qkv": 3, "h": c.num_heads}
    rows = []
    for j, name in enumerate(("query", "key", "value")):
        kernel = Rule(f"(h qkv={j} d) e -> e h d", sizes)
        bias = Rule(f"(h qkv={j} d) -> h d", sizes)
        rows += _biased_leaves(name, "query_key_value", kernel, bias, True)
    out = Rule("o (h d) -> h d o", {"h": c.num_heads})
    return rows + _biased_leaves("out", "dense", out, identity(1), True)


def _neox_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    packed = x @ state["query_key_value.weight"].T + state["query_key_value.bias"]
    packed = packed.reshape(*x.shape[:2], c.num_heads, 3, -1)
    return _self_attention(state, x, c, [packed[:, :, :, j] for j in range(3)], ("dense", False))


NEOX = Layer(
    name="GPTNeoXAttention",
    title="GPT-NeoX's and BLOOM's attention: packed per head",
    options={"embed_dim": None, "num_heads": None} | CALL_MASKS,
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
        "The mask and the rotary embedding come from the model: pass is_causal=True, and see "
        "RotaryEmbedding.",
        HEADS,
    ),
    sources=(HF + "gpt_neox/modeling_gpt_neox.py",),
    **_HF,
)


# Rotary embedding.


def rotary_angles(time: int, dim: int, base: float) -> np.ndarray:
    """position · base^(−2i/dim), of shape (time, dim / 2), float64."""
    return np.outer(np.arange(time), base ** (-np.arange(0, dim, 2) / dim))


def rotate(x: Any, cos: Any, sin: Any, interleaved: bool, api: Any) -> Any:
    """Rotate pairs of the last axis by angles broadcastable to (…, dim / 2).

    Half-split pairs i with i + dim/2, interleaved 2i with 2i + 1.
    """
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
    else:
        a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    parts = (a * cos - b * sin, b * cos + a * sin)
    return api.stack(parts, -1).reshape(x.shape) if interleaved else api.concatenate(parts, -1)


def _rotary(x: Any, c: Config, api: Any, axis: int) -> Any:
    """Rotate the first `rotary_dim` features of x, positions along `axis`."""
    width = c.rotary_dim or c.dim
    angles = rotary_angles(x.shape[axis], width, c.base)
    angles = angles.reshape(*angles.shape[:1], *[1] * (-axis - 2), angles.shape[1])
    cos, sin = (api.asarray(f(angles), x.dtype) for f in (np.cos, np.sin))
    turned = rotate(x[..., :width], cos, sin, c.interleaved, api)
    return turned if width == x.shape[-1] else api.concatenate([turned, x[..., width:]], -1)


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
    linen=lambda c: LinenFunction(partial(_rotary, c=c, api=jnp, axis=-2)),
    nnx=lambda c, **kw: NNXFunction(partial(_rotary, c=c, api=jnp, axis=-2)),
    reference=lambda state, x, c: _rotary(x[0], c, np, -2),
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
    _check_heads(c, wide)
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
        rows += _biased_leaves(name, f"{name[0]}_proj", kernel, bias, c.bias)
    out = Rule("o (h d) -> h d o", {"h": c.num_heads})
    return rows + _biased_leaves("out", "o_proj", out, identity(1), c.out_bias)


def _gqa_rotary(x: Any, c: Config, api: Any, interleaved: bool) -> Any:
    options = Config(dim=c.head_dim, rotary_dim=None, base=c.base, interleaved=interleaved)
    return _rotary(x, options, api, -3)


def _gqa_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x, parts = inputs[0], []
    for name in ("q_proj", "k_proj", "v_proj"):
        part = x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)
        part = part.reshape(*x.shape[:2], -1, c.head_dim)
        if c.rotary and name != "v_proj":
            part = _gqa_rotary(part, c, np, c.rotary == "interleaved")
        parts.append(part)
    return _self_attention(state, x, c, parts, ("o_proj", False))


def _gqa_attend(query: Any, key: Any, value: Any, mask: Any, c: Config) -> Any:
    """Rotate (always half-split) and attend; query heads share consecutive key heads."""
    if c.rotary:
        query, key = (_gqa_rotary(a, c, jnp, False) for a in (query, key))
    return attention(query, key, value, mask, score_bias(c))


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
        out = _gqa_attend(query, key, value, mask, c)
        return linen.DenseGeneral(c.embed_dim, axis=(-2, -1), use_bias=c.out_bias, name="out")(out)


def _nnx_grouped(c: Config, **kw: Any) -> nnx.Module:
    def attend_here(query: Any, key: Any, value: Any, mask: Any = None, **_: Any) -> Any:
        return _gqa_attend(query, key, value, mask, c)

    module = nnx.MultiHeadAttention(
        num_heads=c.num_heads,
        num_kv_heads=c.num_kv_heads,
        in_features=c.embed_dim,
        qkv_features=c.num_heads * c.head_dim,
        use_bias=c.bias,
        decode=False,
        attention_fn=attend_here,
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
    **(_HF | {"facts": {}, "linen": _LinenGrouped, "nnx": _nnx_grouped}),
)

ROWS = (MHA, GPT2, NEOX, GQA, ROTARY)
