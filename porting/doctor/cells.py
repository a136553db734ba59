"""Recurrent cells of which a leaf is not there: what it is called, and its shape.

A mapping takes a cell of gates for one only if it is whole. The other gates tell the name and
the shape of what is lost, and the whole cell tells what all others are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from porting.doctor.names import last, parent
from porting.mapping.recurrent import BIASES, GATES

Cell = dict[str, tuple[int, ...]]  #: "side + gate/name" -> shape


def lost_leaves(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Stand-ins (zeros, of no size in memory) for the leaves that cells of gates have lost.

    >>> leaf = np.ones((3, 3))
    >>> gates = {f"cell/{side}{gate}/kernel": leaf for side in "ih" for gate in "ifgo"}
    >>> list(lost_leaves({p: a for p, a in gates.items() if p != "cell/hg/kernel"}))
    ['cell/hg/kernel']
    """
    cells: dict[str, Cell] = {}
    for path, leaf in tree.items():
        cell = parent(parent(path)) if path.count("/") > 1 else ""
        name = path.removeprefix(f"{cell}/") if cell else path
        if name.count("/") == 1:
            gate = f"{parent(name).rstrip('_')}/{last(name)}"
            cells.setdefault(cell, {})[gate] = tuple(leaf.shape)
    return {
        f"{cell}/{name}" if cell else name: np.broadcast_to(np.float32(0), shape)
        for cell, have in cells.items()
        for name, shape in _lost(have)
    }


def _lost(have: Cell) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The leaves that a cell has not, though most of its kind are there."""
    for count, gates in GATES.items():
        kernels = [f"{side}{gate}/kernel" for side in "ih" for gate in gates]
        there = [name for name in kernels if name in have]
        if count == 1 or 2 * len(there) <= len(kernels):
            continue
        for side in "ih":
            yield from _of_kind(have, [f"{side}{gate}/kernel" for gate in gates])
        # Whether a GRU's n has a bias on the hidden side differs between Linen and NNX.
        named = [f"{side}{gate}/bias" for side, gate in _biased(count, gates)]
        yield from _of_kind(have, named)


def _biased(count: int, gates: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(side, gate) of the biases that every cell of so many gates has."""
    return ((side, gate) for side in "ih" if BIASES[count][side] for gate in gates)


def _of_kind(have: Cell, names: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Those of `names` that are not there, shaped as the others are."""
    shape = next((have[name] for name in names if name in have), None)
    if shape is not None:
        yield from ((name, shape) for name in names if name not in have)
