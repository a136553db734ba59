"""`Filler`: the cells of one matrix, a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from porting.checks.bench import SECOND, Bench, Run
from porting.checks.columns import CHECKS, OUTPUT_CHECKS, Judgement
from porting.checks.matrix import CLEAN, STATES, Cell, Check
from porting.errors import number_of
from porting.faults import Fault, Port

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


class Filler:
    """Fills the rows of one matrix; what all rows need is computed once."""

    def __init__(self, bench: Bench, checks: tuple[str, ...], probes: tuple[str, ...]) -> None:
        self.bench, self.checks, self.probes = bench, checks, probes
        self.clean = {
            (state, probe): Run(
                bench.reference(state, probe),
                bench.bound(state, probe),
                *self._calls(None, state, probe),
            )
            for state in STATES
            for probe in (*probes, SECOND)
            if bench.inputs[probe] is not None
        }

    def _calls(
        self, fault: Fault | None, state: str, probe: str
    ) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
        """The port in float32 and in float64."""

        def call(ports: Mapping[str, Port], precision: np.dtype) -> np.ndarray:
            port = fault.inject(ports[state]) if fault else ports[state]
            return self.bench.run(port, probe, precision)

        return (
            lambda: call(self.bench.ports, SINGLE),
            lambda: call(self.bench.wide, DOUBLE),
        )

    def _runs(self, fault: Fault | None) -> dict[tuple[str, str], Run]:
        if fault is None:
            return self.clean
        return {
            key: Run(clean.reference, clean.bound, *self._calls(fault, *key), clean.difference)
            for key, clean in self.clean.items()
        }

    def row(self, fault: Fault | None) -> dict[tuple[str, str, str, str], Cell]:
        """All cells of one fault, or of the right port."""
        name = fault.name if fault else CLEAN
        ports = {
            state: fault.inject(self.bench.ports[state]) if fault else None for state in STATES
        }
        runs = self._runs(fault)
        cells = {}
        for check in self.checks:
            for probe in self.probes:
                for state in STATES:
                    asked = CHECKS[check].state or state
                    cells[name, check, probe, state] = self._cell(
                        fault, CHECKS[check], probe, asked, ports[asked], runs
                    )
        return cells

    def _cell(
        self,
        fault: Fault | None,
        check: Check,
        probe: str,
        state: str,
        port: Port | None,
        runs: Mapping[tuple[str, str], Run],
    ) -> Cell:
        right = self.bench.ports[state]
        if check.name == "leaves":
            return _status(fault, *_leaves(right, port), self._reason(fault, port, right, True))
        if (state, probe) not in runs:
            return Cell("n/a", f"{self.bench.target} has no such input.")
        run = runs[state, probe]
        if check.name == "two_probes":
            failed, story = _both(run, runs[state, SECOND])
        else:
            kind = "bound" if check.name == "bound_randomised" else check.name
            failed, story = OUTPUT_CHECKS[kind].judge(run)
        reason = self._reason(fault, port, right, False)
        difference = np.nan if run.crash else run.difference
        if failed and reason and check.prone and run.within:
            return Cell("false_alarm", f"{story} {reason}", difference)
        return _status(fault, failed, story, reason, difference)

    def _reason(self, fault: Fault | None, port: Port | None, right: Port, leaves: bool) -> str:
        """Why this fault cannot be seen here, in any state of the leaves."""
        if fault is None or port is None:
            return ""
        every = self.bench.ports["random"]
        if _changes_nothing(fault.inject(every), every):
            return "With these options the fault changes nothing: the port is the right one."
        return "" if leaves else fault.hidden(right)


def _changes_nothing(port: Port, right: Port) -> bool:
    return (
        not _leaves(right, port)[0]
        and port.forward is None
        and dict(port.config) == dict(right.config)
    )


def _leaves(right: Port, port: Port | None) -> Judgement:
    """Whether a leaf differs, and which."""
    made = right.leaves if port is None else port.leaves
    wrong = [path for path, leaf in right.leaves.items() if not _same(leaf, made[path])]
    if not wrong:
        return False, (
            f"All {number_of(len(made), 'leaf')} are right bit for bit."
            if made
            else "The layer has no leaves."
        )
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    shapes = right.leaves[wrong[0]].shape, made[wrong[0]].shape
    if shapes[0] != shapes[1]:
        return True, f"{wrong[0]}{more}: shape {shapes[1]} where {shapes[0]} belongs."
    off = np.count_nonzero(right.leaves[wrong[0]] != made[wrong[0]])
    return True, f"{wrong[0]}{more}: {off} of {made[wrong[0]].size} numbers differ."


def _same(right: np.ndarray, made: np.ndarray) -> bool:
    return (
        right.shape == made.shape
        and right.dtype == made.dtype
        and right.tobytes() == made.tobytes()
    )


def _both(first: Run, second: Run) -> Judgement:
    for run, words in ((first, "this input"), (second, "small random numbers")):
        failed, story = OUTPUT_CHECKS["bound"].judge(run)
        if failed:
            return True, f"On {words}: {story[0].lower()}{story[1:]}"
    return False, f"On both inputs: {story[0].lower()}{story[1:]}"


def _status(
    fault: Fault | None, failed: bool, story: str, reason: str, difference: float = np.nan
) -> Cell:
    if fault is None:
        return Cell("false_alarm" if failed else "passed", story, difference)
    if not failed and reason:
        return Cell("equivalent", reason, difference)
    return Cell("caught" if failed else "missed", story, difference)
