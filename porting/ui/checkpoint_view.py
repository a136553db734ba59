"""What the tab *Checkpoint* shows: a recipe and what was given -> the column of the lens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from porting.errors import number_of
from porting.examples import EXAMPLES
from porting.figures.chips import rule_chips
from porting.figures.histogram import histogram, sketch, spread
from porting.figures.leaf import drawable, leaf_infos
from porting.figures.matrix import MatrixInfo, array_info
from porting.figures.scales import symmetric_limit
from porting.mapping import NO_PLACE, Mapping
from porting.questions import alike, gloss, reading_text
from porting.tree import leaves
from porting.ui import lens
from porting.ui.address import to_query
from porting.ui.checkpoint_work import UPLOAD, CheckpointView, Given, Work, work
from porting.verdict import Verdict

HISTOGRAMS = 2_000  #: as many tensors of one file get a small histogram in the tree
UNPACKED = 2**24  #: and so many bytes, where the format has to be unpacked to be read


def view(recipe: CheckpointView, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    with work(recipe, given) as at:
        leaf, tensor = at.leaf(recipe.pick), at.tensor(recipe.tensor)
        title, verdict = _read_verdict(at) if at.mapping is None else _mapping_verdict(at.mapping)
        blocks = [*_mapping_blocks(at, given, leaf), *_file_blocks(at, tensor)]
        if at.mapping is not None:
            rules = at.mapping.to_rules()
            blocks.append(lens.code("rules", "The mapping as a file", [("TOML", rules)]))
        column = lens.column(verdict, blocks, _link(recipe))
    column["verdict"]["title"] = title
    return column


def pictures(at: Work, recipe: CheckpointView) -> list[MatrixInfo]:
    """The matrices of the leaf and of the tensor that are in the pictures."""
    return _leaf_infos(at, at.leaf(recipe.pick)) + _tensor_infos(at, at.tensor(recipe.tensor))


def _leaf_infos(at: Work, pick: str) -> list[MatrixInfo]:
    leaf = at.mapping.leaves.get(pick) if at.mapping else None
    return [] if leaf is None else leaf_infos(leaf, at.checkpoint)


def _tensor_infos(at: Work, key: str) -> list[MatrixInfo]:
    if not key:
        return []
    array = drawable(at.checkpoint[key])
    return [array_info("tensor", key, "tensor", array, limit=symmetric_limit(array))]


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


def _file_blocks(at: Work, tensor: str) -> list[dict[str, Any] | None]:
    """The tree of the file, and beside it the tensor that was chosen."""
    infos = _tensor_infos(at, tensor)
    tree = _tensor_tree(at.checkpoint, tensor, share=0.6 if infos else 1.0)
    if not infos:
        return [tree]
    legend = ("value", "value", infos[0].limit)
    counted = spread(drawable(at.checkpoint[tensor]))
    note = f"{counted.odd:,} numbers are NaN or infinite." if counted.odd else ""
    bars = lens.chart("spread", "How its numbers are spread", histogram(counted), 220, note)
    picture = lens.matrices("tensor", tensor, infos, legend=legend, share=0.4)
    return [tree, picture, lens.inside("tensor", bars)]


def _tensor_tree(checkpoint: Any, selected: str, share: float) -> dict[str, Any]:
    specs = checkpoint.specs
    mapped = checkpoint.format.startswith(("safetensors", "PyTorch"))
    sketched = len(specs) <= HISTOGRAMS and (mapped or checkpoint.nbytes <= UNPACKED)
    rows = []
    for key, spec in specs.items():
        cells = [key, str(tuple(spec.shape)), str(spec.dtype), f"{spec.nbytes:,}"]
        cells += [lens.bars(sketch(checkpoint[key]))] if sketched else []
        rows.append({"key": key, "cells": cells})
    columns = ["Tensor", "Shape", "dtype", "Bytes", *(["Values"] if sketched else [])]
    return lens.tree(
        "tensors",
        "In the file",
        columns,
        rows,
        sums=(3,),
        selected=selected,
        event="row",
        share=share,
    )


def _mapping_blocks(at: Work, given: Given, pick: str) -> list[dict[str, Any] | None]:
    if at.mapping is None:
        return []
    return [_question(at, given, pick), _mapping_table(at, pick), *_leaf_blocks(at, pick)]


def _question(at: Work, given: Given, pick: str) -> dict[str, Any] | None:
    """The readings of the leaf in the picture, if it was a question."""
    options = at.asked.get(pick)
    if not options:
        return None
    chosen = dict(given.answers).get(pick)
    texts = [lens.pair(reading_text(option), gloss(option)) for option in options]
    others = len(alike(at.asked, pick))
    return lens.choices("read", f"How is {pick} read?", texts, chosen, alike=others)


def _mapping_table(at: Work, pick: str) -> dict[str, Any]:
    shapes = {path: str(tuple(leaf.shape)) for path, leaf in leaves(at.target).items()}
    mapping: Any = at.mapping
    rows = [_leaf_row(leaf, shapes[path], at.checkpoint) for path, leaf in mapping.leaves.items()]
    for path, why in mapping.unmapped.items():
        cells = [lens.pair(path, shapes[path]), lens.pair("", why), "", lens.mark("open", "wrong")]
        rows.append({"key": "", "at": path, "cells": cells, "status": "wrong"})
    for key, why in mapping.unused.items():
        status = "wrong" if why == NO_PLACE else "open"
        cells = ["", lens.pair(key, why), "", lens.mark("not used", status)]
        rows.append({"key": "", "cells": cells, "status": status})
    columns = ("Flax leaf", "From", "Rule", "Status")
    title = "Which tensor goes where"
    return lens.tree("mapping", title, columns, rows, selected=pick, event="row", share=0.64)


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
    infos = _leaf_infos(at, pick)
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
        note=_sentence(leaf.reason),
    )
    sizes = infos[0].grid.sizes if infos[0].grid else np.shape(infos[0].values)
    chips = rule_chips(leaf.rule, sizes)
    rule = lens.rule("rule", "The rule: which axis goes where", chips, ("PyTorch", "Flax"))
    return [picture, lens.inside("mapping", rule)]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
