"""What is asked of the table of variants, and what a row of it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Choice = dict[str, Any]
LEAST_SHARE = 4e7  #: operations that every question may spend


@dataclass(frozen=True)
class Problem:
    """A recorded output and all that it may have been made of.

    Attributes:
        layer: a key of `LAYERS`.
        operands: float64 arrays by name; `x` for a layer with one input.
        leaves: the layer's parameters in Flax's layout.
        target: the output, float32 or an integer type.
        target64: the output of the float64 run, where there is one.
        apart: how far the two models are apart, element by element; a sample of a large
            question is taken where that is largest.
    """

    layer: str
    operands: Mapping[str, np.ndarray]
    leaves: Mapping[str, np.ndarray]
    target: np.ndarray = field(repr=False)
    target64: np.ndarray | None = field(default=None, repr=False)
    apart: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Variant:
    """One option of a layer.

    Attributes:
        layer: the layer, a key of `LAYERS`.
        option: the argument of the layer's function.
        title: what a difference in it is called.
        values: what it can be, the usual one first; or a function of the problem.
        verdict: `code`, or `weight` where the option undoes a fault of a leaf.
        usual: how many of the first values are met every day.
    """

    layer: str
    option: str
    title: str
    values: Sequence[Any] | Callable[[Problem], Sequence[Any]]
    verdict: str = "code"
    usual: int = 1


@dataclass
class Budget:
    """What may be spent on all questions of one explanation, in float64 operations.

    Each question gets a share of what is left, so one without an answer leaves something to
    those behind it, and many of them come to an end.

    >>> budget = Budget(8e8)
    >>> budget.share() == 2e8, Budget(0.0).share() == LEAST_SHARE
    (True, True)
    """

    left: float = 1.6e9

    def share(self) -> float:
        """What the next question may spend."""
        return max(self.left / 4, LEAST_SHARE)


def divisors(number: int) -> list[int]:
    """The numbers that divide `number`, in order.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [n for n in range(1, number + 1) if number % n == 0]
