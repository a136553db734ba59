"""Orders in which layers are taken by mistake: shifted by one, sorted as text, reversed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

Number = tuple[int, ...]
Step = tuple[Number, Number]  #: the numbers of what a leaf should be, and of what it is
Moves = dict[Number, Number]  #: what a layer should be -> what it is, of those that differ


def order_of(steps: Sequence[Step], members: Iterable[Number], sure: float = 1.0) -> str:
    """The name of the order that layers are in, "" if it has none.

    Args:
        steps: (numbers of what a leaf should be, of what it is), of the leaves that were moved.
        members: the numbers of all leaves; those in which no step differs do not count.
        sure: the share of the steps that must fit.

    >>> layers = [(n, 1) for n in range(4)]
    >>> order_of([((2, 1), (1, 1)), ((3, 1), (2, 1))], layers)
    'shifted'
    >>> order_of([((2, 1), (1, 1))], layers)
    ''
    """
    moves, layers = _projected(steps, members)
    for name, (orders, whole) in ORDERS.items():
        for order in orders(layers):
            fit = sum(order.get(is_) == held for is_, held in moves)
            if fit > 1 and fit >= sure * len(moves) and (not whole or fit >= sure * len(order)):
                return name
    return ""


def turned(steps: Sequence[Step], members: Iterable[Number]) -> bool:
    """Whether all layers are counted from the other end.

    >>> turned([((0, 1), (1, 1)), ((1, 1), (0, 1))], [(0, 1), (1, 1)])
    True
    """
    moves, layers = _projected(steps, members)
    return bool(moves) and moves == set(_moves(layers, layers[::-1]).items())


def differing(steps: Sequence[Step]) -> list[int]:
    """The places in which the numbers of a step differ.

    >>> differing([((2, 1, 0), (3, 1, 0)), ((2, 1, 0), (2, 1, 1))])
    [0, 2]
    """
    length = min((len(number) for step in steps for number in step), default=0)
    return [place for place in range(length) if any(a[place] != b[place] for a, b in steps)]


def _projected(steps: Sequence[Step], members: Iterable[Number]) -> tuple[set[Step], list[Number]]:
    """The steps and all layers, by those of their numbers alone in which steps differ."""
    every = {*members, *(number for step in steps for number in step)}
    if len({len(number) for number in every}) != 1:
        return set(), []
    places = differing(steps)

    def only(number: Number) -> Number:
        return tuple(number[place] for place in places)

    return {(only(a), only(b)) for a, b in steps}, sorted({only(number) for number in every})


def _moves(layers: Sequence[Number], taken: Sequence[Number]) -> Moves:
    return {is_: held for is_, held in zip(layers, taken, strict=True) if is_ != held}


def _sorted(layers: Sequence[Number]) -> list[Moves]:
    return [_moves(layers, sorted(layers, key=lambda number: tuple(map(str, number))))]


def _shifted(layers: Sequence[Number]) -> list[Moves]:
    if len(layers) < 3:
        return []
    steps = ([*layers[1:], layers[0]], [layers[-1], *layers[:-1]])
    return [_moves(layers, taken) for taken in steps]


def _reversed(layers: Sequence[Number]) -> list[Moves]:
    return [_moves(layers, layers[::-1])] if len(layers) > 3 else []


#: name -> the orders of so many layers, and whether all must be taken so
ORDERS: dict[str, tuple[Callable[[Sequence[Number]], list[Moves]], bool]] = {
    "sorted": (_sorted, True),
    "shifted": (_shifted, False),
    "reversed": (_reversed, True),
}
