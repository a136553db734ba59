"""The rows of the table that are about attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from porting.trace.attention import (
    HEADS,
    MASKS,
    PARTS,
    ROLES,
    SCALES,
    SPLITS,
    attention,
)
from porting.trace.questions import Problem, Variant, divisors

KINDS = ("attention", "packed attention", "multi-head")
WINDOWS = 32  #: the widest window that is tried


def attention_of(problem: Problem, **choice: object) -> np.ndarray:
    """The output of a question about attention with one choice of values."""
    return attention(problem.operands, problem.leaves, **choice)  # type: ignore[arg-type]


def _width(problem: Problem, part: str) -> tuple[int, ...]:
    """The shape behind (b, t) of the queries, keys or values."""
    kernel = problem.leaves.get(f"{part}/kernel")
    if kernel is not None:
        return kernel.shape[1:]
    given = problem.operands.get(part, problem.operands.get("q"))
    return () if given is None else given.shape[2:]


def _heads(problem: Problem) -> Sequence[int]:
    """The heads that the queries show, or every number that divides, usual widths first."""
    packed = "qkv" in problem.operands or "qkv/kernel" in problem.leaves
    shape = _width(problem, "qkv" if packed else "q")
    if len(shape) == 2 and not packed:
        return (shape[0],)
    wide = math.prod(shape) // (3 if packed else 1)
    narrow = wide if packed else math.prod(_width(problem, "k"))
    fit = [n for n in divisors(wide) if n * narrow % wide == 0 and wide // n > 1]
    return sorted(fit, key=lambda n: (wide // n not in (64, 128, 80, 96, 32), n))


def _keys(problem: Problem) -> int:
    return problem.operands.get("k", next(iter(problem.operands.values()))).shape[1]


def _masks(problem: Problem) -> Sequence[str]:
    """None and the causal one, those that the candidate was given, then what is rare.

    A mask of the reference says less than a rule that makes it, so it comes last.
    """
    recorded = [name for name in problem.operands if name not in PARTS]
    boolean = [name for name in recorded if problem.operands[name].dtype == bool]
    both = sorted([*recorded, *(f"{name}, inverted" for name in boolean)])
    given = [name for name in both if name.startswith("as given")]
    rest = [name for name in both if name not in given]
    windows = [f"causal, window of {n} tokens" for n in range(2, min(_keys(problem), WINDOWS))]
    none, causal, *rare = MASKS
    joined = (f"{name} and causal" for name in both)
    return (none, causal, *given, *rare, *windows, *rest, *joined)


def _turning(problem: Problem) -> bool:
    operands = problem.operands
    length = next(iter(operands.values())).shape[1]
    heads = _heads(problem)
    wide = math.prod(_width(problem, "q"))
    return length == _keys(problem) and any((wide // n) % 2 == 0 for n in heads)


def _rotary(problem: Problem) -> Sequence[str]:
    if not _turning(problem):
        return ("none",)
    styles = ("half-split", "interleaved")
    if "cos" in problem.operands:
        return ("none", *(f"{style} by the given angles" for style in styles))
    return ("none", *styles, *(f"{style}, backwards" for style in styles))


def _precisions(problem: Problem) -> Sequence[str]:
    return ("float32", "bfloat16 in the rotation") if _turning(problem) else ("float32",)


def _groups(problem: Problem) -> Sequence[str]:
    grouped = math.prod(_width(problem, "q")) != math.prod(_width(problem, "k"))
    return ("repeat", "tile") if grouped else ("repeat",)


def _roles(problem: Problem) -> Sequence[str]:
    shapes = {_width(problem, part) for part in "qkv"}
    return ROLES if len(shapes) == 1 else ROLES[:1]


def _orders(problem: Problem) -> Sequence[str]:
    split = len(_width(problem, "q")) == 2  # the heads are an axis of their own
    return tuple(HEADS)[:1] if split else tuple(HEADS)


def _rows(kind: str, roles: str) -> tuple[Variant, ...]:
    rows = (
        ("heads", "the number of heads", _heads, "code", 4),
        ("mask", "the mask", _masks, "code", 4),
        ("rotary", "the rotary layout", _rotary, "code", 2),
        ("scale", "the scale of the scores", tuple(SCALES), "code", 1),
        ("base", "the rotary base", (1e4, 5e5, 1e6, 1e5, 1e3, 2e6, 5e6, 1e7, 100.0), "code", 1),
        ("groups", "the spread of the key heads", _groups, "code", 1),
        ("roles", "the roles of q, k and v", _roles, roles, 1),
        ("order", "how the features are cut into heads", _orders, "code", 1),
        ("merge", "how the heads are joined again", ("heads outside", "without a transpose"), "code", 1),
        ("axis", "the axis of the softmax", ("over the keys", "over the queries", "over the heads"), "code", 1),
        ("cap", "the softcap of the scores", ("none", "50.0", "30.0", "20.0"), "code", 1),
        ("share", "the share of the width that turns", (1.0, 0.5, 0.25), "code", 1),
        ("turns", "what the rotary positions turn", ("q and k", "only q", "only k"), "code", 1),
        ("masked", "when the mask is applied", ("before the softmax", "after the softmax"), "code", 1),
        ("precision", "a rotation in bfloat16", _precisions, "code", 1),
    )  # fmt: skip
    packed = Variant(kind, "split", "how q, k and v are packed", tuple(SPLITS), roles, 2)
    return (*(Variant(kind, *row) for row in rows), *((packed,) if kind != "attention" else ()))


#: Of recorded queries, keys and values; of a packed array; of a module with its leaves, where
#: an exchange may as well lie in the leaves.
ATTENTION = tuple(
    row
    for kind, roles in zip(KINDS, ("code", "code", "weight"), strict=True)
    for row in _rows(kind, roles)
)
