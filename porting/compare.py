"""Two outputs -> a verdict without a magic tolerance.

One layer is judged by the rounding-error bound of its sum of products (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2nd ed., section 3.1: γₙ = n·u / (1 − n·u)); a
whole network by running it in float32 and float64: rounding shrinks by some 2²⁹, an
error does not. Weights themselves are compared bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from porting.errors import ArgumentError

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}
#: Elements of a weight that are held in float64 at a time.
CAST_ELEMENTS = 2**22
#: How far float64 must shrink a network's difference for it to be rounding.
SHRINKS = 2.0**14.5


def rounding_bound(
    magnitude: np.ndarray, terms: int, largest: float, stored: str = "float32"
) -> np.ndarray:
    """How far a float32 sum of products may be from the exact one.

    Args:
        magnitude: |x| |W| + |b| in float64, of the output's shape.
        terms: products in one sum (fan-in; kh·kw·cin/groups for a convolution).
        largest: max|x| + max|W|, for the flushed denormals of XLA.
        stored: the dtype that the output is kept in; `bfloat16` and `float16` add their own.

    >>> float(rounding_bound(np.ones(1), 64, 2.0)[0]) < 64 * 2.0**-23
    True
    """
    u = UNIT_ROUNDOFF["float64" if stored == "float64" else "float32"]
    gamma = (terms + 1) * u / (1 - (terms + 1) * u)
    bound = gamma * np.asarray(magnitude, np.float64) + terms * 2.0**-126 * (1 + largest)
    if stored in ("bfloat16", "float16"):
        v = UNIT_ROUNDOFF[stored]
        bound = bound + 2 * v * (1 + v) * (1 + gamma) * magnitude
    return bound


def dense_reference(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """`x @ weight.T + bias` in float64, from the PyTorch layout `(out, in)`.

    >>> dense_reference(np.ones((1, 2)), np.array([[1.0, 2.0]]), np.array([0.5])).tolist()
    [[3.5]]
    """
    x = np.asarray(x, np.float64)
    rows = max(1, CAST_ELEMENTS // max(1, weight.shape[1]))
    blocks = [
        x @ np.asarray(weight[i : i + rows], np.float64).T for i in range(0, len(weight), rows)
    ]
    out = np.concatenate(blocks, axis=1)
    return out if bias is None else out + np.asarray(bias, np.float64)


def dense_bound(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stored: str = "float32"
) -> np.ndarray:
    """The rounding bound of a Dense layer, of shape `(N, out)`.

    >>> dense_bound(np.ones((2, 3)), np.ones((5, 3)), np.ones(5)).shape
    (2, 5)
    """
    x, weight = np.abs(x), np.abs(weight)
    absolute = dense_reference(x, weight, None if bias is None else np.abs(bias))
    largest = sum(float(np.max(a, initial=0, where=np.isfinite(a))) for a in (x, weight))
    return rounding_bound(absolute, weight.shape[1], largest, stored)


@dataclass(frozen=True)
class Comparison:
    """An output beside its reference.

    Attributes:
        reference: float64, what the source computes.
        output: what the port computed, of the same shape.
        bound: how far rounding alone may take it.
    """

    reference: np.ndarray
    output: np.ndarray
    bound: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """output − reference in float64; 0 where both are the same infinity or both NaN."""
        output = np.asarray(self.output, np.float64)
        same = (output == self.reference) | (np.isnan(output) & np.isnan(self.reference))
        with np.errstate(invalid="ignore"):
            return np.where(same, 0.0, output - self.reference)

    @property
    def ratio(self) -> np.ndarray:
        """|difference| / bound: at most 1 is rounding; infinite where only one side is finite."""
        difference = np.abs(self.difference)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where(difference == 0, 0.0, difference / self.bound)
        return np.where(np.isfinite(ratio), ratio, np.inf)

    @property
    def over(self) -> int:
        """Outputs further off than rounding can explain."""
        return int(np.count_nonzero(self.ratio > 1))

    @property
    def within(self) -> bool:
        """Whether rounding explains every difference."""
        return self.over == 0

    @property
    def largest(self) -> float:
        """The largest absolute difference (infinite where only one side is finite)."""
        difference = np.abs(self.difference)
        return float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0.0))

    @property
    def largest_relative(self) -> float:
        """The largest absolute difference over the largest absolute reference."""
        finite = np.abs(self.reference[np.isfinite(self.reference)])
        scale = float(np.max(finite, initial=0.0))
        return self.largest / scale if scale else (np.inf if self.largest else 0.0)

    @property
    def worst(self) -> float:
        """The largest ratio."""
        return float(np.max(self.ratio, initial=0.0))


def compare(reference: np.ndarray, output: np.ndarray, bound: np.ndarray) -> Comparison:
    """The comparison of two outputs of one shape.

    Raises:
        ArgumentError: the shapes differ.

    >>> compare(np.zeros(2), np.float32([0, 1e-9]), np.full(2, 1e-8)).within
    True
    """
    if np.shape(reference) != np.shape(output):
        raise ArgumentError(
            f"The outputs have shapes {np.shape(reference)} and {np.shape(output)}. "
            "Compare outputs of one shape."
        )
    shape = np.shape(reference)
    return Comparison(
        np.asarray(reference, np.float64), np.asarray(output), np.broadcast_to(bound, shape)
    )


def indistinguishable(reference: np.ndarray, alternative: np.ndarray, bound: np.ndarray) -> bool:
    """Whether this data cannot tell two layouts apart (symmetric, diagonal, zero weights).

    >>> indistinguishable(np.ones(2), np.ones(2), np.zeros(2))
    True
    """
    both = Comparison(reference, alternative, 2 * np.asarray(bound, np.float64))
    with np.errstate(invalid="ignore"):
        return bool(np.all((both.difference == 0) | (both.ratio <= 1)))


@dataclass(frozen=True)
class NetworkComparison:
    """A network's output in both precisions beside a float64 reference.

    A stage's `noise` is what rounding did to this very run (float32 against float64 of the
    same parameters), so it needs no tolerance; its `error` is what remains in float64.

    Attributes:
        reference: float64, of the source.
        single: the port's output in float32.
        double: the port's output in float64.
    """

    reference: np.ndarray
    single: np.ndarray
    double: np.ndarray

    @property
    def d32(self) -> float:
        """The largest difference of the float32 run from the reference."""
        return _largest(self.single, self.reference)

    @property
    def d64(self) -> float:
        """The largest difference of the float64 run from the reference: error, no rounding."""
        return _largest(self.double, self.reference)

    @property
    def noise(self) -> float:
        """The largest rounding difference of the float32 run."""
        return _largest(self.single, self.double)

    @property
    def within(self) -> bool:
        """Whether float64 shrinks the difference as only rounding shrinks."""
        return self.d64 == 0 or self.d32 / self.d64 >= SHRINKS

    @property
    def error_over_noise(self) -> float:
        """d64 / noise: the error in units of this run's own rounding."""
        if self.d64 == 0:
            return 0.0
        return self.d64 / self.noise if self.noise and np.isfinite(self.d64) else np.inf


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0.0))
