"""Flax's msgpack (`flax.serialization.to_bytes`), read where it lies.

The file is walked once, without recursion and without copying: an array stays a place in
the map. The msgpack library would copy 50 MB of nested tables into 3.5 GB of objects.
Format: https://github.com/msgpack/msgpack/blob/master/spec.md and
`flax/serialization.py` (extension 1 is an array as (shape, dtype name, bytes), 3 a scalar
of the same make; an array above 1 GiB is a table of chunks).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from porting import limits
from porting.checkpoint.contents import (
    Contents,
    Spec,
    Tensor,
    check_count,
    check_name,
    check_shape,
    quoted,
)
from porting.checkpoint.dtypes import BY_NAME
from porting.checkpoint.files import MappedFile, finished
from porting.errors import CheckpointError, LimitError

FORMAT = "Flax msgpack"
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_HEAD = 64  # bytes in front of an array's data inside its extension
_ARRAY, _SCALAR = 1, 3


@dataclass(frozen=True)
class _Open:
    """A table or a list that begins: how many items, and whether they have keys."""

    count: int
    keyed: bool


@dataclass(frozen=True)
class _Span:
    """Bytes in the file: of a text, of binary data, or of an extension with its code."""

    start: int
    size: int
    kind: str
    code: int = 0


@dataclass(frozen=True)
class _Array:
    """An array in the file: its header, and where its bytes begin."""

    spec: Spec
    start: int


#: First byte: the kind of value, and the struct of its number or length.
_SIZED: dict[int, tuple[str, str]] = {
    **{0xC4 + i: ("bin", f) for i, f in enumerate(("B", ">H", ">I"))},
    **{0xC7 + i: ("ext", f) for i, f in enumerate(("B", ">H", ">I"))},
    **{0xCA + i: ("number", f) for i, f in enumerate((">f", ">d"))},
    **{0xCC + i: ("number", f) for i, f in enumerate(("B", ">H", ">I", ">Q"))},
    **{0xD0 + i: ("number", f) for i, f in enumerate(("b", ">h", ">i", ">q"))},
    **{0xD9 + i: ("text", f) for i, f in enumerate(("B", ">H", ">I"))},
    **{0xDC + i: ("list", f) for i, f in enumerate((">H", ">I"))},
    **{0xDE + i: ("table", f) for i, f in enumerate((">H", ">I"))},
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class _Scanner:
    """Reads one value after another from a position on."""

    def __init__(self, file: MappedFile, position: int = 0, end: int | None = None) -> None:
        self.file, self.position = file, position
        self.end = file.size if end is None else end
        self._window, self._window_start = b"", 0

    def take(self, count: int) -> bytes:
        begin = self.position
        self.skip(count)
        low = begin - self._window_start
        if low < 0 or low + count > len(self._window):
            self._window = self.file.read(begin, min(begin + max(count, 4096), self.end))
            self._window_start, low = begin, 0
        return self._window[low : low + count]

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self.end:
            raise self.damaged("it ends too early")

    def damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.file.name}: its msgpack is damaged: {why}. Download or save the file again."
        )

    def value(self) -> Any:
        """The next value: a number, None, a boolean, a `_Span`, or a container's `_Open`."""
        first = self.take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if first < 0xC0:
            kind = "table" if first < 0x90 else "list" if first < 0xA0 else "text"
            return self._sized(kind, first & (0x1F if first >= 0xA0 else 0x0F))
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if 0xD4 <= first <= 0xD8:
            return self._sized("ext", 1 << (first - 0xD4))
        if first not in _SIZED:
            raise self.damaged("it uses a byte that means nothing")
        kind, layout = _SIZED[first]
        number = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return number if kind == "number" else self._sized(kind, number)

    def _sized(self, kind: str, size: int) -> _Open | _Span:
        if kind in ("table", "list"):
            if size * (1 + (kind == "table")) > self.end - self.position:
                raise self.damaged("it ends too early")
            return _Open(size, kind == "table")
        code = self.take(1)[0] if kind == "ext" else 0
        span = _Span(self.position, size, kind, code)
        self.skip(size)
        return span

    def text(self, span: Any) -> str:
        if not isinstance(span, _Span) or span.kind != "text":
            raise self.damaged("a name is not text")
        if span.size > 4 * limits.NAME_CHARACTERS:
            check_name(self.file.name, "?" * span.size)
        try:
            return self.file.read(span.start, span.start + span.size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged("a name is not text") from None


def read_msgpack(file: MappedFile) -> Contents:
    """The arrays of a Flax msgpack file, with '/'-joined paths.

    Raises:
        CheckpointError: damaged, a path twice, or an array of a type that is not numbers.
        LimitError: too many values, arrays, or tables inside tables.
    """
    scanner = _Scanner(file)
    arrays: dict[str, _Array] = {}
    chunked: dict[tuple[str, ...], dict[str, Any]] = {}
    others: list[str] = []
    for path, value in _leaves(scanner):
        at = next((i for i in range(len(path)) if path[:i] in chunked), None) if chunked else None
        if path[-1:] == (_CHUNKED,):
            chunked[path[:-1]] = {}
        elif at is not None:
            chunked[path[:at]]["/".join(path[at:])] = value
        elif isinstance(value, _Span) and value.kind == "ext" and value.code in (_ARRAY, _SCALAR):
            name = check_name(file.name, "/".join(path) or "array")
            _add(file, arrays, name, _array(file, name, value))
        else:
            others.append("/".join(path))
    if scanner.position != file.size:
        raise scanner.damaged("there are bytes behind its end")
    tensors = {n: Tensor(a.spec, partial(_read, file, n, a)) for n, a in arrays.items()}
    for path, parts in chunked.items():
        name = check_name(file.name, "/".join(path) or "array")
        _add(file, tensors, name, _joined(file, name, parts))
    if not tensors:
        raise CheckpointError(f"{file.name}: a msgpack file without arrays.")
    return Contents(FORMAT, tensors, ordered=False, notes=_notes(others))


def _add(file: MappedFile, table: dict[str, Any], name: str, value: Any) -> None:
    if name in table:
        raise CheckpointError(
            f"{file.name}: holds two arrays called {quoted(name)}. Save the file again."
        )
    table[name] = value
    check_count(file.name, len(table))


def _notes(others: list[str]) -> tuple[str, ...]:
    names = ", ".join(quoted(name, 40) for name in others[:5])
    more = ", …" if len(others) > 5 else ""
    return (f"Left out what is no array: {names}{more}.",) if others else ()


def _leaves(scanner: _Scanner) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no container, with the names on the way to it."""
    path: list[str] = []
    stack: list[tuple[int, int, bool]] = []  # items left, items in all, whether keyed
    values = 0
    while True:
        value = scanner.value()
        values += 1
        if values > limits.MSGPACK_VALUES or len(stack) >= limits.DEPTH:
            raise LimitError(
                f"{scanner.file.name}: holds more than {limits.MSGPACK_VALUES:,} values or tables "
                f"more than {limits.DEPTH} deep. Save the parameters alone."
            )
        if isinstance(value, _Open):
            stack.append((value.count, value.count, value.keyed))
            path.append("")
        else:
            yield tuple(path), value
        while stack and stack[-1][0] == 0:
            stack.pop()
            path.pop()
        if not stack:
            return
        left, count, keyed = stack[-1]
        stack[-1] = (left - 1, count, keyed)
        path[-1] = scanner.text(scanner.value()) if keyed else str(count - left)


def _array(file: MappedFile, name: str, span: _Span) -> _Array:
    """The array inside an extension: (shape, dtype name, bytes)."""
    scanner = _Scanner(file, span.start, span.start + span.size)
    outer, inner = scanner.value(), scanner.value()
    if outer != _Open(3, False) or not isinstance(inner, _Open) or inner.keyed:
        raise scanner.damaged(f"array {quoted(name)} is not (shape, dtype, bytes)")
    check_shape(file.name, name, [0] * min(inner.count, limits.RANK + 1))
    shape = check_shape(file.name, name, [scanner.value() for _ in range(inner.count)])
    kind, data = scanner.text(scanner.value()), scanner.value()
    dtype = BY_NAME.get("bool" if kind == "bool_" else kind)
    if dtype is None:
        raise CheckpointError(
            f"{file.name}: array {quoted(name)} has the type {quoted(kind, 24)}, which is not a "
            "type of numbers that this tool knows. Save it in another."
        )
    spec = Spec(shape, dtype)
    if not isinstance(data, _Span) or data.kind != "bin" or data.size != spec.nbytes:
        raise scanner.damaged(f"array {quoted(name)} of shape {shape} has other bytes than that")
    return _Array(spec, data.start)


def _read(file: MappedFile, name: str, array: _Array) -> np.ndarray:
    return file.array(name, array.spec.dtype, array.spec.shape, array.start)


def _joined(file: MappedFile, name: str, parts: Mapping[str, Any]) -> Tensor:
    """An array that Flax split because msgpack ends at 2 GiB: `shape/0…`, `chunks/0…`."""
    sizes = [parts[f"shape/{i}"] for i in range(limits.RANK + 1) if f"shape/{i}" in parts]
    chunks: list[_Array] = []
    while isinstance(parts.get(f"chunks/{len(chunks)}"), _Span):
        chunks.append(_array(file, name, parts[f"chunks/{len(chunks)}"]))
    shape = check_shape(file.name, name, sizes)
    kinds = {chunk.spec.dtype for chunk in chunks}
    together = sum(math.prod(chunk.spec.shape) for chunk in chunks)
    if len(kinds) != 1 or together != math.prod(shape) or len(parts) != len(sizes) + len(chunks):
        raise CheckpointError(
            f"{file.name}: the chunks of array {quoted(name)} do not make up its shape {shape}. "
            "The file is damaged; save it again."
        )
    spec = Spec(shape, kinds.pop())
    return Tensor(spec, partial(_read_chunks, file, name, spec, tuple(chunks)))


def _read_chunks(file: MappedFile, name: str, spec: Spec, chunks: tuple[_Array, ...]) -> np.ndarray:
    joined = np.concatenate([_read(file, name, chunk).reshape(-1) for chunk in chunks])
    return finished(file.name, name, joined.reshape(spec.shape))
