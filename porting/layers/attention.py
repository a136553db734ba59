"""`torch.nn.MultiheadAttention`, and the masks and the arithmetic that all attention shares."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from flax.nnx.nn.attention import dot_product_attention_weights

from porting.errors import ArgumentError, UnsupportedError
from porting.layers.dense import TORCH
from porting.layers.rotation import Rotation
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
    if c.is_causal:
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
        total = added if total is None else total + added
    if c.key_padding_mask is not None:
        padding = np.atleast_2d(_as_added(np.asarray(c.key_padding_mask)))
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


def check_masks(given: tuple[np.ndarray, ...], c: Config) -> None:
    """Raise for a mask of another batch than the inputs'."""
    query = given[0]
    batch_axis = 0 if getattr(c, "batch_first", True) else 1
    batch = query.shape[batch_axis] if query.ndim == 3 else 1
    padding, mask = (None if m is None else np.shape(m) for m in (c.key_padding_mask, c.attn_mask))
    if padding is not None and len(padding) == 2 and padding[0] != batch:
        raise ArgumentError(f"key_padding_mask has shape {padding}; the batch is {batch}.")
    if mask is not None and len(mask) == 3 and mask[0] != batch * c.num_heads:
        raise ArgumentError(
            f"attn_mask has shape {mask}; its first axis is batch · num_heads = "
            f"{batch * c.num_heads}."
        )


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
    return None if added is None else np.where(np.isfinite(added), added, 0.0)


def attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    bias: Any = None,
    rotation: Rotation | None = None,
    **_: Any,
) -> Any:
    """Attention from Flax's own weights, softmax in the dtype of the query.

    `nnx.dot_product_attention` hands over to `jax.nn.dot_product_attention`, whose softmax
    is float32 even inside `jax.enable_x64`.
    """
    if rotation:
        query, key = (rotation.turn(a, jnp, -3) for a in (query, key))
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
    check_heads(c, shapes["out_proj.weight"][0])
    found = {"embed_dim": shapes["out_proj.weight"][0]}
    for name in ("k", "v"):
        if f"{name}_proj_weight" in shapes:
            found[f"{name}dim"] = shapes[f"{name}_proj_weight"][1]
    return found


def check_heads(c: Config, width: int) -> None:
    """Raise where the number of heads is not given or does not divide the width."""
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
        attend(parts[0], parts[1], parts[2], added).reshape(*inputs[0].shape[:2], e)
        @ state[f"{prefix}out_proj.weight"].T
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


def linen_attention(c: Config, rotation: Rotation | None = None) -> linen.Module:
    """Linen's attention for a configuration; scores get a bias or a rotation where it asks for one."""
    options: dict[str, Any] = {}
    bias = score_bias(c)
    if bias is not None or rotation:  # what Flax's own attention does not do
        options["attention_fn"] = partial(attention, bias=bias, rotation=rotation)
    return linen.MultiHeadDotProductAttention(
        num_heads=c.num_heads,
        qkv_features=c.embed_dim,
        out_features=c.embed_dim,
        use_bias=c.bias,
        **options,
    )


def nnx_attention(c: Config, rotation: Rotation | None = None, **kw: Any) -> nnx.Module:
    """The same in NNX; `kw` holds its `rngs`."""
    kdim, vdim = c.kdim or c.embed_dim, c.vdim or c.embed_dim
    module = nnx.MultiHeadAttention(
        num_heads=c.num_heads,
        in_features=c.embed_dim,
        in_kv_features=kdim,
        use_bias=c.bias,
        decode=False,
        attention_fn=partial(attention, bias=score_bias(c), rotation=rotation),
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
    examine=check_masks,
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

ROWS = (MHA,)
