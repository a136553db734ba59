"""What the tab *Checkpoint* shows: a recipe and what was given -> the column of the lens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting import limits
from porting.checkpoint import open_checkpoint
from porting.errors import ArgumentError, number_of
from porting.examples import EXAMPLES
from porting.figures.chips import rule_chips
from porting.figures.histogram import histogram, spread
from porting.figures.leaf import drawable, leaf_infos
from porting.figures.matrix import MatrixInfo, array_info
from porting.figures.scales import symmetric_limit
from porting.mapping import NO_PLACE, Mapping, infer_mapping
from porting.models import MODELS
from porting.questions import answered, reading_text, readings
from porting.tree import leaves
from porting.ui import lens
from porting.ui.address import to_query
from porting.verdict import Verdict

UPLOAD, HUB, NOTHING = "upload", "hub", "none"
SOURCES = {**{k: e.title for k, e in EXAMPLES.items()}, UPLOAD: "Upload", HUB: "Hugging Face Hub"}
TARGETS = {
    **{k: m.title for k, m in MODELS.items()},
    UPLOAD: "Upload parameters",
    NOTHING: "None: only look",
}


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


@dataclass(frozen=True)
class Given:
    """What the form holds beside the recipe.

    Attributes:
        files: the uploaded checkpoint, or all its shards.
        hub: the name of a repository.
        params: the uploaded parameters of a Flax model.
        answers: target path -> which reading the person chose.
    """

    files: tuple[str, ...] = ()
    hub: str = ""
    params: str | None = None
    answers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Work:
    """A checkpoint on its way into a model.

    Attributes:
        checkpoint: open.
        target: what the mapping aims at; None where the person only looks.
        asked: the readings of every leaf that was a question.
        mapping: with the person's answers; None without a target.
    """

    checkpoint: Any
    target: Any = None
    asked: dict[str, tuple[Any, ...]] | None = None
    mapping: Mapping | None = None

    def picked(self, pick: str) -> str:
        """The leaf or tensor in the picture: the wanted one, a question, or the first."""
        if self.mapping is None:
            first = iter(self.checkpoint.specs)
            return pick if pick in self.checkpoint.specs else next(first, "")
        if pick in self.mapping.leaves:
            return pick
        return next(iter([*self.mapping.unsure, *(self.asked or ()), *self.mapping.leaves]), "")


@contextmanager
def work(recipe: CheckpointView, given: Given) -> Iterator[Work]:
    """The checkpoint, the target and the mapping of a recipe; both files close at the end.

    Raises:
        PortingError: a file is missing or refused, or an answer fits no question.
    """
    with _source(recipe, given) as checkpoint:
        if recipe.target == NOTHING:
            yield Work(checkpoint)
        elif recipe.target in MODELS:
            yield _mapped(checkpoint, MODELS[recipe.target].target(), given)
        else:
            with _params(given) as target:
                yield _mapped(checkpoint, target, given)


def _mapped(checkpoint: Any, target: Any, given: Given) -> Work:
    found = infer_mapping(checkpoint, target)
    return Work(checkpoint, target, readings(found), answered(found, dict(given.answers)))


def _source(recipe: CheckpointView, given: Given) -> Any:
    if recipe.source in EXAMPLES:
        return open_checkpoint(EXAMPLES[recipe.source].path)
    if recipe.source == HUB:
        name = given.hub.strip().removeprefix("hf://")
        if not name:
            raise ArgumentError(
                "There is no name yet. Write the name of a repository, as in owner/name."
            )
        return open_checkpoint(f"hf://{name}", max_bytes=limits.FILE_BYTES)
    if not given.files:
        raise ArgumentError(
            "There is no checkpoint yet. Upload a file, or all shards with their index."
        )
    files = given.files if len(given.files) > 1 else given.files[0]
    return open_checkpoint(files, max_bytes=limits.FILE_BYTES)


def _params(given: Given) -> Any:
    if not given.params:
        raise ArgumentError(
            "There are no parameters yet. Upload the parameters of your Flax model."
        )
    return open_checkpoint(given.params, max_bytes=limits.FILE_BYTES)


def view(recipe: CheckpointView, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    with work(recipe, given) as at:
        pick = at.picked(recipe.pick)
        title, verdict = _read_verdict(at) if at.mapping is None else _mapping_verdict(at.mapping)
        blocks = _tensor_blocks(at, pick) if at.mapping is None else _blocks(at, given, pick)
        column = lens.column(verdict, blocks, _link(recipe))
    column["verdict"]["title"] = title
    return column


def pictures(at: Work, pick: str) -> list[MatrixInfo]:
    """The matrices of the leaf or tensor in the picture."""
    if at.mapping is None:
        if pick not in at.checkpoint.specs:
            return []
        array = drawable(at.checkpoint[pick])
        return [array_info("tensor", pick, "tensor", array, limit=symmetric_limit(array))]
    leaf = at.mapping.leaves.get(pick)
    return [] if leaf is None else leaf_infos(leaf, at.checkpoint)


def _link(recipe: CheckpointView) -> str | None:
    shareable = recipe.source in EXAMPLES and recipe.target != UPLOAD
    return to_query("checkpoint", recipe) if shareable else None


def _read_verdict(at: Work) -> tuple[str, Verdict]:
    specs = at.checkpoint.specs
    kinds = Counter(str(spec.dtype) for spec in specs.values())
    text = f"{number_of(len(specs), 'tensor')}, {at.checkpoint.nbytes:,} bytes, "
    text += f"{at.checkpoint.format}; {', '.join(f'{n} {kind}' for kind, n in kinds.items())}."
    return "Read as data only", Verdict("exact", " ".join([text, *at.checkpoint.notes]))


def _mapping_verdict(mapping: Mapping) -> tuple[str, Verdict]:
    total = number_of(len(mapping.leaves) + len(mapping.unmapped), "leaf")
    text = f"{len(mapping.leaves) - len(mapping.unsure)} of {total} are sure"
    if mapping.unmapped or mapping.left_over:
        text += (
            f"; {number_of(len(mapping.unmapped), 'leaf')} of the model open, and "
            f"{number_of(len(mapping.left_over), 'tensor')} of the file without a place. "
            "Choose the model that belongs to this checkpoint."
        )
        return "Does not fit", Verdict("values", text)
    if mapping.unsure:
        path, leaf = next(iter(mapping.unsure.items()))
        text += f"; {number_of(len(mapping.unsure), 'question')} left. {path}: {leaf.reason}. "
        text += "Choose its reading below."
        return "A question for you", Verdict("unsure", text)
    excused = len(mapping.unused) - len(mapping.left_over)
    left = f", but for {number_of(excused, 'tensor')} left out with a reason" if excused else ""
    text += f" and every tensor is used{left}. Port and save to have the parameters as a file."
    return "Every leaf has its tensor", Verdict("exact", text)


def _tensor_blocks(at: Work, pick: str) -> list[dict[str, Any] | None]:
    table = _tensor_table(at.checkpoint, selected=pick, share=0.55)
    infos = pictures(at, pick)
    if not infos:
        return [table]
    legend = ("value", "value", infos[0].limit)
    counted = spread(drawable(at.checkpoint[pick]))
    note = f"{counted.odd:,} numbers are NaN or infinite." if counted.odd else ""
    bars = lens.chart("spread", "How its numbers are spread", histogram(counted), 220, note)
    picture = lens.matrices("tensor", pick, infos, legend=legend, share=0.45)
    return [table, picture, lens.inside("tensor", bars)]


def _blocks(at: Work, given: Given, pick: str) -> list[dict[str, Any] | None]:
    return [
        _question(at, given, pick),
        _mapping_table(at, pick),
        *_leaf_blocks(at, pick),
        _tensor_table(at.checkpoint),
        lens.code("rules", "The mapping as a file", [("TOML", at.mapping.to_rules())]),  # type: ignore[union-attr]
    ]


def _question(at: Work, given: Given, pick: str) -> dict[str, Any] | None:
    """The readings of the leaf in the picture, if it was a question."""
    options = (at.asked or {}).get(pick)
    if not options:
        return None
    chosen = dict(given.answers).get(pick)
    texts = [reading_text(option) for option in options]
    return lens.choices("read", f"How is {pick} read?", texts, chosen)


def _tensor_table(checkpoint: Any, **options: Any) -> dict[str, Any]:
    rows = [
        {"key": key, "cells": [key, str(tuple(spec.shape)), str(spec.dtype), f"{spec.nbytes:,}"]}
        for key, spec in checkpoint.specs.items()
    ]
    columns = ("Tensor", "Shape", "dtype", "Bytes")
    event = "row" if options else ""
    return lens.table("tensors", "In the file", columns, rows, event=event, **options)


def _mapping_table(at: Work, pick: str) -> dict[str, Any]:
    shapes = {path: str(tuple(leaf.shape)) for path, leaf in leaves(at.target).items()}
    mapping: Any = at.mapping
    rows = [_leaf_row(leaf, shapes[path], at.checkpoint) for path, leaf in mapping.leaves.items()]
    for path, why in mapping.unmapped.items():
        cells = [lens.pair(path, shapes[path]), lens.pair("", why), "", lens.mark("open", "wrong")]
        rows.append({"key": "", "cells": cells, "status": "wrong"})
    for key, why in mapping.unused.items():
        status = "wrong" if why == NO_PLACE else "open"
        cells = ["", lens.pair(key, why), "", lens.mark("not used", status)]
        rows.append({"key": "", "cells": cells, "status": status})
    columns = ("Flax leaf", "From", "Rule", "Status")
    title = "Which tensor goes where"
    return lens.table("mapping", title, columns, rows, selected=pick, event="row", share=0.64)


def _leaf_row(leaf: Any, shape: str, checkpoint: Any) -> dict[str, Any]:
    status = "ok" if leaf.confident else "unsure"
    before = ", ".join(str(tuple(checkpoint.specs[key].shape)) for key in leaf.sources)
    joined = "" if leaf.join.name == "only" else f"{leaf.join.name} of "
    cells = [
        lens.pair(leaf.path, shape),
        lens.pair(joined + ", ".join(leaf.sources), before),
        lens.pair(*str(leaf.rule).partition("; ")[::2]),
        lens.mark("sure" if leaf.confident else "a question", status),
    ]
    return {"key": leaf.path, "cells": cells, "status": status}


def _leaf_blocks(at: Work, pick: str) -> list[dict[str, Any] | None]:
    infos = pictures(at, pick)
    if not infos:
        return []
    leaf = at.mapping.leaves[pick]  # type: ignore[union-attr]
    legend = ("value", "value", infos[0].limit)
    picture = lens.matrices(
        "leaf",
        pick,
        infos,
        legend=legend,
        motion=("source", "needed"),
        share=0.36,
        note=leaf.reason.rstrip(".") + ".",
    )
    sizes = infos[0].grid.sizes if infos[0].grid else np.shape(infos[0].values)
    chips = rule_chips(leaf.rule, sizes)
    rule = lens.rule("rule", "The rule: which axis goes where", chips, ("PyTorch", "Flax"))
    return [picture, lens.inside("mapping", rule)]
