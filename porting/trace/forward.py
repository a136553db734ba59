"""Two traces beside the diagnosis of the leaves: one answer for the command line and the app."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from porting.trace.causes import Diagnosis, Explanation, explain
from porting.trace.comparison import TraceComparison
from porting.trace.judge import compare_traces
from porting.trace.stages import Trace


@dataclass(frozen=True)
class Forward:
    """Where the forward pass parts, and why.

    Attributes:
        comparison: stage by stage.
        explanation: the causes.
    """

    comparison: TraceComparison
    explanation: Explanation

    @property
    def parts(self) -> bool:
        """Whether an output is off by more than rounding."""
        return self.comparison.verdict == "parts"

    @property
    def code(self) -> list[str]:
        """The causes that lie in the code or may lie there, in sentences."""
        return [text for verdict, text in self.explanation.sentences() if verdict != "weight"]

    def report(self) -> str:
        """Stages and causes as text."""
        return f"{self.comparison.report()}\n{self.explanation.report()}"

    def to_dict(self) -> dict[str, Any]:
        """What a program reads: the verdict, the causes and the stages."""
        causes = [{"verdict": v, "text": text} for v, text in self.explanation.sentences()]
        return {
            "verdict": self.comparison.verdict,
            "fault": self.explanation.verdict,
            "causes": causes,
            "stages": [
                {k: None if v in (math.inf, -math.inf) or v != v else v for k, v in row.items()}
                for row in self.comparison.as_rows()
            ],
        }


def forward(
    traces: tuple[Trace, Trace],
    diagnosis: Diagnosis,
    source: Mapping[str, Any],
    ported: Mapping[str, Any],
) -> Forward:
    """Compare two traces and explain them by the diagnosis of the leaves.

    Args:
        traces: the reference's and the candidate's.
        diagnosis: of `porting.diagnose`.
        source, ported: the leaves, for traces that were saved without them.

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> from porting.trace import Stage
    >>> x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    >>> def run(y): return Trace("linen", (Stage("act", "Gelu", "", 1, 2, {"0": x}, {"": y}),))
    >>> unknown = SimpleNamespace(leaves={})
    >>> found = forward((run(np.tanh(x)), run(np.maximum(x, 0))), unknown, {}, {})
    >>> found.parts, found.to_dict()["fault"]
    (True, 'code')
    """
    wanted, given = (
        trace if trace.leaves else replace(trace, leaves=leaves)
        for trace, leaves in zip(traces, (source, ported), strict=True)
    )
    comparison = compare_traces(wanted, given)
    return Forward(comparison, explain(comparison, diagnosis))
