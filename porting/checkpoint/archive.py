"""A zip file read under caps: the container of `.npz` and of PyTorch's `.pt`.

The central directory is parsed here because `zipfile` reads all of a hostile one, takes
the last of two equal names, and lets entries overlap, which is how a bomb of 42 kB becomes
gigabytes. Layout: APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from porting import limits
from porting.checkpoint.contents import check_name, quoted
from porting.checkpoint.files import MappedFile
from porting.errors import CheckpointError, LimitError

STORED, DEFLATED = 0, 8
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED, _UTF8 = 0x1, 0x800
_CHUNK = 2**20


@dataclass(frozen=True)
class Entry:
    """One member: its name, how it is packed, and where its bytes lie in the file."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int


def read_entries(file: MappedFile) -> dict[str, Entry]:
    """The members of a zip file by name, if they are plain, distinct and apart.

    Raises:
        CheckpointError: damaged, encrypted, a name twice, or members that overlap.
        LimitError: too many members.
    """
    start, size, count = _directory(file)
    if size > limits.HEADER_BYTES or count > limits.ARCHIVE_MEMBERS:
        raise LimitError(
            f"{file.name}: its directory lists {count:,} members in {size:,} bytes; the limits are "
            f"{limits.ARCHIVE_MEMBERS:,} and {limits.HEADER_BYTES:,}. Save fewer tensors in a file."
        )
    directory, position = file.read(start, start + size), 0
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for _ in range(count):
        entry, header, position = _central(file, directory, position)
        if entry.name in entries:
            raise CheckpointError(
                f"{file.name}: holds two members called {quoted(entry.name)}. Two readers would "
                "take two different ones; save the file again."
            )
        entries[entry.name] = entry
        spans.append((header, entry.start + entry.packed, entry.name))
    if position != size:
        raise CheckpointError(
            f"{file.name}: its zip directory lists more members than it counts. Two readers would "
            "see different files; save the file again."
        )
    _check_apart(file, spans, start)
    return entries


def expanded(file: MappedFile, entry: Entry, most: int) -> bytes:
    """The bytes of a member, at most `most` of them, its checksum compared if it is read whole."""
    data = b"".join(chunks(file, entry, most))
    if len(data) == entry.size and zlib.crc32(data) != entry.crc:
        raise damaged(file, entry.name, "its checksum differs")
    return data


def inflated(file: MappedFile, entry: Entry) -> np.ndarray:
    """The bytes of a compressed member, uint8 `(size,)`; never more than it declares."""
    data, position = np.empty(entry.size, np.uint8), 0
    for chunk in chunks(file, entry, entry.size):
        data[position : position + len(chunk)] = np.frombuffer(chunk, np.uint8)
        position += len(chunk)
    return data


def chunks(file: MappedFile, entry: Entry, most: int) -> Iterator[bytes]:
    """The bytes of a member as they come out, counted: never more than it declares."""
    most = min(most, entry.size)
    if entry.method == STORED:
        yield file.read(entry.start, entry.start + most)
        return
    inflate, left, position = zlib.decompressobj(-zlib.MAX_WBITS), most, entry.start
    end = entry.start + entry.packed
    while left:
        packed = inflate.unconsumed_tail or file.read(position, min(position + _CHUNK, end))
        position += 0 if inflate.unconsumed_tail else len(packed)
        try:
            data = inflate.decompress(packed, min(left, _CHUNK))
        except zlib.error:
            raise damaged(file, entry.name, "it cannot be decompressed") from None
        if not data and not packed:
            raise damaged(file, entry.name, "it ends too early")
        left -= len(data)
        yield data


def damaged(file: MappedFile, member: str, why: str) -> CheckpointError:
    """The error for a member that is not what the directory says."""
    return CheckpointError(
        f"{file.name}: member {quoted(member)} is damaged: {why}. Download or save the file again."
    )


