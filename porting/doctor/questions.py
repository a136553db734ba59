"""What a leaf holds, found by its values: a chain of questions, the cheapest first.

Every question returns a `Holding` or None. Each match is exact, bit for bit; where a value
was changed on the way, within the rounding of the leaf's own type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from porting.doctor import altered, cuts, others, own
from porting.doctor.bits import canonical, constant
from porting.doctor.holding import Holding, Question

#: what is asked about a leaf, in order, and whether it takes a row that tells something
QUESTIONS: tuple[tuple[Callable[[Question], Holding | None], bool], ...] = (
    (own.own_cast, True),
    (others.by_other_leaf, False),
    (others.by_other_leaf_narrowed, False),
    (own.own_rearranged, True),
    (own.own_narrowed, True),
    (others.by_same_rule, False),
    (others.by_other_part, False),
    (others.by_print, False),
    (others.by_other_print, False),
    (own.own_part, True),
    (altered.own_changed, True),
    (altered.own_summed, True),
    (own.own_padded, True),
    (cuts.cut_elsewhere, True),
    (own.own_pieces, True),
    (own.own_narrowed_pieces, True),
    (cuts.own_cut, True),
    (own.own_partly, True),
    (altered.own_resized_changed, True),
    (altered.own_changed_rearranged, True),
    (others.other_leaf_changed, False),
    (others.other_pieces, False),
    (others.other_changed, False),
    (others.sum_of_two, False),
)


def questions(q: Question) -> Iterator[Holding | None]:
    """All that is asked about a leaf, in order."""
    own_tells = q.expected is not None and not constant(canonical(q.expected))
    if constant(q.bits):  # one number, as often as it stands there, tells no more than a cast
        yield None if own_tells else own.own_cast(q)
        return
    for ask, of_own in QUESTIONS:
        if own_tells or not of_own:
            yield ask(q)


def holding(q: Question) -> Holding | None:
    """The first answer, or None: nothing of the source is in this leaf."""
    return next((answer for answer in questions(q) if answer), None)
