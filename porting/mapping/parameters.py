"""The source without what is no parameter of the target: buffers and second names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from porting.mapping.scores import literal
from porting.mapping.units import Unit, buffer_reason, units, unused_reason


def parameters(specs: Mapping[str, Any], targets: list[Unit]) -> dict[str, Any]:
    """The source without the buffers that the target does not have.

    A buffer by name is kept where the target has its namesake, or has more layers of its
    size than the rest of the source can fill.
    """
    rest = {key: spec for key, spec in specs.items() if not unused_reason(key, spec)}
    second = {key for keys in _second_names(rest).values() for key in keys}
    known = units({key: spec for key, spec in rest.items() if key not in second}, ordered=False)
    wanted = Counter(t.size for t in targets) - Counter(u.size for u in known)
    for key, spec in specs.items():
        if key in rest or buffer_reason(key, strict=True):
            continue
        unit = units({key: spec}, ordered=False)[0]
        if wanted[unit.size] or any(_namesakes(unit, t) for t in targets):
            rest[key] = spec
            wanted[unit.size] -= 1
    spare = _other_names(rest, targets)
    return {key: spec for key, spec in specs.items() if key in rest and key not in spare}


def _second_names(specs: Mapping[str, Any]) -> dict[tuple[int, ...], list[str]]:
    """shape -> keys of the token tables beside one called `shared`, whose names they are."""
    tables: dict[tuple[int, ...], list[Unit]] = defaultdict(list)
    for unit in units(specs, ordered=False):
        if unit.role == "tok" and unit.parts.keys() == {"w"}:
            tables[unit.parts["w"].shape].append(unit)
    return {
        shape: [u.parts["w"].sources[0] for u in named if u.path[-1] != "shared"]
        for shape, named in tables.items()
        if any(unit.path[-1] == "shared" for unit in named)
    }


def _other_names(specs: Mapping[str, Any], targets: list[Unit]) -> set[str]:
    """Second names of one token table (`shared` is also `encoder.embed_tokens`), where the
    target has no place for them."""
    spare: set[str] = set()
    found = units(specs, ordered=False)
    for shape, keys in _second_names(specs).items():
        places = sum(
            t.role == "tok" or t.parts["w"].name == "embedding"
            for t in targets if "w" in t.parts and t.parts["w"].shape == shape
        )  # fmt: skip
        places -= sum(
            u.role in ("pos", "type") and u.parts["w"].shape == shape
            for u in found if "w" in u.parts
        )  # fmt: skip
        if places == 1:
            spare |= set(keys)
    return spare


def _namesakes(unit: Unit, target: Unit) -> bool:
    return target.size == unit.size and literal(unit.path, target.path) > 0.7
