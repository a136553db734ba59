"""The tab *Doctor*: a port that is wrong, which leaf, what was done to it, and the fix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from porting import limits
from porting.breaks import BREAKS
from porting.checkpoint import save_params
from porting.doctor import diagnose, repair
from porting.errors import ArgumentError, number_of
from porting.models import MODELS
from porting.ui import frame, lens
from porting.ui.address import from_query
from porting.ui.doctor_view import exports, picked, pictures, view
from porting.ui.doctor_work import (
    UPLOAD,
    DoctorView,
    Given,
    broken,
    fitting_breaks,
    forward_of,
    listed,
    patient_of,
)
from porting.ui.messages import as_toast, in_lens

PATIENTS = {
    **{k: f"{m.title}, broken for you" for k, m in MODELS.items() if m.kind == "linen"},
    UPLOAD: "Your own files",
}
KINDS = [".safetensors", ".json", ".pt", ".pth", ".bin", ".npz", ".npy", ".msgpack"]
RECIPE = tuple(DoctorView.__dataclass_fields__)
RIDDLES = 10_000  #: as many riddles as there are numbers for them


def read(
    patient: str,
    breaks: Any,
    hidden: Any,
    revealed: Any,
    pick: str | None,
    forward: Any,
    checkpoint: Any,
    params: str | None,
    traces: Any,
) -> tuple[DoctorView, Given]:
    """What the form holds, checked."""
    if patient not in PATIENTS:
        raise ArgumentError(f"patient = {patient!r:.40} is none of {', '.join(PATIENTS)}.")
    number = limits.seed("riddle", hidden or 0) if patient != UPLOAD else 0
    flags = bool(revealed), pick or "", bool(forward)
    recipe = DoctorView(patient, listed(breaks), number, *flags)
    return recipe, Given(_files(checkpoint), params, _files(traces))


def _files(value: Any) -> tuple[str, ...]:
    """One upload or several."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) if value else ()


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(*read(*values))


@as_toast
def repaired(*values: Any) -> Iterator[Any]:
    """The parameters with every fix applied, diagnosed once more, and what goes with them.

    The page takes copies of the files; the folder they were made in goes when this ends.
    """
    recipe, given = read(*values)
    patient = patient_of(recipe, given)
    found = patient.diagnosis()
    run = forward_of(recipe, given, patient, found)
    fixed = repair(patient.source, patient.ported, found)
    after = diagnose(patient.source, fixed, patient.mapping).leaves
    left = [path for path, verdict in after.items() if verdict.wrong]
    with tempfile.TemporaryDirectory(prefix="portlens-") as name:
        folder = Path(name)
        save_params(folder / "params.safetensors", fixed)
        files = ("report.txt", "report.json", "test_port.py")
        for file, (_, text) in zip(files, exports(patient, found, run), strict=True):
            (folder / file).write_text(text, encoding="utf-8")
        if left:
            gr.Warning(
                f"{number_of(len(left), 'leaf')} could not be repaired: {', '.join(left[:4])}."
            )
        yield gr.update(value=[str(p) for p in sorted(folder.iterdir())], visible=True)


def menu(patient: str, chosen: list[str] | None, guess: bool = False) -> Any:
    """The breaks that fit a patient; those chosen before are kept if they do."""
    if patient not in MODELS:
        return gr.update(visible=False)
    names = fitting_breaks(patient)
    kept = [n for n in chosen or [] if n in names]
    if chosen and not kept and not guess:
        kept = names[:1]
    return gr.update(
        choices=[(BREAKS[n].title, n) for n in names],
        value=kept,
        label="Your guess" if guess else "What to break",
        visible=True,
    )


def other_patient(patient: str, chosen: list[str] | None) -> list[Any]:
    """What a change of the patient shows, hides and resets."""
    shipped = patient != UPLOAD
    return [
        menu(patient, chosen),
        0,
        False,
        "",
        gr.update(visible=shipped),
        gr.update(visible=not shipped),
    ]


