"""The tab *Which check sees it?*: every fault against every check that people use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from porting import limits
from porting.checks import (
    CHECKS,
    CLEAN,
    PROBES,
    STATES,
    STATUSES,
    Check,
    CheckMatrix,
    Tally,
    check_matrix,
)
from porting.errors import ArgumentError
from porting.faults import FAULTS
from porting.layers import LAYERS
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import in_lens
from porting.ui.zoo_tab import STATE_TITLES

BLOCK = "EncoderBlock"
TARGETS = (BLOCK, *LAYERS)


@dataclass(frozen=True)
class ChecksView:
    """The recipe of the tab."""

    target: str = "MultiheadAttention"
    probe: str = "random_normal"
    state: str = "fresh"
    seed: int = 0


RECIPE = tuple(ChecksView.__dataclass_fields__)


def view(recipe: ChecksView) -> dict[str, Any]:
    """The whole column for one recipe."""
    matrix = check_matrix(recipe.target, seed=recipe.seed)
    tallies = {c.name: matrix.tally(c.name, recipe.probe, recipe.state) for c in matrix.checks}
    blocks = [_grid(recipe, matrix, tallies), _probes(recipe, matrix), _unseen(matrix)]
    value = lens.column(None, blocks, to_query("checks", recipe))
    value["verdict"] = {
        "kind": "plain",
        "title": "A check that cannot fail is no check",
        "text": _summary(matrix, tallies),
    }
    return value


def _grid(recipe: ChecksView, matrix: CheckMatrix, tallies: Mapping[str, Tally]) -> dict[str, Any]:
    where = (recipe.probe, recipe.state)
    rows = [_row(matrix, CLEAN, "The right port", where)]
    rows += [_row(matrix, fault.name, fault.title, where) for fault in matrix.faults]
    foot = [f"{t.caught} of {t.faults}" if t.faults else "–" for t in tallies.values()]
    columns = [{"key": c.name, "title": c.title, "about": _about(c)} for c in matrix.checks]
    title = f"{recipe.target}: faults down, checks across"
    return lens.grid("grid", title, columns, rows, ["Seen", *foot], _legend())


def _about(check: Check) -> str:
    return f"{check.about} {check.prone}".strip()


def _probes(recipe: ChecksView, matrix: CheckMatrix) -> dict[str, Any]:
    return lens.table(
        "probes",
        "What each probe cannot show",
        ("Probe", "It hides", *(c.title for c in matrix.checks[2:])),
        _probe_rows(matrix, recipe.state),
        mono=False,
        note="How many of the faults each check sees with this probe.",
    )


def _legend() -> list[dict[str, str]]:
    return [{"status": status, "text": text} for status, text in STATUSES.items()]


def _row(matrix: CheckMatrix, name: str, title: str, where: tuple[str, str]) -> dict[str, Any]:
    cells = [matrix.cell(name, check.name, *where) for check in matrix.checks]
    return {
        "key": name,
        "title": title,
        "cells": [{"status": c.status, "story": c.story} for c in cells],
    }


def _probe_rows(matrix: CheckMatrix, state: str) -> list[dict[str, Any]]:
    rows = []
    for probe in matrix.probes:
        tallies = [matrix.tally(check.name, probe.name, state) for check in matrix.checks[2:]]
        seen = [f"{t.caught} of {t.faults}" if t.faults else "–" for t in tallies]
        rows.append({"key": "", "cells": [probe.title, probe.hides, *seen]})
    return rows


def _unseen(matrix: CheckMatrix) -> dict[str, Any] | None:
    hidden = matrix.unseen()
    if not hidden:
        return None
    names = "; ".join(f.title for f in hidden)
    return lens.note("unseen", f"No check sees these with any probe: {names}.")


def _summary(matrix: CheckMatrix, tallies: Mapping[str, Tally]) -> str:
    sums = tallies["sums"]
    if not sums.faults:
        return (
            f"{matrix.target} has no input of this kind. Choose another probe; "
            "the leaves can be compared all the same."
        )
    strongest = max(tallies, key=lambda name: tallies[name].caught)
    return (
        f"{len(matrix.faults)} faults fit this layer. Comparing the sums of the outputs, as many "
        f"tutorials do, {sums}. The check “{CHECKS[strongest].title}” {tallies[strongest]}."
    )


def read(target: str, probe: str, state: str, seed: Any) -> ChecksView:
    """What the form holds, checked."""
    for name, value, known in (
        ("target", target, TARGETS),
        ("probe", probe, PROBES),
        ("state", state, STATES),
    ):
        if value not in known:
            raise ArgumentError(f"{name} = {value!r:.40} is not one that there is.")
    return ChecksView(target, probe, state, limits.seed("seed", seed))


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(read(*values))


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components."""
    recipe = from_query(ChecksView(), query, {"target": TARGETS, "probe": PROBES, "state": STATES})
    return [getattr(recipe, name) for name in RECIPE]


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    default = ChecksView()
    with frame.tab_row():
        with frame.controls():
            target = gr.Dropdown(list(TARGETS), value=default.target, label="Layer")
            probe = gr.Radio(
                [(p.title, n) for n, p in PROBES.items()],
                value=default.probe,
                label="Probe",
                elem_classes="pl-list",
            )
            state = gr.Radio(
                [(STATE_TITLES[s], s) for s in STATES],
                value=default.state,
                label="Leaves",
                elem_classes="pl-list",
            )
            seed = gr.Number(default.seed, label="seed", precision=0)
        with frame.result():
            result = lens.Lens(elem_id="checks-lens")
    inputs = [target, probe, state, seed]
    heavy = {**frame.QUIET, "concurrency_id": "heavy"}
    changes = [target.input, probe.input, state.input, seed.input]
    gr.on(changes, show, inputs, result, trigger_mode="always_last", **heavy)
    return frame.Built(inputs, show, inputs, result)


def opened(event: gr.EventData) -> tuple[str, str]:
    """A cell -> the fault ("" for the right port) and the check."""
    fault, check = str(event._data.get("row")), str(event._data.get("column"))
    return ("" if fault not in FAULTS else fault), (check if check in CHECKS else "")
