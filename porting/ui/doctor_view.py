"""What the tab *Doctor* shows: the patient, the diagnosis, and the riddle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from porting import limits
from porting.breaks import BREAKS, break_tree
from porting.checkpoint import open_checkpoint
from porting.doctor import Diagnosis, Finding, LeafVerdict, diagnose
from porting.errors import ArgumentError, number_of
from porting.examples import EXAMPLES
from porting.faults import Port
from porting.figures.leaf import drawable, leaf_infos
from porting.figures.matrix import MatrixInfo
from porting.figures.origin import origin_of
from porting.figures.stages import chart_height, stage_chart
from porting.figures.trace import trace_bars
from porting.mapping import Mapping as PortMapping
from porting.mapping import infer_mapping, port_checkpoint
from porting.models import MODELS, decided_mapping, traces_of
from porting.trace import Trace, compare_traces, explain, load_trace
from porting.tree import flatten
from porting.ui import lens
from porting.ui.address import to_query
from porting.verdict import Verdict

UPLOAD = "upload"
SHOWN = 8  #: leaves that one finding lists
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
        breaks: names of `BREAKS`, joined by commas: what is broken, or, in a riddle, the guess.
        hidden: the number of the riddle; 0 for none.
        revealed: whether the riddle's answer is shown.
        pick: the leaf in the picture; "" for the first that is wrong.
        forward: whether the right and the broken model are run and compared as well.
    """

    patient: str = "block-linen"
    breaks: str = "square,query_key"
    hidden: int = 0
    revealed: bool = False
    pick: str = ""
    forward: bool = False

    @property
    def chosen(self) -> list[str]:
        """The breaks that the person ticked."""
        return [name for name in self.breaks.split(",") if name in BREAKS]

    @property
    def names(self) -> list[str]:
        """The breaks to put in; those of a riddle are drawn by its number."""
        if not self.hidden:
            return self.chosen
        fitting = fitting_breaks(self.patient)
        drawn = np.random.default_rng(self.hidden).choice(fitting, 2, replace=False)
        return [name for name in fitting if name in drawn]

    @property
    def asks(self) -> bool:
        """Whether this is a riddle whose answer is not shown yet."""
        return bool(self.hidden) and not self.revealed


@dataclass(frozen=True)
class Given:
    """The files of the person."""

    checkpoint: tuple[str, ...] = ()
    params: str | None = None
    traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patient:
    """What the doctor looks at. Arrays are shared: do not write.

    Attributes:
        source: key -> array.
        ported: path -> array, as the person has it.
        mapping: what should be where, if it is known.
        file: the name of the checkpoint's file.
    """

    source: dict[str, np.ndarray]
    ported: dict[str, np.ndarray]
    mapping: PortMapping | None
    file: str

    def diagnosis(self) -> Diagnosis:
        """What is wrong with it."""
        return diagnose(self.source, self.ported, self.mapping)


@lru_cache(len(MODELS))
def _clean(model: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], PortMapping]:
    """The right leaves of a shipped model, its checkpoint and its mapping."""
    with open_checkpoint(EXAMPLES[MODELS[model].checkpoint].path) as checkpoint:
        source = {key: np.array(checkpoint[key]) for key in checkpoint}
    mapping = decided_mapping(model, source)
    variables, _ = port_checkpoint(source, MODELS[model].target(), mapping)
    return flatten(variables), source, mapping


def fitting_breaks(model: str) -> list[str]:
    """The breaks that change something in a model.

    >>> "height_width" in fitting_breaks("rnet-linen"), "query_key" in fitting_breaks("rnet-linen")
    (True, False)
    """
    port = Port(_clean(model)[0], dict)
    return [name for name, row in BREAKS.items() if row.fits(port)]


def patient_of(recipe: DoctorView, given: Given) -> Patient:
    """The shipped model, broken as the recipe says, or the files of the person.

    Raises:
        PortingError: a file is missing or cannot be read.
    """
    if recipe.patient in MODELS:
        leaves, source, mapping = _clean(recipe.patient)
        file = EXAMPLES[MODELS[recipe.patient].checkpoint].path.name
        return Patient(source, break_tree(leaves, recipe.names), mapping, file)
    if not given.checkpoint or not given.params:
        raise ArgumentError(
            "There are no files yet. Upload the original checkpoint and your Flax parameters."
        )
    files = given.checkpoint if len(given.checkpoint) > 1 else given.checkpoint[0]
    with (
        open_checkpoint(files, max_bytes=limits.FILE_BYTES) as source,
        open_checkpoint(given.params, max_bytes=limits.FILE_BYTES) as ported,
    ):
        arrays = {k: np.array(source[k]) for k in source}
        leaves = {k: np.array(ported[k]) for k in ported}
        return Patient(arrays, leaves, None, source.files[0].name)


