"""One matrix as a heatmap, and the panel around it that the page links and lays out.

`MatrixInfo` says what is shown; `matrix_panel` draws it. Every cell may carry the flat
position of its number in the source file: cells of one position light up together.
"""

from __future__ import annotations

import base64
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from porting.figures import scales
from porting.figures.grid import Grid, grid_of
from porting.pooling import pool, tops
from porting.walk import Origin, Walk

EXACT_CELLS = 16_384  #: up to so many cells, every number is sent
TEXT_COLUMNS = 40  #: more columns than this leave no room for numbers
POOLED_SIDE = 96


@dataclass(frozen=True)
class MatrixInfo:
    """What one heatmap shows.

    Attributes:
        key: names the panel on the page.
        title: in the field's words, with the layout: `weight (out, in)`.
        symbol: how the line under the pointer names it: `weight`.
        values: 2-D; what the cells print.
        rows, columns: the names of the axes.
        places: flat source positions of the cells, the walk over them where they are many,
            or `None` where nothing is linked.
        output_axis: which axis counts the layer's outputs ("row", "column" or "").
        colour: what is coloured if not `values` (`scales.excess` of a ratio, say).
        scale: "value" or "excess".
        limit: the range ±limit of the colours.
        text: "plain" for weights, "short" for differences and ratios.
        group: "file" for the source, "leaf" for Flax, "output" for outputs.
        grid: how an array of another rank became this matrix.
    """

    key: str
    title: str
    symbol: str
    values: np.ndarray
    rows: str
    columns: str
    places: np.ndarray | Walk | None = None
    output_axis: Literal["row", "column", ""] = ""
    colour: np.ndarray | None = None
    scale: Literal["value", "excess", "signed"] = "value"
    limit: float = 1.0
    text: Literal["plain", "short"] = "plain"
    group: Literal["file", "leaf", "output"] = "leaf"
    grid: Grid | None = None


def array_info(
    key: str,
    title: str,
    symbol: str,
    array: np.ndarray,
    names: tuple[str, ...] | None = None,
    places: np.ndarray | Origin | None = None,
    **more: Any,
) -> MatrixInfo:
    """An array of any rank as a matrix, with its axes named.

    Args:
        names: of the axes; counted where they are not as many as the array has.
        places: flat source positions, of the array's shape, or what the array was made of.
        more: the other attributes of `MatrixInfo`.

    >>> array_info("w", "weight", "weight", np.zeros((2, 3, 5, 7)), tuple("oihw")).values.shape
    (10, 21)
    """
    grid = grid_of(array, names)
    named = grid.row_name or "", grid.column_name
    placed = _placed(grid, places)
    return MatrixInfo(key, title, symbol, grid.matrix(array), *named, placed, grid=grid, **more)


def _placed(grid: Grid, places: np.ndarray | Origin | None) -> np.ndarray | Walk | None:
    if not isinstance(places, Origin):
        return None if places is None else grid.matrix(places)
    walk = places.walk(grid.rows + grid.columns)
    count = math.prod(grid.shape)
    return walk if count > EXACT_CELLS else walk.places(np.arange(count)).reshape(grid.shape)


def matrix_panel(info: MatrixInfo) -> dict[str, Any]:
    """The panel of one matrix: its figure and what the page needs to link it.

    >>> info = MatrixInfo("w", "weight (out, in)", "weight", np.zeros((2, 3)), "out", "in")
    >>> panel = matrix_panel(info); panel["rows"], panel["columns"], panel["pooled"]
    (2, 3, '')
    """
    height, width = info.values.shape
    shared: dict[str, Any] = {
        "key": info.key,
        "title": info.title,
        "symbol": info.symbol,
        "axes": [f"{info.rows} = {height:,}", f"{info.columns} = {width:,}"],
        "output_axis": info.output_axis,
        "group": info.group,
        "shape": [height, width],
    }
    if info.grid is not None:
        shared |= {"grid": info.grid.index, "tile": list(info.grid.tile)}
        shared["axes"] = [_axis(info.grid, axes) for axes in (info.grid.rows, info.grid.columns)]
    if info.values.size > EXACT_CELLS:
        return shared | _pooled(info)
    values = np.asarray(info.values, np.float64)
    colour = values if info.colour is None else info.colour
    texts = _texts(values, info.text) if width <= TEXT_COLUMNS else None
    return shared | {
        "figure": {"data": [_heatmap(info, colour, texts), *_marks(values)]},
        "rows": height,
        "columns": width,
        "values": encode(values.astype(np.float32)),
        "places": encode(info.places.astype(np.int32))
        if isinstance(info.places, np.ndarray)
        else None,
        "pooled": "",
    }


def _axis(grid: Grid, axes: tuple[int, ...]) -> str:
    """`o · h = 5 × 3`; nothing for the missing axis of a vector."""
    names = " · ".join(grid.names[a] for a in axes)
    return f"{names} = {' × '.join(f'{grid.sizes[a]:,}' for a in axes)}" if axes else ""


