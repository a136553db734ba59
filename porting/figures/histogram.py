"""How the numbers of one tensor are spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

BINS = 48
SAMPLE = 2**20  #: a larger tensor is read in even steps
SKETCHED = 512  #: numbers that stand for a tensor in a row of a table
SKETCH_BINS = 24


class Spread(NamedTuple):
    """The numbers of a tensor, counted.

    Attributes:
        edges: of the bins, one more than counts.
        counts: finite numbers in each bin.
        odd: how many are NaN or infinite.
        step: every how many-th number was read.
    """

    edges: np.ndarray
    counts: np.ndarray
    odd: int
    step: int


def spread(array: np.ndarray) -> Spread:
    """The histogram of a tensor of any shape.

    >>> spread(np.array([0.0, 1.0, np.nan])).odd
    1
    """
    flat = np.asarray(array).reshape(-1)
    step = max(1, -(-flat.size // SAMPLE))
    sample = flat[::step].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    counts, edges = np.histogram(finite, BINS) if finite.size else (np.zeros(1), np.zeros(2))
    return Spread(edges, counts, int(sample.size - finite.size), step)


def histogram(found: Spread) -> go.Figure:
    """A spread as bars.

    >>> len(histogram(spread(np.arange(10.0))).data[0].y)
    48
    """
    middle = (found.edges[:-1] + found.edges[1:]) / 2
    figure = go.Figure(go.Bar(x=middle, y=found.counts, marker={"color": "#51606d"}))
    figure.update_layout(
        bargap=0.05,
        margin={"l": 48, "r": 8, "t": 8, "b": 40},
        xaxis={"title": {"text": "value"}},
        yaxis={"title": {"text": "numbers"}, "nticks": 4},
    )
    return figure


def sketch(array: np.ndarray) -> list[int]:
    """A histogram for one row of a table: the height of each bin, the highest 100.

    Read from 512 numbers at even steps, so that a file of hundreds of tensors costs nothing.

    >>> sketch(np.arange(48.0)) == [100] * 24, sketch(np.zeros(3)), sketch(np.zeros(0))
    (True, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [])
    """
    if not array.size:
        return []
    steps = np.linspace(0, array.size - 1, min(array.size, SKETCHED)).astype(np.int64)
    sample = np.asarray(array[np.unravel_index(steps, array.shape)])
    values = (np.abs(sample) if sample.dtype.kind == "c" else sample).astype(np.float64)
    counts, _ = np.histogram(values[np.isfinite(values)], SKETCH_BINS)
    return [round(100 * int(n) / max(int(counts.max()), 1)) for n in counts]