def _directory(file: MappedFile) -> tuple[int, int, int]:
    """Where the central directory starts, its bytes, and its number of members."""
    position = file.find_last(b"PK\5\6", file.size - _END.size - 65535)
    end = file.read(position, position + _END.size)
    if position < 0 or len(end) < _END.size:
        raise CheckpointError(
            f"{file.name} is cut short: a zip file without its directory. Download it again."
        )
    _, disk, _, _, count, size, start, _ = _END.unpack(end)
    if count == 0xFFFF or size == 0xFFFFFFFF or start == 0xFFFFFFFF:
        disk, count, size, start = _directory64(file, position)
    if disk not in (0, 0xFFFF) or start + size > position:
        raise CheckpointError(
            f"{file.name}: its zip directory is damaged. Download or save the file again."
        )
    return start, size, count


def _directory64(file: MappedFile, position: int) -> tuple[int, int, int, int]:
    raw = file.read(max(position - _LOCATOR.size, 0), position)
    if len(raw) == _LOCATOR.size and raw[:4] == b"PK\6\7":
        offset = _LOCATOR.unpack(raw)[2]
        end = file.read(offset, offset + _END64.size) if offset < file.size else b""
        if len(end) == _END64.size and end[:4] == b"PK\6\6":
            _, _, _, _, disk, _, _, count, size, start = _END64.unpack(end)
            return disk, count, size, start
    raise CheckpointError(
        f"{file.name}: its zip64 directory is damaged. Download or save the file again."
    )


def _central(file: MappedFile, directory: bytes, position: int) -> tuple[Entry, int, int]:
    """The member at `position` of the directory, where its header is, and what follows it."""
    fixed = directory[position : position + _CENTRAL.size]
    if len(fixed) < _CENTRAL.size or fixed[:4] != b"PK\1\2":
        raise CheckpointError(
            f"{file.name}: its zip directory is damaged. Download or save the file again."
        )
    _, _, _, flags, method, _, _, crc, packed, size, n, extra, comment, *_, header = (
        _CENTRAL.unpack(fixed)
    )
    position += _CENTRAL.size
    raw = directory[position : position + n]
    name = check_name(file.name, raw.decode("utf-8" if flags & _UTF8 else "cp437", "replace"))
    fields = directory[position + n : position + n + extra]
    size, packed, header = _wide(fields, size, packed, header)
    if flags & _ENCRYPTED or method not in (STORED, DEFLATED):
        raise CheckpointError(
            f"{file.name}: member {quoted(name)} is encrypted or packed in a way that no "
            "checkpoint uses. Save the file again."
        )
    start = _data_start(file, raw, name, header)
    if start + packed > file.size or (method == STORED and packed != size):
        raise damaged(file, name, "its sizes do not fit the file")
    entry = Entry(name, method, crc, packed, size, start)
    return entry, header, position + n + extra + comment


def _wide(fields: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """The three numbers, those that do not fit 32 bits from the zip64 field."""
    values, position = [size, packed, header], 0
    while position + 4 <= len(fields):
        kind, length = struct.unpack_from("<2H", fields, position)
        if kind == 1:
            wide = fields[position + 4 : position + 4 + length]
            numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
            values = [next(numbers, v) if v == 0xFFFFFFFF else v for v in values]
        position += 4 + length
    return values[0], values[1], values[2]


def _data_start(file: MappedFile, raw_name: bytes, name: str, header: int) -> int:
    fixed = file.read(header, header + _LOCAL.size) if header < file.size else b""
    if len(fixed) < _LOCAL.size or fixed[:4] != b"PK\3\4":
        raise damaged(file, name, "it is not where the directory says")
    n, extra = _LOCAL.unpack(fixed)[-2:]
    begin = header + _LOCAL.size
    if file.read(begin, begin + n) != raw_name:
        raise damaged(file, name, "it has another name in its own header")
    return begin + n + extra


def _check_apart(file: MappedFile, spans: list[tuple[int, int, str]], directory: int) -> None:
    end = 0
    for begin, stop, name in sorted(spans):
        if begin < end or stop > directory:
            raise CheckpointError(
                f"{file.name}: member {quoted(name)} overlaps another. Such a file expands without "
                "end; save it again."
            )
        end = stop