def view(recipe: DoctorView, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    patient = patient_of(recipe, given)
    found = patient.diagnosis()
    pick = picked(recipe, found)
    traces = _traces(recipe, given, patient)
    if recipe.asks:
        return _riddle(recipe, patient, found, pick, traces)
    blocks = [
        lens.findings("findings", "Findings", [_finding(f, found) for f in found.findings]),
        _tree(found, pick),
        _picture(found.leaves[pick], pictures(found.leaves[pick], patient)),
        *_stages(traces, found),
        lens.code("report", "To take along", _exports(patient, found)),
    ]
    shipped = recipe.patient in MODELS
    link = to_query("doctor", recipe) if shipped else None
    return lens.column(_verdict(found, recipe), blocks, link, _actions(recipe))


def picked(recipe: DoctorView, found: Diagnosis) -> str:
    """The leaf in the picture: the wanted one, else the first that is wrong (in a riddle: the first)."""
    if recipe.pick in found.leaves:
        return recipe.pick
    wrong = [path for path, v in found.leaves.items() if v.wrong and not recipe.asks]
    return next(iter([*wrong, *found.leaves]))


def _actions(recipe: DoctorView) -> list[dict[str, Any]]:
    if recipe.patient not in MODELS:
        return []
    if not recipe.hidden:
        return [lens.action("riddle", "Give me a riddle")]
    first = [lens.action("reveal", "Reveal", True)] if recipe.asks else []
    return [*first, lens.action("riddle", "Another riddle"), lens.action("stop", "No riddle")]


def _riddle(
    recipe: DoctorView,
    patient: Patient,
    found: Diagnosis,
    pick: str,
    traces: tuple[Trace, Trace] | None,
) -> dict[str, Any]:
    """The same patient without a word of what is wrong."""
    rows = [
        {"key": path, "cells": [path, str(patient.ported[path].shape)]}
        for path in found.leaves
        if path in patient.ported
    ]
    columns = ("Flax leaf", "Shape")
    blocks = [
        lens.table("tree", "Leaf by leaf", columns, rows, selected=pick, event="row", short=True),
        _picture(found.leaves[pick], pictures(found.leaves[pick], patient)),
        *_stages(traces, None),
    ]
    value = lens.column(None, blocks, to_query("doctor", recipe), _actions(recipe))
    value["verdict"] = {
        "kind": "plain",
        "title": "What is wrong here?",
        "text": "Two ways to break a port were drawn and put into this model. Look at its leaves, "
        "tick your guess among the controls, then reveal what the doctor finds.",
    }
    return value


def _verdict(found: Diagnosis, recipe: DoctorView) -> Verdict:
    wrong = sum(v.wrong for v in found.leaves.values())
    total = number_of(len(found.leaves), "leaf")
    unsure = found.counts.get("ambiguous", 0)
    rest = f" Of {number_of(unsure, 'leaf')} the data cannot tell." if unsure else ""
    if not wrong:
        words = f"All {total} hold what they should, bit for bit."
        return Verdict("unsure" if unsure else "exact", f"{words}{rest}{_put_in(recipe)}")
    proved = sum(bool(v.fix) for v in found.leaves.values() if v.wrong)
    verb = "is" if wrong == 1 else "are"
    count = number_of(len(found.findings), "finding")
    tried = (
        "Each has a fix that was tried and gives the right leaf bit for bit."
        if proved == wrong
        else f"{proved} of them have a fix that was tried and gives the right leaf bit for bit."
    )
    text = f"{wrong:,} of {total} {verb} wrong, in {count}.{rest} {tried}{_put_in(recipe)}"
    layout = any(v.status in ("wrong_layout", "wrong_source") for v in found.leaves.values())
    return Verdict("silent" if layout else "values", text)


def _put_in(recipe: DoctorView) -> str:
    """What was broken here on purpose, and how much of it was guessed."""
    names = recipe.names if recipe.patient in MODELS else []
    if not names:
        return ""
    listed = ", ".join(f"“{BREAKS[n].title}”" for n in names)
    if not recipe.hidden:
        return f" Broken here on purpose: {listed}."
    right = len(set(recipe.chosen) & set(names))
    more = len(set(recipe.chosen) - set(names))
    beside = f", and {number_of(more, 'guess')} beside it" if more else ""
    return f" The riddle was: {listed}. You guessed {right} of {len(names)}{beside}."


def _finding(finding: Finding, found: Diagnosis) -> dict[str, Any]:
    """A finding as a sentence, the leaves that it does not name, and its fix, leaf by leaf."""
    fixes = {p: found.leaves[p].fix for p in finding.leaves if p in found.leaves}
    lines = [f'ported["{path}"] = {fix}' for path, fix in fixes.items() if fix]
    rest = [path for path in finding.leaves if path not in finding.title]
    more = len(rest) - SHOWN
    return {
        "title": finding.title,
        "status": SEVERITY[finding.severity],
        "leaves": rest[:SHOWN] + ([f"and {more:,} more"] if more > 0 else []),
        "fix": lines[0] if lines else finding.fix,
        "all": "\n".join(lines),
        "count": len(lines),
    }


def _tree(found: Diagnosis, pick: str) -> dict[str, Any]:
    rows = []
    for path, v in found.leaves.items():
        status = TONES.get(v.status, "wrong")
        cells = [
            lens.mark(WORDS[v.status], status),
            lens.pair(path, v.note),
            lens.pair(v.source or "nothing of the source", _by(v)),
        ]
        rows.append({"key": path, "cells": cells, "status": status})
    columns = ("Status", "Flax leaf", "It holds")
    return lens.table("tree", "Leaf by leaf", columns, rows, selected=pick, event="row", short=True)


def _by(v: LeafVerdict) -> str:
    """The rule of a leaf, and what it should be where that differs."""
    given = v.rule or ""
    should = [
        wanted
        for held, wanted in ((v.source, v.expected_source), (v.rule, v.expected_rule))
        if wanted and held != wanted
    ]
    return f"{given}{', ' if given else ''}should be {', '.join(should)}" if should else given


def pictures(verdict: LeafVerdict, patient: Patient) -> list[MatrixInfo]:
    """Source, given leaf and needed leaf, linked; nothing where the names do not tell."""
    row = verdict.row
    if row is None or any(k not in patient.source for k in row.sources):
        return []
    given = patient.ported.get(verdict.path)
    places = None
    if given is not None:
        joined = row.joined([drawable(patient.source[k]) for k in row.sources])
        places = origin_of(joined, drawable(given), verdict.rule)
    return leaf_infos(row, patient.source, given, places)


def _picture(verdict: LeafVerdict, infos: list[MatrixInfo]) -> dict[str, Any] | None:
    if not infos:
        words = "There is no picture: the names do not tell what this leaf should hold."
        return lens.note("leaf", words)
    legend = ("value", "value", infos[0].limit)
    return lens.matrices("leaf", verdict.path, infos, legend=legend)


def _traces(recipe: DoctorView, given: Given, patient: Patient) -> tuple[Trace, Trace] | None:
    """The reference's trace and the patient's: uploaded, or recorded on a shipped model."""
    if recipe.patient in MODELS:
        if not recipe.forward:
            return None
        right = _clean(recipe.patient)[0]
        return traces_of(recipe.patient, right), traces_of(recipe.patient, patient.ported)
    if not given.traces:
        return None
    if len(given.traces) != 2:
        raise ArgumentError(
            f"There {'is' if len(given.traces) == 1 else 'are'} "
            f"{number_of(len(given.traces), 'trace')}. Upload two, the reference first."
        )
    return load_trace(given.traces[0]), load_trace(given.traces[1])


def _stages(
    traces: tuple[Trace, Trace] | None, found: Diagnosis | None
) -> list[dict[str, Any] | None]:
    if traces is None:
        return []
    comparison = compare_traces(*traces)
    bars = trace_bars(comparison)
    said = explain(comparison, found).report() if found else ""
    title = "Where the forward pass parts"
    if not bars:
        return [lens.note("stages", f"{title}: no two stages of these traces belong together.")]
    return [lens.chart("stages", title, stage_chart(bars), chart_height(bars), said)]


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
        told = str(error).replace("\n", "\n# ")
        return f"# The mapping is not complete, so there is no test yet:\n# {told}\n"
    head = report.code("linen").partition('if __name__ == "__main__":')[0]
    return head + _TEST.format(file=patient.file)


_TEST = """def test_port_is_exact():
    source, params = load_file("{file}"), load_file("params.safetensors")
    for path, array in port(source).items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)
"""


def listed(names: Any) -> str:
    """The breaks of a form or a link, as a recipe holds them."""
    given = names.split(",") if isinstance(names, str) else list(names or [])
    return ",".join(name for name in given if name in BREAKS)


def broken(query: Mapping[str, str], default: DoctorView) -> str:
    """The breaks of a link."""
    return listed(query.get("breaks", default.breaks))
