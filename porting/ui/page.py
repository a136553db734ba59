"""The page: its head, its tabs, and how a link opens on one exact view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from porting.dense import DenseCase
from porting.ui import block_tab, dense_tab
from porting.ui.theme import ASSETS, head, theme

TITLE = "PortLens"
LEAD = (
    "PyTorch keeps a linear weight as (out, in), Flax as (in, out). Where the shapes agree, "
    "a wrong layout raises nothing. See it, prove it, fix it."
)
#: once the link was read, the lenses may write the address
_SETTLED = "() => { window.portlensSettled = true; if (window.PortLens) window.PortLens.settle(); }"
TABS = ("dense", "block")


def build() -> gr.Blocks:
    """The whole app, ready to launch."""
    gr.set_static_paths([ASSETS])
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as demo:
        gr.HTML(f"<h1>{TITLE}</h1><p>{LEAD}</p>", elem_classes="pl-masthead")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Dense load", id="dense"):
                dense = dense_tab.build(DenseCase())
            with gr.Tab("Encoder block", id="block"):
                block = block_tab.build(block_tab.BlockView())

        def restore(request: gr.Request) -> list[Any]:
            query = dict(request.query_params)
            tab = query.get("tab") if query.get("tab") in TABS else "dense"
            return [
                gr.Tabs(selected=tab),
                *dense_tab.restored(query if tab == "dense" else {}),
                *block_tab.restored(query if tab == "block" else {}),
            ]

        demo.load(
            restore,
            None,
            [tabs, *dense.restores, *block.restores],
            show_progress="hidden",
            api_visibility="private",
        ).then(None, js=_SETTLED, api_visibility="private")
    return demo


def launch(demo: gr.Blocks, **options: Any) -> Any:
    """Serve the app; host and port come from Gradio's own environment variables."""
    settings: dict[str, Any] = {
        "theme": theme(),
        "css_paths": [Path(ASSETS / "portlens.css")],
        "head": head(),
        "run_history": False,
        "max_file_size": "256mb",
        "enable_monitoring": False,
        "show_error": False,
        "share": False,
        "ssr_mode": False,
        "footer_links": ["api", "settings"],
    }
    demo.queue(max_size=32, default_concurrency_limit=1)
    return demo.launch(**settings | options)
