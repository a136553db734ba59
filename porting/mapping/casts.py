"""Leaves in another dtype, and what that costs in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from porting.checkpoint.dtypes import BY_NAME
from porting.errors import ArgumentError, number_of

_NOT_FLOATS = "iub"  # kinds of types that keep theirs when one dtype is asked for all


def cast(
    flat: Mapping[str, np.ndarray], goal: Mapping[str, Any], dtype: Any
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The leaves in the dtype asked for, and a line for every kind of conversion.

    Args:
        flat: path -> leaf.
        goal: path -> what has the target's dtype.
        dtype: None to keep every dtype, "target" for the target's, or one for all floats.

    Raises:
        ArgumentError: `dtype` is none.

    >>> cast({"a": np.array([1.0, 70000.0], np.float32)}, {}, np.float16)[1]
    ('1 leaf cast from float32 to float16, which rounds; 1 number is too large and became inf or nan',)
    """
    if dtype is None:
        return dict(flat), ()
    common = None if isinstance(dtype, str) and dtype == "target" else _dtype(dtype)
    leaves: Counter[tuple[np.dtype, np.dtype]] = Counter()
    lost: Counter[tuple[np.dtype, np.dtype]] = Counter()
    made = {}
    for path, array in flat.items():
        wanted = np.dtype(goal[path].dtype) if common is None else common
        if wanted == array.dtype or (common is not None and array.dtype.kind in _NOT_FLOATS):
            made[path] = array
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            made[path] = array.astype(wanted)
        kinds = array.dtype, wanted
        leaves[kinds] += 1
        lost[kinds] += _overflown(array, made[path])
    return made, tuple(_line(*kinds, n, lost[kinds]) for kinds, n in leaves.items())


def _dtype(dtype: Any) -> np.dtype:
    try:
        return BY_NAME[dtype] if dtype in BY_NAME else np.dtype(dtype)
    except TypeError:
        raise ArgumentError(
            f'dtype = {dtype!r} is no dtype. Pass one, or "target", or None.'
        ) from None


def _line(old: np.dtype, new: np.dtype, count: int, lost: int) -> str:
    text = f"{number_of(count, 'leaf')} cast from {old} to {new}"
    text += ", which rounds" if _rounds(old, new) else ""
    are = "is too large" if lost == 1 else "are too large"
    return text + (f"; {number_of(lost, 'number')} {are} and became inf or nan" if lost else "")


def _rounds(old: np.dtype, new: np.dtype) -> bool:
    """Whether a value of `old` may have none in `new`: float16 and bfloat16 are as wide."""
    try:
        mine, other = ml_dtypes.finfo(old), ml_dtypes.finfo(new)
    except ValueError:  # not both are floats
        return not np.can_cast(old, new)
    fits = other.nmant >= mine.nmant and other.maxexp >= mine.maxexp
    return not (fits and other.minexp <= mine.minexp)


def _overflown(array: np.ndarray, made: np.ndarray) -> int:
    """How many numbers are finite no longer."""
    try:
        if ml_dtypes.finfo(made.dtype).maxexp >= ml_dtypes.finfo(array.dtype).maxexp:
            return 0
    except ValueError:
        return 0
    return int(np.count_nonzero(np.isfinite(array) & ~np.isfinite(made)))
