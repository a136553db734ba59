"""`CHECKS`: the checks that people use, weakest first, and how each judges a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from porting.checks.bench import Run
from porting.checks.matrix import Check

#: Sums are compared as they are printed: to four digits.
SUM_DIGITS = 1e-4
TOLERANCE = 1e-3

Judgement = tuple[bool, str]  #: whether the check fails, and what it compared


@dataclass(frozen=True)
class OutputCheck:
    """A check of outputs and how it judges."""

    check: Check
    judge: Callable[[Run], Judgement]


def _sizes(run: Run) -> str:
    return f"The output has shape {run.single.shape}, the source's {run.reference.shape}."


def _of_outputs(judge: Callable[[Run], Judgement]) -> Callable[[Run], Judgement]:
    """A crash or another shape ends every check of outputs."""

    def judged(run: Run) -> Judgement:
        if run.crash:
            return True, f"It never gets that far: {run.crash}"
        return judge(run) if run.fits else (True, _sizes(run))

    return judged


def _runs(run: Run) -> Judgement:
    return bool(run.crash), run.crash or "It runs and raises nothing."


def _shapes(run: Run) -> Judgement:
    if run.crash:
        return True, f"It never gets that far: {run.crash}"
    return not run.fits, _sizes(run)


def _sums(run: Run) -> Judgement:
    if run.crash:
        return True, f"It never gets that far: {run.crash}"
    sums = float(run.single.sum()), float(run.reference.astype(np.float32).sum())
    differ = not np.isclose(*sums, rtol=SUM_DIGITS, atol=0, equal_nan=True)
    hidden = "" if differ or run.within else f", while outputs differ by up to {run.difference:.2g}"
    verb = "differ" if differ else "agree to four digits"
    return differ, f"The sums {sums[0]:.6g} and {sums[1]:.6g} {verb}{hidden}."


def _close(rtol: float, atol: float, words: str) -> Callable[[Run], Judgement]:
    def judge(run: Run) -> Judgement:
        right = run.reference.astype(np.float32)
        with np.errstate(invalid="ignore"):
            close = np.isclose(run.single, right, rtol=rtol, atol=atol, equal_nan=True)
        count = int(np.count_nonzero(~close))
        return count > 0, (
            f"{count} of {close.size} outputs differ by more than {words}; "
            f"the largest difference is {run.difference:.2g}."
        )

    return _of_outputs(judge)


def _bound(run: Run) -> Judgement:
    verb = "explains" if run.within else "does not explain"
    return not run.within, (
        f"Rounding {verb} the largest difference, {run.difference:.2g}"
        + (f"; the right port is off by {run.noise:.2g}." if run.noise is not None else ".")
    )


_OUTPUTS = (
    OutputCheck(Check("runs", "It runs", "The port is called and nothing is raised."), _runs),
    OutputCheck(
        Check("shapes", "Shapes match", "The output has the shape of the source's."), _shapes
    ),
    OutputCheck(
        Check(
            "sums",
            "Sums match",
            "The sum of the output is the source's to four digits, as many tutorials print it.",
            "A sum near zero keeps few digits: rounding alone changes the fourth.",
        ),
        _sums,
    ),
    OutputCheck(
        Check(
            "allclose",
            "allclose",
            "np.allclose with its defaults: rtol = 1e-5, atol = 1e-8.",
            "Outputs near zero have an absolute error of 1e-7 in float32, which atol = 1e-8 "
            "does not forgive.",
        ),
        _close(1e-5, 1e-8, "NumPy's default tolerance"),
    ),
    OutputCheck(
        Check(
            "atol_1e-3",
            "atol = 1e-3",
            "No output is off by more than 0.001.",
            "Large outputs are off by more through rounding alone.",
        ),
        _close(0.0, TOLERANCE, "0.001"),
    ),
    OutputCheck(
        Check(
            "bound",
            "Rounding bound",
            "No output is further off than rounding can explain.",
        ),
        _of_outputs(_bound),
    ),
)

#: Checks of the output of one run, by name.
OUTPUT_CHECKS: dict[str, OutputCheck] = {row.check.name: row for row in _OUTPUTS}

#: name -> check, weakest first.
CHECKS: dict[str, Check] = {
    **{name: row.check for name, row in OUTPUT_CHECKS.items()},
    "bound_randomised": Check(
        "bound_randomised",
        "Bound, leaves random",
        "As the rounding bound, with every leaf of the source made random first.",
        state="random",
    ),
    "two_probes": Check(
        "two_probes",
        "Two probes",
        "As before, on this input and on random numbers of a hundredth of the size.",
        state="random",
    ),
    "leaves": Check(
        "leaves",
        "Leaf by leaf",
        "Every leaf is the right one bit for bit. The forward pass is not looked at.",
    ),
}
