"""The tab *Layer zoo*: every layer that people port, right, visible and breakable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from porting import limits
from porting.checks import CHECKS, PROBES, STATES, check_matrix
from porting.errors import ArgumentError, PortingError
from porting.faults import FAULTS
from porting.figures import scales
from porting.figures.chips import rule_chips
from porting.figures.zoo import zoo_leaf_infos, zoo_output_infos
from porting.layers import LAYERS
from porting.leaves import Leaf
from porting.options import LONGEST, parse_options
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import as_toast, in_lens
from porting.zoo import (
    ZooCase,
    ZooResult,
    faults_of,
    leaves_of,
    options_of,
    probes_of,
    run_zoo,
    same_leaves,
)
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
    blocks = [
        _asked(recipe),
        *_leaf_blocks(result, _leaf_in_picture(recipe, result)),
        lens.matrices(
            "outputs",
            "Outputs, in PyTorch's layout",
            zoo_output_infos(result),
            legend=("error over rounding", "excess", scales.DECADES),
        ),
        lens.facts("about", result.layer.title, _about(result), prose=True),
        lens.code("code", "This port", zoo_programs(result)),
    ]
    actions = [lens.action("right", "Do it right", True)] if result.fault else []
    return lens.column(result.verdict, blocks, to_query("zoo", recipe), actions)


def _leaf_in_picture(recipe: ZooView, result: ZooResult) -> Leaf | None:
    """The chosen leaf, or the first; nothing for a layer without leaves."""
    chosen = next((row for row in result.table if row.path == recipe.leaf), None)
    return chosen or next(iter(result.table), None)


def _asked(recipe: ZooView) -> dict[str, Any] | None:
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


def _leaf_blocks(result: ZooResult, leaf: Leaf | None) -> list[dict[str, Any] | None]:
    if leaf is None:
        return [lens.note("none", "This layer has no leaves: only its constants can go wrong.")]
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
            lens.mark("right" if same[leaf.path] else "other numbers", status),
            lens.pair(leaf.path, str(result.right.leaves[leaf.path].shape)),
            lens.pair(
                joined + ", ".join(leaf.sources),
                ", ".join(str(result.state[k].shape) for k in leaf.sources),
            ),
            lens.pair(*str(leaf.rule).partition("; ")[::2]),
        ]
        rows.append({"key": leaf.path, "cells": cells, "status": status})
    columns = ("Status", "Flax leaf", "From", "Rule")
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
    tables: list[tuple[str, str, Collection[str]]] = [
        ("layer", layer, LAYERS),
        ("probe", probe, PROBES),
        ("state", state, STATES),
        ("fault", fault or "", ("", *FAULTS)),
        ("check", check or "", ("", *CHECKS)),
    ]
    for name, value, known in tables:
        if value not in known:
            raise ArgumentError(f"{name} = {value!r:.40} is not one that there is.")
    text = _own_options(layer, options)
    return ZooView(
        layer, text, fault or "", probe, state, limits.seed("seed", seed), leaf or "", check or ""
    )


def _own_options(layer: str, options: str | None) -> str:
    """The options as a recipe holds them: "" for those that the layer starts with."""
    text = (options or "").strip()
    return "" if text == options_of(layer) else text


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(read(*values))


def menus(
    layer: str, options: str, fault: str, probe: str, state: str, seed: Any, leaf: str | None
) -> list[Any]:
    """The faults, probes and leaves of a layer; what was chosen stays where it fits."""
    try:
        case = ZooCase(
            layer, _own_options(layer, options), "", "", state, limits.seed("seed", seed)
        )
        faults = [RIGHT_PORT, *((f.title, f.name) for f in faults_of(case))]
        probes, paths = probes_of(case), leaves_of(case)
    except PortingError:  # the column says what is wrong with the form
        return [gr.skip()] * 3
    names = [name for _, name in faults]
    first = paths[0] if paths else None
    return [
        gr.update(choices=faults, value=fault if fault in names else ""),
        gr.update(
            choices=[(PROBES[name].title, name) for name in probes],
            value=probe if probe in probes else "random_normal",
        ),
        gr.update(choices=list(paths), value=leaf if leaf in paths else first),
    ]


def other_layer(layer: str, fault: str, probe: str, state: str, seed: Any) -> list[Any]:
    """The options that a layer starts with, and its menus."""
    return [options_of(layer), *menus(layer, "", fault, probe, state, seed, None)]


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components."""
    choices = {
        "layer": LAYERS,
        "fault": ("", *FAULTS),
        "probe": PROBES,
        "state": STATES,
        "check": ("", *CHECKS),
    }
    options, leaf = (query.get(name, "")[:LONGEST] for name in ("options", "leaf"))
    return updates(replace(from_query(ZooView(), query, choices), options=options, leaf=leaf))


