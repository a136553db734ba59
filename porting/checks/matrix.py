"""`CheckMatrix`: which check sees which fault, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from porting.checks.probes import Probe
from porting.errors import ArgumentError
from porting.faults import Fault

#: The row of the right port.
CLEAN = "clean"
#: How the leaves of the source are: as a fresh layer starts, or every one random.
STATES = ("fresh", "random")
#: status -> what it means.
STATUSES = {
    "caught": "the check fails, as it should",
    "missed": "the check passes, and the port is wrong",
    "equivalent": "no check of this kind can fail: the outputs are those of the right port",
    "passed": "the right port passes",
    "false_alarm": "the check fails, and the outputs are right",
    "n/a": "the layer has no such input",
}


@dataclass(frozen=True)
class Check:
    """One way to check a port.

    Attributes:
        name: key of the column.
        title: what a reader sees.
        about: what is compared, and how.
        prone: why it can fail on a right port; "" where it cannot.
        state: the state of the leaves that it makes itself, or "" for the one it is given.
    """

    name: str
    title: str
    about: str
    prone: str = ""
    state: str = ""


@dataclass(frozen=True)
class Cell:
    """What one check says about one port.

    Attributes:
        status: a key of `STATUSES`.
        story: what was compared and by how much it differed, in a sentence.
        difference: the largest difference of the outputs; NaN where there is none.
    """

    status: str
    story: str
    difference: float = float("nan")


@dataclass(frozen=True)
class Tally:
    """How many faults a check sees.

    Attributes:
        caught: of the faults that can be seen.
        faults: those that can be seen: neither equivalent nor without such an input.
        false_alarm: whether it fails on the right port.
    """

    caught: int
    faults: int
    false_alarm: bool

    def __str__(self) -> str:
        alarm = ", and it fails on the right port" if self.false_alarm else ""
        return f"sees {self.caught} of {self.faults} faults{alarm}"


@dataclass(frozen=True)
class CheckMatrix:
    """Every fault against every check, every probe and both states of the leaves.

    Attributes:
        target: a layer, or "EncoderBlock".
        config: the options that it was run with, as a tuple of pairs.
        faults: the rows but the first, which is the right port (`CLEAN`).
        checks: the columns.
        probes: the inputs, also those that this layer does not have.
        cells: (row, check, probe, state) -> cell.
    """

    target: str
    config: tuple[tuple[str, object], ...]
    faults: tuple[Fault, ...]
    checks: tuple[Check, ...]
    probes: tuple[Probe, ...]
    cells: Mapping[tuple[str, str, str, str], Cell]

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows: the right port, then the faults."""
        return (CLEAN, *(fault.name for fault in self.faults))

    def cell(
        self, row: str, check: str, probe: str = "random_normal", state: str = "fresh"
    ) -> Cell:
        """One cell.

        Args:
            row: `"clean"` or the name of a fault.
            check: the name of a check.
            probe: the name of a probe.
            state: `"fresh"` or `"random"` leaves. A check that makes its own state says the
                same for both.

        Raises:
            ArgumentError: there is no such cell.
        """
        key = (row, check, probe, state)
        if key not in self.cells:
            raise ArgumentError(
                f"There is no cell {key}. Rows: {', '.join(self.rows)}. "
                f"Checks: {', '.join(c.name for c in self.checks)}. "
                f"Probes: {', '.join(p.name for p in self.probes)}. States: {', '.join(STATES)}."
            )
        return self.cells[key]

    def tally(self, check: str, probe: str = "random_normal", state: str = "fresh") -> Tally:
        """How many faults a check sees with one probe and one state of the leaves."""
        statuses = [self.cell(row, check, probe, state).status for row in self.rows]
        caught = statuses[1:].count("caught")
        return Tally(caught, caught + statuses.count("missed"), statuses[0] == "false_alarm")

    def unseen(self) -> tuple[Fault, ...]:
        """The faults that no check sees with any probe in any state of the leaves."""
        seen = {key[0] for key, cell in self.cells.items() if cell.status == "caught"}
        return tuple(fault for fault in self.faults if fault.name not in seen)
