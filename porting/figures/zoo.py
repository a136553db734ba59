"""The pictures of one layer's port: a leaf before and after, and the outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from porting.compare import Comparison, NetworkComparison
from porting.figures import scales
from porting.figures.leaf import leaf_infos
from porting.figures.matrix import MatrixInfo, array_info
from porting.leaves import Leaf
from porting.zoo import ZooResult


def zoo_leaf_infos(result: ZooResult, leaf: Leaf) -> list[MatrixInfo]:
    """The source of a leaf, the leaf that this port wrote, the leaf that is needed, linked."""
    start, places = _places(result, leaf)
    return leaf_infos(leaf, result.state, result.port.leaves.get(leaf.path), places, start)


def _places(result: ZooResult, leaf: Leaf) -> tuple[int, np.ndarray | None]:
    """Where the joined source of a leaf begins, and the numbers of the leaf's elements.

    The fault is put into a port of positions. What comes out counts only if the values say
    the same: a fault that computes (a cast, a sum) moves nothing.
    """
    starts: dict[tuple[str, ...], int] = {}
    ids: dict[str, np.ndarray] = {}
    values: list[np.ndarray] = []
    at = 0
    for row in result.table:
        joined = row.join.forward([result.state[key] for key in row.sources])
        if row.sources not in starts:
            starts[row.sources] = at
            values.append(joined.reshape(-1))
            at += joined.size
        own = starts[row.sources] + np.arange(joined.size).reshape(joined.shape)
        ids[row.path] = row.rule.apply(own)
    if result.fault is None:
        return starts[leaf.sources], ids[leaf.path]
    try:
        nothing = {path: np.full(array.shape, -1) for path, array in ids.items()}
        port = replace(result.right, leaves=ids, init=lambda: nothing)
        places = np.asarray(result.fault.inject(port).leaves[leaf.path])
    except Exception:  # a fault that computes cannot run on positions: nothing is linked then
        return starts[leaf.sources], None
    return starts[leaf.sources], _true_places(
        places, np.concatenate(values), result.port.leaves[leaf.path]
    )


def _true_places(places: np.ndarray, source: np.ndarray, leaf: np.ndarray) -> np.ndarray | None:
    if (
        places.dtype.kind != "i"
        or places.shape != leaf.shape
        or places.max(initial=-1) >= source.size
    ):
        return None
    moved = places >= 0
    same = np.array_equal(source[places[moved]], leaf[moved], equal_nan=True)
    return places if same else None


def zoo_output_infos(result: ZooResult) -> list[MatrixInfo]:
    """Reference, Flax output, difference and error over rounding; nothing after a crash."""
    found = result.comparison
    if found is None:
        return []
    output, ratio = _output_and_ratio(found)
    difference = output - found.reference
    limit = scales.symmetric_limit(found.reference, output)
    excess = scales.excess(ratio)
    names = _axis_names(result, found.reference.ndim)

    def info(
        key: str,
        title: str,
        symbol: str,
        values: np.ndarray,
        colour: np.ndarray | None = None,
        **more,
    ) -> MatrixInfo:
        made = array_info(key, title, symbol, values, names, group="output", **more)
        shown = None if colour is None or made.grid is None else made.grid.matrix(colour)
        return replace(made, colour=shown)

    signed = np.copysign(excess, difference)
    return [
        info("reference", "PyTorch output", "PyTorch", found.reference, limit=limit),
        info("output", "Flax output", "Flax", output, limit=limit),
        info(
            "difference",
            "Difference",
            "difference",
            difference,
            signed,
            limit=scales.DECADES,
            scale="signed",
            text="short",
        ),
        info(
            "ratio",
            "|Difference| / rounding",
            "over rounding",
            ratio,
            excess,
            limit=scales.DECADES,
            scale="excess",
            text="short",
        ),
    ]


def _output_and_ratio(found: Comparison | NetworkComparison) -> tuple[np.ndarray, np.ndarray]:
    """The Flax output in float64, and its error in units of rounding."""
    if isinstance(found, Comparison):
        return np.asarray(found.output, np.float64), found.ratio
    output = np.asarray(found.single, np.float64)
    ratio = np.abs(output - found.reference) / max(found.noise, np.finfo(np.float32).tiny)
    return output, np.where(np.isfinite(ratio), ratio, np.inf)


def _axis_names(result: ZooResult, rank: int) -> tuple[str, ...] | None:
    """The axes of the first input, if the output has as many."""
    config = result.layer.example_config(**dict(result.config))
    axes = result.layer.inputs(config)[0].axes
    names = tuple(a.rstrip("?") if isinstance(a, str) else "features" for a in axes)
    return names if len(names) == rank and "..." not in names else None
