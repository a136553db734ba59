"""The right tensor with other numbers: cast, shifted, scaled, rooted.

A change is accepted only if every element agrees within the rounding of the leaf's own type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from porting.doctor.bits import blocks, canonical, is_float, probes

Function = Callable[[np.ndarray], np.ndarray]
SHIFTS = ("one_plus", "minus_one", "one_minus")  #: changes that round as 1 does
EPSILONS = (0.0, 1e-5, 1e-6, 1e-3, 1e-12, 1e-4, 1e-8)  #: of the norms that people fold


@dataclass(frozen=True)
class Change:
    """What was done to every value.

    Attributes:
        kind: "cast", "misread", "one_plus", "minus_one", "sign", "scaled", "root", …
        text: what a reader is told.
        apply: float32 array -> float32 array.
        exact: whether the result must agree bit for bit.
    """

    kind: str
    text: str
    apply: Function
    exact: bool = False


def single(array: np.ndarray) -> np.ndarray:
    """`array` as float32: a view where it is."""
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32, copy=False)


def through(dtype: type) -> Function:
    """float32 -> `dtype` -> float32."""

    def narrow(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return values.astype(dtype).astype(np.float32)

    return narrow


def _misread(stored: type, read: type) -> Function:
    def reading(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values.astype(stored), order="C").view(read).astype(np.float32)

    return reading


def _truncated(values: np.ndarray) -> np.ndarray:
    bits = np.asarray(values, order="C").view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


BF16, F16 = ml_dtypes.bfloat16, np.float16
CASTS = (
    Change("cast", "narrowed through bfloat16", through(BF16), True),
    Change("cast", "narrowed through float16", through(F16), True),
    Change("cast", "cut to bfloat16 without rounding", _truncated, True),
    Change("cast", "narrowed through float8_e4m3fn", through(ml_dtypes.float8_e4m3fn), True),
    Change("cast", "narrowed through float8_e5m2", through(ml_dtypes.float8_e5m2), True),
)
MISREADS = (
    Change("misread", "float16 bits read as bfloat16", _misread(F16, BF16), True),
    Change("misread", "bfloat16 bits read as float16", _misread(BF16, F16), True),
)


def _quietly(function: Function) -> Function:
    def quiet(values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return function(values).astype(np.float32, copy=False)

    return quiet


_ONE = np.float32(1)


def _root(eps: float) -> Function:
    return _quietly(lambda w: np.sqrt(w + np.float32(eps)))


def _inverse_root(eps: float) -> Function:
    return _quietly(lambda w: _ONE / np.sqrt(w + np.float32(eps)))


FUNCTIONS = (
    Change("one_plus", "1 was added", _quietly(lambda w: w + _ONE)),
    Change("minus_one", "1 was subtracted", _quietly(lambda w: w - _ONE)),
    Change("sign", "the sign was reversed", _quietly(np.negative), True),
    Change("one_minus", "subtracted from 1", _quietly(lambda w: _ONE - w)),
    Change("root", "the square root was taken (a standard deviation)", _quietly(np.sqrt)),
    Change("square", "squared", _quietly(np.square)),
    Change("inverse", "inverted (1 / w)", _quietly(lambda w: _ONE / w)),
    Change("exp", "the exponential was taken", _quietly(np.exp)),
    Change("negative_exp", "-exp(w) was taken", _quietly(lambda w: -np.exp(w))),
    Change("log", "the logarithm was taken", _quietly(np.log)),
    Change("magnitude", "the sign was dropped (absolute value)", _quietly(np.abs), True),
    *(
        Change(
            "rsqrt",
            f"1 / sqrt(w + {eps:g}) was taken (an inverse standard deviation)",
            _inverse_root(eps),
        )
        for eps in EPSILONS
    ),
    *(
        Change(
            "root",
            f"sqrt(w + {eps:g}) was taken (a standard deviation)",
            _root(eps),
        )
        for eps in EPSILONS[1:]
    ),
)


def scaled(factor: float) -> Change:
    """Every value times `factor`, which is named where it is a usual one.

    >>> scaled(0.35355338).text
    'scaled by 1/sqrt(8)'
    """
    return Change(
        "scaled",
        f"scaled by {factor_name(factor)}",
        _quietly(lambda w: w * np.float32(factor)),
    )


def factor_name(factor: float) -> str:
    """2, 1/8, sqrt(64), 1/sqrt(32), or the number.

    >>> factor_name(2.0), factor_name(-0.125), factor_name(0.3)
    ('2', '-1/8', '0.3')
    """
    sign, size = ("-" if factor < 0 else ""), abs(factor)
    for value, form in (
        (size, "{}"),
        (1 / size, "1/{}"),
        (size**2, "sqrt({})"),
        (1 / size**2, "1/sqrt({})"),
    ):
        if 1 < round(value) <= 2**16 and abs(value - round(value)) <= 1e-5 * value:
            return sign + form.format(round(value))
    return f"{sign}{float(f'{size:.7g}'):g}" if size != 1 else f"{sign}1"


def narrow_type(leaf: np.ndarray) -> type | None:
    """The narrowest of bfloat16 and float16 that holds every value of a float leaf.

    >>> narrow_type(np.float32([1.5, 2.0])).__name__
    'bfloat16'
    >>> narrow_type(np.float32([0.1])) is None
    True
    """
    if not is_float(leaf.dtype) or not leaf.size:
        return None
    if leaf.dtype in (BF16, F16):
        return BF16 if leaf.dtype == BF16 else F16
    for dtype in (BF16, F16):
        change = through(dtype)
        if _same(change, leaf[probes(leaf.shape)]) and all(
            _same(change, leaf[piece]) for piece in blocks(leaf.shape)
        ):
            return dtype
    return None


def seems_narrow(leaf: np.ndarray) -> bool:
    """Whether a narrow type holds a few values of a float leaf.

    >>> seems_narrow(np.float32([1.5, 2.0])), seems_narrow(np.float32([0.1]))
    (True, False)
    """
    if not is_float(leaf.dtype) or not leaf.size:
        return False
    some = leaf[probes(leaf.shape)]
    return any(_same(through(dtype), some) for dtype in (BF16, F16))


def _same(change: Function, part: np.ndarray) -> bool:
    values = single(part)
    return np.array_equal(change(values), values, equal_nan=True)


def rounding(narrow: type | None) -> float:
    """The relative rounding error of a leaf whose values a narrow type holds: 4 units.

    >>> rounding(None) == 2.0**-21
    True
    """
    return 4 * {BF16: 2.0**-8, F16: 2.0**-11, None: 2.0**-23}[narrow]


def agrees(change: Change, source: np.ndarray, leaf: np.ndarray, unit: float) -> bool:
    """Whether the leaf is the changed source, element by element.

    >>> w = np.float32([0.1, 0.2]); agrees(FUNCTIONS[0], w, w + np.float32(1), 1e-6)
    True
    """
    if source.shape != leaf.shape:
        return False
    spots = probes(leaf.shape)
    return _agrees(change, source[spots], leaf[spots], unit) and all(
        _agrees(change, source[piece], leaf[piece], unit) for piece in blocks(leaf.shape)
    )


def _agrees(change: Change, source: np.ndarray, leaf: np.ndarray, unit: float) -> bool:
    shifted = change.kind in SHIFTS
    want, have = change.apply(single(source)), single(leaf)
    if change.exact:
        return np.array_equal(canonical(want), canonical(have))
    size = np.maximum(np.abs(want), np.abs(have))
    with np.errstate(invalid="ignore"):
        bad = np.abs(want - have) > unit * (size + (1.0 if shifted else 0.0))
    alike = np.array_equal(np.isnan(want), np.isnan(have))
    return not bad.any() and alike and np.array_equal(np.isinf(want), np.isinf(have))
