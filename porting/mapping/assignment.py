"""The best one-to-one assignment of rows to columns (the Hungarian method)."""

from __future__ import annotations

import numpy as np


def best_assignment(gain: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (row, column) of the largest total gain; every row or every column is used.

    Shortest augmenting paths with potentials, O(rows² · columns), after Jonker and
    Volgenant (1987).

    Args:
        gain: a matrix of finite numbers.

    >>> best_assignment(np.array([[5.0, 4.0], [4.0, 1.0]]))
    [(0, 1), (1, 0)]
    """
    if gain.shape[0] > gain.shape[1]:
        return sorted((row, column) for column, row in best_assignment(gain.T))
    rows, columns = gain.shape
    if rows == columns == 1:
        return [(0, 0)]
    cost = -np.asarray(gain, dtype=np.float64)
    of_row, of_column = np.zeros(rows), np.zeros(columns)
    holder = np.full(columns, -1)
    for start in range(rows):
        _augment(cost, of_row, of_column, holder, start)
    return sorted((int(row), column) for column, row in enumerate(holder) if row >= 0)


def _augment(
    cost: np.ndarray, of_row: np.ndarray, of_column: np.ndarray, holder: np.ndarray, start: int
) -> None:
    """Give `start` a column, moving other rows along the cheapest path."""
    columns = cost.shape[1]
    distance = np.full(columns, np.inf)
    previous = np.full(columns, -1)
    done = np.zeros(columns, dtype=bool)
    row, column, reached = start, -1, 0.0
    while True:
        step = reached + cost[row] - of_row[row] - of_column
        better = ~done & (step < distance)
        distance[better], previous[better] = step[better], column
        column = int(np.argmin(np.where(done, np.inf, distance)))
        reached = distance[column]
        done[column] = True
        if holder[column] < 0:
            break
        row = int(holder[column])
    of_row[start] += reached
    for seen in np.flatnonzero(done):
        of_column[seen] -= reached - distance[seen]
        if holder[seen] >= 0:
            of_row[holder[seen]] += reached - distance[seen]
    while column >= 0:
        before = int(previous[column])
        holder[column] = start if before < 0 else holder[before]
        column = before
