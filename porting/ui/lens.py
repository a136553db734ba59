"""`Lens`: the column of verdict, pictures, tables and code, one component on the page.

A handler returns one plain value (built by the functions here) and the page updates the
same DOM in place. Text travels as data and is never read as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr
import orjson

from porting import limits
from porting.errors import ArgumentError
from porting.figures.matrix import MatrixInfo, matrix_panel, tile
from porting.verdict import Verdict

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_MOUNT = """
const start = () => window.PortLens
  ? window.PortLens.mount(element, props, watch, trigger)
  : setTimeout(start, 20);
start();
// events that this component may send: 'act' 'row' 'zoom' 'fault' 'cell'
"""
_TILE = """
const show = () => { if (props.value && window.PortLens) window.PortLens.tile(props.lens, props.value); };
watch('value', show);
"""


class Lens(gr.HTML):
    """The result column of a tab. Its value is what `column` returns."""

    def __init__(self, value: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(
            value,
            html_template='<div class="pl-lens" data-n="0"></div>',
            js_on_load=_MOUNT,
            apply_default_css=False,
            **kwargs,
        )

    # Gradio gives its HTML the type of a text alone.
    def postprocess(self, value: dict[str, Any] | None) -> str | None:  # type: ignore[override]
        """The column as one JSON text: the page would wrap every object of it in a watcher."""
        return None if value is None else orjson.dumps(value, option=_NUMPY).decode()

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "string"}


class Tile(gr.HTML):
    """Carries one part of a big matrix to the lens of id `lens`, without redrawing the rest."""

    def __init__(self, lens: str) -> None:
        super().__init__(
            None,
            html_template="<span></span>",
            js_on_load=_TILE,
            apply_default_css=False,
            visible="hidden",
            lens=lens,
        )

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}


def chosen_row(event: gr.EventData) -> str:
    """The key of the row that the lens event `row` names."""
    return str(event._data.get("key", ""))[: limits.NAME_CHARACTERS]


def zoomed_part(infos: Sequence[MatrixInfo], event: gr.EventData) -> dict[str, Any]:
    """The tile of one of the pictures that the lens event `zoom` asks for.

    Raises:
        ArgumentError: there is no such picture.
    """
    asked = event._data
    info = next((i for i in infos if i.key == asked.get("key")), None)
    if info is None:
        raise ArgumentError("There is no such picture.")
    return tile(info, tuple(asked["rows"]), tuple(asked["columns"]))


def column(
    verdict: Verdict | None,
    blocks: Sequence[dict[str, Any] | None],
    query: str | None = None,
    actions: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The value of a lens: a verdict and the blocks below it, empty ones left out."""
    value: dict[str, Any] = {"blocks": [b for b in blocks if b], "actions": list(actions)}
    if verdict is not None:
        value["verdict"] = asdict(verdict) | {"title": verdict.title}
    if query is not None:
        value["query"] = query
    return value


def action(name: str, title: str, primary: bool = False) -> dict[str, Any]:
    """A button beside the verdict; it fires the lens event `act` with this name."""
    return {"name": name, "title": title, "primary": primary}


# A block takes `share` of the column's width; two whose shares make 1 stand side by side.


def matrices(
    key: str,
    title: str,
    infos: Sequence[MatrixInfo],
    *,
    note: str = "",
    legend: tuple[str, str, float] | None = None,
    motion: tuple[str, str] | None = None,
    strip: bool = False,
    share: float = 1.0,
) -> dict[str, Any] | None:
    """A row of heatmaps with one cell size; `legend` is (name, scale, limit)."""
    if not infos:
        return None
    return {
        "kind": "matrices",
        "id": key,
        "title": title,
        "note": note,
        "panels": [matrix_panel(info) for info in infos],
        "legend": legend and dict(zip(("name", "scale", "limit"), legend, strict=True)),
        "motion": motion,
        "layout": "strip" if strip else "row",
        "share": share,
    }


def rule(
    key: str, title: str, chips: dict[str, Any], sides: tuple[str, str], *, share: float = 1.0
) -> dict[str, Any]:
    """A rule as chips (`porting.figures.chips`), the names of both sides before them."""
    return {
        "kind": "rule",
        "id": key,
        "title": title,
        "sides": list(sides),
        "share": share,
        **chips,
    }


