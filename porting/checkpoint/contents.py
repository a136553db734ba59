"""What a reader hands over: tensors with their headers, and how each is read.

The checks that every format needs are here too, so that all readers refuse alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from porting import limits
from porting.errors import CheckpointError, LimitError


@dataclass(frozen=True)
class Spec:
    """The header of one tensor.

    Attributes:
        shape: sizes of its axes, as written in the file.
        dtype: its NumPy (or `ml_dtypes`) type, in the byte order of this machine.
        nbytes: bytes of the array when it is read.

    >>> Spec((8, 6), np.dtype("float32"))
    Spec(shape=(8, 6), dtype=dtype('float32'), nbytes=192)
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nbytes", math.prod(self.shape) * self.dtype.itemsize)


@dataclass(frozen=True)
class Tensor:
    """A tensor that is still in its file: its header, and the way to read it."""

    spec: Spec
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Contents:
    """All that one reader found.

    Attributes:
        format: the name of the format, for people.
        tensors: by key, in the order of the file.
        ordered: whether that order is the order of definition.
        metadata: text that the file carries about itself.
        aliases: a key that is the same tensor as an earlier key, and that key.
        notes: what was left out, and why.
    """

    format: str
    tensors: Mapping[str, Tensor]
    ordered: bool
    metadata: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def quoted(name: object, longest: int = 80) -> str:
    """`name` for a message: control characters escaped, long text cut.

    >>> quoted("a" * 100, longest=12)
    "'aaaaaaaa…'"
    """
    text = repr(name[: longest + 8] if isinstance(name, (str, bytes)) else str(name)[:longest])
    return text if len(text) <= longest else text[: longest - 3] + "…" + text[-1]


def check_name(file: str, name: object) -> str:
    """`name`, if it is text of a bearable length that can be printed and stored."""
    if not isinstance(name, str):
        raise CheckpointError(
            f"{file}: the tensor name {quoted(name)} is not text. Save the tensors under names."
        )
    if len(name) > limits.NAME_CHARACTERS:
        raise LimitError(
            f"{file}: the tensor name {quoted(name)} has {len(name):,} characters; the limit is "
            f"{limits.NAME_CHARACTERS}. Rename the tensor before saving."
        )
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise CheckpointError(
            f"{file}: the tensor name {quoted(name)} is not valid Unicode. The file is damaged, "
            "or was not written by a usual tool."
        )
    return name


def check_shape(file: str, name: str, shape: Iterable[object]) -> tuple[int, ...]:
    """`shape` as integers, if the rank and every size are within reason."""
    sizes = tuple(shape)
    if len(sizes) > limits.RANK:
        raise LimitError(
            f"{file}: tensor {quoted(name)} has {len(sizes):,} axes; the limit is {limits.RANK}. "
            "Reshape it before saving."
        )
    checked: list[int] = []
    for size in sizes:
        if type(size) is not int or not 0 <= size < 2**48:
            raise CheckpointError(
                f"{file}: tensor {quoted(name)} has an axis of {quoted(size, 24)}, which is not a "
                "size. The file is damaged; download or save it again."
            )
        checked.append(size)
    if math.prod(n for n in checked if n) >= 2**60:
        raise LimitError(
            f"{file}: tensor {quoted(name)} claims {' × '.join(f'{n:,}' for n in checked)} numbers, "
            "more than any file holds. The file is damaged; download or save it again."
        )
    return tuple(checked)


def check_count(file: str, count: int) -> None:
    """Raise if `count` tensors are too many."""
    if count > limits.TENSORS:
        raise LimitError(
            f"{file}: holds {count:,} tensors or more; the limit is {limits.TENSORS:,}. "
            "Save the part that you want to port."
        )


def check_bytes(
    file: str, tensors: Mapping[str, Tensor], file_bytes: int, most: int | None
) -> None:
    """Raise if the tensors, read in full, take too much for the file that they are in.

    Args:
        file: the file's name, for the message.
        tensors: what the file holds.
        file_bytes: the size of the file.
        most: the cap of the caller, or None.
    """
    total = sum(t.spec.nbytes for t in tensors.values())
    fair = limits.EXPANSION * file_bytes + limits.EXPANSION_FREE
    if most is not None and total > most:
        raise LimitError(
            f"{file}: its tensors take {total:,} bytes when read; the limit here is {most:,}. "
            "Save a smaller checkpoint, or use the command line, which has no such limit."
        )
    if total > fair:
        name = max(tensors, key=lambda key: tensors[key].spec.nbytes)
        raise LimitError(
            f"{file}: {file_bytes:,} bytes would become {total:,} (tensor {quoted(name)} alone "
            f"{tensors[name].spec.nbytes:,}); the limit is {limits.EXPANSION} times the file. "
            "Save it again with every tensor contiguous and without compression."
        )
