"""The page: its head, its tabs, and how a link opens on one exact view."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import gradio as gr

from porting.ui import (
    block_tab,
    checkpoint_tab,
    checks_tab,
    dense_tab,
    doctor_tab,
    endpoints,
    frame,
    guard,
    zoo_tab,
)
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
    "zoo": ("Layer zoo", zoo_tab),
    "checks": ("Which check sees it?", checks_tab),
    "checkpoint": ("Checkpoint", checkpoint_tab),
    "doctor": ("Doctor", doctor_tab),
}
FIRST = next(iter(TABS))
WARM_AFTER = 15.0  #: seconds, so that the first visitor's first picture comes first


def build() -> gr.Blocks:
    """The whole app, ready to launch."""
    gr.set_static_paths([ASSETS])
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(300, 1800)
    ) as demo:
        gr.HTML(f"<h1>{TITLE}</h1><p>{LEAD}</p>", elem_classes="pl-masthead")
        built: dict[str, frame.Built] = {}
        opened = gr.State("")
        with gr.Tabs(elem_id="tabs") as tabs:
            for name, (title, module) in TABS.items():
                with gr.Tab(title, id=name) as tab:
                    built[name] = made = module.build()
                tab.select(made.show, made.inputs, made.lens, **frame.QUIET)
                if made.menus:
                    tab.select(*made.menus, **frame.QUIET)
        _restore_links(demo, tabs, opened, built)
        _open_cells(tabs, opened, built)
        endpoints.add()
    return demo


def _restore_links(demo: gr.Blocks, tabs: Any, opened: Any, built: dict[str, frame.Built]) -> None:
    """A link opens one tab with its recipe; the others fill when they are opened."""

    def restore(request: gr.Request) -> list[Any]:
        query = dict(request.query_params)
        chosen = query.get("tab") if query.get("tab") in TABS else FIRST
        plain = chosen == FIRST and set(query) <= {"tab", "__theme"}
        updates = [
            gr.skip() if chosen == FIRST else gr.Tabs(selected=chosen),
            "" if plain else chosen,
        ]
        for name, (_, module) in TABS.items():
            skipped = [gr.skip()] * len(built[name].restores)
            updates += skipped if plain or name != chosen else module.restored(query)
        return updates

    outputs = [tabs, opened, *(c for made in built.values() for c in made.restores)]
    loaded = demo.load(restore, None, outputs, **frame.QUIET)
    _fill(loaded, opened, built).then(None, js=_SETTLED, api_visibility="private")


def _fill(event: Any, opened: Any, built: dict[str, frame.Built]) -> Any:
    """After `event`: the column of the tab that `opened` names, the others as they are."""

    def fill(name: str, *values: Any) -> list[Any]:
        columns, at = [], 0
        for own, made in built.items():
            mine = values[at : at + len(made.inputs)]
            at += len(made.inputs)
            columns.append(made.show(*mine) if own == name else gr.skip())
        return columns

    inputs = [opened, *(c for made in built.values() for c in made.inputs)]
    return event.then(fill, inputs, [made.lens for made in built.values()], **frame.QUIET)


def _open_cells(tabs: Any, opened: Any, built: dict[str, frame.Built]) -> None:
    """A cell of the check matrix opens its case: a layer's in the zoo, the block's in its tab."""
    zoo, block, checks = built["zoo"], built["block"], built["checks"]

    def open_cell(event: gr.EventData, *values: Any) -> list[Any]:
        recipe = checks_tab.read(*values)
        fault, check = checks_tab.opened(event)
        if recipe.target == checks_tab.BLOCK:
            block_view = block_tab.BlockView(fault=fault, randomise=recipe.state == "random")
            case = [gr.skip()] * len(zoo.restores) + block_tab.updates(block_view)
            return [gr.Tabs(selected="block"), "block", *case]
        zoo_view = zoo_tab.ZooView(
            recipe.target, "", fault, recipe.probe, recipe.state, recipe.seed, "", check
        )
        case = zoo_tab.updates(zoo_view) + [gr.skip()] * len(block.restores)
        return [gr.Tabs(selected="zoo"), "zoo", *case]

    outputs = [tabs, opened, *zoo.restores, *block.restores]
    _fill(checks.lens.cell(open_cell, checks.inputs, outputs, **frame.QUIET), opened, built)


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
    # every visitor of a class of fifty may have a change under way, and a few more wait
    demo.queue(max_size=128, default_concurrency_limit=1)
    return demo.launch(**settings | options)


def serve(demo: gr.Blocks, **options: Any) -> None:
    """Serve the app until it is stopped. Once it answers, what the tabs open with is compiled,
    so that their first visitor does not wait for it."""
    launch(demo, prevent_thread_lock=True, **options)
    later = threading.Timer(WARM_AFTER, _warm)
    later.daemon = True
    later.start()
    demo.block_thread()


def _warm() -> None:
    block_tab.view(block_tab.BlockView())
    zoo_tab.view(zoo_tab.ZooView())
    checks_tab.view(checks_tab.ChecksView())
