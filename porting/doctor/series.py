"""Lists of layers on both sides that are the same list, by the values of their leaves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from porting.doctor.places import Form, Number, places, ranks
from porting.mapping.names import words

SURE = 0.8  #: the share of the leaves of a column that must be in one list of the source

Within = tuple[Form, int]  #: what a tensor is within its layer, and its rank


@dataclass
class Column:
    """The leaves that are one and the same leaf of the layers of a list.

    Attributes:
        rest: what each is within its layer.
        paths: number of a layer -> the path there.
        keys: path -> the keys whose values it has; none where that is not known.
    """

    rest: Form
    paths: dict[Number, str] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Series:
    """A list of layers of the port, and the list of the source that it is.

    Attributes:
        form, other: what the paths begin with, and the keys.
        here: number of a layer -> its rank.
        numbers: of the layers there, by rank.
        there: by rank, what a tensor is within a layer -> key.
        whole: whether both lists are equally long.
        columns: the same leaf of all layers.
    """

    form: Form
    other: Form
    here: dict[Number, int]
    numbers: list[Number]
    there: list[dict[Within, str]]
    whole: bool
    columns: list[Column] = field(default_factory=list)
    _ranks: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._ranks = {key: rank for rank, keys in enumerate(self.there) for key in keys.values()}

    def held(self, column: Column, path: str) -> set[int]:
        """The ranks of the layers whose values a leaf has."""
        return {self._ranks[key] for key in column.keys[path] if key in self._ranks}

    def known(self) -> Iterator[tuple[int, set[int]]]:
        """(rank, ranks by its values) of the leaves of which the values tell."""
        for column in self.columns:
            for number, path in column.paths.items():
                if held := self.held(column, path):
                    yield self.here[number], held

    def inside(self, column: Column) -> list[tuple[str, str]]:
        """(path, key) of the leaves of a column whose values are a tensor of this list."""
        return [(p, k) for p, keys in column.keys.items() for k in keys if k in self._ranks]

    def kinds(self, column: Column) -> Counter[Within]:
        """What the leaves of a column are within the layers of the source."""
        within = {key: what for keys in self.there for what, key in keys.items()}
        return Counter(within[key] for _, key in self.inside(column))

    def complete(self) -> bool:
        """Whether both lists are equally long, or all that is known is of the port's layers."""
        told = [(column, path) for column in self.columns for path, k in column.keys.items() if k]
        return self.whole or all(self.held(column, path) for column, path in told)

    def usual(self) -> dict[int, int]:
        """Rank of a layer -> the rank that most of its leaves have by their values."""
        votes: dict[int, Counter[int]] = defaultdict(Counter)
        for rank, held in self.known():
            votes[rank].update([rank] if rank in held else held)
        return {rank: count.most_common(1)[0][0] for rank, count in votes.items()}


def series_of(keys: Mapping[str, list[str]], shapes: Mapping[str, Sequence[int]]) -> list[Series]:
    """The lists of a port, each leaf in the innermost list of which a partner is known.

    Args:
        keys: path -> the keys whose values the leaf has.
        shapes: of the source.
    """
    columns: dict[tuple[Form, Form], Column] = {}
    for path, held in keys.items():
        for at in places(path):
            column = columns.setdefault((at.form, at.rest), Column(at.rest))
            column.paths[at.number], column.keys[path] = path, held
    there: dict[Form, dict[Within, dict[Number, str]]] = defaultdict(lambda: defaultdict(dict))
    for key, shape in shapes.items():
        for at in places(key, leafward=True):
            there[at.form][at.rest, len(shape)][at.number] = key
    lists: dict[Form, list[Column]] = defaultdict(list)
    for (form, _), column in columns.items():
        lists[form].append(column)
    made: list[Series] = []
    taken: set[str] = set()
    for form in sorted(lists, key=lambda form: -len(form)):
        found = _of_list(form, [c for c in lists[form] if not taken & c.keys.keys()], there)
        taken |= {path for series in found for column in series.columns for path in column.keys}
        made += found
    return made


def _of_list(
    form: Form,
    columns: Sequence[Column],
    there: Mapping[Form, Mapping[Within, Mapping[Number, str]]],
) -> list[Series]:
    """The series of one list, of which the layers may be of several lists of the source."""
    votes = [_votes(column) for column in columns]
    found: dict[Form, Series] = {}
    for other in {other for seen in votes for other in seen}:
        mine = [c for c, seen in zip(columns, votes, strict=True) if seen.get(other)]
        series = _paired(form, other, mine, there.get(other, {}))
        if series:
            found[other] = series
    for column, seen in zip(columns, votes, strict=True):
        fits = [
            o
            for o, s in found.items()
            if (o in seen or not seen) and column.paths.keys() <= s.here.keys()
        ]
        if fits:
            best = max(fits, key=lambda o: (seen.get(o, 0), *_like(form, o)))
            found[best].columns.append(column)
    return [series for series in found.values() if series.columns]


def _like(form: Form, other: Form) -> tuple[int, int, int]:
    """How alike two lists are by their names and depth."""
    names = [{w for part in one for w in words(part.rstrip("#"))} for one in (form, other)]
    depths = [sum(part[-1:] == "#" for part in one) for one in (form, other)]
    return len(names[0] & names[1]), -abs(depths[0] - depths[1]), -len(other)


def _votes(column: Column) -> dict[Form, int]:
    """Form of a list of the source -> leaves of a column that are one and the same tensor of it.

    Only lists in which most are so count.
    """
    known = [keys for keys in column.keys.values() if keys]
    seen = Counter(
        what
        for keys in known
        for what in {(at.form, at.rest) for k in keys for at in places(k, True)}
    )
    found: dict[Form, int] = {}
    for (form, _), count in seen.items():
        if count >= SURE * len(known):
            found[form] = max(count, found.get(form, 0))
    return found


def _paired(
    form: Form,
    other: Form,
    columns: Sequence[Column],
    within: Mapping[Within, Mapping[Number, str]],
) -> Series | None:
    """The list that these columns are, if the other has as many layers, or all their numbers."""
    if all(sum(map(bool, column.keys.values())) < 2 for column in columns):
        return None
    here = ranks(number for column in columns for number in column.paths)
    held = {key for column in columns for keys in column.keys.values() for key in keys}
    rows = [by_number for by_number in within.values() if held & set(by_number.values())]
    each = [set(by_number) for by_number in within.values()]
    whole, common = set().union(*each), set.intersection(*map(set, rows)) if rows else set()
    for theirs in (whole, common, set(here)):
        if len(theirs) == len(here) > 1 and theirs <= whole:
            numbers = sorted(theirs)
            there = [{what: row[n] for what, row in within.items() if n in row} for n in numbers]
            return Series(form, other, here, numbers, there, theirs in (whole, common))
    return None
