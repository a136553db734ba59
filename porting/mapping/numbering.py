"""Numbers brought into agreement before layers are compared.

One side counts `bn1, bn2, bn3` and the other `bn0, bn1, bn2`; one keeps its blocks in
stages (`blocks.2.1`) and the other in one list (`blocks/4`). The numbers of one side are
rewritten where the sizes of all members say that the two are the same list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from porting.mapping.names import words
from porting.mapping.scores import number_words
from porting.mapping.units import Unit, with_chains

Path = tuple[str, ...]


def agree(sources: list[Unit], targets: list[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Both sides with lists of lists written as the one list that the other side has, and
    the target's numbered siblings counted from where the source counts."""
    sources, targets = _flat(sources, targets), _flat(targets, sources)
    return sources, _shifted(targets, sources)


def _flat(units: list[Unit], others: Sequence[Unit]) -> list[Unit]:
    """The units, where the other side has the members of a list of lists in one list."""
    wanted = {tuple(sizes.values()) for sizes in _lists(others, 1).values()}
    outer = _lists(units, 1)
    places: dict[Path, int] = {}
    for parent, sizes in _lists(units, 2).items():
        whole = sum(sizes.values()) == sum(outer[parent].values())
        if whole and len(sizes) > len(outer[parent]) > 1 and tuple(sizes.values()) in wanted:
            places |= {(*parent, *number): rank for rank, number in enumerate(sizes)}
    return with_chains(_placed(unit, places) for unit in units) if places else units


def _lists(units: Sequence[Unit], depth: int) -> dict[Path, dict[Path, int]]:
    """Parent -> `depth` numbers below it -> parameters there, in the order of the numbers."""
    found: dict[Path, dict[Path, int]] = defaultdict(lambda: defaultdict(int))
    for unit in units:
        for start in range(len(unit.path) - depth + 1):
            number = unit.path[start : start + depth]
            if all(name.isdecimal() for name in number):
                found[unit.path[:start]][number] += unit.count
    return {
        parent: dict(sorted(sizes.items(), key=lambda item: tuple(map(int, item[0]))))
        for parent, sizes in found.items()
    }


def _placed(unit: Unit, places: dict[Path, int]) -> Unit:
    for end in range(2, len(unit.path) + 1):
        if (rank := places.get(unit.path[:end])) is not None:
            return replace(unit, path=(*unit.path[: end - 2], str(rank), *unit.path[end:]))
    return unit


def _shifted(units: list[Unit], others: Sequence[Unit]) -> list[Unit]:
    """The units, siblings such as `bn0, bn1` counted from where the others count theirs."""
    starts: dict[tuple, set[int]] = defaultdict(set)
    for (_, stem), members in _siblings(others).items():
        starts[words(stem), _sizes(members)].add(min(members))
    renamed: dict[Path, str] = {}
    for (parent, stem), members in _siblings(units).items():
        start = starts[words(stem), _sizes(members)]
        if len(start) == 1 and (shift := min(start) - min(members)):
            renamed |= {(*parent, f"{stem}{n}"): f"{stem}{n + shift}" for n in members}
    return [
        replace(unit, path=(*unit.path[:-1], renamed[unit.path])) if unit.path in renamed else unit
        for unit in units
    ]


def _siblings(units: Sequence[Unit]) -> dict[tuple[Path, str], dict[int, int]]:
    """Parent and stem -> number -> size, of the layers that are numbered without a gap."""
    found: dict[tuple[Path, str], dict[int, int]] = defaultdict(dict)
    for unit in units:
        named = number_words(unit.path[-1]) if unit.path else None
        if named and named[0]:
            found[unit.path[:-1], named[0]][named[1]] = unit.size
    return {
        name: members
        for name, members in found.items()
        if len(members) > 1 and max(members) - min(members) + 1 == len(members)
    }


def _sizes(members: dict[int, int]) -> tuple[int, ...]:
    return tuple(members[number] for number in sorted(members))
