"""Why a pair of layers is a question to the person, and not an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as AnyMapping

from porting.leaves import Leaf
from porting.mapping.match import SURE, Pair
from porting.mapping.scores import contradict, literal, overlap
from porting.mapping.units import Unit, buffer_reason

ONLY_SHAPE = "only its shape speaks for"


def all_placed(targets: list[Unit], found: AnyMapping[str, Leaf]) -> bool:
    """Whether every layer of the target has its source; a missing bias is no missing layer."""
    return all(
        any(part.sources[0] in found or buffer_reason(part.sources[0]) for part in t.parts.values())
        for t in targets
    )


def doubts_of(
    pairs: list[Pair], sources: list[Unit], targets: list[Unit], complete: bool
) -> dict[int, str]:
    """Pair (by identity) -> why it is a question.

    Where all layers of a size have their place on both sides, the last open one is left by
    elimination. Where layers of other sizes are left over, it takes more: a layer of the
    target may have none in the source.
    """
    doubts = {id(pair): _doubt(pair, complete) for pair in pairs}
    sizes = [Counter(u.size for u in side) for side in (sources, targets)]
    sizes.append(Counter(pair.target.size for pair in pairs))
    open_sizes = Counter(pair.target.size for pair in pairs if doubts[id(pair)])
    for pair in pairs:
        size = pair.target.size
        alone = open_sizes[size] == 1 and len({counts[size] for counts in sizes}) == 1
        if alone and doubts[id(pair)].startswith(ONLY_SHAPE):
            sure = [other for other in pairs if not doubts[id(other)]]
            if complete or not (pair.said or pair.asked) or _joined(pair, sure):
                doubts[id(pair)] = ""
    return doubts


def _joined(pair: Pair, sure: list[Pair]) -> bool:
    """Whether a sure neighbour in the target's module comes from the source's module."""
    module, root = pair.target.path[:-1], pair.source.path[:1]
    return bool(module) and any(
        other.target.path[: len(module)] == module and other.source.path[:1] == root
        for other in sure
    )


def _doubt(pair: Pair, complete: bool) -> str:
    """Why the pair is a question, "" where it is an answer."""
    if pair.rivals:
        names = ", ".join(str(rival) for rival in pair.rivals[:4])
        return f"{pair.source} fits, and so does {names}: nothing tells them apart"
    if pair.margin < SURE:
        return f"{pair.source} fits another place as well"
    if contradict(pair.source, pair.target):
        return f"the names contradict each other: {pair.source} and {pair.target}"
    if not _supported(pair, complete):
        return f"{ONLY_SHAPE} {pair.source}"
    return ""


def _supported(pair: Pair, complete: bool) -> bool:
    """Whether more than a shape speaks for the pair."""
    source, target = pair.source, pair.target
    if pair.said & pair.asked or (source.role and source.role == target.role):
        return True
    if literal(source.path, target.path) >= 0.9:
        return True
    if target.auto or not pair.asked:
        placed = source.inner == target.inner or overlap(source.chain, target.chain) >= 0.5
        return complete or placed
    return complete and (pair.unique or source.chain == target.chain)
