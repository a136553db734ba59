"""Tied weights, and why a source key is not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping as AnyMapping
from typing import Any

from porting.mapping.layouts import candidates, rule_of
from porting.mapping.names import components, role, words
from porting.mapping.result import NO_PLACE, MappedLeaf
from porting.mapping.scores import literal
from porting.mapping.units import Part, Unit, unused_reason

HEADS = frozenset({"head", "decoder", "logits", "unembed"})


def tie_leaves(
    specs: AnyMapping[str, Any],
    sources: list[Unit],
    targets: list[Unit],
    found: AnyMapping[str, MappedLeaf],
) -> dict[str, MappedLeaf]:
    """Leaves that no tensor is left for: a head tied to the token table, or a lone bias."""
    made: dict[str, MappedLeaf] = {}
    read = {key for leaf in found.values() for key in leaf.sources}
    tables = _tables(sources, found)
    unread: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in sources:
        unread[unit.path[-1:]].append(unit)
    for target in targets:
        for slot, leaf in target.parts.items():
            path = leaf.sources[0]
            if path in found:
                continue
            namesake = _namesake(target, slot, leaf, unread[target.path[-1:]], read)
            if not namesake and slot == "b":
                namesake = _last_one(target, leaf, sources, read, targets, found)
            tied = namesake or (slot == "w" and _tied(target, leaf, tables))
            if tied:
                made[path] = tied
    return made


def _namesake(
    target: Unit, slot: str, leaf: Part, sources: list[Unit], read: set[str]
) -> MappedLeaf | None:
    """An unread tensor of the same name, whose layer is otherwise incomplete."""
    for unit in sources:
        part = unit.parts.get(slot)
        if part is None or part.count != leaf.count or part.sources[0] in read:
            continue
        if literal(unit.path, target.path) < 0.9 or _numbers(unit) != _numbers(target):
            continue
        fits = candidates(part, leaf, target.role)
        if fits:
            rule = rule_of(fits[0], part.pick)
            return MappedLeaf(leaf.sources[0], part.sources, rule, part.join, True,
                              f"The names agree: {unit}.")  # fmt: skip
    return None


def _numbers(unit: Unit) -> tuple[str, ...]:
    return tuple(name for name in unit.path if name.isdigit())


def _last_one(
    target: Unit,
    leaf: Part,
    sources: list[Unit],
    read: set[str],
    targets: list[Unit],
    found: AnyMapping[str, MappedLeaf],
) -> MappedLeaf | None:
    """A bias whose layer's weight is tied away: the only unread bias for the only open one."""
    unread = [
        (u, p)
        for u in sources
        if (p := u.parts.get("b")) and p.sources[0] not in read and p.shape == leaf.shape
    ]
    places = [
        t
        for t in targets
        if (p := t.parts.get("b")) and p.sources[0] not in found and p.shape == leaf.shape
    ]
    if len(unread) != 1 or len(places) != 1:
        return None
    unit, part = unread[0]
    weights = [side.parts.get("w") for side in (unit, target)]
    if all(w and w.sources[0] in have for w, have in zip(weights, (read, found), strict=True)):
        return None  # both weights have their place, so the bias is that of another layer
    rule = rule_of(candidates(part, leaf, target.role)[0], part.pick)
    alone = "w" not in unit.parts or unit.role == "head" or bool(HEADS & unit.words)
    sure = alone and (target.auto or bool(unit.role and unit.role == target.role))
    return MappedLeaf(
        leaf.sources[0],
        part.sources,
        rule,
        part.join,
        sure,
        f"{unit} is the only bias left of its size.",
    )


def _tables(sources: list[Unit], found: AnyMapping[str, MappedLeaf]) -> list[Unit]:
    """The source's token tables, by name or by what they fill."""
    filled = {leaf.sources for path, leaf in found.items() if path.endswith("/embedding")}
    return [
        unit
        for unit in sources
        if (part := unit.parts.get("w")) and len(part.shape) == 2
        and (unit.role == "tok" or (not unit.role and part.sources in filled))
    ]  # fmt: skip


def _tied(target: Unit, leaf: Part, tables: list[Unit]) -> MappedLeaf | None:
    """The token table again, as a head or as another module's table."""
    if target.role not in ("", "head", "tok"):
        return None
    for unit in tables:
        part = unit.parts["w"]
        fits = candidates(part, leaf, target.role)
        if fits:
            sure = bool(target.role or HEADS & set(target.own_words))
            why = f"The source has no tensor for it; it is tied to {unit}"
            return MappedLeaf(leaf.sources[0], part.sources, rule_of(fits[0], part.pick), part.join,
                              sure, f"{why}." if sure else f"{why}, if it is the head")  # fmt: skip
    return None


def unused_keys(specs: AnyMapping[str, Any], found: AnyMapping[str, MappedLeaf]) -> dict[str, str]:
    """Source keys that no leaf reads, each with the reason."""
    read = {key for leaf in found.values() for key in leaf.sources}
    return {key: _why(key, specs, read) for key in specs if key not in read}


def _why(key: str, specs: AnyMapping[str, Any], read: set[str]) -> str:
    reason, shape = unused_reason(key, specs[key]), tuple(specs[key].shape)
    if reason:
        return reason
    twin = _twin(key, shape, specs, read)
    return f"tied to {twin}" if twin else NO_PLACE


def _twin(key: str, shape: tuple[int, ...], specs: AnyMapping[str, Any], read: set[str]) -> str:
    """The tensor that is read and that this key is another name of, by convention."""
    path = components(key)
    *module, name = path
    table = role(tuple(module)) in ("tok", "head") or HEADS & {
        w for c in module[-1:] for w in words(c)
    }
    if not table:
        return ""
    own = role(tuple(module))
    owners = {other: role(components(other)[:-1]) for other in sorted(read)}
    for other, owner in sorted(owners.items(), key=lambda item: item[1] != own):
        if tuple(specs[other].shape) != shape:
            continue
        if name == "weight" and len(shape) == 2 and owner in ("tok", "head"):
            return other
        if (
            name == "bias"
            and other.endswith("bias")
            and components(other)[:-1] == tuple(module[:-1])
        ):
            return other
    return ""
