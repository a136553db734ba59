"""`Lens`: the column of verdict, pictures, tables and code, one component on the page.

A handler returns one plain value (built by the functions here) and the page updates the
same DOM in place. Text travels as data and is never read as HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr

from porting.figures.matrix import MatrixInfo, matrix_panel
from porting.verdict import Verdict

_MOUNT = """
const start = () => window.PortLens
  ? window.PortLens.mount(element, props, watch, trigger)
  : setTimeout(start, 20);
start();
// events that this component may send: 'act' 'row' 'zoom' 'cell'
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

    def api_info(self) -> dict[str, Any]:
        """The JSON schema of the value."""
        return {"type": "object"}
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

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
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

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

def matrices(
    key: str,
    title: str,
    infos: Sequence[MatrixInfo],
    *,
    note: str = "",
    legend: tuple[str, str, float] | None = None,
    motion: tuple[str, str] | None = None,
    strip: bool = False,
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
    }

def facts(key: str, title: str, rows: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A small table of names and numbers."""
    return {"kind": "facts", "id": key, "title": title, "rows": [list(r) for r in rows]}

def table(
    key: str,
    title: str,
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]],
    *,
    selected: str = "",
    event: str = "",
    note: str = "",
) -> dict[str, Any]:
    """A table; each row has `key`, `cells` and a `status` ("ok", "wrong", "unsure", "open").

    A chosen row fires the lens event named `event` with the row's key.
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
    }

def chart(key: str, title: str, figure: Any, height: int, note: str = "") -> dict[str, Any]:
    """Any other Plotly figure, as wide as the column."""
    figure.update_layout(template=None)
    drawn = figure.to_dict()
    return {
        "kind": "chart",
        "id": key,
        "title": title,
        "figure": drawn,
        "height": height,
        "note": note,
    }

def code(key: str, title: str, tabs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Programs to copy, one a tab: (title, text)."""
    listed = [{"title": name, "text": text} for name, text in tabs]
    return {"kind": "code", "id": key, "title": title, "tabs": listed}

def note(key: str, text: str) -> dict[str, Any]:
    """A paragraph."""
    return {"kind": "note", "id": key, "text": text}
