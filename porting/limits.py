"""The budget of one request, checked in Python integers before anything is allocated.

JAX can end the process on a size that does not fit (`jnp.zeros((2**40, 2**40))`), so no
size reaches it unchecked.
"""

import math
from collections.abc import Sequence

from porting.errors import ArgumentError, LimitError

DIMENSION = 8192  #: the longest axis that a person can ask for
TENSOR_ELEMENTS = 2**24  #: elements of one tensor that is made on request
TOTAL_ELEMENTS = 2**26  #: elements of all tensors of one request
LAYERS = 64  #: layers of one request
SEED = 2**32 - 1  #: the largest seed
PASTED_CHARACTERS = 1_000_000  #: length of a pasted text
PASTED_NUMBERS = 100_000  #: numbers in a pasted text
CELLS = 256  #: cells along one side of a heatmap that is sent to a browser

FILE_BYTES = 512 * 2**20  #: a checkpoint in the app, expanded; the command line has no such cap
HEADER_BYTES = 4 * 2**20  #: the header of a safetensors file
PICKLE_BYTES = 8 * 2**20  #: the pickle inside a PyTorch file
PICKLE_OPCODES = 500_000  #: its opcodes
PICKLE_NAMES = 2_000  #: the classes and functions that it names
MSGPACK_VALUES = 100_000  #: values of a Flax msgpack: its tensors, the tables they lie in, counters
TENSORS = 20_000  #: tensors of one checkpoint
RANK = 8  #: axes of one tensor
NAME_CHARACTERS = 512  #: length of a tensor's name
NAME_PARTS = 200  #: parts of a leaf's name; a mapping that holds itself has no end
SHARDS = 64  #: files of one sharded checkpoint
ARCHIVE_MEMBERS = TENSORS + 64  #: members of one zip file: its tensors and what describes them
RULES_CHARACTERS = 4_000_000  #: length of a rules file: a row for each of 20,000 tensors
RULE_CHARACTERS = 4_000  #: length of one entry of a row
RULE_TRIES = 4_000_000  #: pairs of a pattern and a tensor that the rules of one file try
DEPTH = 64  #: tables inside tables in one checkpoint
EXPANSION = 64  #: bytes of the tensors for one byte of their file (compression, repeats)
EXPANSION_FREE = 2**26  #: and this much more, so that a small file may repeat a little


def _numeric(value: object) -> bool:
    """Whether `value` may stand for a number: no text, no truth value, no mask."""
    return not isinstance(value, (bool, str, bytes)) and (
        str(getattr(value, "dtype", "")) != "bool"
    )


def whole(name: str, value: object) -> int:
    """`value` as an `int`, if it is a finite whole number and not a boolean.

    >>> whole("features", 8.0)
    8
    >>> whole("features", 2.5)
    Traceback (most recent call last):
    porting.errors.ArgumentError: features = 2.5 is not a whole number. Pass a whole number.
    """
    try:
        if not _numeric(value):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(
            f"{name} = {value!r:.60} is not a number. Pass a whole number."
        ) from None
    if not math.isfinite(number) or number != math.floor(number):
        raise ArgumentError(f"{name} = {number:g} is not a whole number. Pass a whole number.")
    return int(number)


def dimension(name: str, value: object, largest: int = DIMENSION) -> int:
    """A size that a person asks for: a whole number in 1…`largest`.

    >>> dimension("heads", 4.0)
    4
    >>> dimension("heads", 0)
    Traceback (most recent call last):
    porting.errors.ArgumentError: heads = 0 is not a size. Pass a whole number from 1 to 8,192.
    """
    number = whole(name, value)
    if number < 1:
        raise ArgumentError(
            f"{name} = {number:,} is not a size. Pass a whole number from 1 to {largest:,}."
        )
    if number > largest:
        raise LimitError(
            f"{name} = {number:,} is larger than the limit of {largest:,}. "
            f"Pass a whole number from 1 to {largest:,}."
        )
    return number


def seed(name: str, value: object) -> int:
    """A seed: a whole number in 0…2³²−1.

    >>> seed("seed", 7.0)
    7
    >>> seed("seed", -1)
    Traceback (most recent call last):
    porting.errors.ArgumentError: seed = -1 is not a seed. Pass a whole number from 0 to 4,294,967,295.
    """
    number = whole(name, value)
    if not 0 <= number <= SEED:
        raise ArgumentError(
            f"{name} = {number:,} is not a seed. Pass a whole number from 0 to {SEED:,}."
        )
    return number


def truncated_seed(name: str, value: object) -> int:
    """The whole part of a finite number, as `int` takes it, if that is a seed.

    The two guided ports receive their seed as a float and cast it; a form asks for a whole
    number instead (`seed`).

    >>> truncated_seed("seed", 7.9)
    7
    """
    try:
        if not _numeric(value):
            raise TypeError
        return seed(name, int(value))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{name} = {value!r:.60} is not a seed. Pass a whole number.") from None


def elements(shapes: dict[str, Sequence[int]]) -> int:
    """The number of elements of all `shapes`, if each and their sum are within the budget.

    >>> elements({"kernel": (8, 6), "bias": (6,)})
    54
    """
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    for name, count in counts.items():
        if count > TENSOR_ELEMENTS:
            axes = " × ".join(f"{n:,}" for n in shapes[name])
            raise LimitError(
                f"{name} would hold {axes} = {count:,} numbers; the limit is "
                f"{TENSOR_ELEMENTS:,}. Choose smaller sizes."
            )
    total = sum(counts.values())
    if total > TOTAL_ELEMENTS:
        raise LimitError(
            f"This would take {total:,} numbers in all; the limit is {TOTAL_ELEMENTS:,}. "
            "Choose smaller sizes."
        )
    return total
