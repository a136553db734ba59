"""What a number must be before anything is made of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from porting import limits
from porting.errors import ArgumentError, LimitError


@pytest.mark.parametrize(
    "value", [3, 3.0, np.float32(3), np.int8(3), np.array(3.0), jnp.float32(3)]
)
def test_whole_numbers_of_every_kind_are_taken(value):
    assert limits.whole("n", value) == 3
    assert type(limits.dimension("n", value)) is int
    assert limits.seed("n", value) == limits.truncated_seed("n", value) == 3


NOT_NUMBERS = [
    None,
    "3",
    b"3",
    True,
    np.True_,
    np.array(True),
    1j,
    [1],
    np.array([3.0]),
    {},
    object,
]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ArgumentError, match=r"is not a number\. Pass a whole number\.$"):
        limits.whole("n", value)
    with pytest.raises(ArgumentError, match=r"is not a seed\. Pass a whole number\.$"):
        limits.truncated_seed("n", value)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: limits.whole("n", 2.5), ArgumentError, "n = 2.5 is not a whole number. Pass a whole number."),
        (lambda: limits.whole("n", float("nan")), ArgumentError, "n = nan is not a whole number. Pass a whole number."),
        (lambda: limits.whole("n", float("-inf")), ArgumentError, "n = -inf is not a whole number. Pass a whole number."),
        (lambda: limits.dimension("n", -7), ArgumentError, "n = -7 is not a size. Pass a whole number from 1 to 8,192."),
        (lambda: limits.dimension("n", 8193), LimitError, "n = 8,193 is larger than the limit of 8,192. Pass a whole number from 1 to 8,192."),
        (lambda: limits.dimension("n", 1e30, 5), LimitError, "n = 1,000,000,000,000,000,019,884,624,838,656 is larger than the limit of 5. Pass a whole number from 1 to 5."),
        (lambda: limits.seed("seed", 2**32), ArgumentError, "seed = 4,294,967,296 is not a seed. Pass a whole number from 0 to 4,294,967,295."),
        (lambda: limits.truncated_seed("seed", float("nan")), ArgumentError, "seed = nan is not a seed. Pass a whole number."),
        (lambda: limits.truncated_seed("seed", -1.5), ArgumentError, "seed = -1 is not a seed. Pass a whole number from 0 to 4,294,967,295."),
        (lambda: limits.elements({"kernel": (4097, 4096)}), LimitError, "kernel would hold 4,097 × 4,096 = 16,781,312 numbers; the limit is 16,777,216. Choose smaller sizes."),
        (lambda: limits.elements(dict.fromkeys("abcde", (4096, 4096))), LimitError, "This would take 83,886,080 numbers in all; the limit is 67,108,864. Choose smaller sizes."),
    ],
)  # fmt: skip
def test_the_refusal_word_for_word(call, kind, message):
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == message


def test_the_edges_are_inside():
    assert limits.dimension("n", 1) == 1
    assert limits.dimension("n", 8192) == 8192
    assert limits.seed("seed", 2**32 - 1) == 2**32 - 1
    assert limits.truncated_seed("seed", 2**32 - 0.5) == 2**32 - 1
    assert limits.truncated_seed("seed", -0.9) == 0
    assert limits.elements(dict.fromkeys("abcd", (4096, 4096))) == 2**26
