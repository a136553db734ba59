"""Pooled pictures against the plain definition."""

import numpy as np
import pytest

from porting.pooling import pool, tops


def plainly(matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    height, width = matrix.shape
    step = (-(-height // rows), -(-width // columns))
    blocks = [
        [matrix[r : r + step[0], c : c + step[1]].reshape(-1) for c in range(0, width, step[1])]
        for r in range(0, height, step[0])
    ]
    return np.array([[b[np.argmax(np.abs(b))] for b in row] for row in blocks])


@pytest.mark.parametrize("shape", [(7, 5), (101, 67), (128, 128), (129, 1), (1, 257), (1, 1)])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (128, 128)])
def test_each_cell_is_the_largest_of_its_block(shape, cells):
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = pool(matrix, *cells)
    np.testing.assert_array_equal(found.values, plainly(matrix, *cells))
    assert found.values.shape[0] <= cells[0]
    assert found.values.shape[1] <= cells[1]
    assert found.shape == shape


@pytest.mark.parametrize("shape", [(7, 5), (101, 67), (129, 1), (1, 257), (1, 1)])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (128, 128)])
def test_the_largest_is_where_it_is_said_to_be(shape, cells):
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = pool(matrix, *cells)
    places = tops(matrix, found)
    np.testing.assert_array_equal(matrix.reshape(-1)[places], found.values)
    rows, columns = np.divmod(places, shape[1])
    np.testing.assert_array_equal(rows // found.block[0], np.indices(places.shape)[0])
    np.testing.assert_array_equal(columns // found.block[1], np.indices(places.shape)[1])


def test_a_block_with_nan_has_no_largest():
    matrix = np.array([[np.nan, 1.0], [2.0, 3.0]])
    assert tops(matrix, pool(matrix, 1, 1)).tolist() == [[-1]]


def test_norms_change_places_with_the_axes():
    matrix = np.random.default_rng(0).standard_normal((101, 67))
    there, back = pool(matrix, 13, 11), pool(matrix.T, 11, 13)
    np.testing.assert_allclose(there.row_norms, back.column_norms)
    np.testing.assert_allclose(there.column_norms, back.row_norms)


def test_norms_are_those_of_whole_rows_and_columns():
    matrix = np.random.default_rng(0).standard_normal((7, 5))
    found = pool(matrix)
    np.testing.assert_allclose(
        found.row_norms, np.linalg.norm(matrix.astype("f"), axis=1), rtol=1e-6
    )
    np.testing.assert_allclose(
        found.column_norms, np.linalg.norm(matrix.astype("f"), axis=0), rtol=1e-6
    )


def test_one_outlier_cannot_hide():
    matrix = np.zeros((4001, 307), np.float32)
    matrix[3999, 306] = -5
    assert pool(matrix, 96, 96).values.min() == -5


def test_nan_and_infinity_come_through():
    matrix = np.zeros((6, 6))
    matrix[0, 0], matrix[5, 5], matrix[0, 5], matrix[5, 0] = np.nan, np.inf, -np.inf, 1e300
    np.testing.assert_array_equal(pool(matrix, 2, 2).values, [[np.nan, -np.inf], [np.inf, np.inf]])


def test_the_source_stays_as_it_was():
    matrix = np.random.default_rng(0).standard_normal((7, 5))
    matrix.setflags(write=False)
    before = matrix.copy()
    pool(matrix, 2, 2)
    np.testing.assert_array_equal(matrix, before)
