"""What the wrong sources of many leaves have in common: exchanged, shifted, sorted as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from porting.doctor.names import numbers, parent, template
from porting.doctor.rings import rings
from porting.doctor.sequences import Number, order_of
from porting.doctor.verdict import LeafVerdict

Verdicts = dict[str, LeafVerdict]


def relate(verdicts: Mapping[str, LeafVerdict]) -> Verdicts:
    """The verdicts with a kind for every wrong source.

    The kinds are "shifted", "sorted" and "reversed" (many layers, one pattern), "exchanged" (two
    leaves hold each other's tensor), "rotated" (so do three or more in a ring), "layer" (the same leaf of another layer), "other".

    Args:
        verdicts: by path.
    """
    out = _constant_pairs(dict(verdicts))
    out = _exchanged(out)
    out |= {path: replace(out[path], kind="rotated") for path in rings(out)}
    return _layered(out)


def homes(verdicts: Mapping[str, LeafVerdict]) -> dict[str, str]:
    """Path of a leaf of another layer -> the path where what it holds belongs.

    >>> one = LeafVerdict("h/0/w", "wrong_source", source="h.1.w", expected_source="h.0.w")
    >>> homes({"h/0/w": one, "h/1/w": LeafVerdict("h/1/w", "ok", expected_source="h.1.w")})
    {'h/0/w': 'h/1/w'}
    """
    of_key = {(v.expected_source, template(path)): path for path, v in verdicts.items()}
    found = {
        path: of_key.get((v.source, template(path)))
        for path, v in verdicts.items()
        if v.status == "wrong_source" and v.source
    }
    return {path: home for path, home in found.items() if home and home != path}


def _exchanged(verdicts: Verdicts) -> Verdicts:
    wrong = [v for v in verdicts.values() if v.status == "wrong_source"]
    pairs = {(v.expected_source, v.source) for v in wrong}
    for v in wrong:
        if (v.source, v.expected_source) in pairs:
            verdicts[v.path] = replace(v, kind="exchanged")
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


def _layered(verdicts: Verdicts) -> Verdicts:
    """The same leaf of many layers has one kind, told by the numbers here or in the source."""
    belongs = homes(verdicts)
    alike: dict[str, list[LeafVerdict]] = {}
    for v in verdicts.values():
        alike.setdefault(template(v.path), []).append(v)
    for group in alike.values():
        moved = [v for v in group if v.path in belongs or _of_another_layer(v)]
        here = [(numbers(v.path), numbers(belongs[v.path])) for v in moved if v.path in belongs]
        there = [(_numbers(v.expected_source), _numbers(v.source)) for v in moved]
        kind = order_of(here, [numbers(v.path) for v in group]) if len(here) == len(moved) else ""
        kind = kind or order_of(there, [_numbers(v.expected_source) for v in group])
        for v in moved:
            if kind or v.kind != "exchanged":
                verdicts[v.path] = replace(v, kind=kind or "layer")
    return verdicts


def _of_another_layer(v: LeafVerdict) -> bool:
    """Whether a leaf holds a tensor whose key differs from the right one in numbers alone."""
    both = v.status == "wrong_source" and v.source and v.expected_source
    return bool(both) and template(v.source or "") == template(v.expected_source or "")


def _numbers(keys: str | None) -> Number:
    """The numbers in the first of several keys."""
    return numbers((keys or "").split(", ")[0])
