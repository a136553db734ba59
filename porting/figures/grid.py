"""An array of any rank as one matrix, every number in sight.

The last axis runs along a row and the one before it down a column; the axes before them
take turns the same way, outside: O I H W becomes tiles of H × W, with O down and I across.
So a person sees which axis went where without choosing a slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Grid:
    """How an array of any rank is laid out as a matrix.

    Attributes:
        names: of the axes.
        sizes: of the axes.

    >>> grid = Grid(("o", "i", "h", "w"), (5, 3, 2, 2))
    >>> grid.shape, grid.tile, grid.row_name, grid.column_name
    ((10, 6), (2, 2), 'o · h', 'i · w')
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """The axes that run downwards, the outermost first."""
        return tuple(range(len(self.sizes) % 2, len(self.sizes) - 1, 2))

    @property
    def columns(self) -> tuple[int, ...]:
        """The axes that run to the right, the outermost first."""
        return tuple(range(1 - len(self.sizes) % 2, len(self.sizes), 2))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        rows, columns = (
            math.prod(self.sizes[a] for a in axes) for axes in (self.rows, self.columns)
        )
        return rows, columns

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of the innermost tile; the whole matrix if there is one tile."""
        rows, columns = self.rows, self.columns
        return (
            self.sizes[rows[-1]] if len(rows) > 1 else self.shape[0],
            self.sizes[columns[-1]] if len(columns) > 1 else self.shape[1],
        )

    @property
    def row_name(self) -> str:
        """The names of the downward axes."""
        return " · ".join(self.names[a] for a in self.rows)

    @property
    def column_name(self) -> str:
        """The names of the axes to the right."""
        return " · ".join(self.names[a] for a in self.columns)

    def matrix(self, array: np.ndarray) -> np.ndarray:
        """The array as this matrix.

        >>> Grid(("a", "b", "c"), (2, 1, 2)).matrix(np.arange(4).reshape(2, 1, 2)).tolist()
        [[0, 1, 2, 3]]
        """
        return array.transpose(self.rows + self.columns).reshape(self.shape)

    @property
    def index(self) -> dict[str, Any]:
        """What the page needs to name a cell by all its axes."""
        return {"sizes": list(self.sizes), "rows": list(self.rows), "columns": list(self.columns)}


def grid_of(array: np.ndarray, names: tuple[str, ...] | None = None) -> Grid:
    """The grid of an array; axes without a name are counted.

    >>> grid_of(np.zeros((2, 3))).names
    ('axis 0', 'axis 1')
    """
    known = names if names and len(names) == array.ndim else None
    return Grid(known or tuple(f"axis {i}" for i in range(array.ndim)), array.shape)
