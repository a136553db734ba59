"""PyTorch's LSTM, GRU and RNN as the layers that Flax's cells are made of.

PyTorch keeps `weight_ih_l0 (gates·H, in)` and `weight_hh_l0 (gates·H, H)` with two biases;
Flax's cells have a small Dense for every gate and one bias, which is their sum.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from porting.leaves import ONLY, SUM
from porting.mapping.units import Part, Pick, Unit

_KEY = re.compile(r"(weight|bias)_(ih|hh)(?:_l(\d+))?(_reverse)?$")
#: gates in PyTorch's order, by the number of blocks in a weight
GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n"), 1: ("",)}
#: which biases a gate's input and hidden layer add up, by the number of blocks
BIASES = {
    4: {"i": (), "h": ("ih", "hh")},
    3: {"i": ("ih", "hh"), "h": ()},
    1: {"i": ("ih", "hh"), "h": ()},
}


def unroll(sources: Sequence[Unit], targets: Sequence[Unit]) -> list[Unit]:
    """The source with its recurrent layers as cells of gates, where the target has cells."""
    names = {name for t in targets for name in t.path[-1:]}
    made: list[Unit] = []
    cells: dict[tuple, dict[str, Unit]] = defaultdict(dict)
    for unit in sources:
        match = _KEY.fullmatch(unit.path[-1]) if unit.bare and unit.path else None
        if match:
            cells[unit.path[:-1], match[3] or "", bool(match[4])][match[1] + match[2]] = unit
        else:
            made.append(unit)
    layers = {(path, layer) for path, layer, _ in cells}
    both = {path for path, _, backward in cells if backward}
    for (path, layer, backward), cell in cells.items():
        place = path
        if sum(p == path for p, _ in layers) > 1:
            place = (*place, "layer", layer)
        if path in both:
            place = (*place, "backward" if backward else "forward")
        made += _cell(place, cell, names) or list(cell.values())
    return made


def _cell(path: tuple[str, ...], cell: dict[str, Unit], names: set[str]) -> list[Unit]:
    hidden = cell.get("weighthh")
    if hidden is None or "weightih" not in cell:
        return []
    rows, width = hidden.parts["w"].shape
    count = rows // width
    if {"dense_i", "dense_h"} <= names:
        return _whole(path, cell)
    gates = GATES.get(count)
    if gates is None or not {f"h{gate}" for gate in gates} <= {n.rstrip("_") for n in names}:
        return []
    made = []
    for side in ("i", "h"):
        for index, gate in enumerate(gates):
            added = BIASES[count][side]
            if count == 3 and gate == "n":
                added = ("ih",) if side == "i" else ("hh",)
            pick = Pick(0, index, count) if count > 1 else None
            made.append(_gate((*path, side + gate), cell, side, added, pick, width))
    return made


def _gate(
    path: tuple[str, ...], cell: dict[str, Unit], side: str, added: tuple[str, ...],
    pick: Pick | None, width: int,
) -> Unit:  # fmt: skip
    weight = cell[f"weight{side}h"].parts["w"]
    parts = {"w": Part(weight.sources, (width, weight.shape[1]), "weight", pick=pick)}
    biases = [cell[f"bias{b}"].parts["w"] for b in added if f"bias{b}" in cell]
    if biases:
        keys = tuple(key for part in biases for key in part.sources)
        parts["b"] = Part(keys, (width,), "bias", SUM if len(keys) > 1 else ONLY, pick)
    return Unit(path, parts, cell[f"weight{side}h"].order)


def _whole(path: tuple[str, ...], cell: dict[str, Unit]) -> list[Unit]:
    """The gates kept together, as NNX's `OptimizedLSTMCell` has them."""
    made = []
    for side, added in (("i", ()), ("h", ("ih", "hh"))):
        weight = cell[f"weight{side}h"].parts["w"]
        parts = {"w": Part(weight.sources, weight.shape, "weight")}
        keys = tuple(cell[f"bias{b}"].parts["w"].sources[0] for b in added if f"bias{b}" in cell)
        if keys:
            rows = weight.shape[0]
            parts["b"] = Part(keys, (rows,), "bias", SUM if len(keys) > 1 else ONLY)
        made.append(Unit((*path, f"dense_{side}"), parts, cell[f"weight{side}h"].order))
    return made
