"""What every tab is built in: a narrow column of controls beside the lens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

#: events of the page itself: no spinner, no entry in the API
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_id": "light",
}
#: as many light events at a time
LIGHT = 4


@dataclass(frozen=True)
class Built:
    """A tab as the page needs it.

    Attributes:
        restores: what the tab's `restored` writes to.
        show: form -> column; run when the tab is opened.
        inputs: the form.
        lens: the column.
        menus: handler, inputs and outputs of menus that are filled when the tab is opened,
            where filling them at the start would keep every visitor waiting.
    """

    restores: list[Any]
    show: Callable[..., Any]
    inputs: list[Any]
    lens: Any
    menus: tuple[Callable[..., Any], list[Any], list[Any]] | None = None


@contextmanager
def controls() -> Iterator[None]:
    """The narrow column; on a phone it comes last and folds."""
    with (
        gr.Column(scale=0, min_width=280, elem_classes="pl-controls"),
        gr.Accordion("Controls", open=True, elem_classes="pl-fold"),
    ):
        yield


@contextmanager
def result() -> Iterator[None]:
    """The wide column of the lens."""
    with gr.Column(scale=1, min_width=320, elem_classes="pl-result"):
        yield


def tab_row() -> gr.Row:
    """The row that holds both."""
    return gr.Row(equal_height=False, elem_classes="pl-tab")
