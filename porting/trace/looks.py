"""What one recorded array may be made to look like, so that it fits another one.

Between two layers stands more than arithmetic: positions are pooled, resized, averaged or
picked, axes are exchanged, features are cut into parts or flattened. Each look is one such
step, in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from porting.trace.spatial import operations, spatial

PARTS = (2, 3, 4, 6)  #: into how many parts a layer's features are cut


@dataclass(frozen=True)
class Look:
    """An array made to fit a shape.

    Attributes:
        kind: `` (as it is), `axes`, `pool`, `positions`, `flatten`, `part` or `shift`.
        words: what was done; "" for nothing.
    """

    kind: str
    words: str

    def of(self, name: str) -> str:
        """The look of a named array in words.

        >>> Look("positions", "mean of all positions").of("ln"), Look("", "").of("ln")
        ('mean of all positions of ln', 'ln')
        """
        if self.kind in ("axes", "flatten"):
            return f"{name} {self.words}"
        return f"{self.words} of {name}" if self.words else name


PLAIN = Look("", "")
#: How positions are picked or put together: (words, the function of (b, positions, c)).
POSITIONS = (
    ("mean of all positions", lambda x: x.mean(1)),
    ("largest of all positions", lambda x: x.max(1)),
    ("first position", lambda x: x[:, 0]),
    ("last position", lambda x: x[:, -1]),
    ("mean of all positions but the first", lambda x: x[:, 1:].mean(1)),
    ("sum of all positions", lambda x: x.sum(1)),
)
#: What is done to the positions of an array without a change of its shape.
SHIFTS = (
    ("the position before", lambda x: np.roll(x, 1, 1)),
    ("the position behind", lambda x: np.roll(x, -1, 1)),
    ("the positions backwards", lambda x: x[:, ::-1]),
    ("the last position everywhere", lambda x: np.broadcast_to(x[:, -1:], x.shape)),
    ("the first position everywhere", lambda x: np.broadcast_to(x[:, :1], x.shape)),
)


def looks(array: np.ndarray, shape: Sequence[int]) -> Iterator[tuple[Look, np.ndarray]]:
    """Every look of an array that has (or spreads to) a shape, the plainest first; see `pooled`.

    >>> [look.words for look, _ in looks(np.zeros((2, 9)), (2, 3))]
    ['part 1 of 3', 'part 2 of 3', 'part 3 of 3']
    """
    shape = tuple(shape)
    plain = spread(array, shape)
    if plain is not None:
        yield PLAIN, plain
    yield from _exchanged(array, shape)
    if plain is not None and array.shape == shape and array.ndim > 2:
        for words, shift in SHIFTS:
            yield Look("shift", words), shift(array)
    yield from _flattened(array, shape)
    yield from _parts(array, shape)


def pooled(array: np.ndarray, shape: Sequence[int]) -> Iterator[tuple[Look, np.ndarray]]:
    """Every look that puts positions together; each channel comes out by itself.

    >>> [look.words for look, _ in pooled(np.zeros((2, 5, 3)), (2, 3))][:2]
    ['mean of all positions', 'largest of all positions']
    """
    shape = tuple(shape)
    yield from pooled_as_it_is(array, shape)
    if array.ndim == len(shape) == 4:
        for look, image in pooled_as_it_is(array.swapaxes(1, 2), shape):
            yield Look("axes", f"with height and width exchanged, then {look.words}"), image


def spread(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array with axes merged, or spread over the positions; None where it does not fit.

    >>> spread(np.ones((2, 3)), (2, 5, 3)).shape
    (2, 5, 3)
    """
    if array.size == math.prod(shape) and array.shape[:1] == shape[:1]:
        return array.reshape(shape)
    fits = [array, array.reshape(*array.shape[:1], *(1,) * (len(shape) - 2), *array.shape[1:])]
    for one in fits if array.ndim == 2 else fits[:1]:
        try:
            return np.broadcast_to(one, shape)
        except ValueError:
            continue
    return None


def _exchanged(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[Look, np.ndarray]]:
    if array.ndim == 3 and array.swapaxes(1, 2).shape == shape:
        yield Look("axes", "with its last two axes exchanged"), array.swapaxes(1, 2)
    if array.ndim != 4:
        return
    turned = array.swapaxes(1, 2)
    if turned.shape == shape:
        yield Look("axes", "with height and width exchanged"), turned
    positions = (array.shape[0], array.shape[1] * array.shape[2], array.shape[3])
    if positions == shape:
        yield Look("axes", "with height and width exchanged"), turned.reshape(shape)


def pooled_as_it_is(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[Look, np.ndarray]]:
    """Those of `pooled` that leave height and width where they are."""
    if array.ndim < 3 or (array.shape[0], array.shape[-1]) != (shape[0], shape[-1]):
        return
    if len(shape) == 2 or all(n == 1 for n in shape[1:-1]):
        flat = array.reshape(array.shape[0], -1, array.shape[-1])
        for words, pick in POSITIONS:
            yield Look("positions", words), pick(flat).reshape(shape)
    elif array.ndim == len(shape):
        for words in operations(array.shape[1:-1], shape[1:-1]):
            if words != "nothing":
                yield Look("pool", words), spatial(array, shape[1:-1], words)


def _flattened(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[Look, np.ndarray]]:
    """An image, maybe pooled, flattened with its positions or its channels first."""
    if array.ndim < 3 or len(shape) != 2 or array.shape[0] != shape[0]:
        return
    places, rest = divmod(shape[1], array.shape[-1])
    sizes = {tuple(-(-n // step) for n in array.shape[1:-1]) for step in range(1, 9)}
    sizes |= {tuple(n // step for n in array.shape[1:-1]) for step in range(1, 9)}
    for size in sizes if not rest and places > 1 else ():
        if math.prod(size) != places:
            continue
        words = operations(array.shape[1:-1], size)
        for word in [w for w in words if "resize" not in w]:
            image = array if word == "nothing" else spatial(array, size, word)
            said = "" if word == "nothing" else f", after {word}"
            channels = np.moveaxis(image, -1, 1)
            yield Look("flatten", f"flattened with its channels last{said}"), image.reshape(shape)
            yield (
                Look("flatten", f"flattened with its channels first{said}"),
                channels.reshape(shape),
            )


def _parts(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[Look, np.ndarray]]:
    for count in PARTS:
        if array.shape[-1] == count * shape[-1]:
            for number, part in enumerate(np.split(array, count, -1), 1):
                fitted = spread(part, shape)
                if fitted is not None:
                    yield Look("part", f"part {number} of {count}"), fitted
    alike = array.ndim == len(shape) == 3 and array.shape[::2] == shape[::2]
    if alike and array.shape[1] == shape[1] + 1:
        yield Look("part", "all positions but the first"), array[:, 1:]
        yield Look("part", "all positions but the last"), array[:, :-1]
