"""The pictures of one Dense port: weight and kernels, the file's flat numbers, the outputs."""

from __future__ import annotations

import numpy as np

from porting.dense_ports import DenseResult
from porting.figures import scales
from porting.figures.matrix import EXACT_CELLS, MatrixInfo

STRIP_COLUMNS = 128
STRIP_CELLS = 2048


def layout_infos(result: DenseResult) -> list[MatrixInfo]:
    """The weight as stored, the kernel of this port, the kernel that Flax needs."""
    limit = scales.symmetric_limit(result.weight, result.kernel)
    small = result.weight.size <= EXACT_CELLS
    stored = np.arange(result.weight.size).reshape(result.weight.shape) if small else None
    rows, columns = ("in", "out") if result.comparison is not None else ("axis 0", "axis 1")
    return [
        MatrixInfo(
            "weight",
            "PyTorch weight (out, in)",
            "weight",
            result.weight,
            "out",
            "in",
            stored,
            "row",
            limit=limit,
            group="file",
        ),
        MatrixInfo(
            "kernel",
            "Your kernel (in, out)",
            "kernel",
            result.kernel,
            rows,
            columns,
            result.places if small else None,
            "column" if result.comparison is not None else "",
            limit=limit,
        ),
        MatrixInfo(
            "needed",
            "The kernel Flax needs (in, out)",
            "needed",
            result.needed,
            "in",
            "out",
            None if stored is None else stored.T,
            "column",
            limit=limit,
        ),
    ]


def strip_info(values: np.ndarray, limit: float) -> MatrixInfo | None:
    """The numbers as they lie in the file, one after another; `None` where they are too many."""
    flat = np.asarray(values).reshape(-1)
    if flat.size > STRIP_CELLS:
        return None
    columns = min(flat.size, STRIP_COLUMNS)
    rows = -(-flat.size // columns)
    padded = np.full(rows * columns, 0, np.float32)
    padded[: flat.size] = flat
    places = np.arange(rows * columns)
    places[flat.size :] = -1
    return MatrixInfo(
        "flat",
        "",
        "flat",
        padded.reshape(rows, columns),
        "",
        "",
        places.reshape(rows, columns),
        limit=limit,
        group="file",
    )


def output_infos(result: DenseResult) -> list[MatrixInfo]:
    """Reference, Flax output, difference, and |difference| / bound, or nothing after a crash."""
    comparison = result.comparison
    if comparison is None:
        return []
    limit = scales.symmetric_limit(comparison.reference, np.asarray(comparison.output))
    excess = scales.excess(comparison.ratio)
    signed = np.copysign(excess, comparison.difference)

    def info(key: str, title: str, symbol: str, values: np.ndarray, **more) -> MatrixInfo:
        return MatrixInfo(
            key, title, symbol, values, "N", "out", None, "column", group="output", **more
        )

    return [
        info("reference", "PyTorch output", "PyTorch", comparison.reference, limit=limit),
        info("output", "Flax output", "Flax", np.asarray(comparison.output), limit=limit),
        info(
            "difference",
            "Difference",
            "difference",
            comparison.difference,
            colour=signed,
            limit=scales.DECADES,
            scale="signed",
            text="short",
        ),
        info(
            "ratio",
            "|Difference| / bound",
            "over bound",
            comparison.ratio,
            colour=excess,
            limit=scales.DECADES,
            scale="excess",
            text="short",
        ),
    ]
