"""How well a layer of the source and one of the target go together.

Four kinds of evidence, each of its own scale: the names as they stand, their words, the
roles that they name, and the modules that the two sit in (known by their sizes, so that
this works for trees without telling names). Structure that cannot fit is no pair at all.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from porting.mapping.layouts import Layout, candidates
from porting.mapping.names import clash, opposite, reversed_in, words
from porting.mapping.units import SLOTS, Part, Unit

LITERAL, WORDS, ROLE, STRUCTURE = 2.0, 2.0, 1.5, 2.0
MISSING, SPARE, CLASH, TURNED = 2.0, 1.0, 3.0, 1.0
EMBEDS = frozenset({"tok", "pos", "type"})


class Scorer:
    """Scores pairs of layers; holds the rarity of words on both sides."""

    def __init__(self, sources: Sequence[Unit], targets: Sequence[Unit]) -> None:
        self._rarity = _rarity(sources) + _rarity(targets)
        self._words = cache(lambda unit: unit.words)

    def __call__(self, source: Unit, target: Unit) -> float | None:
        """The score of a pair, `None` where the two cannot be one layer."""
        fits = layouts_of(source, target)
        if fits is None:
            return None
        turned = fits.get("w") and "b" not in fits and _against_convention(source, fits["w"])
        score = -TURNED if turned else 0.0
        score += LITERAL * literal(source.path, target.path)
        score += WORDS * self.common_words(source, target)
        score += (
            STRUCTURE * (overlap(source.chain, target.chain) + (source.inner == target.inner)) / 2
        )
        score += ROLE * (source.role == target.role != "")
        if contradict(source, target):
            score -= CLASH
        missing = len(target.parts.keys() - source.parts.keys())
        spare = len(source.parts.keys() - target.parts.keys() - {"g", "v"})
        return score - MISSING * missing - SPARE * spare - 0.3 * (source.bare != target.bare)

    def common_words(self, source: Unit, target: Unit) -> float:
        """The share of words that both paths use, rare words counting more."""
        a, b = self._words(source), self._words(target)
        either = sum(self._rarity[w] for w in a | b)
        return sum(self._rarity[w] for w in a & b) / either if either else 0.0


def _rarity(units: Sequence[Unit]) -> Counter[str]:
    counts = Counter(w for unit in units for w in unit.words)
    return Counter({w: math.log(1 + len(units) / n) for w, n in counts.items()})


@cache
def _spelled(path: tuple[str, ...]) -> tuple[str, ...]:
    """Names only, one spelling, doubled components once."""
    names = [c.replace("_", "").lower() for c in path if not c.isdigit()]
    return tuple(n for i, n in enumerate(names) if i == 0 or n != names[i - 1])


@cache
def literal(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    """How alike two paths are as they stand: half for the last name, half for the others.

    >>> literal(("bert", "encoder", "query"), ("encoder", "query"))
    0.9
    """
    left, right = _spelled(a), _spelled(b)
    if not left or not right:
        return float(left == right)
    rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    return 0.5 * (left[-1] == right[-1]) + rows[-1][-1] / (len(left) + len(right))


def overlap(a: frozenset[int], b: frozenset[int]) -> float:
    """The share of enclosing modules, by their sizes, that both have."""
    return len(a & b) / len(a | b) if a | b else 0.0


def contradict(source: Unit, target: Unit) -> bool:
    """Whether the names say that the two are different layers."""
    leaf = target.parts.get("w")
    if source.role == "head" and leaf is not None and leaf.name == "embedding":
        return True
    if reversed_in(source.path, target.path):
        return True
    same = bool(source.role) and source.role == target.role
    return clash(source.role, target.role) or opposite(source.words, target.words, same)


def layouts_of(source: Unit, target: Unit) -> dict[str, list[Layout]] | None:
    """slot -> layouts that fit, `None` where the pair is impossible."""
    if source.size != target.size and not _fused(source, target):
        return None
    if ("mean" in target.parts) != ("mean" in source.parts):
        return None
    made: dict[str, list[Layout]] = {}
    for slot, leaf in target.parts.items():
        part = source.parts.get(slot)
        if slot == "w" and part is None and _fused(source, target):
            part = replace(source.parts["v"], name="weight")
        if part is None:
            continue
        if slot == "w" and not _same_kind(source, target):
            return None
        fits = candidates(part, leaf, target.role or source.role, source.bare)
        if not fits:
            return None
        if keeps_layout(part, leaf):
            fits = [layout for layout in fits if layout.relation == "kept"] or fits
        made[slot] = fits
    return made or None


def keeps_layout(part: Part, leaf: Part) -> bool:
    """Whether a parameter is a table by its own name (`input_embedding`), or has one name of
    its own on both sides (`mm_projection_weight`).

    The weight of a layer changes its name with its layout, `weight` to `kernel`.

    >>> keeps_layout(Part(("tok.weight",), (3, 3), "weight"), Part(("input_embedding",), (3, 3), ""))
    True
    """
    names = {re.split(r"[./]", key)[-1] for key in (*part.sources, *leaf.sources)}
    table = any(name.endswith("_embedding") for name in names)
    return table or (len(names) == 1 and not names & SLOTS.keys())


def _against_convention(source: Unit, fits: list[Layout]) -> bool:
    """Whether a weight fits only in the orientation that its name does not promise."""
    part = source.parts.get("w")
    promised = "moved" if part is None or part.name == "weight" else "kept"
    found = {layout.relation for layout in fits}
    return "" not in found and promised not in found and source.role != "deconv"


def _fused(source: Unit, target: Unit) -> bool:
    """A weight norm's pair against the one kernel that it stands for."""
    pair = {"g", "v"} <= source.parts.keys()
    return pair and "v" not in target.parts and "w" in target.parts


def _same_kind(source: Unit, target: Unit) -> bool:
    """A table stays a table, and a matrix a matrix, whatever the shapes allow."""
    weight, leaf = source.parts.get("w") or source.parts["v"], target.parts["w"]
    if leaf.name == "embedding":
        return len(source.parts) == 1 and weight.name != "kernel"
    if len(weight.shape) == 2 and source.role in EMBEDS and leaf.name == "kernel":
        return target.role == source.role
    if weight.name == "embedding" and leaf.name == "kernel":
        return False
    return not (weight.name == "kernel" and leaf.name == "scale")


def number_words(component: str) -> tuple[str, int] | None:
    """The stem and the number of a numbered name, `None` where it has none.

    >>> number_words("fc2"), number_words("7"), number_words("out")
    (('fc', 2), ('', 7), None)
    """
    stem = component.rstrip("0123456789")
    return (stem, int(component[len(stem) :])) if stem != component else None


__all__ = [
    "Scorer", "contradict", "keeps_layout", "layouts_of", "literal", "number_words", "overlap", "words",
]  # fmt: skip