def acted(event: gr.EventData, patient: str, hidden: Any) -> list[Any]:
    """A button of the lens -> the riddle's number, whether it is revealed, the guess."""
    name = event._data.get("name")
    if name == "reveal":
        return [gr.skip(), True, gr.skip(), gr.skip()]
    number = int(np.random.default_rng().integers(1, RIDDLES)) if name == "riddle" else 0
    return [number, False, menu(patient, None, guess=bool(number)), ""]


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components, and which of them show."""
    default = DoctorView()
    recipe = from_query(default, query, {"patient": tuple(k for k in PATIENTS if k != UPLOAD)})
    pick = query.get("pick", "")[: limits.NAME_CHARACTERS]
    recipe = replace(recipe, breaks=broken(query, default), pick=pick)
    if not 0 <= recipe.hidden <= limits.SEED:
        recipe = replace(recipe, hidden=0)
    breaks = menu(recipe.patient, recipe.chosen, guess=bool(recipe.hidden))
    return [recipe.patient, breaks, recipe.hidden, recipe.revealed, pick, recipe.forward]


def _uploads() -> tuple[Any, Any, Any]:
    """Fields for the person's own files."""
    checkpoint = gr.File(
        label="The original checkpoint",
        file_count="multiple",
        file_types=KINDS,
        height=120,
        elem_id="doctor-checkpoint",
        elem_classes="pl-file",
    )
    params = gr.File(
        label="Your Flax parameters",
        file_types=KINDS,
        height=120,
        elem_id="doctor-params",
        elem_classes="pl-file",
    )
    traces = gr.File(
        label="Two traces, the reference first (optional)",
        file_count="multiple",
        file_types=[".safetensors"],
        height=120,
        elem_id="doctor-traces",
        elem_classes="pl-file",
    )
    return checkpoint, params, traces


def _form() -> dict[str, Any]:
    """The controls by their names, as they first stand; the hidden ones hold the recipe."""
    default = DoctorView()
    form = {
        "patient": gr.Radio(
            [(t, k) for k, t in PATIENTS.items()],
            value=default.patient,
            label="Patient",
            elem_classes="pl-list",
        ),
        "breaks": gr.CheckboxGroup(
            [(row.title, name) for name, row in BREAKS.items()],
            value=default.chosen,
            label="What to break",
            elem_classes="pl-list",
        ),
        "hidden": gr.Number(default.hidden, visible="hidden", precision=0),
        "revealed": gr.Checkbox(default.revealed, visible="hidden"),
        "pick": gr.Textbox(default.pick, visible="hidden"),
        "forward": gr.Checkbox(
            default.forward,
            label="Run both models as well",
            info="Finds the stage where the forward pass parts. Takes some seconds.",
        ),
    }
    with gr.Group(visible=False) as files:
        form |= dict(zip(("checkpoint", "params", "traces"), _uploads(), strict=True))
    go = gr.Button("Repair and save", variant="primary", size="sm")
    saved = gr.File(label="Repaired parameters, report, test", visible=False, interactive=False)
    return form | {"files": files, "go": go, "saved": saved}


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    with frame.tab_row():
        with frame.controls():
            form = _form()
        with frame.result():
            result = lens.Lens(elem_id="doctor-lens")
            closer = lens.Tile("doctor-lens")
    inputs = [form[name] for name in (*RECIPE, "checkpoint", "params", "traces")]
    heavy = {**frame.QUIET, "concurrency_id": "heavy"}
    draw = {"fn": show, "inputs": inputs, "outputs": result, **heavy}

    def on(event: Any, handler: Any, given: tuple[str, ...], set_to: tuple[str, ...]) -> None:
        event(handler, [form[n] for n in given], [form[n] for n in set_to], **frame.QUIET).then(
            **draw
        )

    reset = ("breaks", "hidden", "revealed", "pick", "forward", "files")
    on(form["patient"].input, other_patient, ("patient", "breaks"), reset)
    on(result.act, acted, ("patient", "hidden"), ("hidden", "revealed", "breaks", "pick"))
    on(result.row, lens.chosen_row, (), ("pick",))
    files = [form[name].change for name in ("checkpoint", "params", "traces")]
    changes = [form["breaks"].input, form["forward"].input, *files]
    gr.on(changes, trigger_mode="always_last", **draw)
    result.zoom(zoomed, inputs, closer, **heavy)
    form["go"].click(
        repaired,
        inputs,
        form["saved"],
        api_visibility="private",
        concurrency_id="heavy",
        concurrency_limit=1,
    )
    asked = [form[name] for name in ("patient", "breaks", "hidden")]
    menus = (lambda p, b, h: menu(p, b, guess=bool(h)), asked, [form["breaks"]])
    return frame.Built([form[name] for name in RECIPE], show, inputs, result, menus)


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe, given = read(*values)
    patient = patient_of(recipe, given)
    found = patient.diagnosis()
    return lens.zoomed_part(pictures(found.leaves[picked(recipe, found)], patient), event)
