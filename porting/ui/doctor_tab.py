"""The tab *Doctor*: a port that is wrong, which leaf, what was done to it, and the fix."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from porting import limits
from porting.breaks import BREAKS, break_tree
from porting.checkpoint import open_checkpoint, save_params
from porting.doctor import Diagnosis, LeafVerdict, diagnose, repair
from porting.errors import ArgumentError, number_of
from porting.examples import EXAMPLES
from porting.faults import Port
from porting.figures.leaf import leaf_infos
from porting.figures.matrix import tile
from porting.figures.stages import chart_height, stage_chart
from porting.figures.trace import trace_bars
from porting.mapping import Mapping as PortMapping
from porting.mapping import infer_mapping, port_checkpoint
from porting.models import MODELS, decided_mapping, traces_of
from porting.trace import Trace, compare_traces, explain, load_trace
from porting.tree import flatten
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import as_toast, in_lens
from porting.verdict import Verdict

UPLOAD = "upload"
PATIENTS = {
    **{k: f"{m.title}, broken for you" for k, m in MODELS.items() if m.kind == "linen"},
    UPLOAD: "Your own files",
}
KINDS = (".safetensors", ".json", ".pt", ".pth", ".bin", ".npz", ".npy", ".msgpack")
TONES = {"ok": "ok", "ambiguous": "unsure"}
WORDS = {
    "ok": "right",
    "wrong_layout": "wrong layout",
    "wrong_source": "another tensor",
    "changed": "changed values",
    "unported": "not ported",
    "missing": "missing",
    "ambiguous": "cannot tell",
}
SEVERITY = {"error": "wrong", "warning": "unsure", "note": "open"}


@dataclass(frozen=True)
class DoctorView:
    """The recipe of the tab: what a link holds.

    Attributes:
        patient: a model that is broken here, or "upload".
        breaks: names of `BREAKS`, joined by commas.
        hidden: whether the person is to guess: 0, or the number of the riddle.
        pick: the leaf in the picture; "" for the first that is wrong.
        forward: whether the right and the broken model are run and compared as well.
    """

    patient: str = "block-linen"
    breaks: str = "square,query_key"
    hidden: int = 0
    pick: str = ""
    forward: bool = False

    @property
    def names(self) -> list[str]:
        """The breaks to put in; those of a riddle are drawn by its number."""
        if self.hidden:
            rng = np.random.default_rng(self.hidden)
            fitting = fitting_breaks(self.patient)
            return [str(n) for n in rng.choice(fitting, min(2, len(fitting)), replace=False)]
        return [name for name in self.breaks.split(",") if name in BREAKS]


RECIPE = tuple(DoctorView.__dataclass_fields__)


@dataclass(frozen=True)
class Given:
    """The files of the person."""

    checkpoint: tuple[str, ...] = ()
    params: str | None = None
    traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patient:
    """What the doctor looks at.

    Attributes:
        source: key -> array.
        ported: path -> array, as the person has it.
        mapping: what should be where.
        names: what was broken, where it was done here.
    """

    source: dict[str, np.ndarray]
    ported: dict[str, np.ndarray]
    mapping: PortMapping | None
    names: list[str]


def fitting_breaks(model: str) -> list[str]:
    """The breaks that change something in a model.

    >>> "height_width" in fitting_breaks("rnet-linen"), "query_key" in fitting_breaks("rnet-linen")
    (True, False)
    """
    leaves, _, _ = _clean(model)
    port = Port(leaves, dict)
    return [name for name, row in BREAKS.items() if row.fits(port)]


def _clean(model: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], PortMapping]:
    with open_checkpoint(EXAMPLES[MODELS[model].checkpoint].path) as checkpoint:
        source = {key: np.array(checkpoint[key]) for key in checkpoint}
    mapping = decided_mapping(model, source)
    variables, _ = port_checkpoint(source, MODELS[model].target(), mapping)
    return flatten(variables), source, mapping


def _patient(recipe: DoctorView, given: Given) -> Patient:
    if recipe.patient in MODELS:
        leaves, source, mapping = _clean(recipe.patient)
        return Patient(source, break_tree(leaves, recipe.names), mapping, recipe.names)
    if not given.checkpoint or not given.params:
        raise ArgumentError(
            "There are no files yet. Upload the original checkpoint and your Flax parameters."
        )
    files = given.checkpoint if len(given.checkpoint) > 1 else given.checkpoint[0]
    with (
        open_checkpoint(files, max_bytes=limits.FILE_BYTES) as source,
        open_checkpoint(given.params, max_bytes=limits.FILE_BYTES) as ported,
    ):
        return Patient(
            {k: np.array(source[k]) for k in source},
            {k: np.array(ported[k]) for k in ported},
            None,
            [],
        )


def view(recipe: DoctorView, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    patient = _patient(recipe, given)
    found = diagnose(patient.source, patient.ported, patient.mapping)
    wrong = [path for path, v in found.leaves.items() if v.wrong]
    pick = recipe.pick if recipe.pick in found.leaves else next(iter([*wrong, *found.leaves]), "")
    blocks = [
        lens.findings("findings", "Findings", _findings(found)),
        _tree(found, pick),
        _picture(found.leaves[pick], patient),
        *_stages(_traces(recipe, given, patient), found),
        lens.code("report", "To take along", _exports(patient, found)),
    ]
    actions = [lens.action("riddle", "Give me a riddle")] if recipe.patient in MODELS else []
    link = to_query("doctor", recipe) if recipe.patient in MODELS else None
    return lens.column(_verdict(found, patient, recipe), blocks, link, actions)


def _verdict(found: Diagnosis, patient: Patient, recipe: DoctorView) -> Verdict:
    wrong = sum(v.wrong for v in found.leaves.values())
    total = number_of(len(found.leaves), "leaf")
    told = found.counts.get("ambiguous", 0)
    rest = f" Of {number_of(told, 'leaf')} the data cannot tell." if told else ""
    riddle = ""
    if patient.names and not recipe.hidden:
        riddle = (
            " Broken here on purpose: "
            + "; ".join(BREAKS[n].title.lower() for n in patient.names)
            + "."
        )
    if not wrong:
        return Verdict(
            "unsure" if told else "exact",
            f"All {total} hold what they should, bit for bit.{rest}{riddle}",
        )
    proved = sum(bool(v.fix) for v in found.leaves.values() if v.wrong)
    text = (
        f"{wrong} of {total} {'is' if wrong == 1 else 'are'} wrong, in {number_of(len(found.findings), 'finding')}.{rest} "
        f"{proved} of {wrong} have a fix that was tried and gives the right leaf bit for bit.{riddle}"
    )
    layout = any(v.status in ("wrong_layout", "wrong_source") for v in found.leaves.values())
    return Verdict("silent" if layout else "values", text)


def _findings(found: Diagnosis) -> list[dict[str, Any]]:
    return [
        {
            "title": finding.title,
            "status": SEVERITY[finding.severity],
            "leaves": list(finding.leaves[:8])
            + ([f"and {len(finding.leaves) - 8} more"] if len(finding.leaves) > 8 else []),
            "fix": finding.fix,
        }
        for finding in found.findings
    ]


def _tree(found: Diagnosis, pick: str) -> dict[str, Any]:
    rows = []
    for path, v in found.leaves.items():
        status = TONES.get(v.status, "wrong")
        cells = [
            lens.pair(path, v.note),
            lens.pair(
                v.source or "nothing",
                ""
                if v.source == v.expected_source
                else f"should be {v.expected_source or 'unknown'}",
            ),
            lens.pair(
                v.rule or "",
                "" if v.rule == v.expected_rule else f"should be {v.expected_rule or 'unknown'}",
            ),
            lens.mark(WORDS[v.status], status),
        ]
        rows.append({"key": path, "cells": cells, "status": status})
    columns = ("Flax leaf", "It holds", "By", "Status")
    return lens.table("tree", "Leaf by leaf", columns, rows, selected=pick, event="row", share=0.64)


def _picture(verdict: LeafVerdict, patient: Patient) -> dict[str, Any] | None:
    if verdict.row is None or any(k not in patient.source for k in verdict.row.sources):
        return lens.note(
            "leaf",
            "There is no picture: the names do not tell what this leaf should hold.",
            share=0.36,
        )
    infos = leaf_infos(verdict.row, patient.source, patient.ported.get(verdict.path))
    return lens.matrices(
        "leaf", verdict.path, infos, legend=("value", "value", infos[0].limit), share=0.36
    )


def _traces(recipe: DoctorView, given: Given, patient: Patient) -> tuple[Trace, Trace] | None:
    """The reference's trace and the patient's: uploaded, or recorded on a shipped model."""
    if recipe.patient in MODELS:
        if not recipe.forward:
            return None
        right, _, _ = _clean(recipe.patient)
        return traces_of(recipe.patient, right), traces_of(recipe.patient, patient.ported)
    if len(given.traces) != 2:
        return None
    return load_trace(given.traces[0]), load_trace(given.traces[1])


def _stages(traces: tuple[Trace, Trace] | None, found: Diagnosis) -> list[dict[str, Any]]:
    if traces is None:
        return []
    comparison = compare_traces(*traces)
    bars = trace_bars(comparison)
    said = explain(comparison, found).report()
    return [
        lens.chart(
            "stages", "Where the forward pass parts", stage_chart(bars), chart_height(bars), said
        )
    ]


def _exports(patient: Patient, found: Diagnosis) -> list[tuple[str, str]]:
    return [
        ("Report", found.report()),
        ("JSON", found.to_json()),
        ("Regression test", regression_test(patient)),
    ]


def regression_test(patient: Patient) -> str:
    """A test to paste into a suite: the port as a table, compared bit for bit with the file."""
    mapping = patient.mapping or infer_mapping(patient.source, patient.ported)
    try:
        _, report = port_checkpoint(patient.source, patient.ported, mapping, allow_unused=True)
    except ValueError as error:
        return f"# The mapping is not complete, so there is no test yet:\n# {str(error).replace(chr(10), chr(10) + '# ')}\n"
    head = report.code("linen").partition('if __name__ == "__main__":')[0]
    return head + _TEST


_TEST = """def test_port_is_exact():
    source, params = load_file("model.safetensors"), load_file("params.safetensors")
    for path, array in port(source).items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)
