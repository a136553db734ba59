"""The tab *Layer zoo*: every layer that people port, right, visible and breakable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from porting import limits
from porting.checks import CHECKS, PROBES, STATES, check_matrix
from porting.errors import ArgumentError
from porting.faults import FAULTS
from porting.figures import scales
from porting.figures.chips import rule_chips
from porting.figures.matrix import tile
from porting.figures.zoo import zoo_leaf_infos, zoo_output_infos
from porting.layers import LAYERS
from porting.leaves import Leaf
from porting.options import parse_options
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import as_toast, in_lens
from porting.zoo import ZooCase, ZooResult, faults_of, options_of, run_zoo, same_leaves
from porting.zoo_code import zoo_programs

RIGHT_PORT = ("None: the right port", "")
STATE_TITLES = {"fresh": "As a fresh layer starts", "random": "Every leaf random"}
#: titles of the checks in the menu; the first one asks nothing
NO_CHECK = ("None", "")


@dataclass(frozen=True)
class ZooView:
    """The recipe of the tab: the case, the leaf in the picture, and the check that is asked."""

    layer: str = "Conv2d"
    options: str = ""
    fault: str = "conv_axes_reversed"
    probe: str = "random_normal"
    state: str = "random"
    seed: int = 0
    leaf: str = ""
    check: str = ""

    @property
    def case(self) -> ZooCase:
        """What the engine runs."""
        return ZooCase(self.layer, self.options, self.fault, self.probe, self.state, self.seed)


RECIPE = tuple(ZooView.__dataclass_fields__)


def view(recipe: ZooView) -> dict[str, Any]:
    """The whole column for one recipe."""
    result = run_zoo(recipe.case)
    leaf = next((r for r in result.table if r.path == recipe.leaf), None) or next(
        iter(result.table), None
    )
    outputs = zoo_output_infos(result)
    blocks = [
        _asked(recipe, result),
        *(
            _leaf_blocks(result, leaf)
            if leaf
            else [lens.note("none", "This layer has no leaves: only its constants can go wrong.")]
        ),
        lens.matrices(
            "outputs",
            "Outputs, in PyTorch's layout",
            outputs,
            legend=("error over rounding", "excess", scales.DECADES),
        ),
        lens.facts("about", result.layer.title, _about(result), prose=True),
        lens.code("code", "This port", zoo_programs(result)),
    ]
    actions = [lens.action("right", "Do it right", True)] if result.fault else []
    return lens.column(result.verdict, blocks, to_query("zoo", recipe), actions)


def _asked(recipe: ZooView, result: ZooResult) -> dict[str, Any] | None:
    """What the chosen check says of this port."""
    if not recipe.check:
        return None
    case = recipe.case
    options = parse_options(case.options)
    matrix = check_matrix(
        case.layer,
        faults=[case.fault] if case.fault else [],
        checks=[recipe.check],
        probes=[case.probe],
        seed=case.seed,
        **options,
    )
    cell = matrix.cell(case.fault or "clean", recipe.check, case.probe, case.state)
    title = CHECKS[recipe.check].title
    rows = [("The check", title), ("It says", f"{cell.status.replace('_', ' ')}. {cell.story}")]
    return lens.facts("asked", "The check that you asked", rows, prose=True)


def _leaf_blocks(result: ZooResult, leaf: Leaf) -> list[dict[str, Any] | None]:
    infos = zoo_leaf_infos(result, leaf)
    joined = leaf.join.forward([result.state[key] for key in leaf.sources])
    title = "The rule: which axis goes where"
    return [
        lens.rule("rule", title, rule_chips(leaf.rule, joined.shape), ("PyTorch", "Flax")),
        lens.matrices(
            "leaf",
            leaf.path,
            infos,
            legend=("value", "value", infos[0].limit),
            motion=("source", infos[1].key),
        ),
        _leaf_table(result, leaf.path),
    ]


def _leaf_table(result: ZooResult, selected: str) -> dict[str, Any]:
    same = same_leaves(result.right, result.port)
    rows = []
    for leaf in result.table:
        joined = "" if leaf.join.name == "only" else f"{leaf.join.name} of "
        status = "ok" if same[leaf.path] else "wrong"
        cells = [
            lens.pair(leaf.path, str(result.right.leaves[leaf.path].shape)),
            lens.pair(
                joined + ", ".join(leaf.sources),
                ", ".join(str(result.state[k].shape) for k in leaf.sources),
            ),
            lens.pair(*str(leaf.rule).partition("; ")[::2]),
            lens.mark("right" if same[leaf.path] else "other numbers", status),
        ]
        rows.append({"key": leaf.path, "cells": cells, "status": status})
    columns = ("Flax leaf", "From", "Rule", "Status")
    return lens.table("leaves", "Its leaves", columns, rows, selected=selected, event="row")


def _about(result: ZooResult) -> list[tuple[str, str]]:
    layer = result.layer
    rows = [
        ("Goes wrong in silence", " ".join(layer.pitfalls)),
        ("Cannot be brought back", layer.loses),
    ]
    rows += [("Linen and NNX differ", layer.differs), ("Written down in", ", ".join(layer.sources))]
    if result.fault:
        rows = [
            ("The fault", result.fault.title),
            ("What a person sees", result.fault.symptom),
            ("Known from", result.fault.source),
            *rows,
        ]
    return [(name, text) for name, text in rows if text]


def read(
    layer: str,
    options: str | None,
    fault: str | None,
    probe: str,
    state: str,
    seed: Any,
    leaf: str | None,
    check: str | None,
) -> ZooView:
    """What the form holds, checked."""
    tables = (("layer", layer, LAYERS), ("probe", probe, PROBES), ("state", state, STATES))
    tables += (("fault", fault or "", ("", *FAULTS)), ("check", check or "", ("", *CHECKS)))
    for name, value, known in tables:
        if value not in known:
            raise ArgumentError(f"{name} = {value!r:.40} is not one that there is.")
    text = (options or "").strip()
    text = "" if text == options_of(layer) else text
    return ZooView(
        layer, text, fault or "", probe, state, limits.whole("seed", seed), leaf or "", check or ""
    )


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(read(*values))


def menus(layer: str, options: str, fault: str, state: str, seed: Any) -> list[Any]:
    """The faults and the leaves of a layer; what was chosen stays where it fits."""
    case = ZooCase(
        layer,
        options if options != options_of(layer) else "",
        "",
        "random_normal",
        state,
        int(seed or 0),
    )
    try:
        found = {f.name: f.title for f in faults_of(case)}
        paths = [leaf.path for leaf in run_zoo(case).table]
    except ValueError:  # the column says what is wrong with the options
        return [gr.skip(), gr.skip()]
    choices = [RIGHT_PORT, *((title, name) for name, title in found.items())]
    return [
        gr.update(choices=choices, value=fault if fault in found else ""),
        gr.update(choices=paths, value=paths[0] if paths else None),
    ]


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components."""
    choices = {
        "layer": LAYERS,
        "fault": ("", *FAULTS),
        "probe": PROBES,
        "state": STATES,
        "check": ("", *CHECKS),
    }
    recipe = from_query(ZooView(), query, choices)
    return updates(recipe)


