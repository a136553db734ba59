"""`Bench`: what a matrix needs of a target; `Run`: one port on one input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from porting.checks.probes import PROBES, Inputs, Specs, random_normal
from porting.compare import Comparison, NetworkComparison
from porting.errors import LimitError
from porting.faults import Port

#: The name of the second input of the check "two_probes".
SECOND = "second"
#: Numbers of all leaves and inputs of one target.
ELEMENTS = 2**18


@dataclass(frozen=True)
class Bench:
    """A target that ports are run on.

    Attributes:
        target: its name.
        config: the options that a reader needs to do it again.
        ports: state of the leaves -> the right port, in float32.
        wide: the same ported in float64, so that joins (a sum of two biases, a fused norm) are
            rounded as the rest is.
        inputs: probe -> arrays, or `None` where the target has no such input.
        reference: (state, probe) -> the source's output in float64.
        bound: (state, probe) -> how far rounding may take an output; `None` where the target
            is judged by both precisions instead.
        run: (port, probe, precision) -> output in the layout of the reference.
    """

    target: str
    config: Mapping[str, object]
    ports: Mapping[str, Port]
    wide: Mapping[str, Port]
    inputs: Mapping[str, Inputs | None]
    reference: Callable[[str, str], np.ndarray]
    bound: Callable[[str, str], np.ndarray | None]
    run: Callable[[Port, str, np.dtype], np.ndarray]


def within_budget(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless a matrix of tensors of these shapes is small enough to fill at once.

    >>> within_budget({"weight": (512, 1024)})
    Traceback (most recent call last):
    porting.errors.LimitError: A matrix runs hundreds of ports: this one would hold 524,288 numbers, the limit is 262,144. Choose smaller sizes.
    """
    total = sum(math.prod(shape) for shape in shapes.values())
    if total > ELEMENTS:
        raise LimitError(
            f"A matrix runs hundreds of ports: this one would hold {total:,} numbers, the limit "
            f"is {ELEMENTS:,}. Choose smaller sizes."
        )


def probe_inputs(specs: Specs, probes: tuple[str, ...], seed: int) -> dict[str, Inputs | None]:
    """The inputs of every probe, and a second random one at a hundredth of the size."""
    made = {name: PROBES[name].make(specs, np.random.default_rng((seed, 1))) for name in probes}
    second = random_normal(specs, np.random.default_rng((seed, 3)))
    made[SECOND] = tuple(x if x.dtype.kind in "iu" else x / np.float32(100) for x in second)
    return made


@dataclass(frozen=True)
class Run:
    """One port on one input, beside the source.

    Attributes:
        reference: float64, of the source.
        bound: how far rounding may take an output, or `None`.
        single_call, double_call: the port in float32 and in float64 -> output.
        noise: the largest rounding error of the right port in float32; `None` for that port.
    """

    reference: np.ndarray
    bound: np.ndarray | None
    single_call: Callable[[], np.ndarray]
    double_call: Callable[[], np.ndarray]
    noise: float | None = None

    @cached_property
    def _tried(self) -> tuple[np.ndarray | None, str]:
        if self.noise is None:  # the right port must run: an error here is ours
            return self.single_call(), ""
        # The leaves are wrong on purpose and the module is not ours: whatever it raises is
        # what a person would see.
        try:
            return self.single_call(), ""
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            return None, f"{type(error).__name__}: {lines[0]}"

    @property
    def crash(self) -> str:
        """What was raised, in a line; "" where it runs."""
        return self._tried[1]

    @property
    def single(self) -> np.ndarray:
        """The output in float32."""
        assert self._tried[0] is not None
        return self._tried[0]

    @property
    def fits(self) -> bool:
        """Whether the output has the shape of the source's."""
        return not self.crash and self.single.shape == self.reference.shape

    @cached_property
    def difference(self) -> float:
        """The largest difference from the source; infinite where it has another shape."""
        if not self.fits:
            return np.inf
        return Comparison(self.reference, self.single, np.zeros(1)).largest

    @cached_property
    def within(self) -> bool:
        """Whether rounding explains the difference."""
        if not self.fits:
            return False
        if self.bound is not None:
            return Comparison(self.reference, self.single, self.bound).within
        # A thousand times what rounding does to the right port is no rounding: float64 need
        # not be asked.
        if self.noise and self.difference > 1000 * self.noise:
            return False
        return NetworkComparison(self.reference, self.single, self.double_call()).within
