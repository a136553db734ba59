"""The name of what is wrong with a leaf that is put together from slices of its source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from porting.doctor.arrange import Arrangement
from porting.doctor.bits import canonical
from porting.doctor.kinds import Named, together
from porting.doctor.patterns import block_order, pattern, short_index
from porting.doctor.pieces import assemble


def name_partial(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray
) -> Named:
    """A leaf of which only some slices are the source's: what the rest is."""
    axis, index = next((a, i) for a, i in held.indices if (i < 0).any())
    foreign = int((index < 0).sum())
    kind = "padded" if leaf.size > expected.size else "partly"
    right = assemble(canonical(source), canonical(expected)) if held.places else None
    turned = _turned(held, right, source) if right else []
    text = f"{foreign} of {len(index)} slices along axis {axis} are not the source's."
    return Named(kind, text, tuple(named.kind for named in turned))


def name_pieces(
    held: Arrangement, source: np.ndarray, expected: np.ndarray, leaf: np.ndarray
) -> Named:
    """A leaf of the source's slices: how each axis was taken, against how it should be."""
    right = assemble(canonical(source), canonical(expected))
    if right is None or right.partial:
        return Named("permuted", held.note)
    wanted, given = dict(right.indices), dict(held.indices)
    found = []
    for axis, length in enumerate(source.shape):
        whole = np.arange(length)
        named = _along(axis, wanted.get(axis, whole), given.get(axis, whole), source, leaf)
        found += [named] if named else []
    found += _turned(held, right, source)
    return together(found) or Named("rearranged")


def _turned(held: Arrangement, right: Arrangement, source: np.ndarray) -> list[Named]:
    """The name of source axes that became other axes of the leaf than they should."""
    if held.places == right.places:
        return []
    if source.ndim != 2:
        return [Named("axes")]
    return [Named("transposed" if right.places == ((0, (0,)), (1, (1,))) else "untransposed")]


def _along(
    axis: int, want: np.ndarray, have: np.ndarray, source: np.ndarray, leaf: np.ndarray
) -> Named | None:
    """What is wrong along one axis of the source, or None."""
    if np.array_equal(want, have):
        return None
    if np.array_equal(np.sort(want), np.sort(have)):
        place = np.empty(source.shape[axis], np.int64)
        place[want] = np.arange(len(want))
        named = name_order(place[have])
        flat = axis == source.ndim - 1 > 0 and leaf.ndim == source.ndim
        due = not np.array_equal(want, np.arange(len(want)))  # the right rule reorders this axis
        other = named.kind == "heads" or (named.kind == "rotary" and due)
        return replace(named, kind="flatten") if flat and other else named
    if len(have) < len(want):
        return Named("cut", f"Only {short_index(have)} of axis {axis} is there.")
    if len(have) > len(want):
        return Named("padded", f"It repeats slices of axis {axis}.")
    text = f"Given {short_index(have)} of axis {axis}, expected {short_index(want)}."
    return Named("split", text)


def name_order(order: np.ndarray) -> Named:
    """The name of a permutation along one axis, relative to the right order.

    >>> name_order(np.array([0, 4, 1, 5, 2, 6, 3, 7])).kind
    'rotary'
    >>> name_order(np.array([0, 1, 4, 5, 2, 3, 6, 7])).note
    'Blocks of 2 in the order 0, 2, 1, 3.'
    """
    n = len(order)
    if np.array_equal(order, np.arange(n)[::-1]):
        return Named("flipped")
    if n > 10 and order.tolist() == sorted(range(n), key=str):
        return Named("sorted")
    counted = pattern(order, n)
    blocks = block_order(order)
    if blocks and blocks[0] > 1:
        size, sequence = blocks
        return Named("blocks", f"Blocks of {size} in the order {', '.join(map(str, sequence))}.")
    sizes = [size for _, size in counted.loops] if counted else []
    if counted and len(sizes) in (2, 3) and 2 in sizes[-2:]:
        return Named("rotary")
    if counted and len(sizes) == 2:
        return Named("heads", f"{sizes[0]} × {sizes[1]} was read as {sizes[1]} × {sizes[0]}.")
    if counted:
        return Named("flatten", " × ".join(map(str, sizes)) + " in another order.")
    return Named("permuted", short_index(order))
