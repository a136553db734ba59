"""The tab *Encoder block*: a pre-norm block ported leaf by leaf, and what can go wrong."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from porting import limits
from porting.block import LINEN_TO_NNX
from porting.block_blind import Sight, blind_spots, seen
from porting.block_case import SOURCES, BlockCase
from porting.block_code import block_program
from porting.block_faults import BLOCK_FAULTS
from porting.block_result import BlockResult, LeafRow, faults_for, run_block
from porting.errors import ArgumentError
from porting.figures.block import leaf_infos, stage_bars
from porting.figures.stages import chart_height, stage_chart
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import as_toast, in_lens

STATUS = {"ok": "ok", "skipped": "wrong", "wrong": "wrong"}
WORDS = {"ok": "right", "skipped": "left at its init", "wrong": "other numbers"}
RIGHT_PORT = ("None: the right port", "")


@dataclass(frozen=True)
class BlockView:
    """The recipe of the tab: the case, and the leaf whose picture is open."""

    source: str = "torch-init"
    fault: str = "qk_exchanged"
    randomise: bool = False
    length: int = 5
    d_model: int = 8
    num_heads: int = 2
    d_ff: int = 16
    data_seed: int = 0
    seed: int = 0
    leaf: str = "params/attn/q_proj/kernel"

    @property
    def case(self) -> BlockCase:
        """What the engine runs."""
        return BlockCase(
            self.length,
            self.d_model,
            self.num_heads,
            self.d_ff,
            self.seed,
            self.data_seed,
            self.source,
            self.fault,
            self.randomise,
        )


RECIPE = tuple(BlockView.__dataclass_fields__)


def view(recipe: BlockView) -> dict[str, Any]:
    """The whole column for one recipe."""
    result = run_block(recipe.case)
    row = next(r for r in result.rows if r.path == recipe.leaf)
    actions = [lens.action("right", "Do it right", True)] if result.fault else []
    if result.verdict.kind == "unsure" and SOURCES[recipe.source].fresh and not recipe.randomise:
        actions.append(lens.action("randomise", "Randomise every leaf"))
    blocks = [
        _stages(result),
        _sums(result),
        _leaves(result, recipe.leaf),
        _pictures(result, row),
        _blind_spots(recipe),
        lens.code("code", "This port", [("Linen and NNX", block_program(recipe.case))]),
    ]
    return lens.column(result.verdict, blocks, to_query("block", recipe), actions)


def _stages(result: BlockResult) -> dict[str, Any] | None:
    if not result.stages:
        return None
    bars = stage_bars(result.stages)
    note = "The band is what rounding does. Hatched stages are right by themselves and inherit the error."
    return lens.chart(
        "stages", "The forward pass", stage_chart(bars), chart_height(bars), note, share=0.5
    )


def _sums(result: BlockResult) -> dict[str, Any]:
    output = result.output
    if output is None:
        return lens.note("sums", "Flax raised before there was an output.", share=0.5)
    rows = [
        ("Sum of the NNX output", f"{result.sums[0]:.7g}"),
        ("Sum of the Linen output", f"{result.sums[1]:.7g}"),
        ("Sums agree", "yes" if result.sums_agree else "no"),
        ("Outputs agree with the source", "yes" if result.outputs_agree else "no"),
        ("Largest error in float32", f"{output.d32:.1e}"),
        ("Largest error in float64", f"{output.d64:.1e}"),
        ("Rounding of this run", f"{output.noise:.1e}"),
        ("Leaves right", f"{sum(r.same for r in result.rows)} of {len(result.rows)}"),
    ]
    return lens.facts(
        "sums", "The pair of sums, and the full comparison", rows, share=0.5, note=result.warning
    )


def _leaves(result: BlockResult, selected: str) -> dict[str, Any]:
    rows = []
    for row in result.rows:
        by_chance = row.same and row.status != "ok"
        status = "unsure" if by_chance else STATUS[row.status]
        words = "right by chance" if by_chance else WORDS[row.status]
        cells = [
            lens.pair(row.attribute, str(row.after)),
            lens.pair(", ".join(row.leaf.sources), ", ".join(map(str, row.before))),
            lens.pair(*str(row.leaf.rule).partition("; ")[::2]),
            lens.mark(words, status),
        ]
        rows.append({"key": row.path, "cells": cells, "status": status})
    columns = ("Flax leaf", "From", "Rule", "Status")
    title = "The mapping table"
    return lens.table("leaves", title, columns, rows, selected=selected, event="row", share=0.64)


def _blind_spots(recipe: BlockView) -> dict[str, Any]:
    spots = blind_spots(recipe.source)
    states = (("fresh init", False), ("randomised", True))
    checks = [(check, state) for state in states for check in ("sums", "outputs")]
    columns = [
        "Fault",
        *(f"{check}, {state}" for check, (state, _) in checks),
        "Leaves, bit for bit",
    ]
    rows = []
    for spot in spots:
        sights = [spot.randomised if random else spot.fresh for _, (_, random) in checks]
        cells = [_sight(s, check) for s, (check, _) in zip(sights, checks, strict=True)]
        leaves = _sight(spot.randomised, "leaves")
        rows.append({"key": spot.fault.name, "cells": [spot.fault.title, *cells, leaves]})
    counts = ["{} of {}".format(*seen(spots, check, random)) for check, (_, random) in checks]
    total = ["Seen", *counts, "{} of {}".format(*seen(spots, "leaves", True))]
    note = (
        "At a fresh init all biases are zero and all scales one, so a port that forgot them still "
        "matches. Two equal sums only say that Linen and NNX hold the same port. A fault of the code "
        "changes no leaf."
    )
    rows.append({"key": "total", "cells": total})
    return lens.table(
        "blind", "What each check cannot see", columns, rows, event="fault", note=note
    )


def _sight(sight: Sight | None, check: str) -> Any:
    if sight is None:
        return "cannot happen"
    return lens.mark("seen", "ok") if getattr(sight, check) else lens.mark("missed", "wrong")


def _pictures(result: BlockResult, row: LeafRow) -> dict[str, Any] | None:
    infos = leaf_infos(result, row)
    return lens.matrices(
        "leaf",
        row.attribute,
        infos,
        legend=("value", "value", infos[0].limit),
        motion=("source", "ported"),
        share=0.36,
    )


def read(
    source: str,
    fault: str | None,
    randomise: Any,
    length: Any,
    d_model: Any,
    num_heads: Any,
    d_ff: Any,
    data_seed: Any,
    seed: Any,
    leaf: str | None,
) -> BlockView:
    """What the form holds, checked; a fault that does not fit the source is left out."""
    if source not in SOURCES:
        raise ArgumentError(f"source = {source!r:.40} is none of {', '.join(SOURCES)}.")
    recipe = BlockView(
        source,
        fault or "",
        bool(randomise),
        limits.whole("T", length),
        limits.whole("d_model", d_model),
        limits.whole("num_heads", num_heads),
        limits.whole("d_ff", d_ff),
        limits.seed("data seed", data_seed),
        limits.seed("init seed", seed),
        leaf if leaf in LINEN_TO_NNX else BlockView.leaf,
    )
    if recipe.fault and recipe.fault not in BLOCK_FAULTS:
        raise ArgumentError(f"fault = {recipe.fault!r:.40} is no fault of this block.")
    return recipe


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(read(*values))


@functools.partial(in_lens, others=1)
def chosen(event: gr.EventData, *values: Any) -> Any:
    """A row of the leaf table -> the column with its picture, and the menu set to it."""
    leaf = str(event._data.get("key"))
    recipe = replace(read(*values), leaf=leaf if leaf in LINEN_TO_NNX else BlockView.leaf)
    return view(recipe), recipe.leaf


def fault_menu(source: str, fault: str | None) -> Any:
    """The faults that fit a source; the present one is kept if it does."""
    names = [f.name for f in faults_for(BlockCase(source=source))]
    menu = [RIGHT_PORT, *((BLOCK_FAULTS[n].title, n) for n in names)]
    return gr.update(choices=menu, value=fault if fault in names else "")


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components."""
    faults = ["", *BLOCK_FAULTS]
    choices = {"source": SOURCES, "fault": faults, "leaf": LINEN_TO_NNX}
    return updates(from_query(BlockView(), query, choices))


