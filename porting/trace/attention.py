"""Attention as a float64 NumPy function, with everything that ports are known to get wrong.

It runs on queries, keys and values as they were recorded, on one packed array of all three,
or on the inputs and leaves of a whole multi-head module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from porting.trace.functions import Leaves, dense
from porting.trace.rotary import rotate

#: Operands that are no masks.
PARTS = ("q", "k", "v", "qkv", "cos", "sin", "rows")
MASKS = {
    "none": lambda row, column: (row >= 0) | (column >= 0),
    "causal": lambda row, column: column <= row,
    "each token only itself": lambda row, column: column == row,
    "causal, exchanged (the future only)": lambda row, column: column > row,
    "causal, exchanged (itself and the future)": lambda row, column: column >= row,
    "causal, without itself": lambda row, column: column < row,
    "causal, one token too many": lambda row, column: column <= row + 1,
}
SCALES = {
    "1/√d": lambda width, heads: width**-0.5,
    "none": lambda width, heads: 1.0,
    "1/d": lambda width, heads: 1 / width,
    "1/√width": lambda width, heads: (width * heads) ** -0.5,
}
#: How the features are cut into heads: (shape from b, t, heads, width; axes to b, t, h, d).
HEADS = {
    "heads outside": (lambda b, t, h, d: (b, t, h, d), (0, 1, 2, 3)),
    "heads inside": (lambda b, t, h, d: (b, t, d, h), (0, 1, 3, 2)),
    "split without a transpose": (lambda b, t, h, d: (b, h, t, d), (0, 2, 1, 3)),
}
SPLITS = {
    "thirds": (lambda h, d: (3, h, d), 0),
    "q, k and v of each head": (lambda h, d: (h, 3, d), 1),
    "q, k and v of each feature": (lambda h, d: (h, d, 3), 2),
}
ROLES = ("q, k, v", "k, q, v", "q, v, k", "v, k, q", "k, v, q", "v, q, k")
HIDDEN = -1e30  #: what a masked score is


def hidden(
    mask: str, length: int, keys: int, operands: Mapping[str, np.ndarray] | None = None
) -> np.ndarray:
    """What a mask adds to the scores of (…, queries, keys): 0, or something very negative.

    Args:
        mask: a key of `MASKS`, a window, or the name of an operand, which may be followed by
            `, inverted` and ` and causal`.
        length: the number of queries.
        keys: the number of keys.
        operands: the masks that were recorded: boolean, or added as they are.

    >>> (hidden("causal", 2, 2) < 0).tolist(), (hidden("each token only itself", 1, 1) < 0).any()
    ([[False, True], [False, False]], np.False_)
    """
    row, column = np.arange(length)[:, None], np.arange(keys)[None]
    if mask in MASKS:
        return np.where(MASKS[mask](row, column), 0.0, HIDDEN)
    if " window of " in mask:  # "causal, window of 3 tokens"
        near = (column <= row) & (column > row - int(mask.split()[-2]))
        return np.where(near, 0.0, HIDDEN)
    plain = mask.removesuffix(" and causal")
    given = (operands or {})[plain.removesuffix(", inverted")]
    if given.dtype == bool:
        given = np.where(given != plain.endswith(", inverted"), 0.0, HIDDEN)
    causal = hidden("causal", length, keys) if plain != mask else 0.0
    return np.maximum(given + causal, HIDDEN)


def softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """exp(scores), summing to 1 along an axis.

    >>> softmax(np.zeros((1, 2))).tolist()
    [[0.5, 0.5]]
    """
    scores = np.exp(scores - scores.max(axis, keepdims=True))
    return scores / scores.sum(axis, keepdims=True)


def attention(
    operands: Mapping[str, np.ndarray],
    leaves: Leaves,
    heads: int,
    split: str = "thirds",
    roles: str = "q, k, v",
    order: str = "heads outside",
    mask: str = "none",
    scale: str = "1/√d",
    rotary: str = "none",
    base: float = 1e4,
    share: float = 1.0,
    groups: str = "repeat",
    axis: str = "over the keys",
    cap: str = "none",
    precision: str = "float32",
    merge: str = "heads outside",
    turns: str = "q and k",
    masked: str = "before the softmax",
) -> np.ndarray:
    """softmax(q·k scaled, masked) · v; with an `out` among the leaves, its projection.

    Args:
        operands: `q`, `k`, `v`, of (b, t, heads·d) or (b, t, heads, d), or `qkv`; with `rows`,
            only these queries are answered. With leaves `q/kernel`, …, they are the inputs.
        leaves: of a whole module, `q/kernel`, `k/bias`, …; empty where the operands are
            queries, keys and values themselves.
        heads: the number of heads of the queries.

    >>> one = np.ones((1, 2, 4))
    >>> attention({"q": one, "k": one, "v": one}, {}, heads=2).shape
    (1, 2, 4)
    """
    operands = projected(operands, leaves)
    q, k, v = _cut(operands, heads, split, roles, order)
    given = (operands["cos"], operands["sin"]) if "cos" in operands else None
    q, k = (
        rotate(a, rotary if name in turns else "none", base, share, given, precision)
        for name, a in (("q", q), ("k", k))
    )
    times = heads // k.shape[2]
    spread = np.repeat if groups == "repeat" else lambda a, n, _: np.tile(a, (1, 1, n, 1))
    k, v = spread(k, times, 2), spread(v, times, 2)
    t = q.shape[1]
    rows = operands.get("rows", np.arange(t))
    asked = np.arange(t) if axis != "over the keys" or merge != "heads outside" else rows
    scores = q[:, asked].swapaxes(1, 2) @ k.transpose(0, 2, 3, 1)
    scores = scores * SCALES[scale](q.shape[-1], heads)
    scores = scores if cap == "none" else float(cap) * np.tanh(scores / float(cap))
    added = hidden(mask, t, k.shape[1], operands)
    added = added[..., asked, :] if added.shape[-2] > 1 else added
    late = masked == "after the softmax"
    probs = softmax(
        scores + (0 if late else added),
        {"over the keys": -1, "over the queries": -2, "over the heads": 1}[axis],
    )
    probs = probs * (added > HIDDEN / 2) if late else probs
    y = probs @ v.swapaxes(1, 2)
    y = y.reshape(*y.shape[:1], len(asked), -1) if merge != "heads outside" else _merged(y)
    y = y[:, rows] if len(asked) != len(rows) else y
    return dense(y, _of(leaves, "out")) if "out/kernel" in leaves else y


def projected(operands: Mapping[str, np.ndarray], leaves: Leaves) -> dict[str, np.ndarray]:
    """The queries, keys and values that leaves make of inputs; where there are none, as given.

    >>> one = np.ones((1, 1, 2))
    >>> {n: a.shape for n, a in projected({"q": one}, {"qkv/kernel": np.ones((2, 6))}).items()}
    {'qkv': (1, 1, 6)}
    """
    names = [name for name in ("qkv", "q", "k", "v") if f"{name}/kernel" in leaves]
    made = {n: dense(operands.get(n, operands["q"]), _of(leaves, n)) for n in names}
    inputs = ("q", "k", "v") if names else ()
    return made | {n: a for n, a in operands.items() if n not in inputs}


def _merged(y: np.ndarray) -> np.ndarray:
    return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)


def _of(leaves: Leaves, part: str) -> dict[str, np.ndarray]:
    """The leaves of one part; an output kernel with its heads merged."""
    found = {n.partition("/")[2]: a for n, a in leaves.items() if n.startswith(f"{part}/")}
    if part == "out" and found["kernel"].ndim == 3:
        found["kernel"] = found["kernel"].reshape(-1, found["kernel"].shape[-1])
    return found


def _cut(
    operands: Mapping[str, np.ndarray], heads: int, split: str, roles: str, order: str
) -> list[np.ndarray]:
    """Queries, keys and values of (b, t, heads, width), by the roles they are given."""
    names = ("qkv",) if "qkv" in operands else ("q", "k", "v")
    whole = {n: operands[n] for n in names}
    if names == ("qkv",):
        b, t = whole["qkv"].shape[:2]
        shape, at = SPLITS[split]
        width = math.prod(whole["qkv"].shape[2:]) // 3 // heads
        parts = np.moveaxis(whole["qkv"].reshape(b, t, *shape(heads, width)), 2 + at, 0)
        whole = {n: a.reshape(b, t, -1) for n, a in zip("qkv", parts, strict=True)}
    width = math.prod(whole["q"].shape[2:]) // heads
    found = []
    for name in roles.split(", "):
        b, t = whole[name].shape[:2]
        by_heads, axes = HEADS[order]
        parted = by_heads(b, t, math.prod(whole[name].shape[2:]) // width, width)
        found.append(whole[name].reshape(parted).transpose(axes))
    return found
