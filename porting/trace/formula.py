"""What stands between two layers, as a formula: outer(a × b + c …), said and compared."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from porting.trace.looks import PLAIN, Look

NONE = "no activation"
JOINED = "how the parts are joined"
ORDER = "the order of the activation and the sum"
THEN = ", then "  #: joins what is laid side by side
JOINS = rf" \+ |{THEN}"
#: kind of a look -> what a difference in it is called
LOOKS = {
    "": "how the positions and features are laid out",
    "axes": "the order of the axes",
    "shift": "which position is read",
    "positions": "how positions are pooled or resized",
    "pool": "how positions are pooled or resized",
    "flatten": "the order in which the image is flattened",
    "part": "which part of the features is which",
}


@dataclass(frozen=True)
class Factor:
    """activation(look(name)); `name` may be a sum, `a + b`."""

    name: str
    look: Look = PLAIN
    activation: str = NONE

    def __str__(self) -> str:
        text = self.look.of(f"({self.name})" if THEN in self.name else self.name)
        if self.activation == NONE:
            return text
        return f"{self.activation} of " + (f"({text})" if " + " in text else text)


@dataclass(frozen=True)
class Term:
    """Factors multiplied with each other and with a number, which may have a name."""

    factors: tuple[Factor, ...]
    times: str = ""

    def __str__(self) -> str:
        text = " × ".join(map(str, self.factors))
        return f"{text} × {self.times}" if self.times else text

    @property
    def names(self) -> frozenset[str]:
        """The arrays that it is made of."""
        names = (n for f in self.factors for n in re.split(JOINS, f.name))
        return frozenset(name.partition(" [")[0] for name in names)


@dataclass(frozen=True)
class Formula:
    """outer(the sum of the terms).

    >>> act = Factor("fc", activation="ReLU")
    >>> str(Formula((Term((act,)), Term((Factor("x"),), "0.5"))))
    'ReLU of fc + x × 0.5'
    """

    terms: tuple[Term, ...]
    outer: str = NONE

    def __str__(self) -> str:
        text = " + ".join(map(str, self.terms))
        return text if self.outer == NONE else f"{self.outer} of ({text})"

    @property
    def names(self) -> frozenset[str]:
        """The arrays that it is made of."""
        return frozenset().union(*(term.names for term in self.terms))

    def distance(self, other: Formula) -> int:
        """How many terms, or the outer function, two formulas do not share."""
        apart = set(self.terms) ^ set(other.terms)
        return len(apart) + (self.outer != other.outer)


def titles(
    wanted: Formula, given: Formula, order: Sequence[str] = (), alone: Sequence[Set[str]] = ()
) -> list[str]:
    """What two formulas differ in.

    Args:
        wanted: of the reference.
        given: of the candidate.
        order: the arrays from the earliest to the latest: what is added to a later one is the
            residual.
        alone: the arrays that only the reference has, and those that only the candidate has.

    >>> x, y = Term((Factor("x"),)), Term((Factor("attn"),))
    >>> titles(Formula((x, y)), Formula((y,)))
    ['a missing residual']
    >>> titles(Formula((x, y)), Formula((x, replace(y, times="0.5"))))
    ['the factor 0.5']
    """
    if wanted == given:
        return []
    inner = [{f.activation for t in one.terms for f in t.factors} for one in (wanted, given)]
    if (
        wanted.outer != given.outer
        and (wanted.outer in inner[1] or given.outer in inner[0])
        and NONE in (wanted.outer, given.outer)
        and wanted.names == given.names
        and len(wanted.names) > 1
    ):
        return [ORDER]
    mine, theirs = (set(f.terms) for f in (wanted, given))
    lost, more = sorted(mine - theirs, key=str), sorted(theirs - mine, key=str)
    named = _paired(wanted, given, lost, more)
    if named is not None:
        return named
    lone = [bool(f.names & names) for f, names in zip((wanted, given), alone, strict=False)]
    if lone in ([True, False], [False, True]):
        return ["a layer that is left out" if lone[0] else "a layer too many"]
    if lone == [True, True]:
        return ["a layer that has no like in the other model"]
    both = [any(THEN in f.name for t in one.terms for f in t.factors) for one in (wanted, given)]
    if all(both) and (wanted.names <= given.names or given.names <= wanted.names):
        return [JOINED]
    if wanted.names == given.names and len(wanted.names) > 1:
        kinds = {f: any(len(t.factors) > 1 for t in f.terms) for f in (wanted, given)}
        if kinds[wanted] != kinds[given]:
            return [
                "a sum in place of a product" if kinds[wanted] else "a product in place of a sum"
            ]
        return [ORDER]
    if given.names < wanted.names:
        return [_missing("missing", wanted, given, order)]
    if wanted.names < given.names:
        return [_missing("too many", given, wanted, order)]
    return ["the order of the layers"]


def _paired(
    wanted: Formula, given: Formula, lost: list[Term], more: list[Term]
) -> list[str] | None:
    """The titles where each term has its like on the other side, made of the same arrays."""
    theirs = {term.names: term for term in more}
    if len(lost) != len(more) or {t.names for t in lost} != set(theirs):
        return None
    found = ["the activation"] if wanted.outer != given.outer else []
    for term in lost:
        found += _within(term, theirs[term.names])
    return list(dict.fromkeys(found)) or None


def _within(a: Term, b: Term) -> list[str]:
    found = []
    if a.times != b.times:
        found.append(f"the factor {' or '.join(filter(None, (a.times, b.times)))}")
    by_name = {f.name: f for f in b.factors}
    both = [(f, by_name[f.name]) for f in a.factors if f.name in by_name]
    if len(both) < len(a.factors):
        joined = [[f.name for f in t.factors if THEN in f.name] for t in (a, b)]
        if not all(joined):
            return [*found, ORDER]
        bare = [[n.partition(" [")[0] for n in names[0].split(THEN)] for names in joined]
        return [*found, LOOKS["pool"] if bare[0] == bare[1] else JOINED]
    acts = [(one.activation, other.activation) for one, other in both]
    if len(acts) > 1 and acts[0][0] != acts[0][1] and acts[0] == acts[1][::-1]:
        return [*found, "the gate, exchanged with what it is multiplied by"]
    found += ["the activation"] if any(x != y for x, y in acts) else []
    for one, other in both:
        if one.look != other.look:
            kind = one.look.kind or other.look.kind
            order = [f.look.words.partition(",")[0] for f in (one, other)]
            found.append(LOOKS["pool" if kind == "flatten" and order[0] == order[1] else kind])
    return found


def _missing(how: str, longer: Formula, shorter: Formula, order: Sequence[str]) -> str:
    """What one side has more: a residual (what came before), a part, or what multiplies."""
    apart = set(longer.terms) - set(shorter.terms), set(shorter.terms) - set(longer.terms)
    gates = any(s.names < t.names and len(t.factors) > 1 for s in apart[1] for t in apart[0])
    place = {name: at for at, name in enumerate(order)}
    more = min(place.get(name, -1) for name in longer.names - shorter.names)
    later = more > max((place.get(name, -1) for name in shorter.names), default=-1)
    thing = "gate" if gates else "part of the sum" if later else "residual"
    return f"a missing {thing}" if how == "missing" else f"a {thing} too many"


def plainly(formula: Formula) -> Formula:
    """A formula with ReLU(x) and x of one array as a leaky ReLU, and a sum as one of terms.

    >>> x, y = Term((Factor("fc", activation="ReLU"),), "0.9"), Term((Factor("fc"),), "0.1")
    >>> str(plainly(Formula((x, y))))
    'leaky ReLU (0.1) of fc'
    """
    first = formula.terms[0].factors[0]
    if len(formula.terms) == len(formula.terms[0].factors) == 1 and " + " in first.name:
        terms = tuple(Term((Factor(name),)) for name in first.name.split(" + "))
        return formula if formula.terms[0].times else Formula(terms, first.activation)
    if len(formula.terms) != 2:
        return formula
    bent, line = sorted(formula.terms, key=lambda t: t.factors[0].activation != "ReLU")
    (first, *_), (second, *_) = bent.factors, line.factors
    alike = replace(first, activation=NONE) == second and len(bent.factors + line.factors) == 2
    numbers = [t.times.replace(".", "").isdigit() for t in (bent, line)]
    if first.activation != "ReLU" or not alike or not all(numbers):
        return formula
    slope = float(line.times)
    if abs(float(bent.times) + slope - 1) > 1e-3:
        return formula
    act = f"leaky ReLU ({slope:.4g})"
    return replace(formula, terms=(Term((replace(first, activation=act),)),))
