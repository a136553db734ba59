"""What the arrays of a question are taken from: either side, masks, rotary angles."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from porting.trace.comparison import Match
from porting.trace.stages import Stage

Side = Callable[[Match, str | None], np.ndarray | None]
LOW = -1e4  #: a score that is added and lies below hides a key


def reference_side(double: bool) -> Side:
    """Arrays of the reference in the candidate's axes: an output (None) or a named input."""

    def array(match: Match, name: str | None) -> np.ndarray | None:
        wanted: Stage = match.wanted
        other, turn = match.outputs[match.main] if name is None else match.inputs[name]
        arrays: Mapping[str, np.ndarray] = wanted.inputs64 if double else wanted.inputs
        if name is None:
            arrays = wanted.outputs64 if double else wanted.outputs
        return turn.apply(arrays[other]) if other in arrays else None

    return array


def candidate_side(double: bool) -> Side:
    """Arrays of the candidate as it was recorded."""

    def array(match: Match, name: str | None) -> np.ndarray | None:
        if name is None:
            return (match.mine.outputs64 if double else match.mine.outputs).get(match.main)
        return (match.mine.inputs64 if double else match.mine.inputs).get(name)

    return array


def shaped(array: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """`array` spread to the target's shape, or its last axes merged; None where it cannot be.

    >>> shaped(np.ones(3), np.ones((2, 3))).shape, shaped(np.ones(2), np.ones((2, 3)))
    ((2, 3), None)
    """
    if (array.dtype.kind in "iu") != (target.dtype.kind in "iu"):
        return None
    try:
        if array.size == target.size and array.shape[:1] == target.shape[:1]:
            array = array.reshape(target.shape)
        spread = np.broadcast_to(array, target.shape)
    except ValueError:
        return None
    return spread if array.dtype.kind in "iu" else spread.astype(np.float64)


def masks_and_angles(
    match: Match, scopes: Iterable[Stage], side: Side, queries: Sequence[int], keys: int
) -> dict[str, np.ndarray]:
    """The masks that a stage was given by name, and the cosines and sines.

    Args:
        match: the stage that attends.
        scopes: stages of the reference whose masks count, where the candidate was given none
            that says the same.
        side: gives the arrays that both models were given.
        queries: (batch, length).
        keys: how many.
    """
    batch, length = queries
    found: dict[str, np.ndarray] = {}
    for owner, stage in (("as given", match.mine), *(("of the reference", s) for s in scopes)):
        for name, array in stage.inputs.items():
            mask = as_mask(array, (batch, length, keys))
            if mask is None or any(_says_same(mask, other) for other in found.values()):
                continue
            found[owner if name.isdigit() else f"{owner} ({name})"] = mask
    given = {name: side(match, name) for name in match.inputs}
    for a, b in itertools.combinations([a for a in given.values() if a is not None], 2):
        if _is_angles(a, b, length):
            return found | {"cos": a.astype(np.float64), "sin": b.astype(np.float64)}
    return found


def as_mask(array: np.ndarray, sizes: tuple[int, int, int]) -> np.ndarray | None:
    """An input as a mask of (batch, heads, queries, keys), or None where it is none.

    Numbers that are 0 or 1 and numbers that only hide are made boolean: True is seen.

    >>> as_mask(np.array([[0.0, -1e9]]), (1, 2, 2)).tolist()
    [[[[True, False]]]]
    """
    batch, length, keys = sizes
    if array.ndim < 2 or array.shape[-1] != keys:
        return None
    if array.ndim == 2:
        square = array.shape == (length, keys) and (array.shape[0] != batch or length != keys)
        array = array[None, None] if square else array[:, None, None]
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.shape[0] not in (1, batch) or array.shape[2] not in (1, length):
        return None
    if np.all((array == 0) | (array == 1)):
        return array.astype(bool)
    if array.dtype.kind != "f":
        return None
    if np.all((array == 0) | (array < LOW)):
        return array == 0 if array.min(initial=0) < LOW else None
    return np.maximum(array.astype(np.float64), -1e30) if array.shape[2] == length else None


def _says_same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype:
        return False
    a, b = np.broadcast_arrays(a, b)
    return np.array_equal(a, b) or (a.dtype == bool and np.array_equal(a, ~b))


def _is_angles(cos: np.ndarray, sin: np.ndarray, length: int) -> bool:
    """Whether two inputs are cosines and sines of the same angles."""
    if cos.shape != sin.shape or cos.ndim not in (2, 3) or cos.dtype.kind != "f":
        return False
    one = np.allclose(np.square(cos) + np.square(sin), 1, atol=1e-2)
    return one and cos.shape[-2] <= length
