"""The tab *Checkpoint*: a whole checkpoint read, mapped onto a Flax model, ported and saved."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from porting import limits
from porting.checkpoint import open_checkpoint, save_params
from porting.errors import ArgumentError, number_of
from porting.examples import EXAMPLES
from porting.figures.chips import rule_chips
from porting.figures.histogram import histogram, spread
from porting.figures.leaf import leaf_infos
from porting.figures.matrix import array_info, tile
from porting.mapping import NO_PLACE, infer_mapping, port_checkpoint
from porting.mapping import Mapping as PortMapping
from porting.models import MODELS
from porting.tree import leaves
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import as_toast, in_lens
from porting.verdict import Verdict

UPLOAD, HUB, NOTHING = "upload", "hub", "none"
SOURCES = {**{k: e.title for k, e in EXAMPLES.items()}, UPLOAD: "Upload", HUB: "Hugging Face Hub"}
TARGETS = {
    **{k: m.title for k, m in MODELS.items()},
    UPLOAD: "Upload parameters",
    NOTHING: "None: only look",
}
KINDS = (".safetensors", ".json", ".pt", ".pth", ".bin", ".npz", ".npy", ".msgpack")
FORMATS = (".safetensors", ".msgpack", ".npz")


@dataclass(frozen=True)
class CheckpointView:
    """The recipe of the tab: what a link holds.

    Attributes:
        source: an example, "upload" or "hub".
        target: a model, "upload" or "none".
        pick: the target leaf, or the tensor, whose picture is open; "" for the first.
    """

    source: str = "mtcnn_rnet"
    target: str = "rnet-linen"
    pick: str = ""


RECIPE = tuple(CheckpointView.__dataclass_fields__)


@dataclass(frozen=True)
class Given:
    """What the form holds beside the recipe: files, a Hub name, and the person's answers."""

    files: tuple[str, ...] = ()
    hub: str = ""
    params: str | None = None
    answers: tuple[tuple[str, int], ...] = ()


def _open(recipe: CheckpointView, given: Given) -> Any:
    if recipe.source in EXAMPLES:
        return open_checkpoint(EXAMPLES[recipe.source].path)
    if recipe.source == HUB:
        if not given.hub.strip():
            raise ArgumentError(
                "There is no name yet. Write the name of a repository, as in owner/name."
            )
        return open_checkpoint(
            f"hf://{given.hub.strip().removeprefix('hf://')}", max_bytes=limits.FILE_BYTES
        )
    if not given.files:
        raise ArgumentError(
            "There is no checkpoint yet. Upload a file, or all shards with their index."
        )
    files = given.files if len(given.files) > 1 else given.files[0]
    return open_checkpoint(files, max_bytes=limits.FILE_BYTES)


def _target(recipe: CheckpointView, given: Given) -> Any:
    if recipe.target in MODELS:
        return MODELS[recipe.target].target()
    if recipe.target == NOTHING:
        return None
    if not given.params:
        raise ArgumentError(
            "There are no parameters yet. Upload the parameters of your Flax model."
        )
    return open_checkpoint(given.params, max_bytes=limits.FILE_BYTES)


def _mapping(checkpoint: Any, target: Any, given: Given) -> PortMapping:
    """The inferred mapping with the person's answers."""
    found = infer_mapping(checkpoint, target)
    for path, choice in given.answers:
        leaf = found.leaves.get(path)
        if leaf is None:
            continue
        readings = (leaf, *leaf.alternatives)
        found = found.choose(path, readings[min(choice, len(readings) - 1)])
    return found


