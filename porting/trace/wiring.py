"""Norms in another place of a block: one fault that shows at many places of the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from porting.trace.comparison import Site, TraceComparison
from porting.trace.formula import Formula
from porting.trace.owned import layer_of, leaves_of
from porting.trace.pair import family

PLACE = "the place of the norms"
EXCHANGED = "the norms, exchanged with each other"
BEFORE = "each norm before its part (pre-norm)"
BEHIND_SUM = "each norm behind the sum (post-norm)"
BEHIND_PART = "each norm behind its part, before the sum"


@dataclass(frozen=True)
class Wire:
    """What feeds one place: in the reference and in the candidate; None where unknown."""

    site: Site
    wanted: Formula | None
    given: Formula | None


@dataclass(frozen=True)
class Rewired:
    """One fault of the wiring of a block.

    Attributes:
        title: `PLACE` or `EXCHANGED`.
        restores: where the reference has its norms.
        does: where the candidate has them.
        wires: the places at which it shows.
    """

    title: str
    restores: str
    does: str
    wires: tuple[Wire, ...]


def rewired(comparison: TraceComparison, wires: Sequence[Wire]) -> Rewired | None:
    """The norms' part in what differs inside one block; None where they have none.

    Args:
        comparison: knows which stages are norms.
        wires: the places of one block that part, in order.
    """
    moved = [wire for wire in wires if _about_norms(comparison, wire)]
    if len(moved) < 2:
        return None
    reads = {w.site.path: tuple(_alone(comparison, f) for f in (w.wanted, w.given)) for w in moved}
    both = {path: two for path, two in reads.items() if all(two) and two[0] != two[1]}
    parts = {w.site.path for w in moved if w.site.slot == "input"}
    parts = {path for path in parts if not is_norm(comparison, path)}
    swapped = {two for two in both.values()} == {two[::-1] for two in both.values()}
    if both and swapped and all(p in both for p in parts):
        names = " and ".join(sorted({name for two in both.values() for name in two if name}))
        return Rewired(EXCHANGED, "each in its own place", f"{names} exchanged", tuple(moved))
    before = [
        any(two[side] and not two[1 - side] for p, two in reads.items() if p in parts)
        for side in (0, 1)
    ]
    if before[0] == before[1]:
        return None
    behind = _behind(comparison, moved, side=int(before[0]))
    said = (BEFORE, behind) if before[0] else (behind, BEFORE)
    return Rewired(PLACE, *said, tuple(moved))


def is_norm(comparison: TraceComparison, path: str) -> bool:
    """Whether a stage of the candidate is a norm, by its class or by its leaves."""
    if path not in comparison.candidate:
        return False
    kind = comparison.candidate.stage(path).kind
    names = set(leaves_of(comparison.candidate, path))
    known = layer_of(kind, names) if names else None
    return "norm" in family(kind) or known in ("norm", "group norm", "batch norm")


def _about_norms(comparison: TraceComparison, wire: Wire) -> bool:
    """Whether a norm is fed, or read, differently; or something that could not be told."""
    if wire.site.slot == "input" and is_norm(comparison, wire.site.path):
        return True
    names = [set() if f is None else f.names for f in (wire.wanted, wire.given)]
    return any(is_norm(comparison, name) for name in names[0] ^ names[1])


def _alone(comparison: TraceComparison, formula: Formula | None) -> str | None:
    """The norm that a formula is, but for the order of its axes."""
    if formula is None or len(formula.names) != 1 or len(formula.terms) != 1:
        return None
    (name,) = formula.names
    return name if is_norm(comparison, name) else None


def _behind(comparison: TraceComparison, wires: Sequence[Wire], side: int) -> str:
    """Whether the norms of one side read a sum, or a part alone."""
    fed = [(w.wanted, w.given)[side] for w in wires if is_norm(comparison, w.site.path)]
    known = [formula for formula in fed if formula is not None]
    return BEHIND_PART if known and all(len(f.names) == 1 for f in known) else BEHIND_SUM
