"""Where each number of a given leaf came from, so that the page can link it to its source."""

from __future__ import annotations

import numpy as np

from porting.errors import PortingError
from porting.layouts import Rule


def origin_of(source: np.ndarray, given: np.ndarray, rule: str | None = None) -> np.ndarray | None:
    """The flat positions in `source` of the numbers of `given`.

    A position is said only where the source holds the very bits of the leaf there: by the
    rule, where one is known and does what it says, else by the values that occur once.

    Args:
        source: the joined source of the leaf.
        given: the leaf as it is.
        rule: what was done to the source, as a diagnosis writes it.

    Returns:
        Positions of the shape of `given`, -1 where it is not known; `None` where no number
        is found.

    >>> source = np.arange(6.0).reshape(2, 3)
    >>> origin_of(source, source.T, "o i -> i o").tolist()
    [[0, 3], [1, 4], [2, 5]]
    >>> origin_of(source, np.array([4.0, 9.0])).tolist()
    [4, -1]
    """
    if source.dtype != given.dtype or not source.size or not given.size:
        return None
    places = _by_rule(source, given, rule)
    places = _by_value(source, given) if places is None else places
    return places if (places >= 0).any() else None


def _by_rule(source: np.ndarray, given: np.ndarray, rule: str | None) -> np.ndarray | None:
    try:
        known = Rule.parse(rule or "")
        made = known.apply(source)
        places = known.apply(np.arange(source.size).reshape(source.shape))
    except PortingError:
        return None
    same = made.shape == given.shape and np.array_equal(made, given, equal_nan=True)
    return places if same else None


def _by_value(source: np.ndarray, given: np.ndarray) -> np.ndarray:
    values, first, counts = np.unique(source, return_index=True, return_counts=True)
    at = np.minimum(np.searchsorted(values, given), len(values) - 1)
    found = (values[at] == given) & (counts[at] == 1)
    return np.where(found, first[at], -1)
