"""Weight fault, code fault or noise: what a comparison of traces comes to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from porting.errors import PortingError, checked
from porting.trace.attention_table import KINDS
from porting.trace.comparison import Site, StageResult, TraceComparison
from porting.trace.formula import Formula
from porting.trace.owned import leaves_of, unseen
from porting.trace.problems import active_dropouts, problems, repeated
from porting.trace.questions import Budget, Choice, Problem
from porting.trace.sentences import moved, said, text, together
from porting.trace.variants import differences, fitting
from porting.trace.wiring import Wire, rewired


class Verdict(Protocol):
    """What a leaf's diagnosis must have."""

    @property
    def status(self) -> str: ...


class Diagnosis(Protocol):
    """What a diagnosis of leaves must have; `porting.doctor` makes one."""

    @property
    def leaves(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Cause:
    """Why one place of one stage parts.

    Attributes:
        stage: the candidate's stage.
        reference: the reference's stage.
        site: where it parts.
        verdict: `weight`, `code`, `weight and code`, or `undecided`.
        faults: what the two do differently ("epsilon", "the mask"); empty where unknown.
        restores: the choices that give the reference's output on these leaves.
        does: the choices that give the candidate's output.
        leaves: leaf path -> its status in the diagnosis, for the leaves of this stage.
        text: all of it in sentences.
        formulas: what feeds the place in the reference and in the candidate, where that is known.
    """

    stage: str
    reference: str
    site: Site
    verdict: str
    faults: tuple[str, ...]
    restores: tuple[str, ...]
    does: tuple[str, ...]
    leaves: Mapping[str, str]
    text: str
    formulas: tuple[Formula | None, Formula | None] = field(default=(None, None), repr=False)


@dataclass(frozen=True)
class Explanation:
    """The causes, in the order in which the forward pass goes wrong.

    Attributes:
        causes: one for each place that parts by itself.
        verdict: `same`, `noise`, `weight`, `code`, `weight and code` or `undecided`.
    """

    causes: tuple[Cause, ...]
    verdict: str

    def sentences(self) -> tuple[tuple[str, str], ...]:
        """Verdict and text of the causes; one that repeats in other layers names them."""
        groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for cause in self.causes:
            where = f"{cause.stage} {cause.site.slot} {cause.site.path}"
            like = re.sub(r"\d+", "0", re.sub(r"#\d+", "", where))  # a later call is no other layer
            groups.setdefault((cause.verdict, like, *cause.faults), []).append(
                (cause.stage, cause.text)
            )
        return tuple((key[0], together(texts)) for key, texts in groups.items())

    def report(self) -> str:
        """The causes as text, or that there is none."""
        if not self.causes:
            return {
                "same": "The port computes what its reference computes.",
                "noise": "Rounding explains every difference: no fault.",
                "unpaired": "No stage was paired: nothing can be said.",
            }.get(self.verdict, "An error is seen; no stage could be judged by itself.")
        return "\n".join(text for _, text in self.sentences())


def explain(comparison: TraceComparison, diagnosis: Diagnosis | None = None) -> Explanation:
    """What is wrong at every stage that parts: its leaves, or its code.

    A stage whose leaves are all right in the diagnosis and which parts has a code fault. The
    known variants are tried on it: what restores parity with the same leaves is named.

    Args:
        comparison: of `compare_traces`; its candidate should know its leaves.
        diagnosis: the leaves' verdicts by the candidate's leaf paths; without one a weight
            fault can only be told where the variants settle it.

    Returns:
        An `Explanation`.

    >>> import numpy as np
    >>> from porting.trace import Stage, Trace, compare_traces
    >>> x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    >>> def run(y): return Trace("linen", (Stage("act", "Gelu", "", 1, 2, {"0": x}, {"": y}),))
    >>> result = explain(compare_traces(run(np.tanh(x)), run(np.maximum(x, 0))))
    >>> result.verdict, result.causes[0].restores
    ('code', ('tanh of its own input',))
    """
    checked("comparison", comparison, TraceComparison, "Pass what compare_traces returns.")
    meant, budget = dict[str, Choice](), Budget()
    right = _right_leaves(comparison, diagnosis)
    places = [(row, site) for row in comparison.parting for site in row.sites]
    places.sort(key=lambda place: comparison.when(place[1]))
    causes: list[Cause] = []
    for row, site in places:
        before = [c.site for c in causes if c.stage == row.stage and c.site.slot == "input"]
        if not before or not _repeats(comparison, site, before):
            cause = _cause(comparison, row, site, diagnosis, meant, right, budget)
            # an output at the side that follows from what was found says nothing more
            if site.main or cause.faults or not any(c.stage == row.stage for c in causes):
                causes.append(cause)
    causes = _merged(comparison, causes)
    found = {word for cause in causes for word in cause.verdict.split(" and ")}
    if not causes:
        return Explanation((), comparison.verdict)
    known = [word for word in ("weight", "code") if word in found]
    return Explanation(tuple(causes), " and ".join(known) or "undecided")


def _right_leaves(
    comparison: TraceComparison, diagnosis: Diagnosis | None
) -> dict[str, np.ndarray]:
    """The leaves that are wrong, as they should be, where the reference kept its own."""
    found: dict[str, np.ndarray] = {}
    for path, verdict in diagnosis.leaves.items() if diagnosis is not None else ():
        row = getattr(verdict, "row", None)
        if row is not None and verdict.status not in ("ok", "ambiguous"):
            with contextlib.suppress(PortingError):
                found[path] = row.apply(comparison.reference.leaves)
    return found


def _repeats(comparison: TraceComparison, site: Site, before: Sequence[Site]) -> bool:
    """Whether both models make this place alike of one that parted before: no new fault."""
    for mean, does in repeated(comparison, site, before):
        given = fitting(does)
        return any(choice in given for choice in fitting(mean))
    return False


def _cause(
    comparison: TraceComparison,
    row: StageResult,
    site: Site,
    diagnosis: Diagnosis | None,
    meant: dict[str, Choice],
    right: Mapping[str, np.ndarray],
    budget: Budget,
) -> Cause:
    wanted: list[tuple[Problem, Choice]] = []
    given: list[tuple[Problem, Choice]] = []
    used: set[str] = set()
    for mean, does in problems(comparison, site, right):
        used |= set(mean.leaves) | set(does.leaves)
        answers = _answers(mean, does, meant, budget)
        wanted, given = answers if all(answers) or not any((wanted, given)) else (wanted, given)
        if all(answers):
            break
    options = {o for _, a in wanted for _, b in given for o in a if a[o] != b[o]}
    apart = [d for p, a in wanted[:1] for q, b in given[:1] for d in differences(p, a, q, b)]
    hidden = _hidden(comparison, row, site) if not (wanted and given) else []
    statuses = _statuses(comparison, row, site, diagnosis, {*used, *hidden})
    verdict = _verdict(statuses, [v for _, v in apart], bool(wanted), given, hidden)
    restores = tuple(dict.fromkeys(said(p, c, options) for p, c in wanted))
    makes = tuple(dict.fromkeys(said(p, c, options) for p, c in given))
    on = active_dropouts(comparison, row.stage) if site.slot == "output" or not given else []
    faults = (*(title for title, _ in apart), *(["a dropout that is on"] if on else []))
    lines = text(row, site, verdict, faults, restores, makes, statuses)
    fed = _formula(wanted), _formula(given)
    return Cause(
        row.stage, str(row.reference), site, verdict, faults, restores, makes, statuses, lines, fed
    )


def _formula(answers: Sequence[tuple[Problem, Choice]]) -> Formula | None:
    return answers[0][1].get("formula") if answers else None


def _merged(comparison: TraceComparison, causes: Sequence[Cause]) -> list[Cause]:
    """The causes, those that norms in another place have inside one block as one."""
    found = list(causes)
    for stage in dict.fromkeys(cause.stage for cause in causes):
        inside = {id(c.site): c for c in causes if c.stage == stage and not _of_another_kind(c)}
        wires = [Wire(c.site, *c.formulas) for c in inside.values()]
        one = rewired(comparison, wires)
        if one is None:
            continue
        shown = [inside[id(wire.site)] for wire in one.wires]
        faults, first = (one.title,), shown[0]
        whole = replace(
            first, verdict="code", faults=faults, restores=(one.restores,), does=(one.does,),
            text=moved(first.stage, one),
        )  # fmt: skip
        # What is wrong after the first only follows from it.
        rest = [c for c in inside.values() if c.formulas[0] is None or c in shown]
        found = [whole if c is first else c for c in found if c is first or c not in rest]
    return found


def _of_another_kind(cause: Cause) -> bool:
    """Whether a cause is about a layer itself, or about what no wire can explain."""
    return bool(cause.faults) and cause.formulas == (None, None)


def _answers(
    mean: Problem, does: Problem, meant: dict[str, Choice], budget: Budget
) -> tuple[list[tuple[Problem, Choice]], list[tuple[Problem, Choice]]]:
    """What fits the reference and what fits the candidate, as near to each other as can be.

    What a layer of the same kind was found to mean, and to do, is tried first: a model
    repeats itself.
    """
    before = meant.get(mean.layer)
    wanted = fitting(mean, before, budget) if before else []
    wanted = wanted or fitting(mean, None, budget)
    again = meant.get(f"{does.layer} of the candidate") if before in wanted else None
    given = fitting(does, again, budget) if again else []
    given = given or fitting(does, wanted[0] if wanted else None, budget)
    if given and not wanted:
        wanted = fitting(mean, given[0], budget)
    if wanted and mean.layer in KINDS:
        meant[mean.layer] = wanted[0]
        meant |= {f"{does.layer} of the candidate": choice for choice in given[:1]}
    return _nearest([(mean, choice) for choice in wanted], [(does, choice) for choice in given])


def _nearest(
    wanted: list[tuple[Problem, Choice]], given: list[tuple[Problem, Choice]]
) -> tuple[list[tuple[Problem, Choice]], list[tuple[Problem, Choice]]]:
    """Of what fits either side, the choices that differ least from one of the other side."""

    def apart(a: Choice, others: list[tuple[Problem, Choice]]) -> int:
        return min((sum(_distance(a[o], b[o]) for o in a) for _, b in others), default=0)

    def best(mine: list[tuple[Problem, Choice]], others: list[tuple[Problem, Choice]]):
        least = min((apart(c, others) for _, c in mine), default=0)
        return [(p, c) for p, c in mine if apart(c, others) == least]

    return best(wanted, given), best(given, wanted)


def _distance(a: Any, b: Any) -> int:
    return a.distance(b) if isinstance(a, Formula) else int(a != b)


def _hidden(comparison: TraceComparison, row: StageResult, site: Site) -> list[str]:
    """The leaves that may be at fault though no stage shows them (a scan, a table read)."""
    trace = comparison.candidate
    if not trace.leaves and site.slot == "output":
        return [row.stage]  # which leaves it has is not known
    return unseen(trace, row.stage, comparison.matches)


def _statuses(
    comparison: TraceComparison,
    row: StageResult,
    site: Site,
    diagnosis: Diagnosis | None,
    used: set[str],
) -> dict[str, str]:
    """The diagnosis of the leaves that can matter at this site, those `used` elsewhere too."""
    if diagnosis is None:
        return {}
    trace = comparison.candidate
    paths = list(leaves_of(trace, row.stage).values())
    if site.slot == "output" and not any(
        row.stage in trace.ancestors(p) for p in comparison.matches
    ):
        module = trace.stage(row.stage).module
        paths = [p for p in diagnosis.leaves if f"/{module}/" in f"/{p}"] or paths
    paths += [p for p in diagnosis.leaves if p in used or p.partition("/")[2] in used]
    return {p: str(diagnosis.leaves[p].status) for p in paths if p in diagnosis.leaves}


def _verdict(
    statuses: Mapping[str, str],
    rows: list[str],
    restored: bool,
    given: list[tuple[Problem, Choice]],
    hidden: Sequence[str],
) -> str:
    """Leaves and variants weighed: a variant that restores parity proves the leaves right."""
    wrong = [s for s in statuses.values() if s not in ("ok", "ambiguous")]
    code = restored and "weight" not in rows
    if wrong:
        return "weight and code" if code and rows else "weight"
    if statuses and all(s == "ok" for s in statuses.values()):
        return "code"
    if restored and not (hidden and not given):
        return "weight" if "weight" in rows else "code"
    if any(problem.leaves for problem, _ in given):
        return "weight"
    return "undecided" if hidden else "code"
