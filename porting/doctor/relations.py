"""What the wrong sources of many leaves have in common: exchanged, shifted, sorted as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from porting.doctor.names import numbers, parent, template
from porting.doctor.verdict import LeafVerdict

Verdicts = dict[str, LeafVerdict]


def relate(verdicts: Mapping[str, LeafVerdict], keys: list[str]) -> Verdicts:
    """The verdicts with a kind for every wrong source.

    Args:
        verdicts: by path.
        keys: all source keys (they tell how many layers there are).

    The kinds are "shifted" and "sorted" (many layers, one pattern), "exchanged" (two leaves
    hold each other's tensor), "layer" (the same leaf of another layer), "other".
    """
    out = _constant_pairs(dict(verdicts))
    out = _exchanged(out)
    return _layered(out, keys)


def _exchanged(verdicts: Verdicts) -> Verdicts:
    wrong = {p: v for p, v in verdicts.items() if v.status == "wrong_source"}
    for path, v in wrong.items():
        for other in wrong.values():
            if v.source == other.expected_source and other.source == v.expected_source:
                verdicts[path] = replace(verdicts[path], kind="exchanged")
    parts = {p: v for p, v in verdicts.items() if v.kind == "other_part"}
    for path, v in parts.items():
        if v.holds in parts and parts[v.holds].holds == path:
            verdicts[path] = replace(verdicts[path], kind="exchanged")
    return verdicts


def _constant_pairs(verdicts: Verdicts) -> Verdicts:
    """Constant leaves that hold another's value, while that one holds theirs, were exchanged."""
    wrong = [v for v in verdicts.values() if v.wrong]
    for a in (v for v in wrong if v.status == "unported" and v.alternatives):
        for b in wrong:
            both = parent(a.path) == parent(b.path) and a.expected_source in b.alternatives
            back = both or (b.status == "wrong_source" and b.source == a.expected_source)
            if a.path != b.path and back and b.expected_source in a.alternatives:
                note = f"Holds {b.expected_source} instead of {a.expected_source}."
                verdicts[a.path] = replace(
                    a, status="wrong_source", kind="exchanged", source=b.expected_source,
                    rule=a.expected_rule, note=note,
                )  # fmt: skip
    return verdicts


def _step(v: LeafVerdict) -> tuple[int, int, int] | None:
    """(place, expected, held) of the one number in which two keys differ."""
    if v.status != "wrong_source" or not v.source or not v.expected_source:
        return None
    if template(v.source) != template(v.expected_source):
        return None
    expected, held = (name.split(", ")[0] for name in (v.expected_source, v.source))
    pairs = enumerate(zip(numbers(expected), numbers(held), strict=True))
    differ = [(i, a, b) for i, (a, b) in pairs if a != b]
    return differ[0] if len(differ) == 1 else None


def _layered(verdicts: Verdicts, keys: list[str]) -> Verdicts:
    steps = {p: s for p, v in verdicts.items() if (s := _step(v))}
    groups: dict[tuple[str, int], dict[str, tuple[int, int]]] = {}
    for path, (place, expected, held) in steps.items():
        key = (verdicts[path].expected_source or "").split(", ")[0]
        groups.setdefault((template(key), place), {})[path] = (expected, held)
    for (stem, place), moves in groups.items():
        layers = sorted({numbers(k)[place] for k in keys if template(k) == stem})
        kind = _order(dict(moves.values()), layers)
        for path in moves:
            if kind or verdicts[path].kind != "exchanged":
                verdicts[path] = replace(verdicts[path], kind=kind or "layer")
    return verdicts


def _order(moves: dict[int, int], layers: list[int]) -> str:
    """ "sorted", "shifted", or "" where the layers show no pattern.

    >>> _order({1: 0, 2: 1}, [0, 1, 2]), _order({2: 10, 3: 2}, list(range(11)))
    ('shifted', '')
    """
    as_text = dict(zip(layers, sorted(layers, key=str), strict=True))
    moved = {a: b for a, b in as_text.items() if a != b}
    if moved and moves == moved:
        return "sorted"
    count = len(layers)
    steps = {(layers.index(held) - layers.index(want)) % count for want, held in moves.items()}
    one = steps == {1} or steps == {count - 1}
    return "shifted" if one and len(moves) > 1 and count > 2 else ""