def facts(
    key: str,
    title: str,
    rows: Sequence[tuple[str, ...]],
    *,
    share: float = 1.0,
    note: str = "",
    prose: bool = False,
) -> dict[str, Any]:
    """A small table of names and numbers, or of names and sentences; a note is a warning.

    Among sentences, a third element "code" marks what is not one.
    """
    listed = [list(r) for r in rows]
    return {
        "kind": "facts",
        "id": key,
        "title": title,
        "rows": listed,
        "share": share,
        "note": note,
        "prose": prose,
    }


def table(
    key: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]],
    *,
    selected: str = "",
    event: str = "",
    note: str = "",
    share: float = 1.0,
    mono: bool = True,
    short: bool = False,
) -> dict[str, Any]:
    """A table; each row has `key`, `cells` and a `status` ("ok", "wrong", "unsure", "open").

    A cell is a text, or what `mark` or `pair` makes. A row of key "total" sums up.

    A chosen row fires the lens event named `event` with the row's key. A short table leaves
    room for what a row opens below it.
    """
    return {
        "kind": "table",
        "id": key,
        "title": title,
        "columns": list(columns),
        "rows": list(rows),
        "selected": selected,
        "event": event,
        "note": note,
        "share": share,
        "mono": mono,
        "short": short,
    }


def tree(
    key: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]],
    *,
    sums: Sequence[int] = (),
    **options: Any,
) -> dict[str, Any]:
    """A table whose rows stand under the modules that their keys name, each to be folded.

    Args:
        rows: as of `table`; the first cell is the key, or, for a row that cannot be chosen, what
            `at` says of its place.
        sums: the columns that a folded module adds up.
        options: of `table`.
    """
    return table(key, title, columns, rows, **options) | {"tree": True, "sums": list(sums)}


def findings(key: str, title: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Findings as sentences: each has `title`, `status`, `leaves` and a `fix` to copy."""
    return {"kind": "findings", "id": key, "title": title, "rows": list(rows)} if rows else None


def grid(
    key: str,
    title: str,
    columns: Sequence[dict[str, str]],
    rows: Sequence[dict[str, Any]],
    foot: Sequence[str],
    legend: Sequence[dict[str, str]],
) -> dict[str, Any]:
    """A matrix of statuses: columns have `key`, `title`, `about`; rows `key`, `title`, `cells`.

    A cell has `status` and `story`; a chosen one fires the lens event `cell` with its row
    and column.
    """
    return {
        "kind": "grid",
        "id": key,
        "title": title,
        "columns": list(columns),
        "rows": list(rows),
        "foot": list(foot),
        "legend": list(legend),
    }


def choices(
    key: str, title: str, options: Sequence[dict[str, str]], chosen: int | None, *, alike: int = 0
) -> dict[str, Any]:
    """A question with its answers (`pair`), none chosen yet where `chosen` is None.

    A choice fires the lens event `act` with the name `key`, its `choice`, and whether it is
    meant for `all` of the questions that are `alike`.
    """
    return {
        "kind": "choices",
        "id": key,
        "title": title,
        "options": list(options),
        "chosen": chosen,
        "alike": alike,
    }


def inside(key: str, block: dict[str, Any]) -> dict[str, Any]:
    """`block` under the block of id `key`, in the same place of the column."""
    return block | {"inside": key, "share": 1.0}


def mark(text: str, status: str) -> dict[str, str]:
    """A cell with an icon and a colour: "ok", "wrong", "unsure" or "open"."""
    return {"text": text, "status": status}


def pair(text: str, below: str) -> dict[str, str]:
    """A cell of two lines, the second in a softer tone."""
    return {"text": text, "below": below}


def bars(heights: Sequence[int]) -> dict[str, Any]:
    """A cell with a small histogram: heights from 0 to 100."""
    return {"text": "", "bars": list(heights)}


def chart(
    key: str, title: str, figure: Any, height: int, note: str = "", *, share: float = 1.0
) -> dict[str, Any]:
    """Any other Plotly figure, as wide as its place."""
    figure.update_layout(template=None)
    return {
        "kind": "chart",
        "id": key,
        "title": title,
        "figure": figure.to_dict(),
        "height": height,
        "note": note,
        "share": share,
    }


def code(key: str, title: str, tabs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Programs to copy, one a tab: (title, text)."""
    listed = [{"title": name, "text": text} for name, text in tabs]
    return {"kind": "code", "id": key, "title": title, "tabs": listed}


def note(key: str, text: str, *, share: float = 1.0) -> dict[str, Any]:
    """A paragraph."""
    return {"kind": "note", "id": key, "text": text, "share": share}
