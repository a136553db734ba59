"""The tab *Checkpoint*: a whole checkpoint read, mapped onto a Flax model, ported and saved."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from porting import limits
from porting.checkpoint import save_params
from porting.errors import ArgumentError, PortingError
from porting.examples import EXAMPLES
from porting.mapping import port_checkpoint
from porting.models import MODELS
from porting.questions import alike
from porting.ui import frame, lens
from porting.ui.address import from_query
from porting.ui.checkpoint_view import pictures, view
from porting.ui.checkpoint_work import (
    HUB,
    NOTHING,
    SOURCES,
    TARGETS,
    UPLOAD,
    CheckpointView,
    Given,
    work,
)
from porting.ui.messages import as_toast, in_lens

KINDS = (".safetensors", ".json", ".pt", ".pth", ".bin", ".npz", ".npy", ".msgpack")
FORMATS = (".safetensors", ".msgpack", ".npz")
#: no files to fetch, nothing to cancel
IDLE = gr.update(value=None, visible=False), gr.update(visible=False)


def read(
    source: str,
    target: str,
    pick: str | None,
    tensor: str | None,
    files: Any,
    hub: str | None,
    params: str | None,
    rules: str | None,
    answers: dict[str, int] | None,
) -> tuple[CheckpointView, Given]:
    """What the form holds, checked."""
    if source not in SOURCES or target not in TARGETS:
        raise ArgumentError("Choose a checkpoint and a target from the lists.")
    listed = tuple(files) if isinstance(files, (list, tuple)) else ((files,) if files else ())
    picks = ((text or "")[: limits.NAME_CHARACTERS] for text in (pick, tensor))
    recipe = CheckpointView(source, target, *picks)
    return recipe, Given(listed, hub or "", params, rules, tuple((answers or {}).items()))


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(*read(*values))


@as_toast
def answer(event: gr.EventData, *values: Any) -> tuple[str, dict[str, int]]:
    """A chosen reading -> the leaf it is for, and the person's answers with this one.

    The answer to one question is, if the person says so, the answer to all that are alike.
    """
    recipe, given = read(*values)
    choice = event._data.get("choice")
    with work(recipe, given) as at:
        pick = at.leaf(recipe.pick)
        if choice not in range(len(at.asked.get(pick, ()))):
            raise ArgumentError("This reading is not among those that are offered.")
        others = alike(at.asked, pick) if event._data.get("all") is True else []
    return pick, {**dict(given.answers), **dict.fromkeys([pick, *others], choice)}


def picked(event: gr.EventData) -> list[Any]:
    """A row of a table -> the leaf, or the tensor of the file, in the picture."""
    is_tensor = event._data.get("table") == "tensors"
    key = lens.chosen_row(event)
    return [gr.skip(), key] if is_tensor else [key, gr.skip()]


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe, given = read(*values)
    with work(recipe, given) as at:
        return lens.zoomed_part(pictures(at, recipe), event)


@as_toast
def port_and_save(
    suffix: str,
    *values: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> Iterator[Any]:
    """Port, write, read back, and hand over: the parameters, the rules, the script.

    Works in steps, so that a cancel stops it at the next one. The page takes copies of the
    files, which are deleted on time; the folder they were made in goes when this ends.
    """
    recipe, given = read(*values)
    if suffix not in FORMATS:
        raise ArgumentError(f"Choose one of {', '.join(FORMATS)}.")
    yield gr.update(value=None, visible=True), gr.update(visible=True)
    try:
        with tempfile.TemporaryDirectory(prefix="portlens-") as folder:
            for share, what, files in _steps(Path(folder), suffix, recipe, given):
                progress(share, desc=what)
                if files:
                    yield gr.update(value=[str(f) for f in files]), gr.update(visible=False)
                else:
                    yield gr.skip(), gr.skip()
    except PortingError:
        yield IDLE
        raise


def _steps(
    folder: Path, suffix: str, recipe: CheckpointView, given: Given
) -> Iterator[tuple[float, str, tuple[Path, ...]]]:
    """(share done, what comes next, the files once they are there)."""
    yield 0.1, "Reading and mapping", ()
    with work(recipe, given) as at:
        if at.mapping is None:
            raise ArgumentError("Choose a target first: the Flax model to port into.")
        yield 0.3, "Porting", ()
        variables, report = port_checkpoint(at.checkpoint, at.target, at.mapping)
        yield 0.5, "Writing and reading back", ()
        saved, rules, script = (folder / n for n in (f"params{suffix}", "mapping.toml", "port.py"))
        save_params(saved, variables)
    is_linen = any(path.startswith("params/") for path in at.mapping.leaves)
    name = at.checkpoint.files[0].name
    rules.write_text(at.mapping.to_rules(), encoding="utf-8")
    script.write_text(report.code("linen" if is_linen else "nnx", name), encoding="utf-8")
    yield 1.0, "Done", (saved, rules, script)


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets."""
    recipe = from_query(CheckpointView(), query, {"source": EXAMPLES, "target": (*MODELS, NOTHING)})
    picks = (query.get(name, "")[: limits.NAME_CHARACTERS] for name in ("pick", "tensor"))
    mapped = gr.update(visible=recipe.target != NOTHING)
    return [recipe.source, recipe.target, *picks, mapped, mapped]