def view(recipe: CheckpointView, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    with _open(recipe, given) as checkpoint:
        target = _target(recipe, given)
        if target is None:
            return _inspect(recipe, given, checkpoint)
        mapping = _mapping(checkpoint, target, given)
        pick = (
            recipe.pick
            if recipe.pick in mapping.leaves
            else next(iter([*mapping.unsure, *mapping.leaves]), "")
        )
        blocks = [
            _mapping_table(mapping, checkpoint, target, pick),
            *_leaf_blocks(mapping, checkpoint, pick),
            lens.table("tensors", "In the file", *_tensor_rows(checkpoint), event="row"),
            lens.code("rules", "The mapping as a file", [("TOML", mapping.to_rules())]),
        ]
        value = lens.column(_mapping_verdict(mapping), blocks, _link(recipe))
        if mapping.unsure:
            value["verdict"]["title"] = "A question for you"
        return value


def _link(recipe: CheckpointView) -> str | None:
    shareable = recipe.source in EXAMPLES and recipe.target != UPLOAD
    return to_query("checkpoint", recipe) if shareable else None


def _inspect(recipe: CheckpointView, given: Given, checkpoint: Any) -> dict[str, Any]:
    specs = checkpoint.specs
    pick = recipe.pick if recipe.pick in specs else next(iter(specs), "")
    total = sum(spec.nbytes for spec in specs.values())
    kinds = ", ".join(
        f"{n} {kind}" for kind, n in Counter(str(s.dtype) for s in specs.values()).items()
    )
    text = f"{number_of(len(specs), 'tensor')}, {total:,} bytes, {checkpoint.format}. By dtype: {kinds}."
    blocks = [
        lens.table(
            "tensors",
            "In the file",
            *_tensor_rows(checkpoint),
            selected=pick,
            event="row",
            share=0.55,
        )
    ]
    if pick:
        array = _drawable(checkpoint[pick])
        info = array_info(
            "tensor", pick, "tensor", array, limit=float(np.nanmax(np.abs(array), initial=0)) or 1.0
        )
        blocks += [
            lens.matrices(
                "tensor", pick, [info], legend=("value", "value", info.limit), share=0.45
            ),
            lens.chart(
                "spread", "How its numbers are spread", histogram(spread(array)), 200, share=0.45
            ),
        ]
    return lens.column(Verdict("exact", text), blocks, _link(recipe)) | {
        "verdict": {
            "kind": "ok",
            "title": "Read as data only",
            "text": text,
            "fix": "",
            "detail": "",
        }
    }


def _drawable(array: Any) -> np.ndarray:
    return (
        np.asarray(array).astype(np.float32)
        if np.asarray(array).dtype.kind != "c"
        else np.abs(array)
    )


def _tensor_rows(checkpoint: Any) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    rows = [
        {"key": key, "cells": [key, str(tuple(spec.shape)), str(spec.dtype), f"{spec.nbytes:,}"]}
        for key, spec in checkpoint.specs.items()
    ]
    return ("Tensor", "Shape", "dtype", "Bytes"), rows


def _mapping_table(mapping: PortMapping, checkpoint: Any, target: Any, pick: str) -> dict[str, Any]:
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves(target).items()}
    rows = []
    for path, leaf in mapping.leaves.items():
        status = "ok" if leaf.confident else "unsure"
        before = ", ".join(str(tuple(checkpoint.specs[k].shape)) for k in leaf.sources)
        joined = "" if leaf.join.name == "only" else f"{leaf.join.name} of "
        cells = [
            lens.pair(path, str(shapes[path])),
            lens.pair(joined + ", ".join(leaf.sources), before),
            lens.pair(*str(leaf.rule).partition("; ")[::2]),
            lens.mark("sure" if leaf.confident else "a question", status),
        ]
        rows.append({"key": path, "cells": cells, "status": status})
    for path, why in mapping.unmapped.items():
        cells = [lens.pair(path, str(shapes.get(path, ""))), why, "", lens.mark("open", "wrong")]
        rows.append({"key": path, "cells": cells, "status": "wrong"})
    for key, why in mapping.unused.items():
        status = "wrong" if why == NO_PLACE else "open"
        cells = ["", lens.pair(key, why), "", lens.mark("not used", status)]
        rows.append({"key": "", "cells": cells, "status": status})
    columns = ("Flax leaf", "From", "Rule", "Status")
    title = "Which tensor goes where"
    return lens.table("mapping", title, columns, rows, selected=pick, event="row", share=0.64)


def _leaf_blocks(mapping: PortMapping, checkpoint: Any, pick: str) -> list[dict[str, Any] | None]:
    leaf = mapping.leaves.get(pick)
    if leaf is None:
        return []
    infos = leaf_infos(leaf, checkpoint)
    shape = leaf.join.forward(
        [np.broadcast_to(np.float32(1), checkpoint.specs[k].shape) for k in leaf.sources]
    ).shape
    sides = ("PyTorch", "Flax")
    return [
        lens.matrices(
            "leaf",
            pick,
            infos,
            legend=("value", "value", infos[0].limit),
            motion=("source", "needed"),
            share=0.36,
            note=leaf.reason,
        ),
        lens.rule("rule", "The rule: which axis goes where", rule_chips(leaf.rule, shape), sides),
    ]


