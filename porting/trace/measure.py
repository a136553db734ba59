"""How far two stages are apart, in units of what rounding explains.

Where both models were run in float64 as well, the error is the difference of the float64
runs, and the noise is what float32 did to either; nothing is assumed. Otherwise a stated
estimate stands in, which is wider, so that a right port is not accused.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from porting.compare import SHRINKS, UNIT_ROUNDOFF, compare
from porting.trace.stages import Trace

Key = TypeVar("Key", bound=Hashable)
U = UNIT_ROUNDOFF["float32"]
FLOOR = 4 * U  #: noise, of the largest value, below which no stage is held to account
UNLIKE = 4096  #: times the reference's noise: no rounding, the two runs of a model did other things
HALF_KNOWN = 8  #: widening where only the reference has a float64 run, or it is none throughout
ESTIMATE = (16, 4)  #: of U, once and for each layer before, where neither has one


@dataclass(frozen=True)
class Pair:
    """One array of the reference (aligned) and of the candidate, each in one or two precisions.

    `unit` is the unit roundoff of the narrowest dtype that they may have gone through.
    """

    wanted: np.ndarray
    given: np.ndarray
    wanted64: np.ndarray | None = None
    given64: np.ndarray | None = None
    unit: float = U


def units(trace: Trace) -> dict[str, tuple[float, float]]:
    """Stage -> the unit roundoff of the narrowest dtype up to it, and inside it.

    Float32 at least: a residual stream in float32 still carries what bfloat16 layers rounded.
    """
    found: dict[str, tuple[float, float]] = {}
    inside: dict[str, float] = {}
    before = U
    for stage in trace.stages:
        own = max(U, UNIT_ROUNDOFF.get(stage.dtype, U), inside.get(stage.path, U))
        before = max(before, own)
        inside[stage.parent] = max(own, inside.get(stage.parent, U))
        found[stage.path] = before, own
    return found


@dataclass(frozen=True)
class Measure:
    """An error beside its noise floor.

    Attributes:
        error: the largest absolute difference.
        noise: what rounding explains of it.
        scale: the largest absolute value of the reference.
        basis: how the noise is known: `double`; `narrow` where a float64 run computes in
            float32 somewhere; `reference`, `estimate`; `exact` for integers.
    """

    error: float
    noise: float
    scale: float
    basis: str

    @property
    def ratio(self) -> float:
        """error / noise: up to 1 is rounding."""
        if self.error == 0:
            return 0.0
        return self.error / self.noise if self.noise else math.inf

    @property
    def parts(self) -> bool:
        """Whether rounding does not explain the error (a NaN on one side only included)."""
        return not self.ratio <= 1

    @property
    def same(self) -> bool:
        """Whether there is no error, or float64 shrinks it as it shrinks rounding."""
        return self.error == 0 or (self.basis == "double" and self.ratio * SHRINKS <= 1)


def widened(measures: Mapping[Key, Measure]) -> dict[Key, Measure]:
    """Measures in the order of the stages, wider behind a float64 run that is none.

    A model may compute in float32 inside whatever it is given (norms and rotary angles do).
    It shows: a small error that float64 does not shrink. From there on both runs of a model
    share some rounding, so what they differ by no longer tells all of it.

    >>> found = {"a": Measure(1e-7, 2e-7, 1, "double"), "b": Measure(3e-7, 2e-7, 1, "double")}
    >>> [m.parts for m in found.values()], [m.parts for m in widened(found).values()]
    ([False, True], [False, False])
    """
    narrow, found = False, {}
    for path, one in measures.items():
        if one.basis == "double":
            narrow = narrow or not (one.parts or one.same)
            if narrow:
                one = replace(one, noise=HALF_KNOWN * one.noise, basis="narrow")
        found[path] = one
    return found


def measure(pair: Pair, depth: int = 0) -> Measure:
    """The error of a pair and its noise.

    Args:
        pair: arrays of one shape.
        depth: layers before this one; used by the estimate only.

    >>> x = np.float32([1, 2])
    >>> m = measure(Pair(x, x + np.float32(1e-7)))
    >>> m.basis, m.parts
    ('estimate', False)
    >>> measure(Pair(x, x + np.float32(1e-3))).parts
    True
    """
    if pair.wanted.dtype.kind != "f" or pair.given.dtype.kind != "f":
        error = _apart(pair.wanted.astype(np.float64), pair.given.astype(np.float64))
        return Measure(error, 0.0, _scale(pair.wanted), "exact")
    if pair.wanted64 is None or pair.unit > U:
        scale, width = _scale(pair.wanted), max(pair.wanted.shape, default=1)
        noise = pair.unit * scale * (ESTIMATE[0] + ESTIMATE[1] * depth + math.sqrt(width))
        return Measure(_apart(pair.wanted, pair.given), noise, scale, "estimate")
    scale = _scale(pair.wanted64)
    noise = max(_apart(pair.wanted64, pair.wanted), FLOOR * scale)
    if pair.given64 is None:
        return Measure(_apart(pair.wanted64, pair.given), HALF_KNOWN * noise, scale, "reference")
    own = _apart(pair.given64, pair.given)
    if own > UNLIKE * noise:  # a dropout that is on draws anew
        return Measure(_apart(pair.wanted64, pair.given), HALF_KNOWN * noise, scale, "reference")
    return Measure(_apart(pair.wanted64, pair.given64), max(noise, own), scale, "double")


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return compare(a, b, np.zeros(())).largest


def _scale(array: np.ndarray) -> float:
    finite = np.abs(np.asarray(array, np.float64))
    return float(np.max(finite[np.isfinite(finite)], initial=0.0))
