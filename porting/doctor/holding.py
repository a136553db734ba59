"""`Question`: a leaf and what it should be; `Holding`: what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from porting.doctor.arrange import Arrangement
from porting.doctor.bits import canonical
from porting.doctor.evidence import Evidence
from porting.doctor.kinds import Named
from porting.doctor.proposals import Extent, extent
from porting.doctor.table import Table
from porting.doctor.values import Change, narrow_type, rounding, single
from porting.leaves import Leaf


@dataclass(frozen=True)
class Holding:
    """A source, what was done to it, and what else would explain the leaf as well.

    Attributes:
        keys: source keys.
        arrangement: how their elements were moved; None if as they should be.
        change: how their values were changed, or None.
        note: what a reader should know.
        others: keys that hold the same values.
        other: the path of the leaf that should hold this, "" if it is not known.
        named: what was done to the order, where that is known without the rule.
    """

    keys: tuple[str, ...]
    arrangement: Arrangement | None = None
    change: Change | None = None
    note: str = ""
    others: tuple[str, ...] = ()
    other: str = ""
    named: Named | None = None


@dataclass
class Question:
    """One leaf and what it should be.

    Attributes:
        leaf: the given array.
        row: its row of the mapping, or None.
        expected: the array that the row makes, or None.
        evidence: the source.
        table: what all leaves should be.
    """

    leaf: np.ndarray
    row: Leaf | None
    expected: np.ndarray | None
    evidence: Evidence
    table: Table
    bits: np.ndarray = field(init=False)
    _extent: list[Extent | None] = field(default_factory=list)
    _narrow: list[type | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bits = canonical(self.leaf)

    @property
    def home(self) -> tuple[str, ...]:
        """The keys that the leaf should be made of."""
        return self.row.sources if self.row and self.expected is not None else ()

    @property
    def extent(self) -> Extent | None:
        """The extent of the leaf."""
        if not self._extent:
            self._extent.append(extent(self.leaf))
        return self._extent[0]

    @property
    def unit(self) -> float:
        """The rounding of the leaf's type."""
        return rounding(self.narrow)

    @property
    def narrow(self) -> type | None:
        """The narrow type that holds all values of the leaf, or None."""
        if not self._narrow:
            self._narrow.append(narrow_type(self.leaf))
        return self._narrow[0]

    def bits_of(self, array: np.ndarray) -> np.ndarray:
        """The bits of a source tensor, as float32 where the leaf is."""
        bits = canonical(array)
        same = bits.dtype == self.bits.dtype or array.dtype.kind != "f"
        return bits if same else canonical(single(array))