def fitting(source: str, target: str) -> str:
    """The target to go on with when the checkpoint changes: a model that it fits."""
    if target in (NOTHING, UPLOAD):
        return target
    names = [name for name, model in MODELS.items() if model.checkpoint == source]
    return target if target in names else next(iter(names), NOTHING)


def source_changed(source: str, target: str) -> list[Any]:
    """Which uploads show, and what the change resets."""
    at = fitting(source, target)
    uploads = [gr.update(visible=source == name) for name in (UPLOAD, HUB)]
    return [*uploads, at, *target_changed(at)]


def target_changed(target: str) -> list[Any]:
    """Whether parameters are asked for and can be saved, and what the change resets."""
    mapped = gr.update(visible=target != NOTHING)
    return [gr.update(visible=target == UPLOAD), mapped, mapped, None, *_fresh()]


def _fresh() -> tuple[str, str, dict[str, int], Any]:
    """No leaf and no tensor chosen, no answers, no files of another port."""
    return "", "", {}, gr.update(value=None, visible=False)


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    with frame.tab_row():
        with frame.controls():
            source, files, hub, hub_group, fetch = _source_controls()
            target, params = _target_controls()
            ruling, rules = _rules_controls()
            pick = gr.Textbox("", label="Leaf in the picture", visible="hidden")
            tensor = gr.Textbox("", label="Tensor in the picture", visible="hidden")
            answers = gr.State({})
            with gr.Group() as saving:
                suffix = gr.Dropdown(list(FORMATS), value=FORMATS[0], label="Format", min_width=90)
                go = gr.Button("Port and save", variant="primary", size="sm")
                stop = gr.Button("Cancel", size="sm", visible=False)
                saved = gr.File(
                    label="Parameters, mapping, script",
                    visible=False,
                    interactive=False,
                    height=140,
                    elem_classes="pl-file",
                )
        with frame.result():
            result = lens.Lens(elem_id="checkpoint-lens")
            closer = lens.Tile("checkpoint-lens")

    inputs = [source, target, pick, tensor, files, hub, params, rules, answers]
    heavy = {**frame.QUIET, "concurrency_id": "heavy"}
    reset = [pick, tensor, answers, saved]
    aimed = [params, ruling, saving, rules, *reset]
    changes = [
        source.input(
            source_changed, [source, target], [files, hub_group, target, *aimed], **frame.QUIET
        ),
        target.input(target_changed, target, aimed, **frame.QUIET),
        *(c.change(_fresh, None, reset, **frame.QUIET) for c in (files, params, rules)),
        gr.on([fetch.click, hub.submit], _fresh, None, reset, **frame.QUIET),
        result.row(picked, None, [pick, tensor], **frame.QUIET),
        result.act(answer, inputs, [pick, answers], **heavy),
    ]
    for change in changes:
        change.then(show, inputs, result, **heavy)
    result.zoom(zoomed, inputs, closer, **heavy)
    _wire_port(go, stop, saved, [suffix, *inputs])
    return frame.Built([source, target, pick, tensor, ruling, saving], show, inputs, result)


def _source_controls() -> tuple[Any, ...]:
    default = CheckpointView()
    source = gr.Radio(
        [(t, k) for k, t in SOURCES.items()],
        value=default.source,
        label="Checkpoint",
        elem_classes="pl-list",
    )
    files = gr.File(
        label="A checkpoint, or all its shards",
        file_count="multiple",
        file_types=list(KINDS),
        height=120,
        visible=False,
        elem_classes="pl-file",
    )
    with gr.Group(visible=False) as group:
        hub = gr.Textbox(label="Repository, owner/name", max_lines=1)
        fetch = gr.Button("Fetch", size="sm")
    return source, files, hub, group, fetch


def _target_controls() -> tuple[Any, ...]:
    target = gr.Radio(
        [(t, k) for k, t in TARGETS.items()],
        value=CheckpointView().target,
        label="Flax model",
        elem_classes="pl-list",
    )
    params = gr.File(
        label="Parameters of your Flax model",
        file_types=list(KINDS),
        height=120,
        visible=False,
        elem_classes="pl-file",
    )
    return target, params


def _rules_controls() -> tuple[Any, Any]:
    with gr.Accordion("Overrule with a rules file", open=False) as group:
        rules = gr.File(
            label="mapping.toml, as this tab saves it, or JSON",
            file_types=[".toml", ".json"],
            height=100,
            elem_id="checkpoint-rules",
            elem_classes="pl-file",
        )
    return group, rules


def _wire_port(go: Any, stop: Any, saved: Any, inputs: list[Any]) -> None:
    """Port in steps, with a button that cancels while it runs."""
    running = go.click(
        port_and_save,
        inputs,
        [saved, stop],
        show_progress="full",
        show_progress_on=saved,
        concurrency_id="heavy",
        concurrency_limit=1,
        api_visibility="private",
    )
    stopped = stop.click(None, None, None, cancels=[running], **frame.QUIET)
    stopped.then(lambda: IDLE, None, [saved, stop], **frame.QUIET)