def updates(recipe: ZooView) -> list[Any]:
    """The recipe's components, set."""
    options = recipe.options or options_of(recipe.layer)
    chosen = (recipe.fault, recipe.probe, recipe.state, recipe.seed)
    fault, probe, leaf = menus(recipe.layer, recipe.options, *chosen, recipe.leaf)
    return [recipe.layer, options, fault, probe, recipe.state, recipe.seed, leaf, recipe.check]


def _form() -> dict[str, Any]:
    """The controls by the names of the recipe, as they first stand."""
    default = ZooView()
    names = [(f"{name}  ({row.family})", name) for name, row in LAYERS.items()]
    set_to = dict(zip(RECIPE, updates(default), strict=True))
    return {
        "layer": gr.Dropdown(names, value=default.layer, label="Layer"),
        "options": gr.Textbox(
            options_of(default.layer),
            label="options",
            lines=3,
            max_lines=6,
            info="As the PyTorch constructor takes them.",
        ),
        "fault": gr.Dropdown(
            set_to["fault"]["choices"],
            value=default.fault,
            label="What goes wrong",
        ),
        "leaf": gr.Dropdown(set_to["leaf"]["choices"], label="Leaf in the picture"),
        "probe": gr.Dropdown(
            set_to["probe"]["choices"],
            value=default.probe,
            label="Probe: what it runs on",
        ),
        "state": gr.Radio(
            [(STATE_TITLES[s], s) for s in STATES],
            value=default.state,
            label="Leaves",
            elem_classes="pl-list",
        ),
        "check": gr.Dropdown(
            [NO_CHECK, *((c.title, n) for n, c in CHECKS.items())],
            value=default.check,
            label="Ask a check",
        ),
        "seed": gr.Number(default.seed, label="seed", precision=0),
    }


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    with frame.tab_row():
        with frame.controls():
            form = _form()
        with frame.result():
            result = lens.Lens(elem_id="zoo-lens")
            closer = lens.Tile("zoo-lens")
    inputs = [form[name] for name in RECIPE]
    draw = {"fn": show, "inputs": inputs, "outputs": result, **frame.QUIET}
    menu = [form[name] for name in ("fault", "probe", "leaf")]
    chosen = [form[name] for name in ("fault", "probe", "state", "seed")]
    gr.on(
        [form[name].input for name in ("fault", "probe", "seed", "leaf", "check")],
        trigger_mode="always_last",
        **draw,
    )
    form["layer"].input(
        other_layer, [form["layer"], *chosen], [form["options"], *menu], **frame.QUIET
    ).then(**draw)
    gr.on(
        [form["options"].submit, form["options"].blur, form["state"].input],
        menus,
        [form["layer"], form["options"], *chosen, form["leaf"]],
        menu,
        **frame.QUIET,
    ).then(**draw)
    result.row(lens.chosen_row, None, form["leaf"], **frame.QUIET).then(**draw)
    result.act(lambda: "", None, form["fault"], **frame.QUIET).then(**draw)
    result.zoom(zoomed, inputs, closer, **frame.QUIET)
    return frame.Built(inputs, show, inputs, result)


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe = read(*values)
    result = run_zoo(recipe.case)
    leaf = _leaf_in_picture(recipe, result)
    shown = zoo_leaf_infos(result, leaf) if leaf else []
    return lens.zoomed_part([*shown, *zoo_output_infos(result)], event)