def _mapping_verdict(mapping: PortMapping) -> Verdict:
    sure = len(mapping.leaves) - len(mapping.unsure)
    total = len(mapping.leaves) + len(mapping.unmapped)
    excused = len(mapping.unused) - len(mapping.left_over)
    text = f"{sure} of {number_of(total, 'leaf')} are sure"
    if mapping.unmapped or mapping.left_over:
        text += (
            f"; {number_of(len(mapping.unmapped), 'leaf')} open, and "
            f"{number_of(len(mapping.left_over), 'tensor')} without a place. The port needs both to be none."
        )
        return Verdict("values", text)
    if mapping.unsure:
        path, leaf = next(iter(mapping.unsure.items()))
        text += f"; {number_of(len(mapping.unsure), 'question')} for you. {path}: {leaf.reason}. Choose its reading beside."
        return Verdict("unsure", text)
    left = f"; {number_of(excused, 'tensor')} left out with a reason" if excused else ""
    return Verdict(
        "exact", f"{text}, every tensor is used{left}. Port it to have the parameters as a file."
    )


def read(
    source: str,
    target: str,
    pick: str | None,
    files: Any,
    hub: str | None,
    params: str | None,
    answers: Any,
) -> tuple[CheckpointView, Given]:
    """What the form holds, checked."""
    if source not in SOURCES or target not in TARGETS:
        raise ArgumentError("Choose a checkpoint and a target from the lists.")
    listed = tuple(files) if isinstance(files, (list, tuple)) else ((files,) if files else ())
    kept = tuple(sorted((str(k), int(v)) for k, v in (answers or {}).items()))
    return CheckpointView(source, target, pick or ""), Given(listed, hub or "", params, kept)


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(*read(*values))


def readings(*values: Any) -> Any:
    """The menu of readings for the leaf in the picture; hidden where there is one."""
    recipe, given = read(*values)
    try:
        with _open(recipe, given) as checkpoint:
            target = _target(recipe, given)
            found = infer_mapping(checkpoint, target) if target is not None else None
    except ValueError:
        found = None
    if found is None:
        return gr.update(visible=False)
    pick = recipe.pick if recipe.pick in found.leaves else next(iter(found.unsure), "")
    leaf = found.leaves.get(pick)
    if leaf is None or not leaf.alternatives:
        return gr.update(visible=False)
    menu = [(str(a).partition(" <- ")[2], i) for i, a in enumerate((leaf, *leaf.alternatives))]
    answered = dict(given.answers).get(pick)
    return gr.update(visible=True, choices=menu, value=answered, label=f"How to read {pick}")


def answer(choice: int | None, *values: Any) -> dict[str, int]:
    """The person's answers, with one more for the leaf in the picture."""
    recipe, given = read(*values)
    with _open(recipe, given) as checkpoint:
        found = infer_mapping(checkpoint, _target(recipe, given))
    pick = recipe.pick if recipe.pick in found.leaves else next(iter(found.unsure), "")
    return {**dict(given.answers), **({pick: int(choice)} if pick and choice is not None else {})}


