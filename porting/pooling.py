"""Big matrices in few cells: the extreme of each block, and row and column norms.

A 4096 × 11008 kernel is 45 million numbers; a browser gets at most `limits.CELLS` along a
side. Each cell shows the entry of largest magnitude in its block, with its sign, so that
an outlier cannot hide. Pooled weights look alike before and after a transpose; their row
and column norms change places, which is why they go along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pooled:
    """A matrix in few cells.

    Attributes:
        values: float32 `(rows, cols)`, at most the asked number along each side.
        block: source rows and columns in one cell (the last ones may hold fewer).
        shape: of the source.
        row_norms: Euclidean norm of each pooled row, divided by √block.
        column_norms: the same for columns.
    """

    values: np.ndarray
    block: tuple[int, int]
    shape: tuple[int, int]
    row_norms: np.ndarray
    column_norms: np.ndarray


def pool(matrix: np.ndarray, rows: int = 128, columns: int = 128) -> Pooled:
    """The entry of largest magnitude of each block, with its sign.

    Args:
        matrix: 2-D, any real dtype; NaN counts as the largest.
        rows, columns: the most cells along each side.

    >>> pool(np.array([[1.0, -5.0], [2.0, 3.0]]), 1, 1).values.tolist()
    [[-5.0]]
    """
    height, width = matrix.shape
    step = (-(-height // rows), -(-width // columns))
    starts = np.arange(0, width, step[1])
    values = np.empty((-(-height // step[0]), len(starts)), np.float32)
    row_squares = np.empty(len(values))
    column_squares = np.zeros(len(starts))
    for i, top in enumerate(range(0, height, step[0])):
        with np.errstate(over="ignore"):  # a float64 beyond float32 is drawn as an infinity
            block = np.asarray(matrix[top : top + step[0]], np.float32)
        high = np.maximum.reduceat(block.max(axis=0), starts)
        low = np.minimum.reduceat(block.min(axis=0), starts)
        values[i] = np.where(high >= -low, high, low)
        squares = np.einsum("ij,ij->j", block, block, dtype=np.float64)
        row_squares[i] = squares.sum() / len(block)
        column_squares += np.add.reduceat(squares, starts)
    widths = np.diff(np.append(starts, width))
    return Pooled(
        values, step, (height, width), np.sqrt(row_squares), np.sqrt(column_squares / widths)
    )


def tops(matrix: np.ndarray, pooled: Pooled) -> np.ndarray:
    """Where each number of `pool` stands in its matrix.

    Returns:
        Flat positions, of the shape of `pooled.values`; -1 for NaN.

    >>> matrix = np.array([[1.0, -5.0], [2.0, 3.0]])
    >>> tops(matrix, pool(matrix, 1, 1)).tolist()
    [[1]]
    """
    (height, width), (tall, wide) = pooled.shape, pooled.block
    found = np.full(pooled.values.shape, -1, np.int64)
    for i, top in enumerate(range(0, height, tall)):
        with np.errstate(over="ignore"):
            block = np.asarray(matrix[top : top + tall], np.float32)
        hit = block == np.repeat(pooled.values[i], wide)[:width]
        columns = np.flatnonzero(hit.any(axis=0))
        cells, first = np.unique(columns // wide, return_index=True)
        rows = hit[:, columns[first]].argmax(axis=0)
        found[i, cells] = (top + rows) * width + columns[first]
    return found
