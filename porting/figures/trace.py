"""A comparison of two traces as the bars of the stage chart."""

from __future__ import annotations

from porting.figures.stages import StageBar, Status
from porting.trace import TraceComparison

STATUS: dict[str, Status] = {
    "same": "right",
    "noise": "right",
    "parts": "wrong",
    "inherited": "inherited",
}


def trace_bars(comparison: TraceComparison) -> list[StageBar]:
    """One bar for each paired stage, in the order in which they finish."""
    return [
        StageBar(
            row.stage,
            0.0 if STATUS[row.status] == "right" else float(row.ratio or 0.0),
            STATUS[row.status],
            f"{row.stage} beside {row.reference}<br>{row.alignment or 'as is'}<br>{row.note}",
        )
        for row in comparison.rows
        if row.status in STATUS
    ]
