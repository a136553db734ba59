"""Numbered places of names: which list of layers a leaf is in, and which of its members it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from porting.mapping.names import WRAPPERS, components
from porting.mapping.scores import number_words

Form = tuple[str, ...]  #: the components of a name up to a number, "#" for numbers
Number = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """One place of a name in a list, which may be a list of lists.

    Attributes:
        form: what all members of the list begin with.
        number: which member it is.
        rest: what it is within the member.
    """

    form: Form
    number: Number
    rest: Form


def places(name: str, leafward: bool = False) -> list[Place]:
    """The places of a name, the innermost list first; one that Flax counted is no list.

    Args:
        leafward: whether the number of a layer's own name (`norm1.weight`) is a place, too.

    >>> [("/".join(p.form), p.number, p.rest) for p in places("params/stages/1/blocks_0/bn1/scale")]
    [('stages/#/blocks/#', (1, 0), ('params', 'bn1', 'scale')), ('stages/#', (1,), ('params', 'blocks', '0', 'bn1', 'scale'))]
    >>> places("Dense_0/kernel")
    []
    """
    parts = components(name)
    begin = tuple(p for p in parts[:1] if p in ("params", "batch_stats"))
    parts = parts[len(begin) :]
    form: list[str] = []
    number: list[int] = []
    found = []
    for at, part in enumerate(parts[:-1]):
        if part in WRAPPERS:
            continue
        named = number_words(part)
        counted = part.isdigit() and bool(form) and form[-1][:1].isupper()
        own = named is not None and bool(named[0]) and at == len(parts) - 2
        if named is None or counted or (own and not leafward):
            form.append(part)
            continue
        form.append(f"{named[0].rstrip('_')}#")
        number.append(named[1])
        found.append(Place(tuple(form), tuple(number), (*begin, *parts[at + 1 :])))
    return found[::-1]


def ranks(numbers: Iterable[Number]) -> dict[Number, int]:
    """Number -> its place in the order of all.

    >>> ranks([(10,), (2,), (1,)])
    {(1,): 0, (2,): 1, (10,): 2}
    """
    return {number: rank for rank, number in enumerate(sorted(set(numbers)))}
