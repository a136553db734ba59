"""What the tab *Doctor* shows: the patient, the diagnosis, and the riddle."""

from __future__ import annotations

import json
from typing import Any

from porting.breaks import BREAKS
from porting.doctor import Diagnosis, Finding, LeafVerdict
from porting.errors import number_of
from porting.figures.leaf import drawable, leaf_infos
from porting.figures.matrix import MatrixInfo
from porting.figures.origin import origin_of
from porting.figures.stages import chart_height, stage_chart
from porting.figures.trace import trace_bars
from porting.models import MODELS
from porting.trace import Forward, Trace, TraceComparison, compare_traces
from porting.ui import lens
from porting.ui.address import to_query
from porting.ui.doctor_work import (
    DoctorView,
    Given,
    Patient,
    forward_of,
    patient_of,
    regression_test,
    traces_given,
)
from porting.verdict import Verdict

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


def view(recipe: DoctorView, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    patient = patient_of(recipe, given)
    found = patient.diagnosis()
    pick = picked(recipe, found)
    if recipe.asks:
        return _riddle(recipe, patient, found, pick, traces_given(recipe, given, patient))
    run = forward_of(recipe, given, patient, found)
    rows = [_finding(f, found) for f in found.findings]
    rows += [_code(text) for text in run.code] if run else []
    blocks = [
        lens.findings("findings", "Findings", rows),
        *_leaf_by_leaf(found, pick, patient),
        *(_stages(run.comparison, _of_weights(run)) if run else []),
        lens.code("report", "To take along", exports(patient, found, run)),
    ]
    shipped = recipe.patient in MODELS
    link = to_query("doctor", recipe) if shipped else None
    return lens.column(_verdict(found, recipe, run), blocks, link, _actions(recipe))


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
        lens.tree("tree", "Leaf by leaf", columns, rows, selected=pick, event="row", share=0.4),
        _picture(pictures(found.leaves[pick], patient), 0.6, pick),
        *(_stages(compare_traces(*traces)) if traces else []),
    ]
    value = lens.column(None, blocks, to_query("doctor", recipe), _actions(recipe))
    value["verdict"] = {
        "kind": "plain",
        "title": "What is wrong here?",
        "text": "Two ways to break a port were drawn and put into this model. Look at its leaves, "
        "tick your guess among the controls, then reveal what the doctor finds.",
    }
    return value


def _verdict(found: Diagnosis, recipe: DoctorView, run: Forward | None) -> Verdict:
    wrong = sum(v.wrong for v in found.leaves.values())
    total = number_of(len(found.leaves), "leaf")
    unsure = found.counts.get("ambiguous", 0)
    rest = f" Of {number_of(unsure, 'leaf')} the data cannot tell." if unsure else ""
    if not wrong:
        kind = "unsure" if unsure else "code" if run and run.parts else "exact"
        sure = f"{len(found.leaves) - unsure:,} of {total}" if unsure else f"All {total}"
        held = f"{sure} hold what they should, bit for bit."
        return Verdict(kind, f"{held}{rest}{_outputs(run, True)}{_put_in(recipe)}")
    proved = sum(bool(v.fix) for v in found.leaves.values() if v.wrong)
    verb = "is" if wrong == 1 else "are"
    count = number_of(len(found.findings), "finding")
    tried = (
        "Each has a fix that was tried and gives the right leaf bit for bit."
        if proved == wrong
        else f"{proved} of them have a fix that was tried and gives the right leaf bit for bit."
    )
    text = f"{wrong:,} of {total} {verb} wrong, in {count}.{rest} {tried}{_outputs(run, False)}{_put_in(recipe)}"
    layout = any(v.status in ("wrong_layout", "wrong_source") for v in found.leaves.values())
    return Verdict("silent" if layout else "values", text)


def _outputs(run: Forward | None, clean: bool) -> str:
    """What the traces add to the verdict on the leaves."""
    if run is None or run.comparison.verdict == "unpaired":
        return ""
    if not run.parts:
        return " The forward pass agrees with its reference."
    faults = number_of(len(run.code), "fault")
    if clean:
        where = f": {faults} in the code" if run.code else ""
        return f" The outputs part from the reference all the same{where}."
    return f" The traces show {faults} in the code besides." if run.code else ""


def _of_weights(run: Forward) -> str:
    """What the chart is told under it: all that the findings do not say."""
    causes = run.explanation.sentences()
    if not causes:
        return run.explanation.report()
    return "\n".join(text for verdict, text in causes if verdict == "weight")


def _code(text: str) -> dict[str, Any]:
    """A fault that the traces show, as a finding without a leaf."""
    return {"title": text, "status": "wrong", "leaves": [], "fix": "", "all": "", "count": 0}


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


def _leaf_by_leaf(found: Diagnosis, pick: str, patient: Patient) -> list[dict[str, Any] | None]:
    """The tree, and beside it what the chosen leaf is, should be, and how it gets there."""
    verdict = found.leaves[pick]
    infos = pictures(verdict, patient)
    return [
        _tree(found, pick),
        lens.facts("leaf", pick, _facts(verdict), share=0.6, prose=True),
        lens.inside("leaf", _picture(infos, 1.0)),
    ]


def _tree(found: Diagnosis, pick: str) -> dict[str, Any]:
    rows = []
    for path, v in found.leaves.items():
        status = TONES.get(v.status, "wrong")
        cells = [path, lens.mark(WORDS[v.status], status)]
        rows.append({"key": path, "cells": cells, "status": status})
    columns = ("Flax leaf", "Status")
    title = "Leaf by leaf"
    return lens.tree("tree", title, columns, rows, selected=pick, event="row", share=0.4)


def _facts(v: LeafVerdict) -> list[tuple[str, ...]]:
    """What a leaf holds, what it should hold where that differs, and its fix."""
    holds = (
        f"{v.source} by {v.rule}" if v.source and v.rule else v.source or "Nothing of the source"
    )
    wanted = f"{v.expected_source} by {v.expected_rule}" if v.expected_source else ""
    rows = [
        ("Verdict", v.note or f"{WORDS[v.status].capitalize()}, bit for bit."),
        ("Holds", holds, "code"),
        ("Should hold", wanted if wanted != holds else "", "code"),
        ("Fix", v.fix or "", "code"),
    ]
    return [row for row in rows if row[1]]


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


def _picture(infos: list[MatrixInfo], share: float, title: str = "") -> dict[str, Any]:
    if not infos:
        words = "There is no picture: the names do not tell what this leaf should hold."
        return lens.note("pictures", words, share=share)
    legend = ("value", "value", infos[0].limit)
    found = lens.matrices("pictures", title, infos, legend=legend, share=share)
    return found or {}


def _stages(comparison: TraceComparison, said: str = "") -> list[dict[str, Any] | None]:
    bars = trace_bars(comparison)
    title = "Where the forward pass parts"
    if not bars:
        return [lens.note("stages", f"{title}: no two stages of these traces belong together.")]
    return [lens.chart("stages", title, stage_chart(bars), chart_height(bars), said)]


def exports(patient: Patient, found: Diagnosis, run: Forward | None) -> list[tuple[str, str]]:
    """What can be taken along: the report in two forms, and a test."""
    text, data = found.report(), found.to_dict()
    if run:
        text, data = f"{text}\n\n{run.report()}", data | {"forward": run.to_dict()}
    return [
        ("Report", text),
        ("JSON", json.dumps(data, indent=2, ensure_ascii=False)),
        ("Regression test", regression_test(patient)),
    ]