def updates(recipe: BlockView) -> list[Any]:
    """The recipe's components, set."""
    values = [getattr(recipe, name) for name in RECIPE]
    values[RECIPE.index("fault")] = fault_menu(recipe.source, recipe.fault)
    return [*values, gr.update(visible=SOURCES[recipe.source].sizes is None)]


def _form() -> dict[str, Any]:
    """The controls by the names of the recipe, as they first stand, and the group of sizes."""
    default = BlockView()
    menu = fault_menu(default.source, default.fault)
    form: dict[str, Any] = {
        "source": gr.Radio(
            [(s.title, name) for name, s in SOURCES.items()],
            value=default.source,
            label="Where the weights come from",
            elem_classes="pl-list",
        ),
        "fault": gr.Dropdown(menu["choices"], value=menu["value"], label="What goes wrong"),
        "randomise": gr.Checkbox(
            default.randomise,
            label="Randomise every leaf",
            info="A fresh block has zero biases and unit scales, which hide faults.",
        ),
    }
    with gr.Group(visible=True) as sizes, gr.Row():
        for name in ("d_model", "num_heads", "d_ff"):
            form[name] = gr.Number(getattr(default, name), label=name, precision=0, min_width=60)
    with gr.Row():
        for name, label in (("length", "T"), ("data_seed", "data seed"), ("seed", "init seed")):
            form[name] = gr.Number(getattr(default, name), label=label, precision=0, min_width=50)
    form["leaf"] = gr.Dropdown(
        [(name, path) for path, name in LINEN_TO_NNX.items()],
        value=default.leaf,
        label="Leaf in the picture",
    )
    return form | {"sizes": sizes}


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    with frame.tab_row():
        with frame.controls():
            form = _form()
        with frame.result():
            result = lens.Lens(elem_id="block-lens")
            closer = lens.Tile("block-lens")
    inputs = [form[name] for name in RECIPE]
    draw = {"fn": show, "inputs": inputs, "outputs": result, **frame.QUIET}
    source, fault, randomise = (form[name] for name in ("source", "fault", "randomise"))
    gr.on([c.input for c in inputs[1:]], trigger_mode="always_last", **draw)
    source.input(
        lambda s, f: (fault_menu(s, f), gr.update(visible=SOURCES[s].sizes is None)),
        [source, fault],
        [fault, form["sizes"]],
        **frame.QUIET,
    ).then(**draw)
    result.row(chosen, inputs, [result, form["leaf"]], **frame.QUIET)
    result.fault(opened, None, fault, **frame.QUIET).then(**draw)
    result.act(acted, [fault, randomise], [fault, randomise], **frame.QUIET).then(**draw)
    result.zoom(zoomed, inputs, closer, **frame.QUIET)
    return frame.Built([*inputs, form["sizes"]], show, inputs, result)


def opened(event: gr.EventData) -> Any:
    """A row of the table of faults -> the menu set to it."""
    name = event._data.get("key")
    return name if name in BLOCK_FAULTS else gr.skip()


def acted(event: gr.EventData, fault: str, randomise: bool) -> tuple[str, bool]:
    """A button beside the verdict."""
    return ("", randomise) if event._data.get("name") == "right" else (fault, True)


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe = read(*values)
    result = run_block(recipe.case)
    row = next(r for r in result.rows if r.path == recipe.leaf)
    return lens.zoomed_part(leaf_infos(result, row), event)
