"""Whether the layers of a list are in another order, or counted otherwise than in the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from porting.doctor.places import Form, Number
from porting.doctor.sequences import differing, order_of, turned
from porting.doctor.series import SURE, Series
from porting.mapping.names import words

FEW = 0.5  #: a share of leaves in other layers that the numbers of the others speak against
PLAIN = 3  #: of so few layers any order may be meant
ANY = ("layer",)  #: the words of a name that any list may have
MISTAKES = {"shifted", "sorted"}  #: orders that nobody counts in

Steps = list[tuple[Number, Number]]


def misplaced(series: Series) -> bool:
    """Whether leaves are in other layers, and not merely counted otherwise here.

    Where most leaves keep their layer, the others should. Where most do not, it takes lists that
    are counted after the same word, or an order in which layers are often taken by mistake.
    """
    known = list(series.known())
    moved = [(rank, min(held)) for rank, held in known if rank not in held]
    if len(moved) <= FEW * len(known):
        return bool(moved)
    here, there = sorted(series.here), series.numbers
    mine = [(here[a], here[b]) for a, b in moved]
    theirs = [(there[a], there[b]) for a, b in moved]
    orders = {order_of(mine, here, SURE), order_of(theirs, there, SURE)}
    mistaken = len(here) > PLAIN and bool(orders & MISTAKES)
    forms = (series.form, differing(mine)), (series.other, differing(theirs))
    one, other = (_words(*form) for form in forms)
    near, far = (_words(*form, outer=True) for form in forms)
    alike = one == other or (bool(near & far) and not turned(mine, here))
    return series.complete() and (mistaken or alike)


def otherwise(series: Series) -> Series | None:
    """The list with its layers as they are counted here, if that is another order than there.

    An upsampling path is counted from either end. Every layer must hold one of the source.
    """
    usual = series.usual()
    if usual.keys() != set(series.here.values()) or len(set(usual.values())) < len(usual):
        return None
    if all(rank == held for rank, held in usual.items()) or not series.complete():
        return None
    return replace(series, here={number: usual[rank] for number, rank in series.here.items()})


def _words(form: Form, places: Sequence[int], outer: bool = False) -> set[str]:
    """The words that some numbers of a form follow.

    The inner lists of lists (`stages.1.0`) have no word of their own.

    Args:
        outer: whether a word for any list at all (`layers`) tells less than the one before it.

    >>> _words(("stages", "#", "#"), [1]), _words(("features", "norm#"), [0])
    ({'stage'}, {'norm'})
    >>> sorted(_words(("tail", "layers", "#"), [0], outer=True))
    ['layer', 'tail']
    """
    names: list[tuple[str, ...]] = []
    last: tuple[str, ...] = ()
    for part in form:
        own = words(part.rstrip("#"))
        if part[-1:] == "#":
            last = own or last
            names.append(last)
        else:
            last = (*own, *last) if outer and own == ANY else own
    return {word for place in places for word in names[place]}
