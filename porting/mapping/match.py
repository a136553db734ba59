"""The assignment of source layers to target layers, and how sure it is.

Layers are compared only where their lists agree. Within each group of layers that could
stand for one another the best assignment is taken as a whole, and then every exchange is
tried: an exchange that costs next to nothing is a question, not an answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from porting.mapping.assignment import best_assignment
from porting.mapping.lists import Alignment
from porting.mapping.names import GENERIC, natural
from porting.mapping.scores import Scorer, number_words
from porting.mapping.units import Unit

SURE = 0.4  #: an exchange that costs less leaves the question open
RIVALS = 64  #: as many alternatives are kept for a person
CROWD = 100  #: of more layers than these that fit one place, only namesakes are looked at
ORDER = 2.0  #: what agreement in order is worth
CONVENTION = {
    name: i
    for i, name in enumerate(
        ("tok", "pos", "type", "norm1", "qkv", "q", "k", "v", "o", "norm3", "norm2", "gate", "up",
         "down")
    )
}  # fmt: skip


@dataclass
class Pair:
    """A source layer and the target layer that it becomes.

    Attributes:
        score: evidence for the pair.
        margin: what the cheapest exchange costs.
        rivals: the source layers that could stand here instead.
        said: words of the source's name that tell it from the other layers.
        asked: the same for the target.
        unique: no other layer of either side has its size, and its weight is not square.
    """

    source: Unit
    target: Unit
    score: float
    margin: float = float("inf")
    rivals: list[Unit] = field(default_factory=list)
    unique: bool = False
    said: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()


def assign(sources: Sequence[Unit], targets: Sequence[Unit], counted: bool = True) -> list[Pair]:
    """The best pairs of layers, each with its margin.

    Args:
        counted: whether the numbers of auto-named targets (`Dense_0`) tell an order.
    """
    scorer = Scorer(sources, targets)
    alignment = Alignment(sources, targets, counted)
    scores = _scores(sources, targets, scorer, alignment)
    pairs = [p for group in _groups(scores) for p in _solve(group, sources, targets, scores)]
    _weigh(pairs, sources, targets, scores, ORDER if counted else 0.0)
    common = GENERIC | _everywhere(sources) | _everywhere(targets)
    sizes = Counter(u.size for u in sources) + Counter(u.size for u in targets)
    for pair in pairs:
        pair.said, pair.asked = pair.source.words - common, pair.target.words - common
        ends = next(iter(pair.target.parts.values())).shape[-2:]
        pair.unique = sizes[pair.target.size] == 2 and len(set(ends)) == len(ends)
    return pairs


def _everywhere(units: Sequence[Unit]) -> frozenset[str]:
    """Words that most layers have in their path, such as the model's name."""
    counts = Counter(w for unit in units for w in unit.words)
    return frozenset(w for w, n in counts.items() if len(units) > 3 and n > 0.6 * len(units))


def _scores(
    sources: Sequence[Unit], targets: Sequence[Unit], scorer: Scorer, alignment: Alignment
) -> dict[tuple[int, int], float]:
    """(source index, target index) -> score of all pairs that are possible."""
    buckets: dict[tuple, list[int]] = defaultdict(list)
    for i, unit in enumerate(sources):
        buckets[unit.size, alignment.place(unit.path, "source")].append(i)
    found = {}
    for j, unit in enumerate(targets):
        fitting = buckets[unit.size, alignment.place(unit.path, "target")]
        if len(fitting) > CROWD:
            fitting = [i for i in fitting if sources[i].path == unit.path]
        for i in fitting:
            score = scorer(sources[i], unit)
            if score is not None:
                found[i, j] = score
    return found


def _groups(scores: dict[tuple[int, int], float]) -> list[list[tuple[int, int]]]:
    """Connected components of the pairs."""
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for i, j in scores:
        parent[root(("s", i))] = root(("t", j))
    groups: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for i, j in scores:
        groups[root(("s", i))].append((i, j))
    return list(groups.values())


