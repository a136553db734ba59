"""Source layers brought into the form of the target.

One side may pack q, k and v (or gate and up) into one weight, stack all layers on a
scanned axis, or keep an LSTM's gates together. Where the target has the other form, the
source's layers are replaced by layers of that form, whose parts say how they are read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from porting.leaves import CONCAT, STACK
from porting.mapping.lists import Alignment, Numbered, numbered
from porting.mapping.recurrent import unroll
from porting.mapping.units import Part, Pick, Unit, with_chains

#: role of a packed layer -> roles of its parts, in their order
PACKED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up")}
PER_HEAD = frozenset({"query_key_value"})


def expand(sources: list[Unit], targets: list[Unit]) -> list[Unit]:
    """The source layers, packed and stacked as the target has them."""
    for step in (unroll, _stack, _split, _join, _unstack):
        sources = with_chains(step(sources, targets))
    return sources


def _split(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[Unit]:
    """Packed layers as their parts, where the target has the parts."""
    made: list[Unit] = []
    for unit in sources:
        made += _parts(unit, targets) or [unit]
    return made


def _parts(unit: Unit, targets: Sequence[Unit]) -> list[Unit]:
    names = PACKED.get(unit.role)
    if not names or "w" not in unit.parts or any(t.role == unit.role for t in targets):
        return []
    lead = bool(unit.parts["w"].lead)
    if len(unit.parts["w"].shape) - lead != 2 or not unit.size:
        return []
    if unit.size in {t.size for t in targets} and not any(t.role in names for t in targets):
        return []
    axis = _out_axis(unit)
    width = unit.parts["w"].shape[axis]
    sizes = _widths(unit, names, width, targets)
    if not sizes:
        return []
    per_head = unit.path[-1] in PER_HEAD
    note = ""
    if per_head:
        note = "q, k and v may be packed per head (GPT-NeoX, BLOOM) or in three blocks"
    made, start = [], 0
    for index, (name, size) in enumerate(zip(names, sizes, strict=True)):
        pick = Pick(0, index, len(names), per_head=per_head)
        if len(set(sizes)) > 1:
            pick = Pick(0, start=start, stop=start + size)
        parts = {
            slot: _picked(p, pick, axis if slot == "w" else int(lead), size)
            for slot, p in unit.parts.items()
        }
        order = unit.order + index / 10 if unit.order >= 0 else -1
        made.append(Unit((*unit.path[:-1], name), parts, order, note=note))
        start += size
    return made


def _picked(part: Part, pick: Pick, axis: int, size: int) -> Part:
    shape = (*part.shape[:axis], size, *part.shape[axis + 1 :])
    return replace(part, shape=shape, pick=replace(pick, axis=axis))


def _out_axis(unit: Unit) -> int:
    """Which axis of a weight holds the packed outputs."""
    weight, bias = unit.parts["w"], unit.parts.get("b")
    first, last = weight.shape[-2:]
    turned = bias is not None and bias.shape[-1:] == (last,) and first != last
    return len(weight.shape) - (1 if turned or weight.name != "weight" else 2)


def _widths(unit: Unit, names: tuple[str, ...], width: int, targets: Sequence[Unit]) -> list[int]:
    """Outputs of each part: equal, or as the target's own layers have them; [] for neither."""
    sizes = Counter(t.size for t in targets)
    depth = unit.size // width
    by_role = {t.role: t.size // depth for t in targets if t.role in names and t.size % depth == 0}
    if len(by_role) == len(names):
        widths = [by_role[name] for name in names]
        if sum(widths) == width:
            return widths
    each, rest = divmod(width, len(names))
    return [each] * len(names) if not rest and sizes[each * depth] >= len(names) else []


def _join(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[Unit]:
    """q, k and v (gate and up) as one layer, where the target packs them."""
    made = list(sources)
    have = {(unit.role, unit.size) for unit in sources}
    for role, names in PACKED.items():
        packed = {
            t.size: t.path[-1] for t in targets if t.role == role and (role, t.size) not in have
        }
        siblings: dict[tuple[str, ...], dict[str, Unit]] = defaultdict(dict)
        for unit in made:
            if unit.role in names and "w" in unit.parts:
                siblings[unit.path[:-1]][unit.role] = unit
        for parent, found in siblings.items():
            parts = [found[name] for name in names if name in found]
            total = sum(unit.size for unit in parts)
            if len(parts) == len(names) and total in packed:
                joined = _joined((*parent, packed[total]), parts)
                made = [u for u in made if all(u is not p for p in parts)] + joined
    return made


def _joined(path: tuple[str, ...], units: list[Unit]) -> list[Unit]:
    parts = {}
    for slot in units[0].parts:
        if any(slot not in unit.parts for unit in units):
            continue
        each = [unit.parts[slot] for unit in units]
        keys = tuple(key for part in each for key in part.sources)
        shapes = {part.shape for part in each}
        if len(shapes) == 1:
            shape = (len(each), *each[0].shape)
            parts[slot] = Part(keys, shape, each[0].name, STACK, lead="p")
        elif each[0].name in ("weight", "bias"):
            total = sum(part.shape[0] for part in each)
            parts[slot] = Part(keys, (total, *each[0].shape[1:]), each[0].name, CONCAT)
    return [Unit(path, parts, units[0].order)] if "w" in parts else list(units)


def _stack(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[Unit]:
    """Layers of a list as one layer with a leading axis, where the target scans them."""
    sizes = {t.size for t in targets}
    made = list(sources)
    for layers in Alignment(sources, targets).unpaired:
        members = _members(made, layers)
        count = len(layers.ranks)
        alike = members and all(
            len(units) == count and len({_shapes(u) for u in units}) == 1
            for units in members.values()
        )
        if not alike or not all(_wanted(units[0], count, sizes) for units in members.values()):
            continue
        gone = {id(u) for units in members.values() for u in units}
        made = [u for u in made if id(u) not in gone]
        parent = (*layers.parent, layers.stem) if layers.stem else layers.parent
        made += [_stacked((*parent, *rest), units) for rest, units in members.items()]
    return made


def _wanted(unit: Unit, count: int, sizes: set[int]) -> bool:
    """Whether the target has `count` of this layer in one, as it is or unpacked."""
    parts = len(PACKED.get(unit.role, "1"))
    return unit.size * count in sizes or unit.size * count // parts in sizes


def _members(units: Sequence[Unit], layers: Numbered) -> dict[tuple[str, ...], list[Unit]]:
    """Path inside a member -> its unit in every member, in order."""
    depth = len(layers.parent) + 1
    found: dict[tuple[str, ...], list[tuple[int, Unit]]] = defaultdict(list)
    for unit in units:
        if (place := unit.path[:depth]) in layers.ranks:
            found[unit.path[depth:]].append((layers.ranks[place], unit))
    return {
        rest: [u for _, u in sorted(us, key=lambda pair: pair[0])] for rest, us in found.items()
    }


def _shapes(unit: Unit) -> tuple:
    return tuple(sorted((slot, part.shape) for slot, part in unit.parts.items()))


def _stacked(path: tuple[str, ...], units: list[Unit]) -> Unit:
    parts = {}
    for slot, first in units[0].parts.items():
        keys = tuple(key for unit in units for key in unit.parts[slot].sources)
        parts[slot] = Part(keys, (len(units), *first.shape), first.name, STACK, lead="l")
    return Unit(path, parts, units[0].order, units[0].bare)


def _unstack(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[Unit]:
    """A scanned layer as a list of layers, where the target has the list."""
    paired = {id(t) for _, t in Alignment(sources, targets).pairs}
    made = list(sources)
    for layers in numbered(targets):
        wanted = Counter(units[0].size for units in _members(targets, layers).values())
        count = len(layers.ranks)
        if id(layers) in paired or len(set(layers.sizes)) > 1:
            continue
        scanned = [
            u for u in made
            if all(p.shape[:1] == (count,) and p.pick is None and p.name != "weight"
                   for p in u.parts.values())
            and u.size % count == 0 and u.size // count in wanted
        ]  # fmt: skip
        if Counter(u.size // count for u in scanned) != wanted:
            continue
        depth = _shared_depth(scanned)
        gone = {id(u) for u in scanned}
        made = [u for u in made if id(u) not in gone]
        made += [_layer(u, depth, i) for u in scanned for i in range(count)]
    return made


def _shared_depth(units: Sequence[Unit]) -> int:
    paths = [unit.path[:-1] for unit in units]
    depth = 0
    while all(len(p) > depth and p[depth] == paths[0][depth] for p in paths):
        depth += 1
    return depth


def _layer(unit: Unit, depth: int, index: int) -> Unit:
    parts = {
        slot: replace(part, shape=part.shape[1:], pick=Pick(0, index))
        for slot, part in unit.parts.items()
    }
    return Unit((*unit.path[:depth], str(index), *unit.path[depth:]), parts, unit.order, unit.bare)
