"""Kernels behind a flatten: in what order their rows should be, no name tells; values may.

A mapping asks about them. A leaf that was left out, or turned, is none that it saw: the
doctor puts the same question there, and answers it only where the leaf lies in one order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.doctor.bits import canonical, equal
from porting.doctor.evidence import Evidence
from porting.doctor.fixes import fix_line
from porting.doctor.likeness import some_of
from porting.doctor.names import last
from porting.doctor.style import order_of
from porting.doctor.verdict import LeafVerdict
from porting.leaves import ONLY, Leaf
from porting.mapping.evidence import FLATTENED, Flattens
from porting.mapping.infer import source_specs
from porting.mapping.layouts import Layout, rule_of
from porting.mapping.result import MappedLeaf
from porting.mapping.units import units

TOLD = "it lies in this order by its values"

PLAIN = Layout(("o", "i"), "i o", relation="moved")
EQUAL = 2.0  #: the likeness of a leaf that is what a reading makes, bit for bit
FEWEST = 32  #: values that tell an order from chance
LIKE = 0.5  #: a correlation with one order that tells it, if that with any other is half of it


def asks(row: Leaf | None) -> bool:
    """Whether a row is a question about a flatten."""
    return FLATTENED in getattr(row, "reason", "") and not getattr(row, "confident", True)


class Orders:
    """The orders that a kernel behind a flatten may have.

    Args:
        evidence: the source.
        given: whether a person gave the mapping; then only its own questions are asked.
    """

    def __init__(self, evidence: Evidence, given: bool = False) -> None:
        self._evidence = evidence
        self._flattens = None
        if not given and any(len(shape) > 2 for shape in evidence.shapes.values()):
            self._flattens = Flattens(units(*source_specs(evidence.source)))

    def asked(self, rows: Mapping[str, Leaf]) -> dict[str, Leaf]:
        """The rows of which a flatten is in question, each as that question."""
        found = {path: self.readings(row) for path, row in rows.items()}
        return {path: _question(orders) for path, orders in found.items() if orders}

    def readings(self, row: Leaf) -> tuple[Leaf, ...]:
        """A row in every order that it may have, the likely one first; () if none is open."""
        if asks(row):
            return _orders(row)
        shape = tuple(self._evidence.shapes.get(row.sources[0], ()))
        kernel = row.join is ONLY and last(row.path) == "kernel" and len(shape) == 2
        if self._flattens is None or not kernel:
            return ()
        rules = [rule_of(layout, None) for layout in self._flattens.orders(shape, PLAIN)]
        known = order_of(row.rule) == (1, 0) or row.rule in rules
        return tuple(Leaf(row.path, row.sources, rule) for rule in rules) if known else ()


def _orders(row: Leaf) -> tuple[Leaf, ...]:
    """A question about a flatten as the readings among which it asks."""
    others: tuple[Leaf, ...] = getattr(row, "alternatives", ())
    return (row, *(other for other in others if other.sources == row.sources))


def _question(orders: tuple[Leaf, ...]) -> MappedLeaf:
    first, *others = orders
    return MappedLeaf(
        first.path, first.sources, first.rule, first.join, False, FLATTENED, tuple(others)
    )


def plain_rows(rows: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The rows, those behind a flatten as if there were none: what is usual for their likes."""
    rule = rule_of(PLAIN, None)
    return {
        path: replace(row, rule=rule) if _of_flatten(row) else row for path, row in rows.items()
    }


def _of_flatten(row: Leaf) -> bool:
    reason = getattr(row, "reason", "")
    return FLATTENED in reason or reason == TOLD


def lying(
    verdicts: Mapping[str, LeafVerdict],
    rows: Mapping[str, Leaf],
    tree: Mapping[str, Any],
    evidence: Evidence,
) -> dict[str, Leaf]:
    """Rows that ask about a flatten, answered by the values of a leaf, changed or turned.

    A leaf that is, bit for bit, what another reading makes stays a question.
    """
    found = {}
    for path, row in rows.items():
        if path not in verdicts or not verdicts[path].wrong or not asks(row):
            continue
        orders = _orders(row)
        leaf = np.asarray(tree[path])
        likeness = [_likeness(order, evidence.expected(order), leaf) for order in orders]
        best, *others = sorted(range(len(orders)), key=lambda n: -likeness[n])
        alone = all(2 * likeness[n] <= likeness[best] for n in others)
        if alone and LIKE <= likeness[best] < EQUAL:
            told = {"confident": True, "reason": TOLD, "alternatives": orders[:best]}
            found[path] = replace(row, rule=orders[best].rule, **told)  # type: ignore[arg-type]
    return found


def _likeness(order: Leaf, made: np.ndarray | None, leaf: np.ndarray) -> float:
    """How much a leaf, as it is or turned, is like what a reading makes, as far as both go.

    A leaf that is the source as it stands tells no order: nothing was done to it.
    """
    if made is None or made.ndim != leaf.ndim:
        return 0.0
    if made.shape == leaf.shape and equal(canonical(made), canonical(leaf)):
        return EQUAL
    turned = [made.T] if order_of(order.rule) is None else []
    return max(_common(m, leaf) for m in (made, *turned))


def _common(made: np.ndarray, leaf: np.ndarray) -> float:
    """How alike the common part of two matrices is: in one order, or equal in so many places.

    The ranks of the values are compared: most changes of value keep their order.
    """
    shared = tuple(slice(0, min(n, m)) for n, m in zip(made.shape, leaf.shape, strict=True))
    a, b = some_of(made[shared], leaf[shared])
    if a.size < FEWEST:
        return 0.0
    ranked = np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]
    return max(abs(float(ranked)), float(np.mean(a == b)))


def unanswered(
    verdicts: Mapping[str, LeafVerdict], tree: Mapping[str, Any], orders: Orders, evidence: Evidence
) -> dict[str, LeafVerdict]:
    """The verdicts on leaves that a flatten leaves open, with every line that may be right.

    Where the leaf lies in one order and not the likely one, that is said.
    """
    out = dict(verdicts)
    for path, v in verdicts.items():
        asked = v.fix if v.wrong else v.status == "ambiguous" and v.kind and asks(v.row)
        if not asked or v.row is None:
            continue
        if getattr(v.row, "reason", "") == TOLD:
            others = " or ".join(str(o.rule) for o in v.row.alternatives)  # type: ignore[attr-defined]
            told = f"It lies as {v.row.rule} makes it; the names allow {others} as well."
            out[path] = replace(v, note=f"{v.note} {told}") if others else v
        elif readings := orders.readings(v.row):
            dtype = (tree[path] if path in tree else evidence.array(v.row.sources[0])).dtype
            lines = [fix_line(row, evidence, dtype) for row in readings]
            out[path] = replace(v, fix="", note=f"{v.note} {_lines(lines)}")
    return out


def _lines(lines: list[str]) -> str:
    """The lines that may be right, in a sentence."""
    if len(lines) > 1:
        return f"The order of the flatten before it is the model's; right is {' or '.join(lines)}."
    return (
        f"Right is {lines[0]} if the model flattens channels first, as PyTorch does; else its rows "
        "go in the order of the model."
    )