def _solve(
    group: list[tuple[int, int]], sources: Sequence[Unit], targets: Sequence[Unit],
    scores: dict[tuple[int, int], float],
) -> list[Pair]:  # fmt: skip
    """The assignment of one component; equal scores follow the order on both sides."""
    rows = sorted({i for i, _ in group}, key=lambda i: _rank(sources[i]))
    cols = sorted({j for _, j in group}, key=lambda j: natural(str(targets[j])))
    gain = np.full((len(rows), len(cols)), -1e3)
    row_of = {i: r for r, i in enumerate(rows)}
    col_of = {j: c for c, j in enumerate(cols)}
    for i, j in group:
        r, c = row_of[i], col_of[j]
        drift = r / len(rows) - c / len(cols)
        gain[r, c] = scores[i, j] - 1e-3 * drift * drift
    picked = best_assignment(gain)
    return [
        Pair(sources[rows[r]], targets[cols[c]], scores[rows[r], cols[c]])
        for r, c in picked
        if gain[r, c] > -100
    ]


def _rank(unit: Unit) -> tuple:
    """Where a source layer stands: as defined, else by number, convention and name."""
    if unit.order >= 0:
        return (unit.order,)
    path = tuple(natural(name) for name in unit.path[:-1])
    return (-1, path, CONVENTION.get(unit.role, 99), natural(str(unit)))


def _weigh(
    pairs: list[Pair], sources: Sequence[Unit], targets: Sequence[Unit],
    scores: dict[tuple[int, int], float], order: float,
) -> None:  # fmt: skip
    """Try every exchange and note what the cheapest costs."""
    s_of = {id(unit): i for i, unit in enumerate(sources)}
    t_of = {id(unit): j for j, unit in enumerate(targets)}
    by_source = {s_of[id(p.source)]: p for p in pairs}
    by_target = {t_of[id(p.target)]: p for p in pairs}
    for (i, j), score in scores.items():
        mine, holder = by_source.get(i), by_target.get(j)
        if mine is None and holder is not None:
            _note(holder, holder.score - score, sources[i])
        elif holder is None and mine is not None:
            _note(mine, mine.score - score, None)
        elif mine is not None and holder is not None and mine is not holder:
            back = scores.get((s_of[id(holder.source)], t_of[id(mine.target)]))
            if back is None:
                continue
            cost = mine.score + holder.score - score - back + order * _order(holder, mine)
            _note(holder, cost, sources[i])
            _note(mine, cost, holder.source)
    _widen(pairs, {(id(sources[i]), id(targets[j])) for i, j in scores})


def _widen(pairs: Sequence[Pair], possible: set[tuple[int, int]]) -> None:
    """The rivals of a pair's rivals are its rivals too: three may change places in a ring."""
    holder = {id(pair.source): pair for pair in pairs}
    asked = [pair for pair in pairs if pair.rivals]
    ring: dict[int, set[int]] = {}
    for pair in asked:
        joined = {id(pair.source), *(id(rival) for rival in pair.rivals)}
        for member in list(joined):
            joined |= ring.get(member, set())
        ring |= dict.fromkeys(joined, joined)
    for pair in asked:
        known = {id(pair.source), *(id(rival) for rival in pair.rivals)}
        for other in ring[id(pair.source)] - known:
            fits = (other, id(pair.target)) in possible
            if fits and other in holder and len(pair.rivals) < RIVALS:
                pair.rivals.append(holder[other].source)


def _note(pair: Pair, cost: float, rival: Unit | None) -> None:
    known = {id(other) for other in pair.rivals}
    if cost < SURE and rival is not None and len(known) < RIVALS and id(rival) not in known:
        pair.rivals.append(rival)
    pair.margin = min(pair.margin, cost)


def _order(one: Pair, other: Pair) -> int:
    """1 where both sides order the two alike, -1 where they do not, 0 where one is silent."""
    source, target = _before(one.source, other.source), _before(one.target, other.target)
    return 0 if source is None or target is None else 1 if source == target else -1


def counted_before(a: Unit, b: Unit) -> bool | None:
    """Whether the first number in which two paths differ puts `a` before `b`."""
    for x, y in zip(a.path, b.path, strict=False):
        if x != y:
            m, n = number_words(x), number_words(y)
            return m[1] < n[1] if m and n and m[0] == n[0] else None
    return None


def _before(a: Unit, b: Unit) -> bool | None:
    """Whether `a` comes before `b`, `None` where nothing says so."""
    counted = counted_before(a, b)
    if counted is not None:
        return counted
    if a.order >= 0 and b.order >= 0 and a.order != b.order:
        defined = a.order < b.order
        first, second = CONVENTION.get(a.role), CONVENTION.get(b.role)
        if first is None or second is None or a.path[:-1] != b.path[:-1]:
            return defined
        return defined if (first < second) == defined else None
    return None
