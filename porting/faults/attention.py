"""Faults of attention: which projection, which head, which mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from porting.faults.paths import KEY, OUT, QUERY, VALUE, attends, is_block, is_layer, of, prefix
from porting.faults.row import Fault, Port, Transform, change, exchange, run_with, skip_paths
from porting.layouts import Rule

_PROJECTIONS = (QUERY, KEY, VALUE)
_GQA = is_layer("GroupedQueryAttention")
_PACKED_IN_BLOCKS = is_layer("MultiheadAttention", "GPT2Attention", "TransformerEncoderLayer")


def _exchange(first: tuple[str, ...], second: tuple[str, ...]) -> Transform:
    return lambda port: exchange(prefix(port, first), prefix(port, second))(port)


def _same_shapes(first: tuple[str, ...], second: tuple[str, ...]) -> Callable[[Port], bool]:
    def fits(port: Port) -> bool:
        kernels = [of(names, "kernel")(port) for names in (first, second)]
        shapes = {port.leaves[path].shape for paths in kernels for path in paths}
        return attends(port) and len(shapes) == 1

    return fits


def _heads(port: Port) -> int:
    """The number of query heads: an axis of the kernel, or an option; 0 if nothing tells it."""
    kernel = port.leaves[of(QUERY, "kernel")(port)[0]]
    return kernel.shape[1] if kernel.ndim == 3 else port.config.get("num_heads", 0)


def _knows_heads(port: Port) -> bool:
    return attends(port) and _heads(port) > 0


def _head_dim(port: Port) -> int:
    kernel = port.leaves[of(QUERY, "kernel")(port)[0]]
    return kernel.size // kernel.shape[0] // _heads(port)


def _is_packed(port: Port) -> bool:
    packed = bool(port.config["packed"]) if is_block(port) else _PACKED_IN_BLOCKS(port)
    return packed and _same_shapes(QUERY, KEY)(port) and _same_shapes(KEY, VALUE)(port)


def _repack(port: Port, made: str, read: str) -> Port:
    """Query, key and value packed by one order of axes and unpacked by another.

    Args:
        made, read: "qkv h d" (three blocks) or "h qkv d" (three of each head).
    """
    sizes = {"qkv": 3, "h": _heads(port)}
    changed: dict[str, np.ndarray] = {}
    for own in ("kernel", "bias"):
        paths = [path for names in _PROJECTIONS for path in of(names, own)(port)]
        if not paths:
            continue
        arrays = [port.leaves[path] for path in paths]
        lead = arrays[0].shape[: own == "kernel"]
        whole = np.stack([a.reshape(*lead, _heads(port), -1) for a in arrays], axis=len(lead))
        e = "e " * len(lead)
        packed = Rule(f"{e}qkv h d -> {e}({made})").apply(whole)
        apart = Rule(f"{e}({read}) -> qkv {e}h d", sizes).apply(packed)
        changed |= {path: a.reshape(arrays[0].shape) for path, a in zip(paths, apart, strict=True)}
    return port.with_leaves(changed)


def _exchange_heads(port: Port) -> Port:
    """The features of query, key and value, (head, d), read as (d, head)."""
    changed = {}
    for names in _PROJECTIONS:
        kernel = port.leaves[of(names, "kernel")(port)[0]]
        heads = kernel.size // kernel.shape[0] // _head_dim(port)
        for path in of(names)(port):
            leaf = port.leaves[path]
            lead = leaf.shape[: path.endswith("kernel")]
            turned = np.swapaxes(leaf.reshape(*lead, _head_dim(port), heads), -1, -2)
            changed[path] = turned.reshape(leaf.shape)
    return port.with_leaves(changed)


def _untransposed_in(kernel: np.ndarray) -> np.ndarray:
    """(e, h, d) filled from the weight ((h d), e) as it lies."""
    return kernel.reshape(kernel.shape[0], -1).T.reshape(kernel.shape)


def _untransposed_out(kernel: np.ndarray) -> np.ndarray:
    """(h, d, o) filled from the weight (o, (h d)) as it lies."""
    return kernel.reshape(-1, kernel.shape[-1]).T.reshape(kernel.shape)


def _projection_kernels(port: Port) -> list[str]:
    return [path for names in _PROJECTIONS for path in of(names, "kernel")(port)]


def _scale_query(power: float) -> Transform:
    def transform(port: Port) -> Port:
        factor = np.float64(_head_dim(port)) ** power
        return change(of(QUERY), lambda leaf: leaf * leaf.dtype.type(factor))(port)

    return transform


def _key_bias_is_hidden(port: Port) -> str:
    if port.config.get("rotary") or port.config.get("rotary_pct"):
        return ""
    return (
        "A key bias adds one number to a whole row of scores, and softmax takes it out again: "
        "without rotary positions no output ever shows it."
    )


def _mask_inverted(module: Any, variables: Any, *inputs: Any, **keywords: Any) -> Any:
    return module.apply(variables, *inputs, **{**keywords, "mask": ~keywords["mask"]})


def _is_masked(port: Port) -> bool:
    names = ("is_causal", "attn_mask", "key_padding_mask", "src_mask", "src_key_padding_mask")
    return any(
        port.config.get(name) is not None and port.config.get(name) is not False for name in names
    )


def _tiled(module: Any, variables: Any, *inputs: Any, **keywords: Any) -> Any:
    """Query head h beside key head h mod K, by query heads and rows of `out` in that order."""
    params = variables["params"]
    pairs = (("query", -2), ("out", 0))
    heads = params["query"]["kernel"].shape[-2]
    shared = params["key"]["kernel"].shape[-2]
    order = np.arange(heads).reshape(-1, shared).T.reshape(-1)
    changed = {
        name: {own: leaf if (name, own) == ("out", "bias") else leaf.take(order, axis)
               for own, leaf in params[name].items()}
        for name, axis in pairs
    }  # fmt: skip
    return module.apply({**variables, "params": {**params, **changed}}, *inputs, **keywords)


ROWS = (
    Fault(
        "qk_exchanged",
        "q and k exchanged",
        "The scores are transposed: wrong from q on. One token, or rows that are all equal, hide it.",
        "Two tensors of one shape, taken in the wrong order.",
        'params["attn"]["q_proj"], params["attn"]["k_proj"] = query, key',
        "fault catalogue: any attention",
        _exchange(QUERY, KEY),
        fits=_same_shapes(QUERY, KEY),
    ),
    Fault(
        "qkv_order",
        "q/k/v split in the wrong order",
        "Wrong from k on; q is right.",
        "in_proj stacks query, key, value; it was read as query, value, key.",
        "q, k, v = np.split(in_proj_weight, 3)",
        "torch.nn.MultiheadAttention: in_proj_weight",
        _exchange(KEY, VALUE),
        fits=lambda port: _is_packed(port) if is_block(port) else _same_shapes(KEY, VALUE)(port),
    ),
    Fault(
        "qkv_per_head",
        "q/k/v read as interleaved per head",
        "Wrong from q on; only the values tell, every shape is right.",
        "GPT-NeoX and BLOOM pack q, k, v per head; PyTorch stacks three whole blocks.",
        "q, k, v = np.split(in_proj_weight, 3)",
        "GPT-NeoX, BLOOM query_key_value",
        lambda port: _repack(port, "qkv h d", "h qkv d"),
        fits=lambda port: _is_packed(port) and _heads(port) > 1,
    ),
    Fault(
        "qkv_in_blocks",
        "Per-head q/k/v read as three blocks",
        "Wrong from q on; only the values tell, every shape is right.",
        "PyTorch stacks three whole blocks; GPT-NeoX and BLOOM pack q, k, v per head.",
        "packed.reshape(num_heads, 3, head_dim, -1)",
        "GPT-NeoX, BLOOM query_key_value",
        lambda port: _repack(port, "h qkv d", "qkv h d"),
        fits=lambda port: is_layer("GPTNeoXAttention")(port) and _heads(port) > 1,
    ),
    Fault(
        "projections_untransposed",
        "q, k and v built from the untransposed weights",
        "Every shape fits, since heads are split by a reshape; every output is wrong.",
        "weight.reshape(embed, heads, head_dim) fits without a transpose.",
        "weight.T.reshape(embed, heads, head_dim)",
        "Flax MultiHeadDotProductAttention, ViT ports",
        change(_projection_kernels, _untransposed_in),
        fits=lambda port: attends(port) and not is_block(port),
    ),
    Fault(
        "square_transposed",
        "A square projection transposed once too often",
        "Wrong from out on; (d_model, d_model) fits either way.",
        "PyTorch keeps (out, in), Flax (in, out). A square weight lets the mistake pass.",
        'params["attn"]["out_proj"]["kernel"] = source["self_attn.out_proj.weight"].T',
        "transformers PR 9054",
        change(of(OUT, "kernel"), _untransposed_out),
        fits=attends,
    ),
    Fault(
        "heads_exchanged",
        "heads and head_dim exchanged",
        "Every feature lands in another head: wrong from q on.",
        "A head is a run of features, (heads, head_dim); it was read as (head_dim, heads).",
        "x.reshape(T, num_heads, head_dim)",
        "fault catalogue: any attention",
        _exchange_heads,
        fits=lambda port: _knows_heads(port) and _heads(port) > 1 and _head_dim(port) > 1,
    ),
    Fault(
        "key_bias_skipped",
        "The key bias skipped",
        "No output ever shows it: it adds one number to a whole row of scores, and softmax "
        "takes it out again. Only comparing leaves finds it.",
        "The loop over names missed one. With rotary positions it would matter.",
        'params["attn"]["k_proj"]["bias"] = source["self_attn.in_proj_bias"][d:2 * d]',
        "softmax is invariant to a constant",
        skip_paths(of(KEY, "bias")),
        "values",
        fits=lambda port: attends(port) and bool(of(KEY, "bias")(port)),
        hidden=_key_bias_is_hidden,
    ),
    Fault(
        "scale_applied_twice",
        "Score scale applied twice",
        "Flatter attention weights; small errors, no shape is off.",
        "The source folds 1/√head_dim into the query (MaxText), and the target scales as well.",
        "multiply the query kernel and bias by √head_dim, or do not scale in the model",
        "MaxText folds it into q; T5 has none",
        _scale_query(-0.5),
        "values",
        fits=_knows_heads,
    ),
    Fault(
        "scale_missing",
        "Score scale missing",
        "Sharper attention weights; small errors, no shape is off.",
        "The target expects 1/√head_dim inside the query, as T5 and MaxText do. Injected as the "
        "query times √head_dim.",
        "scores / jnp.sqrt(head_dim)",
        "MaxText folds it into q; T5 has none",
        _scale_query(0.5),
        "values",
        fits=_knows_heads,
    ),
    Fault(
        "mask_polarity",
        "Mask read the other way round",
        "Every token attends to what it should not see.",
        "PyTorch's True says ignore, Flax's True says attend.",
        "mask = ~torch_mask",
        "torch.nn.MultiheadAttention: attn_mask",
        run_with(_mask_inverted),
        "values",
        "forward",
        lambda port: attends(port) and not is_block(port) and _is_masked(port),
    ),
    Fault(
        "causal_lost",
        "Causal mask left out",
        "Tokens see what comes after them; the last token is right.",
        "A model's causal mask is no leaf: GPT-2 keeps it as a buffer named bias.",
        "mask = linen.make_causal_mask(x[..., 0])",
        "transformers: GPT2Attention",
        lambda port: replace(port, config={**port.config, "is_causal": False}),
        "values",
        "forward",
        lambda port: attends(port) and bool(port.config.get("is_causal")),
    ),
    Fault(
        "groups_tiled",
        "Key heads tiled instead of repeated",
        "Every shape fits; query heads attend with the key head of another group.",
        "jnp.tile gives 0 1 0 1, jnp.repeat 0 0 1 1; query heads share consecutive key heads.",
        "jnp.repeat(key, num_heads // num_kv_heads, axis=-2)",
        "Llama, Mistral: repeat_kv",
        run_with(_tiled),
        "values",
        "forward",
        lambda port: _GQA(port) and 1 < port.config["num_kv_heads"] < port.config["num_heads"],
    ),
)
