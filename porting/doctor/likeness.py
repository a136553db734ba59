"""How alike two tensors of one shape are that are not equal."""

from __future__ import annotations

import math

import numpy as np

from porting.doctor.values import single

COMPARED = 1 << 11  #: elements that a correlation is taken of


def near(source: np.ndarray, leaf: np.ndarray) -> float:
    """The correlation of two tensors of one shape, on at most `COMPARED` elements."""
    a, b = some_of(source, leaf)
    if a.size < 8 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def some_of(source: np.ndarray, leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `COMPARED` elements of two tensors of one shape, from the same places.

    >>> some_of(np.eye(2, dtype="float32"), np.zeros((2, 2), "float32"))[0].tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    places = np.linspace(0, max(source.size - 1, 0), min(source.size, COMPARED)).astype(np.int64)
    spots = np.unravel_index(places, source.shape)
    a, b = (single(array[spots]).astype(np.float64) for array in (source, leaf))
    return a, b
