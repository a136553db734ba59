"""Where each number of a given leaf came from, so that the page can link it to its source."""

from __future__ import annotations

import numpy as np

from porting.errors import PortingError
from porting.layouts import Rule

SEARCHED = 2**18  #: numbers of a source in which a number is looked for by its value


def origin_of(
    source: np.ndarray, given: np.ndarray, rule: str | None = None
) -> np.ndarray | Rule | None:
    """Where the numbers of `given` stand in `source`.

    A position is said only where the source holds the very bits of the leaf there: by the
    rule, where one is known and does what it says, else by the values that occur once.

    Args:
        source: the joined source of the leaf.
        given: the leaf as it is.
        rule: what was done to the source, as a diagnosis writes it.

    Returns:
        The rule, where it made the leaf; else flat positions of the shape of `given`, -1 where
        one is not known; `None` where no number is found.

    >>> source = np.arange(6.0).reshape(2, 3)
    >>> str(origin_of(source, source.T, "o i -> i o"))
    'o i -> i o'
    >>> origin_of(source, np.array([4.0, 9.0])).tolist()
    [4, -1]
    """
    if source.dtype != given.dtype or not source.size or not given.size:
        return None
    known = _proved(source, given, rule)
    if known is not None or source.size > SEARCHED:
        return known
    places = _by_value(source, given)
    return places if (places >= 0).any() else None


def _proved(source: np.ndarray, given: np.ndarray, rule: str | None) -> Rule | None:
    try:
        known = Rule.parse(rule or "")
        made = known.apply(source)
    except PortingError:
        return None
    same = made.shape == given.shape and np.array_equal(made, given, equal_nan=True)
    return known if same else None


def _by_value(source: np.ndarray, given: np.ndarray) -> np.ndarray:
    values, first, counts = np.unique(source, return_index=True, return_counts=True)
    at = np.minimum(np.searchsorted(values, given), len(values) - 1)
    found = (values[at] == given) & (counts[at] == 1)
    return np.where(found, first[at], -1)
