"""The kinds of wrong layout, in the words of the trade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: kind of wrong layout -> what a reader is told
LAYOUTS = {
    "untransposed": "not transposed",
    "transposed": "transposed although it should not be",
    "reshaped": "reshaped instead of transposed",
    "fortran": "read in Fortran (column-major) order",
    "axes": "axes in the wrong order",
    "hw": "height and width exchanged",
    "flipped": "reversed along an axis",
    "unflipped": "not reversed along its spatial axes",
    "heads": "heads and head_dim exchanged",
    "rotary": "rotary halves and interleaved pairs mixed up",
    "blocks": "blocks (gates, or parts of a packed tensor) in another order",
    "flatten": "flattened in another order",
    "sorted": "taken in the order of their names as text (0, 1, 10, 11, 2, …)",
    "permuted": "elements in another order along an axis",
    "split": "cut from the packed tensor at the wrong places",
    "other_part": "another part of the packed tensor",
    "padded": "padded",
    "cut": "cut",
    "partly": "partly replaced",
    "rearranged": "rearranged",
}


@dataclass(frozen=True)
class Named:
    """A kind of `LAYOUTS`, what is known beyond it, and the kinds of what was done besides."""

    kind: str
    note: str = ""
    also: tuple[str, ...] = ()


def together(found: Sequence[Named]) -> Named | None:
    """Several mistakes as one name: the first, and the others besides.

    >>> together([Named("flipped"), Named("untransposed")])
    Named(kind='flipped', note='', also=('untransposed',))
    """
    kinds = tuple(dict.fromkeys(n.kind for n in found))
    notes = " ".join(dict.fromkeys(n.note for n in found if n.note))
    return Named(kinds[0], notes, kinds[1:]) if found else None
