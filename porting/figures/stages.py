"""The stage chart: a forward pass from top to bottom, each stage's error over rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go

RIGHT, WRONG, MUTED = "#1b7f79", "#c8501e", "#c98a6d"
FLOOR, CEILING = 0.1, 1e9
ROW = 21  #: pixels of one bar
LABEL = 136  #: pixels of the longest label behind a bar

Status = Literal["right", "wrong", "inherited"]


class StageBar(NamedTuple):
    """One stage.

    Attributes:
        name: as on the axis.
        ratio: error over rounding; at most 1 is rounding.
        status: "right", "wrong" (the fault is here) or "inherited" (it came from above).
        story: what the pointer reads.
    """

    name: str
    ratio: float
    status: Status
    story: str


def stage_chart(bars: Sequence[StageBar]) -> go.Figure:
    """Horizontal bars on a log scale, a pale band up to 1, the first wrong stage labelled.

    The page leaves room for the names and, behind the longest bar, for `meta.room` pixels.

    >>> figure = stage_chart([StageBar("ln1", 0.0, "right", ""), StageBar("q", 1e4, "wrong", "")])
    >>> [round(float(v), 1) for v in figure.data[0].x]
    [0.1, 10000.0]
    """
    figure = go.Figure(_trace(bars))
    top = np.clip(np.log10(max((bar.ratio for bar in bars), default=1) or 1), 2, np.log10(CEILING))
    ticks = [0, *range(2, int(top) + 1, 2)]
    figure.update_layout(
        margin={"r": 16, "t": 4, "b": 40},
        meta={"room": LABEL},
        bargap=0.35,
        xaxis={
            "type": "log",
            "range": [np.log10(FLOOR), float(top)],
            "title": {"text": "error / rounding", "standoff": 6},
            "tickvals": [FLOOR, *(10**n for n in ticks)],
            "ticktext": ["0", *("1" if n == 0 else f"10{_raised(n)}" for n in ticks)],
        },
        yaxis={"autorange": "reversed", "showgrid": False},
        shapes=[
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": FLOOR,
                "x1": 1,
                "y0": 0,
                "y1": 1,
                "fillcolor": RIGHT,
                "opacity": 0.1,
                "line": {"width": 0},
                "layer": "below",
            }
        ],
    )
    return figure


def chart_height(bars: Sequence[StageBar]) -> int:
    """The height in pixels that shows every bar.

    >>> chart_height([StageBar("q", 0.0, "right", "")])
    65
    """
    return ROW * len(bars) + 44


def _trace(bars: Sequence[StageBar]) -> go.Bar:
    first = next((i for i, bar in enumerate(bars) if bar.status == "wrong"), None)
    colours = {"right": RIGHT, "wrong": WRONG, "inherited": MUTED}
    return go.Bar(
        x=np.clip([bar.ratio for bar in bars], FLOOR, CEILING),
        y=[bar.name for bar in bars],
        orientation="h",
        base=FLOOR,
        marker={
            "color": [colours[bar.status] for bar in bars],
            "pattern": {
                "shape": ["/" if bar.status == "inherited" else "" for bar in bars],
                "fgcolor": "#ffffff",
                "size": 5,
            },
        },
        text=[_label(bar, i == first) for i, bar in enumerate(bars)],
        textposition="outside",
        cliponaxis=False,
        hovertext=[bar.story for bar in bars],
        hoverinfo="text",
    )


def _label(bar: StageBar, is_first: bool) -> str:
    if bar.status == "right":
        return "✓"
    amount = _amount(bar.ratio)
    return f"<b>{amount} starts here</b>" if is_first else amount


def _amount(ratio: float) -> str:
    """A ratio to one or two digits: 32×, 7·10³×."""
    if not np.isfinite(ratio):
        return "∞×"
    if ratio < 1000:
        return f"{float(f'{ratio:.2g}'):g}×"
    mantissa, _, exponent = f"{ratio:.0e}".partition("e")
    return f"{mantissa}·10{_raised(int(exponent))}×"


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
