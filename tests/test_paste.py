"""Numbers as people paste them: JSON, rows, and what NumPy and PyTorch print."""

import numpy as np
import pytest

from porting.errors import ArgumentError, LimitError
from porting.paste import parse_matrix, parse_vector

MATRIX = [[1.0, -2.5, 0.0], [4.0, 5.0, 1e-7]]


@pytest.mark.parametrize(
    "text",
    [
        "[[1, -2.5, 0], [4, 5, 1e-7]]",
        "  [[1.0,-2.5,0.0],\n   [4.,5.,1.e-7]]  ",
        "1 -2.5 0\n4 5 1e-7",
        "1, -2.5, 0\n\n4, 5, 1e-7,\n",
        "1;-2.5;0\n4;5;1e-7",
        "1\t-2.5\t0\r\n4\t5\t1e-7",
        "[[ 1.  -2.5  0. ]\n [ 4.  5.  1.e-07]]",
        "array([[ 1. , -2.5,  0. ],\n       [ 4. ,  5. ,  1.e-07]], dtype=float32)",
        "np.array([[1, -2.5, 0], [4, 5, 1e-7]])",
        "tensor([[ 1.0000e+00, -2.5000e+00,  0.0000e+00],\n        [ 4.0, 5., 1.0000e-07]], device='cuda:0', grad_fn=<TBackward0>)",
        "Parameter containing:\ntensor([[1., -2.5, 0.], [4., 5., 1e-7]], requires_grad=True)",
        "Array([[1., -2.5, 0.], [4., 5., 1e-7]], dtype=float32)",
    ],
)
def test_every_way_of_writing_one_matrix(text):
    found = parse_matrix(text)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32(MATRIX))


def test_what_numpy_prints_is_read_back():
    matrix = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    with np.printoptions(precision=9, floatmode="unique"):
        np.testing.assert_array_equal(parse_matrix(str(matrix)), matrix)
        np.testing.assert_array_equal(parse_matrix(repr(matrix)), matrix)


def test_one_row_is_a_matrix_of_one_row():
    assert parse_matrix("[1, 2, 3]").tolist() == parse_matrix("1 2 3").tolist() == [[1, 2, 3]]


def test_nan_and_infinity_are_numbers_here():
    for text in ("nan inf -inf", "[NaN, Infinity, -Infinity]"):
        np.testing.assert_array_equal(parse_matrix(text), [[np.nan, np.inf, -np.inf]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "weight is empty. Paste rows of numbers, such as [[1, 2], [3, 4]]."),
        ("[[]]", "weight is empty. Paste rows of numbers, such as [[1, 2], [3, 4]]."),
        ("[[1, 2], [3]]", "Row 2 of weight has 1 number and row 1 has 2. Give every row the same length."),
        ("1 2\n3 4 5", "Row 2 of weight has 3 numbers and row 1 has 2. Give every row the same length."),
        ("[[1, 2], [3, null]]", "weight[1, 1] (row 2, column 2) is None, which is no float32 number."),
        ("[[true, 2]]", "weight[0, 0] (row 1, column 1) is True, which is no float32 number."),
        ("[[1, [2]]]", "weight[0, 1] (row 1, column 2) is [2], which is no float32 number.".replace("[2]", "['2']")),
        ("1 two", "weight[0, 1] (row 1, column 2) is 'two', which is no float32 number."),
        ("[[1, 1e39]]", "weight[0, 1] (row 1, column 2) is '1e39', which is no float32 number."),
        ("1e400 2", "weight[0, 0] (row 1, column 1) is '1e400', which is no float32 number."),
        ("[[1, 2], [3, 4]", "weight is not JSON at line 1, column 16. Write [[1, 2], [3, 4]]."),
        ("[" * 100_000 + ",", "weight is not JSON. Write [[1, 2], [3, 4]]."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_word_for_word(text, message):
    with pytest.raises(ArgumentError) as error:
        parse_matrix(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" " * 1_000_001, "weight is 1,000,001 characters long; the limit is 1,000,000. Upload it as a .safetensors file instead."),
        ("1 " * 100_001, "weight holds 100,001 numbers; the limit is 100,000. Upload it as a .safetensors file instead."),
    ],
)  # fmt: skip
def test_too_much(text, message):
    with pytest.raises(LimitError) as error:
        parse_matrix(text)
    assert str(error.value) == message


def test_a_bias():
    assert parse_vector(" ", 3) is None
    assert parse_vector("1 2 3", 3).tolist() == parse_vector("1\n2\n3", 3).tolist() == [1, 2, 3]
    with pytest.raises(ArgumentError) as error:
        parse_vector("1 2", 3)
    assert str(error.value) == (
        "bias has 2 numbers and the weight has 3 rows (out). Give one number for each output, or none."
    )
