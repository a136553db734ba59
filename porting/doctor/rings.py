"""Leaves of one module that hold each other's tensors in a ring: q holds k, k holds v, v holds q."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from porting.doctor.names import numbers, template
from porting.doctor.verdict import LeafVerdict
from porting.doctor.wording import places, spans

LONGEST = 8  #: leaves of one ring


def rings(verdicts: Mapping[str, LeafVerdict]) -> dict[str, tuple[str, ...]]:
    """Path of a leaf in a ring of three or more -> the names in which its leaves differ.

    Each leaf holds what the next should hold, and the last what the first should. The least
    name is first.

    >>> held = {"a/q/w": "k", "a/k/w": "v", "a/v/w": "q"}
    >>> made = {p: LeafVerdict(p, "wrong_source", source=k, expected_source=p[2]) for p, k in held.items()}
    >>> rings(made)["a/v/w"]
    ('k', 'v', 'q')
    """
    wrong = {p: v for p, v in verdicts.items() if v.status == "wrong_source" or v.holds}
    owners: dict[str, list[str]] = {}
    for path, v in wrong.items():
        owners.setdefault(v.expected_source or "", []).append(path)
    ahead = {}
    for path, v in wrong.items():
        owned = owners.get(v.source or "", [])
        ahead[path] = v.holds or (owned[0] if len(owned) == 1 else "")
    found = {path: _names(_ring(path, ahead)) for path in wrong}
    return {path: names for path, names in found.items() if names}


def _ring(path: str, ahead: Mapping[str, str]) -> list[str]:
    """The leaves from `path` to itself, each followed by that whose tensor it holds; [] for none."""
    ring = [path]
    while (after := ahead.get(ring[-1], "")) != path:
        if not after or len(ring) == LONGEST:
            return []
        ring.append(after)
    return ring


def _names(ring: list[str]) -> tuple[str, ...]:
    """The part in which the paths of a ring differ; () if they differ in more, or in a number."""
    parts = list(zip(*(path.split("/") for path in ring), strict=False))
    differ = [part for part in parts if len(set(part)) > 1]
    alike = len({path.count("/") for path in ring}) == 1
    if len(ring) < 3 or not alike or len(differ) != 1 or len({*map(template, differ[0])}) < len(ring):  # fmt: skip
        return ()
    names = differ[0]
    first = names.index(min(names))
    return names[first:] + names[:first]


def ring_title(names: Iterable[str], group: list[LeafVerdict]) -> str:
    """ "k, v and q rotated in layers 0…11: each holds what the next should hold."."""
    *most, end = names
    layers = {n for v in group for n in numbers(v.path)[:1]}
    where = f"layers {spans(layers)}" if len(layers) > 1 else places(v.path for v in group)
    return f"{', '.join(most)} and {end} rotated in {where}: each holds what the next should hold."