@as_toast
def port_and_save(suffix: str, *values: Any, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
    """Port, write, read back, and hand over: the parameters, the rules, the script."""
    recipe, given = read(*values)
    if suffix not in FORMATS:
        raise ArgumentError(f"Choose one of {', '.join(FORMATS)}.")
    folder = Path(tempfile.mkdtemp(prefix="portlens-"))
    with _open(recipe, given) as checkpoint:
        target = _target(recipe, given)
        if target is None:
            raise ArgumentError("Choose a target first: the Flax model to port into.")
        progress(0.1, "Mapping")
        mapping = _mapping(checkpoint, target, given)
        progress(0.4, "Porting")
        variables, report = port_checkpoint(checkpoint, target, mapping)
        progress(0.7, "Writing and reading back")
        saved = folder / f"params{suffix}"
        save_params(saved, variables)
        kind = "nnx" if recipe.target.endswith("nnx") else "linen"
        rules, script = folder / "mapping.toml", folder / "port.py"
        rules.write_text(mapping.to_rules())
        script.write_text(report.code(kind))
    return gr.update(value=[str(saved), str(rules), str(script)], visible=True)


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components, the visible groups, the column."""
    recipe = from_query(CheckpointView(), query, {"source": EXAMPLES, "target": (*MODELS, NOTHING)})
    values = [getattr(recipe, name) for name in RECIPE]
    menu = readings(*values, None, "", None, {})
    return [*values, menu]


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    default = CheckpointView()
    with frame.tab_row():
        with frame.controls():
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
            )
            with gr.Group(visible=False) as hub_group:
                hub = gr.Textbox(label="Repository, owner/name", max_lines=1)
                fetch = gr.Button("Fetch", size="sm")
            target = gr.Radio(
                [(t, k) for k, t in TARGETS.items()],
                value=default.target,
                label="Flax model",
                elem_classes="pl-list",
            )
            params = gr.File(
                label="Parameters of your Flax model",
                file_types=list(KINDS),
                height=120,
                visible=False,
            )
            pick = gr.Textbox(default.pick, label="Leaf or tensor in the picture", max_lines=1)
            reading = gr.Radio([], label="How to read it", visible=False, elem_classes="pl-list")
            answers = gr.State({})
            with gr.Row():
                suffix = gr.Dropdown(list(FORMATS), value=FORMATS[0], label="Format", min_width=90)
            with gr.Row():
                go = gr.Button("Port and save", variant="primary", size="sm", min_width=90)
                stop = gr.Button("Cancel", size="sm", min_width=60)
            saved = gr.File(label="Parameters, mapping, script", visible=False, interactive=False)
        with frame.result():
            result = lens.Lens(elem_id="checkpoint-lens")
            closer = lens.Tile("checkpoint-lens")

    inputs = [source, target, pick, files, hub, params, answers]
    heavy = {**frame.QUIET, "concurrency_id": "heavy"}

    def shown(event: Any) -> Any:
        return event.then(show, inputs, result, **heavy).then(readings, inputs, reading, **heavy)

    for component, group in ((source, (files, hub_group)), (target, (params,))):
        shown(
            component.input(_visibility(len(group)), component, list(group), **frame.QUIET).then(
                lambda: ("", {}), None, [pick, answers], **frame.QUIET
            )
        )
    for change in (files.change, params.change, fetch.click):
        shown(change(lambda: ("", {}), None, [pick, answers], **frame.QUIET))
    shown(pick.submit(lambda: None, None, None, **frame.QUIET))
    shown(result.row(picked, None, pick, **frame.QUIET))
    reading.input(answer, [reading, *inputs], answers, **heavy).then(show, inputs, result, **heavy)
    result.zoom(zoomed, inputs, closer, **heavy)
    working = go.click(
        port_and_save,
        [suffix, *inputs],
        saved,
        concurrency_id="heavy",
        concurrency_limit=1,
        api_visibility="private",
    )
    stop.click(None, None, None, cancels=[working], **frame.QUIET)
    return frame.Built([source, target, pick, reading], show, inputs, result)


def _visibility(count: int) -> Any:
    """Which upload belongs to a choice."""
    wanted = (UPLOAD, HUB)[:count]
    return lambda chosen: (
        [gr.update(visible=chosen == w) for w in wanted]
        if count > 1
        else gr.update(visible=chosen == UPLOAD)
    )


def picked(event: gr.EventData) -> str:
    """A row of a table -> the leaf or tensor of the picture."""
    return str(event._data.get("key", ""))[: limits.NAME_CHARACTERS]


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    recipe, given = read(*values)
    asked = event._data
    with _open(recipe, given) as checkpoint:
        target = _target(recipe, given)
        if target is None:
            key = recipe.pick if recipe.pick in checkpoint.specs else next(iter(checkpoint.specs))
            infos = [array_info("tensor", "", "tensor", _drawable(checkpoint[key]))]
        else:
            mapping = _mapping(checkpoint, target, given)
            path = (
                recipe.pick
                if recipe.pick in mapping.leaves
                else next(iter([*mapping.unsure, *mapping.leaves]))
            )
            infos = leaf_infos(mapping.leaves[path], checkpoint)
        info = next((i for i in infos if i.key == asked.get("key")), None)
        if info is None:
            raise ArgumentError("There is no such picture.")
        return tile(info, tuple(asked["rows"]), tuple(asked["columns"]))