def _heatmap(info: MatrixInfo, colour: np.ndarray, text: list[list[str]] | None) -> dict[str, Any]:
    """The trace as data. Its numbers go in after Plotly checked the rest: they are ours."""
    finite = np.where(np.isfinite(colour), colour, np.nan).astype(np.float32)
    numbers = {"dtype": "f4", "bdata": encode(finite), "shape": f"{len(finite)}, {finite.shape[1]}"}
    return {**_empty_heatmap(info.scale, float(info.limit)), "z": numbers, "text": text}


@lru_cache(256)
def _empty_heatmap(scale: str, limit: float) -> dict[str, Any]:
    trace = go.Heatmap(
        zmin=0.0 if scale == "excess" else -limit,
        zmax=limit,
        colorscale=scales.EXCESS if scale == "excess" else scales.VALUES,
        showscale=False,
        hoverinfo="none",
        xgap=1,
        ygap=1,
    )
    return trace.to_plotly_json()


def _pooled(info: MatrixInfo) -> dict[str, Any]:
    colour = info.values if info.colour is None else info.colour
    small = pool(colour, POOLED_SIDE, POOLED_SIDE)
    walk = info.places if isinstance(info.places, Walk) else None
    return {
        "figure": {"data": [_heatmap(info, small.values, None) | {"xgap": 0, "ygap": 0}]},
        "rows": len(small.values),
        "columns": small.values.shape[1],
        "values": encode(small.values),
        "places": None,
        "walk": asdict(walk) if walk else None,
        "tops": encode(tops(colour, small).astype(np.int32)) if walk else None,
        "block": list(small.block),
        "norms": [_unit(small.row_norms), _unit(small.column_norms)],
        "pooled": f"Each cell is the largest of {small.block[0]} × {small.block[1]}.",
    }


def _unit(norms: np.ndarray) -> list[float]:
    top = float(np.max(norms, initial=0.0, where=np.isfinite(norms))) or 1.0
    return [round(float(v) / top, 3) if np.isfinite(v) else 1.0 for v in norms]


def tile(info: MatrixInfo, rows: tuple[int, int], columns: tuple[int, int]) -> dict[str, Any]:
    """A part of a big matrix, drawn as closely as the page can.

    Args:
        info: the whole matrix.
        rows, columns: first and one past the last, clamped to the matrix.

    Returns:
        Cells for the same panel, with the part of the matrix that they cover.

    >>> info = MatrixInfo("w", "w", "w", np.zeros((200, 300), np.float32), "out", "in")
    >>> part = tile(info, (0, 50), (0, 60)); part["block"], part["extent"]
    ([1, 1], [0, 50, 0, 60])
    """
    (top, bottom), (left, right) = (
        _clamp(pair, size) for pair, size in zip((rows, columns), info.values.shape, strict=True)
    )
    part = pool(info.values[top:bottom, left:right], POOLED_SIDE, POOLED_SIDE)
    return {
        "key": info.key,
        "values": encode(part.values),
        "rows": len(part.values),
        "columns": part.values.shape[1],
        "block": list(part.block),
        "extent": [top, bottom, left, right],
    }


def _clamp(pair: tuple[int, int], size: int) -> tuple[int, int]:
    first = min(max(0, int(pair[0])), size - 1)
    return first, min(max(first + 1, int(pair[1])), size)


def encode(array: np.ndarray) -> str:
    """The little-endian bytes of an array in base64: what the page decodes.

    >>> encode(np.array([1], np.int32))
    'AQAAAA=='
    """
    return base64.b64encode(np.asarray(array, order="C").tobytes()).decode()


def _texts(values: np.ndarray, kind: str) -> list[list[str]]:
    write = _plain if kind == "plain" else _short
    return [[write(v) for v in row] for row in values.tolist()]


def _plain(value: float) -> str:
    """A number for a cell of 26 pixels: three figures at most."""
    if value != value or value in (float("inf"), float("-inf")):
        return ""
    size = abs(value)
    if size < 0.005 or size >= 1000:
        return _short(value)
    text = f"{value:.2f}" if size < 0.995 else f"{value:.1f}" if size < 10 else f"{value:.0f}"
    return text.replace("-", "−").replace("0.", ".", 1) if size < 0.995 else text.replace("-", "−")


def _short(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return ""
    if value == 0:
        return "0"
    if 0.1 <= abs(value) < 1000:
        return (
            f"{value:.1f}".replace("-", "−")
            if abs(value) < 10
            else f"{value:.0f}".replace("-", "−")
        )
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def _marks(values: np.ndarray) -> list[dict[str, Any]]:
    """NaN and infinity as marks of their own: they have no colour on any scale."""
    odd = np.argwhere(~np.isfinite(values))
    if not len(odd):
        return []
    signs = {True: "+∞", False: "−∞"}
    texts = ["NaN" if np.isnan(values[r, c]) else signs[bool(values[r, c] > 0)] for r, c in odd]
    return [
        go.Scatter(
            x=odd[:, 1].tolist(),
            y=odd[:, 0].tolist(),
            text=texts,
            mode="markers+text",
            marker={"symbol": "x-thin", "size": 9, "line": {"width": 1, "color": "#8a6d00"}},
            textposition="middle center",
            textfont={"size": 10, "color": "#c8501e"},
            hoverinfo="none",
            showlegend=False,
        ).to_plotly_json()
    ]
