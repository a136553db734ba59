"""Numbers that a person pastes: JSON lists, or rows of numbers as NumPy prints them."""

from __future__ import annotations

import json
import re

import numpy as np

from porting import limits
from porting.errors import ArgumentError, LimitError

#: The wrapping of a printed array: NumPy's `array(…)`, PyTorch's `tensor(…)` and `Parameter`.
_PRINTED = re.compile(
    r"(?:Parameter containing:\s*)?(?:\w+\.)?(?:array|tensor|Array)\((\[.*\])[^\[\]]*\)", re.DOTALL
)


def parse_matrix(text: str, name: str = "weight") -> np.ndarray:
    """A pasted matrix as float32 `(rows, columns)`.

    Args:
        text: `[[1, 2], [3, 4]]`, one row a line with spaces or commas between, or what
            NumPy and PyTorch print: `array([[1., 2.]])`, `tensor([[1., 2.]], device='cpu')`.
        name: how the messages call it.

    Raises:
        ArgumentError: a row is ragged or holds something that is no number; the message
            names the row and the column.
        LimitError: the text is too long.

    >>> parse_matrix("1 2 3\\n4 5 6").tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    >>> parse_matrix("[[1, 2], [3]]")
    Traceback (most recent call last):
    porting.errors.ArgumentError: Row 2 of weight has 1 number and row 1 has 2. Give every row the same length.
    """
    rows = _rows(text, name)
    if not rows or not rows[0]:
        raise ArgumentError(f"{name} is empty. Paste rows of numbers, such as [[1, 2], [3, 4]].")
    for i, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ArgumentError(
                f"Row {i} of {name} has {len(row)} number{'s' * (len(row) != 1)} and row 1 has "
                f"{len(rows[0])}. Give every row the same length."
            )
    return np.array(
        [[_number(v, name, i, j) for j, v in enumerate(row, 1)] for i, row in enumerate(rows, 1)],
        np.float32,
    )


def parse_vector(text: str, length: int, name: str = "bias") -> np.ndarray | None:
    """A pasted vector of `length` numbers as float32; `None` for an empty text.

    >>> parse_vector("[0.5, 1]", 2).tolist()
    [0.5, 1.0]
    """
    if not text.strip():
        return None
    vector = parse_matrix(text, name).reshape(-1)
    if len(vector) != length:
        raise ArgumentError(
            f"{name} has {len(vector)} numbers and the weight has {length} rows (out). "
            "Give one number for each output, or none."
        )
    return vector


def _rows(text: str, name: str) -> list[list]:
    if len(text) > limits.PASTED_CHARACTERS:
        raise LimitError(
            f"{name} is {len(text):,} characters long; the limit is {limits.PASTED_CHARACTERS:,}. "
            "Upload it as a .safetensors file instead."
        )
    text = _PRINTED.sub(r"\1", text.strip())
    if text.startswith("[") and "," in text:
        try:
            # "1." as NumPy prints it becomes "1.0"; numbers stay text until `_number`.
            bare = re.sub(r"(?<=\d)\.(?!\d)", ".0", text)
            found = json.loads(bare, parse_float=str, parse_int=str)
        except (ValueError, RecursionError) as error:
            where = (
                f" at line {error.lineno}, column {error.colno}"
                if isinstance(error, json.JSONDecodeError)
                else ""
            )
            raise ArgumentError(f"{name} is not JSON{where}. Write [[1, 2], [3, 4]].") from None
        rows = found if found and all(isinstance(row, list) for row in found) else [found]
    else:
        rows = [re.split(r"[\s,;]+", line) for line in _lines(text)]
    if sum(map(len, rows)) > limits.PASTED_NUMBERS:
        raise LimitError(
            f"{name} holds {sum(map(len, rows)):,} numbers; the limit is {limits.PASTED_NUMBERS:,}. "
            "Upload it as a .safetensors file instead."
        )
    return rows


def _lines(text: str) -> list[str]:
    """One text a row: by brackets, since NumPy breaks long rows, or else by lines."""
    rows = re.findall(r"\[([^\[\]]*)\]", text)
    if re.sub(r"\[[^\[\]]*\]|[\[\]\s,;]", "", text):
        rows = re.sub(r"[\[\]]", " ", text).splitlines()
    return [row.strip(" ,;\t\n") for row in rows if row.strip(" ,;\t\n")]


def _number(value: object, name: str, row: int, column: int) -> float:
    try:
        if value is None or isinstance(value, (bool, list, dict)):
            raise ValueError
        number = float(value)  # type: ignore[arg-type]
        written_infinite = "inf" in str(value).lower()
        if abs(number) > float(np.finfo(np.float32).max) and not written_infinite:
            raise ValueError
    except (ValueError, OverflowError):
        raise ArgumentError(
            f"{name}[{row - 1}, {column - 1}] (row {row}, column {column}) is {value!r:.40}, which is no float32 number."
        ) from None
    return number