def updates(recipe: ZooView) -> list[Any]:
    """The recipe's components, set."""
    options = recipe.options or options_of(recipe.layer)
    fault, leaf = menus(recipe.layer, options, recipe.fault, recipe.state, recipe.seed)
    return [
        recipe.layer,
        options,
        fault,
        recipe.probe,
        recipe.state,
        recipe.seed,
        leaf,
        recipe.check,
    ]


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    default = ZooView()
    names = [(f"{name}  ({row.family})", name) for name, row in LAYERS.items()]
    with frame.tab_row():
        with frame.controls():
            layer = gr.Dropdown(names, value=default.layer, label="Layer")
            options = gr.Textbox(
                options_of(default.layer),
                label="options",
                lines=3,
                info="As the PyTorch constructor takes them.",
            )
            fault = gr.Dropdown(
                [RIGHT_PORT, *((f.title, f.name) for f in FAULTS.values())],
                value=default.fault,
                label="What goes wrong",
            )
            leaf = gr.Dropdown([], value=None, label="Leaf in the picture", allow_custom_value=True)
            probe = gr.Dropdown(
                [(p.title, n) for n, p in PROBES.items()],
                value=default.probe,
                label="Probe: what it runs on",
            )
            state = gr.Radio(
                [(STATE_TITLES[s], s) for s in STATES],
                value=default.state,
                label="Leaves",
                elem_classes="pl-list",
            )
            check = gr.Dropdown(
                [NO_CHECK, *((c.title, n) for n, c in CHECKS.items())],
                value=default.check,
                label="Ask a check",
            )
            seed = gr.Number(default.seed, label="seed", precision=0)
        with frame.result():
            result = lens.Lens(elem_id="zoo-lens")
            closer = lens.Tile("zoo-lens")

    inputs = [layer, options, fault, probe, state, seed, leaf, check]
    gr.on(
        [c.input for c in (fault, probe, seed, leaf, check)],
        show,
        inputs,
        result,
        trigger_mode="always_last",
        **frame.QUIET,
    )
    layer.input(options_of, layer, options, **frame.QUIET).then(
        menus, [layer, options, fault, state, seed], [fault, leaf], **frame.QUIET
    ).then(show, inputs, result, **frame.QUIET)
    gr.on(
        [options.submit, options.blur, state.input],
        menus,
        [layer, options, fault, state, seed],
        [fault, leaf],
        **frame.QUIET,
    ).then(show, inputs, result, **frame.QUIET)
    result.row(picked, None, leaf, **frame.QUIET).then(show, inputs, result, **frame.QUIET)
    result.act(lambda: "", None, fault, **frame.QUIET).then(show, inputs, result, **frame.QUIET)
    result.zoom(zoomed, inputs, closer, **frame.QUIET)
    return frame.Built(inputs, show, inputs, result)


def picked(event: gr.EventData) -> str:
    """A row of the leaf table -> the leaf of the picture."""
    return str(event._data.get("key", ""))[: limits.NAME_CHARACTERS]


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe, asked = read(*values), event._data
    result = run_zoo(recipe.case)
    leaf = next((r for r in result.table if r.path == recipe.leaf), None) or next(
        iter(result.table), None
    )
    infos = [*(zoo_leaf_infos(result, leaf) if leaf else []), *zoo_output_infos(result)]
    info = next((i for i in infos if i.key == asked.get("key")), None)
    if info is None:
        raise ArgumentError("There is no such picture.")
    return tile(info, tuple(asked["rows"]), tuple(asked["columns"]))
