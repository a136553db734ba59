"""Numbered modules: which list of layers is which, before layers are compared.

`encoder.layer.0 … 11` of the source and `layers/0 … 11`, `layer_0 … layer_11` or
`Block_0 … Block_11` of the target are lists. Two lists are one if they are equally long
and their members equally large, and nothing else fits as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from porting.mapping.names import opposite, words
from porting.mapping.scores import literal, number_words, overlap
from porting.mapping.units import Unit

Path = tuple[str, ...]
NEAR = 0.15  #: two lists this close in score cannot be told apart


@dataclass(frozen=True)
class Numbered:
    """A list of modules.

    Attributes:
        parent: the path it hangs from.
        stem: the name in front of the number, "" where the number stands alone.
        sizes: parameters of the members, in the order of their numbers.
        ranks: path of a member -> its place.
        chain: sizes of the modules around it.
        least: parameters of the smallest layer of every member.
    """

    parent: Path
    stem: str
    sizes: tuple[int, ...]
    ranks: dict[Path, int]
    chain: frozenset[int]
    least: tuple[int, ...] = ()

    @property
    def auto(self) -> bool:
        """Whether Flax counted the members (`Block_0`)."""
        return not self.stem and bool(self.parent) and self.parent[-1][:1].isupper()


def numbered(units: Sequence[Unit]) -> list[Numbered]:
    """All lists of two or more members, outer lists first."""
    totals: dict[Path, int] = defaultdict(int)
    least: dict[Path, int] = {}
    members: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    for unit in units:
        count = unit.count
        for depth in range(len(unit.path) + 1):
            totals[unit.path[:depth]] += count
            least[unit.path[:depth]] = min(count, least.get(unit.path[:depth], count))
        for depth, name in enumerate(unit.path):
            found = number_words(name)
            if found and not (found[0] and depth == len(unit.path) - 1):
                members[unit.path[:depth], found[0]][found[1]] = unit.path[: depth + 1]
    made = []
    for (parent, stem), by_number in members.items():
        if len(by_number) > 1:
            paths = [by_number[n] for n in sorted(by_number)]
            chain = frozenset(totals[parent[:d]] for d in range(len(parent) + 1))
            sizes = tuple(totals[p] for p in paths)
            ranks = {path: i for i, path in enumerate(paths)}
            smallest = tuple(least[p] for p in paths)
            made.append(Numbered(parent, stem, sizes, ranks, chain, smallest))
    return sorted(made, key=lambda n: len(n.parent))


class Alignment:
    """Pairs of lists; says whether two layers sit at the same places of theirs.

    Args:
        counted: whether lists that Flax numbered itself may be paired at all.
    """

    def __init__(
        self, sources: Sequence[Unit], targets: Sequence[Unit], counted: bool = True
    ) -> None:
        self._of: dict[str, dict[Path, tuple[int, int]]] = {"source": {}, "target": {}}
        self.pairs: list[tuple[Numbered, Numbered]] = []
        self.unpaired: list[Numbered] = []
        left, right = numbered(sources), numbered(targets)
        right = [n for n in right if counted or not n.auto]
        while True:
            chosen = self._next(left, right)
            if chosen is None:
                break
            self._take(*chosen)
            left = [n for n in left if n is not chosen[0]]
            right = [n for n in right if n is not chosen[1]]
        self.unpaired = left

    def _next(
        self, left: list[Numbered], right: list[Numbered]
    ) -> tuple[Numbered, Numbered] | None:
        """The next pair of lists that nothing rivals, outer lists first."""
        for source in left:
            scored = [(s, t) for t in right if (s := self._score(source, t)) is not None]
            if not scored:
                continue
            scored.sort(key=lambda pair: -pair[0])
            best, target = scored[0]
            rivals = [s for s, _ in scored[1:]]
            rivals += [
                r for o in left if o is not source and (r := self._score(o, target)) is not None
            ]
            if all(best - rival > NEAR for rival in rivals):
                return source, target
        return None

    def _score(self, source: Numbered, target: Numbered) -> float | None:
        if len(source.sizes) != len(target.sizes):
            return None
        if self.place(source.parent, "source") != self.place(target.parent, "target"):
            return None
        mine, theirs = _words(source.parent, source.stem), _words(target.parent, target.stem)
        if opposite(mine, theirs):
            return None
        equal = source.sizes == target.sizes
        alike = literal((*source.parent, source.stem), (*target.parent, target.stem))
        common = len(mine & theirs) / len(mine | theirs) if mine | theirs else 0.0
        named = common and not target.auto
        if not equal and (not named or len(set(source.sizes)) != len(set(target.sizes))):
            return None
        count = len(source.sizes)
        stacked = all(n == count * m for m, n in zip(source.least, target.least, strict=True))
        if equal and stacked:
            return None  # as large, of layers so many times larger: another list in a stack
        return 2.0 * equal + alike + common + overlap(source.chain, target.chain)

    def _take(self, source: Numbered, target: Numbered) -> None:
        number = len(self.pairs)
        self.pairs.append((source, target))
        for side, lists in (("source", source), ("target", target)):
            self._of[side] |= {path: (number, rank) for path, rank in lists.ranks.items()}

    def place(self, path: Path, side: str) -> tuple[tuple[int, int], ...]:
        """The places of a path in the paired lists around it."""
        known = self._of[side]
        return tuple(sorted(known[p] for d in range(1, len(path) + 1) if (p := path[:d]) in known))


def _words(parent: Path, stem: str) -> frozenset[str]:
    names = [*parent, stem] if stem else parent
    return frozenset(w for name in names for w in words(name) if not w.isdigit())
