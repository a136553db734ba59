"""What was found out about a place that parts, in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from porting.errors import number_of
from porting.trace.comparison import Site, StageResult
from porting.trace.questions import Choice, Problem
from porting.trace.recurrence_table import KIND
from porting.trace.tables import VARIANTS
from porting.trace.variants import notable
from porting.trace.wiring import Rewired

#: status of a leaf -> what is said of it
LEAVES = {
    "wrong_layout": "has the wrong layout",
    "wrong_source": "holds another tensor",
    "changed": "has other values",
    "unported": "was not ported",
    "missing": "is missing",
    "ambiguous": "cannot be told from its data",
}


#: The same of several leaves, where the words differ.
MANY = {
    "wrong_layout": "have the wrong layout",
    "wrong_source": "hold other tensors",
    "changed": "have other values",
    "missing": "are missing",
    "unported": "were not ported",
    "ambiguous": "cannot be told from their data",
}
#: A title that names the fault -> what the option is called beside a value of it.
CALLED = {
    "training mode": "the statistics",
    "1 + w": "the factor",
    "a square kernel": "the kernel",
    "the factor √width": "the factor of the rows",
    "a rotation in bfloat16": "the precision of the rotation",
    "the update gate, turned round": "the update gate",
}
#: Values that need a gloss.
VALUES = {
    "1/√d": "1/√d, d the width of a head",
    "1/d": "1/d, d the width of a head",
    "1/√width": "1/√width, the width of all heads together",
    "half-split": "half-split (the first half of a head turns with the second)",
    "interleaved": "interleaved (neighbouring features turn together)",
    "only q": "only the queries",
    "only k": "only the keys",
    "q and k": "the queries and the keys",
    "w": "the weight",
    "1 + w": "1 + the weight",
    "z keeps the old state": "z is the share of the old state",
    "z takes the new state": "z is the share of the new state",
    "repeat": "each key head repeated for its neighbours",
    "tile": "all key heads repeated in turn",
    "running": "the running ones",
    "SAME_LOWER": "SAME_LOWER (more before than behind)",
}
GATE_NAMES = dict(
    zip("ifgorzn", ["input", "forget", "cell", "output", "reset", "update", "new"], strict=True)
)
GATE_ORDER = "the order of the gates"
FEW = 3  #: leaves of one kind that are named one by one


def said(problem: Problem, choice: Choice, options: set[str]) -> str:
    """A choice in words: an expression for what stands between, else the options that matter."""
    if problem.layer == "between":
        return str(choice["formula"])
    if problem.layer == "ids":
        return str(choice["ids"])
    named = {o: v for o, v in choice.items() if o in options} or notable(problem, choice)
    if problem.layer == KIND and len(named) == len(choice):
        return "the layer as its library has it"
    titles = {row.option: row.title for row in VARIANTS if row.layer == problem.layer}
    words = [option_in_words(titles[o], value) for o, value in named.items()]
    if len(words) > 1 and named == choice and not options:
        return f"what is usual ({', '.join(words)})"
    return " and ".join(words)


def option_in_words(title: str, value: object) -> str:
    """One option and its value, for somebody who does not know the names of either.

    >>> option_in_words("epsilon", 1e-5), option_in_words("the order of the gates", "rzn")
    ('epsilon = 1e-05', 'the order of the gates: reset, update, new')
    """
    called = CALLED.get(title, title)
    if isinstance(value, (int, float)):
        return f"{called} = {value:g}"
    if title == GATE_ORDER:
        return f"{called}: {', '.join(GATE_NAMES[gate] for gate in str(value))}"
    return f"{called}: {VALUES.get(str(value), value)}"


def text(
    row: StageResult,
    site: Site,
    verdict: str,
    faults: tuple[str, ...],
    restores: tuple[str, ...],
    does: tuple[str, ...],
    statuses: Mapping[str, str],
) -> str:
    """One place that parts: what kind of fault, which leaves, and which variant restores it.

    Args:
        row, site: the stage, and what surrounds it.
        verdict: "weight", "code", "weight and code" or "undecided".
        faults: the choices in which candidate and reference differ.
        restores: the variants of the candidate's code that restore parity.
        does: what the candidate computes.
        statuses: its leaves' path -> status of the diagnosis.
    """
    heads = {
        "weight": "a weight fault",
        "code": "a code fault",
        "weight and code": "a weight fault and a code fault",
        "undecided": "a fault; without a diagnosis of its leaves, weight or code is open",
    }
    lines = [f"{row.stage}: {heads[verdict]}; {site}."]
    wrong = _of_leaves(statuses)
    lines += [f"Of its leaves, {', '.join(wrong)}."] if wrong else []
    if statuses and not wrong:
        lines.append("Its leaves are all right.")
    if restores and not faults and restores == does:
        if wrong:
            return " ".join([*lines, "With the right leaves its code restores parity."])
        return " ".join([*lines, f"Both fit {restores[0]}: too near each other to tell."])
    if faults:
        lines.append(f"What differs: {', '.join(faults)}.")
    if len(restores) > 1:
        lines.append(f"Several variants restore parity: {'; '.join(restores)}.")
    elif restores:
        lines.append(f"Parity is restored by {restores[0]}.")
    elif verdict != "weight":
        lines.append("None of the known variants restores parity.")
    else:
        lines.append("No variant of its code restores parity with these leaves: one is wrong.")
        if does and not statuses:
            lines.append(
                f"Its code computes {' or '.join(does)}; whether the reference means that too "
                "cannot be told before its leaves are right, so a code fault may hide behind."
            )
    if does and verdict != "weight":
        lines.append(f"The candidate computes {' or '.join(does)}.")
    return " ".join(lines)


def _of_leaves(statuses: Mapping[str, str]) -> list[str]:
    """What is wrong with leaves; many of one kind as their number and the first of them."""
    kinds: dict[str, list[str]] = {}
    for path, status in statuses.items():
        if status != "ok":
            kinds.setdefault(status, []).append(path)
    few = {s: [f"{p} {LEAVES[s]}" for p in paths] for s, paths in kinds.items()}
    many = {s: [f"{len(p)} {MANY[s]} ({p[0]} first)"] for s, p in kinds.items()}
    return [line for s in kinds for line in (few[s] if len(few[s]) <= FEW else many[s])]


def moved(stage: str, one: Rewired) -> str:
    """Norms in another place of a block, and what each place of it is fed with."""
    lines = [f"{stage}: a code fault; it shows at {number_of(len(one.wires), 'place')}."]
    lines.append(f"What differs: {one.title}.")
    lines.append(f"The reference has {one.restores}; the candidate has {one.does}.")
    for wire in one.wires:
        if wire.wanted is not None and wire.given is not None:
            where = "Its output" if wire.site.slot == "output" else f"The input of {wire.site.path}"
            lines.append(f"{where} should be {wire.wanted}, and is {wire.given}.")
    return " ".join(lines)


def together(texts: list[tuple[str, str]]) -> str:
    """The text of the first stage, and where else the same is found.

    >>> together([("a", "a: epsilon."), ("b", "b: epsilon.")])
    'a: epsilon. The same at b.'
    """
    others = dict.fromkeys(stage for stage, _ in texts[1:])
    return texts[0][1] + (f" The same at {', '.join(others)}." if others else "")
