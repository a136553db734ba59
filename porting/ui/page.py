"""The page: its head, its tabs, and how a link opens on one exact view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from porting.ui import block_tab, checkpoint_tab, dense_tab, doctor_tab, endpoints, frame, guard
from porting.ui.theme import ASSETS, head, theme

TITLE = "PortLens"
LEAD = (
    "PyTorch keeps a linear weight as (out, in), Flax as (in, out). Where the shapes agree, "
    "a wrong layout raises nothing. See it, prove it, fix it."
)
#: once the link was read, the lenses may write the address
_SETTLED = "() => { window.portlensSettled = true; if (window.PortLens) window.PortLens.settle(); }"
TABS = {
    "dense": ("Dense load", dense_tab),
    "block": ("Encoder block", block_tab),
    "checkpoint": ("Checkpoint", checkpoint_tab),
    "doctor": ("Doctor", doctor_tab),
}


def build() -> gr.Blocks:
    """The whole app, ready to launch."""
    gr.set_static_paths([ASSETS])
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(300, 1800)
    ) as demo:
        gr.HTML(f"<h1>{TITLE}</h1><p>{LEAD}</p>", elem_classes="pl-masthead")
        built: dict[str, frame.Built] = {}
        with gr.Tabs(elem_id="tabs") as tabs:
            for name, (title, module) in TABS.items():
                with gr.Tab(title, id=name) as tab:
                    built[name] = made = module.build()
                tab.select(made.show, made.inputs, made.lens, **frame.QUIET)

        def restore(request: gr.Request) -> list[Any]:
            """A link opens one tab; the others fill when they are opened."""
            query = dict(request.query_params)
            chosen = query.get("tab") if query.get("tab") in TABS else next(iter(TABS))
            updates = [gr.Tabs(selected=chosen)]
            for name, (_, module) in TABS.items():
                opened = name == chosen
                skipped = [gr.skip()] * len(built[name].restores)
                updates += module.restored(query) if opened else skipped
            return updates

        outputs = [tabs, *(component for made in built.values() for component in made.restores)]
        demo.load(restore, None, outputs, show_progress="hidden", api_visibility="private").then(
            None, js=_SETTLED, api_visibility="private"
        )
        endpoints.add()
    return demo


def launch(demo: gr.Blocks, **options: Any) -> Any:
    """Serve the app; host and port come from Gradio's own environment variables."""
    settings: dict[str, Any] = {
        "theme": theme(),
        "css_paths": [Path(ASSETS / "portlens.css")],
        "head": head(),
        "run_history": False,
        "app_kwargs": guard.app_options(),
        "max_file_size": guard.UPLOAD_BYTES,
        "state_session_capacity": 200,
        "enable_monitoring": False,
        "show_error": False,
        "share": False,
        "ssr_mode": False,
        "footer_links": ["api", "settings"],
    }
    demo.queue(max_size=32, default_concurrency_limit=1)
    return demo.launch(**settings | options)
