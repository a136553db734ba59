"""One leaf of a port: its source, what the rule makes of it, and any other array beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.figures import scales
from porting.figures.chips import axis_names
from porting.figures.matrix import MatrixInfo, array_info
from porting.layouts import Rule, identity
from porting.leaves import Leaf
from porting.walk import Origin


def leaf_infos(
    leaf: Leaf,
    source: Mapping[str, Any],
    given: np.ndarray | None = None,
    given_places: np.ndarray | Rule | None = None,
    start: int = 0,
) -> list[MatrixInfo]:
    """The joined source of a leaf, the leaf by its rule, and a given leaf between them.

    Args:
        leaf: where it comes from and by which rule.
        source: key -> array.
        given: what the person's port holds in this leaf, if it is known.
        given_places: flat positions of its numbers in the source, or the rule that made it,
            if they are known.
        start: what the positions of the source begin with.

    >>> from porting.layouts import Rule
    >>> rows = leaf_infos(Leaf("k", ("w",), Rule("o i -> i o")), {"w": np.zeros((5, 3))})
    >>> [(info.title, info.values.shape) for info in rows]
    [('Source: w', (5, 3)), ('Needed', (3, 5))]
    """
    joined = leaf.joined([drawable(source[key]) for key in leaf.sources])
    needed = leaf.rule.apply(joined)
    left, right = axis_names(leaf.rule)
    shared = {"limit": scales.symmetric_limit(joined, needed, given)}
    origin = Origin(identity(joined.ndim), joined.shape, start)
    title = f"Source: {', '.join(leaf.sources)}"
    infos = [array_info("source", title, "source", joined, left, origin, group="file", **shared)]
    if given is not None:
        names = right if given.shape == needed.shape else None
        places = (
            replace(origin, rule=given_places) if isinstance(given_places, Rule) else given_places
        )
        yours = drawable(given)
        infos.append(array_info("ported", "Your leaf", "yours", yours, names, places, **shared))
    moved = replace(origin, rule=leaf.rule)
    return [*infos, array_info("needed", "Needed", "needed", needed, right, moved, **shared)]


def drawable(array: Any) -> np.ndarray:
    """An array that can be drawn: narrow floats and truth as float32, complex by its size.

    >>> drawable(np.array([3 + 4j, 0])).tolist(), drawable(np.array([True])).dtype
    ([5.0, 0.0], dtype('float32'))
    """
    array = np.asarray(array)
    if array.dtype.kind == "c":
        return np.abs(array)
    keeps = array.dtype.kind in "fiu" and array.dtype.itemsize > 2
    return array if keeps else array.astype(np.float32)