"""


def read(
    patient: str,
    breaks: Any,
    hidden: Any,
    pick: str | None,
    forward: Any,
    checkpoint: Any,
    params: str | None,
    traces: Any,
) -> tuple[DoctorView, Given]:
    """What the form holds, checked."""
    if patient not in PATIENTS:
        raise ArgumentError(f"patient = {patient!r:.40} is none of {', '.join(PATIENTS)}.")
    names = breaks.split(",") if isinstance(breaks, str) else list(breaks or [])
    listed = (
        tuple(v) if isinstance(v, (list, tuple)) else ((v,) if v else ())
        for v in (checkpoint, traces)
    )
    files, pair = listed
    recipe = DoctorView(
        patient,
        ",".join(n for n in names if n in BREAKS),
        limits.whole("hidden", hidden or 0),
        pick or "",
        bool(forward),
    )
    return recipe, Given(files, params, pair)


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(*read(*values))


@as_toast
def repaired(*values: Any) -> Any:
    """The parameters with every fix applied, diagnosed once more before they are handed over."""
    patient = _patient(*read(*values))
    found = diagnose(patient.source, patient.ported, patient.mapping)
    fixed = repair(patient.source, patient.ported, found)
    left = [
        path
        for path, v in diagnose(patient.source, fixed, patient.mapping).leaves.items()
        if v.wrong
    ]
    folder = Path(tempfile.mkdtemp(prefix="portlens-"))
    save_params(folder / "repaired.safetensors", fixed)
    (folder / "report.txt").write_text(found.report())
    (folder / "report.json").write_text(found.to_json())
    (folder / "test_port.py").write_text(regression_test(patient))
    if left:
        gr.Warning(f"{number_of(len(left), 'leaf')} could not be repaired: {', '.join(left[:4])}.")
    return gr.update(value=[str(p) for p in sorted(folder.iterdir())], visible=True)


def menu(patient: str, chosen: list[str] | None) -> Any:
    """The breaks that fit a patient; those chosen before are kept if they do."""
    if patient not in MODELS:
        return gr.update(visible=False)
    names = fitting_breaks(patient)
    kept = [n for n in chosen or [] if n in names] or names[:1]
    return gr.update(choices=[(BREAKS[n].title, n) for n in names], value=kept, visible=True)


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components and the column."""
    recipe = from_query(DoctorView(), query, {"patient": tuple(k for k in PATIENTS if k != UPLOAD)})
    breaks = [n for n in query.get("breaks", recipe.breaks).split(",") if n in BREAKS]
    recipe = replace(recipe, breaks=",".join(breaks))
    values = [
        recipe.patient,
        menu(recipe.patient, breaks),
        recipe.hidden,
        recipe.pick,
        recipe.forward,
    ]
    return values


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    default = DoctorView()
    chosen = default.breaks.split(",")
    with frame.tab_row():
        with frame.controls():
            patient = gr.Radio(
                [(t, k) for k, t in PATIENTS.items()],
                value=default.patient,
                label="Patient",
                elem_classes="pl-list",
            )
            first = menu(default.patient, chosen)
            breaks = gr.CheckboxGroup(
                first["choices"],
                value=first["value"],
                label="What to break",
                elem_classes="pl-list",
            )
            hidden = gr.Number(
                default.hidden,
                label="riddle",
                precision=0,
                info="0: you choose. Else two faults are drawn for you to guess.",
            )
            with gr.Group(visible=False) as files:
                checkpoint = gr.File(
                    label="The original checkpoint",
                    file_count="multiple",
                    file_types=list(KINDS),
                    height=110,
                )
                params = gr.File(label="Your Flax parameters", file_types=list(KINDS), height=110)
                traces = gr.File(
                    label="Two traces, the reference first (optional)",
                    file_count="multiple",
                    file_types=[".safetensors"],
                    height=110,
                )
            forward = gr.Checkbox(
                default.forward,
                label="Run both models as well",
                info="Finds the stage where the forward pass parts. Takes some seconds.",
            )
            pick = gr.Textbox(default.pick, label="Leaf in the picture", max_lines=1)
            go = gr.Button("Repair and save", variant="primary", size="sm")
            saved = gr.File(
                label="Repaired parameters, report, test", visible=False, interactive=False
            )
        with frame.result():
            result = lens.Lens(elem_id="doctor-lens")
            closer = lens.Tile("doctor-lens")

    inputs = [patient, breaks, hidden, pick, forward, checkpoint, params, traces]
    heavy = {**frame.QUIET, "concurrency_id": "heavy"}
    patient.input(
        lambda p, b: (
            menu(p, b),
            "",
            gr.update(visible=p == UPLOAD),
            gr.update(visible=p != UPLOAD),
            gr.update(visible=p != UPLOAD),
        ),
        [patient, breaks],
        [breaks, pick, files, hidden, forward],
        **frame.QUIET,
    ).then(show, inputs, result, **heavy)
    gr.on(
        [breaks.input, hidden.input, pick.submit, checkpoint.change, params.change, traces.change],
        show,
        inputs,
        result,
        trigger_mode="always_last",
        **heavy,
    )
    result.row(picked, None, pick, **frame.QUIET).then(show, inputs, result, **heavy)
    result.act(
        lambda: int(np.random.default_rng().integers(1, 10_000)), None, hidden, **frame.QUIET
    ).then(show, inputs, result, **heavy)
    result.zoom(zoomed, inputs, closer, **heavy)
    go.click(
        repaired,
        inputs,
        saved,
        api_visibility="private",
        concurrency_id="heavy",
        concurrency_limit=1,
    )
    return frame.Built([patient, breaks, hidden, pick, forward], show, inputs, result)


def picked(event: gr.EventData) -> str:
    """A row of the tree -> the leaf of the picture."""
    return str(event._data.get("key", ""))[: limits.NAME_CHARACTERS]


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe, given = read(*values)
    patient, asked = _patient(recipe, given), event._data
    mapping = patient.mapping or infer_mapping(patient.source, patient.ported)
    leaf = mapping.leaves.get(recipe.pick) or next(iter(mapping.leaves.values()))
    infos = leaf_infos(leaf, patient.source, patient.ported.get(leaf.path))
    info = next((i for i in infos if i.key == asked.get("key")), None)
    if info is None:
        raise ArgumentError("There is no such picture.")
    return tile(info, tuple(asked["rows"]), tuple(asked["columns"]))
