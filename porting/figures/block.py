"""The pictures of an encoder block port: its stages, and one leaf before and after."""

from __future__ import annotations

import numpy as np

from porting.block_case import SOURCES
from porting.block_result import BlockResult, LeafRow
from porting.block_stages import Stage
from porting.faults import Port
from porting.figures import scales
from porting.figures.matrix import EXACT_CELLS, MatrixInfo
from porting.figures.stages import StageBar, Status
from porting.leaves import port_leaves


def stage_bars(stages: tuple[Stage, ...]) -> list[StageBar]:
    """The NNX stages, by their error in units of their own rounding."""
    return [_bar(stage) for stage in stages]


def _bar(stage: Stage) -> StageBar:
    status: Status = "right" if not stage.diverges else "inherited" if stage.inherited else "wrong"
    ratio = stage.nnx.error_over_noise
    words = {
        "right": "within rounding",
        "wrong": "it goes wrong here",
        "inherited": "right by itself; it inherits the error from above",
    }
    story = (
        f"{stage.title} {stage.shape}<br>{words[status]}<br>"
        f"float32 error {stage.nnx.d32:.1e}, float64 error {stage.nnx.d64:.1e}, "
        f"rounding {stage.nnx.noise:.1e}"
    )
    return StageBar(stage.name, ratio if stage.diverges else 0.0, status, story)


def leaf_infos(result: BlockResult, row: LeafRow) -> list[MatrixInfo]:
    """The source tensor, the leaf that the port wrote, and the leaf that is needed, linked."""
    source_key = row.leaf.sources[0]
    source = _flat2(result.source[source_key])
    ported, needed = (_flat2(a[row.path]) for a in (result.ported, result.needed))
    start, places, right = _places(result, source_key, row.path)
    limit = scales.symmetric_limit(source, ported, needed)
    kernel = row.path.endswith("kernel")
    torch = SOURCES[result.case.source].packed
    axes = (("out", "in") if torch else ("in", "out")) if kernel else ("", "features")
    leaf_axes = ("in", "out") if kernel else ("", "features")
    small = source.size <= EXACT_CELLS
    own = start + np.arange(source.size).reshape(source.shape) if small else None
    return [
        MatrixInfo(
            "source",
            f"Source: {source_key}",
            "source",
            source,
            *axes,
            own,
            limit=limit,
            group="file",
        ),
        MatrixInfo(
            "ported",
            "Your leaf",
            "yours",
            ported,
            *leaf_axes,
            _kept(places, small),
            limit=limit,
        ),
        MatrixInfo(
            "needed",
            "Needed",
            "needed",
            needed,
            *leaf_axes,
            _kept(right, small),
            limit=limit,
        ),
    ]


def _kept(places: np.ndarray, small: bool) -> np.ndarray | None:
    return _flat2(places) if small else None


def _flat2(array: np.ndarray) -> np.ndarray:
    return array.reshape(1, -1) if array.ndim == 1 else array


def _places(result: BlockResult, key: str, path: str) -> tuple[int, np.ndarray, np.ndarray]:
    """The number of the source's first element, and the numbers of both leaves' elements.

    Every element of the source has a number of its own; the port and the fault are run on
    these numbers, so what they moved is known whatever the values are.
    """
    starts, ids, at = {}, {}, 0
    for name, tensor in result.source.items():
        starts[name] = at
        ids[name] = at + np.arange(tensor.size).reshape(tensor.shape)
        at += tensor.size
    right = port_leaves(SOURCES[result.case.source].table, ids)
    nothing = {leaf: np.full(array.shape, -1) for leaf, array in right.items()}
    case = result.case
    config = {
        "num_heads": case.num_heads,
        "d_model": case.d_model,
        "d_ff": case.d_ff,
        "activation": SOURCES[case.source].activation,
        "epsilon": SOURCES[case.source].epsilon,
        "residual": True,
        "packed": SOURCES[case.source].packed,
    }
    port = Port(right, lambda: nothing, config)
    moved = result.fault.inject(port) if result.fault else port
    return starts[key], moved.leaves[path], right[path]
