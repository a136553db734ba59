"""How the argument of a pickle's opcode is read: one reader a way of writing it.

`pickletools.genops` reads the same, slower: with it, a pickle at the limit of opcodes takes
most of a second. Its table says which opcode has which argument (CPython's
`Lib/pickletools.py`), and the tests hold the two readers side by side.
"""

from __future__ import annotations

import pickletools
import struct
from codecs import escape_decode, raw_unicode_escape_decode
from collections.abc import Callable
from pickle import decode_long
from typing import Any

#: Reads the argument that begins at a position, and says where it ends.
Reader = Callable[[bytes, int], tuple[Any, int]]
STOP = ord(".")


def _byte(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _number(layout: str) -> Reader:
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)
    return lambda data, at: (unpack(data, at)[0], at + size)


def _counted(layout: str, decode: Callable[[bytes], Any]) -> Reader:
    """Bytes with their number in front."""
    unpack, size = struct.Struct(layout).unpack_from, struct.calcsize(layout)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        begin = at + size
        end = begin + unpack(data, at)[0]
        part = data[begin:end]
        if len(part) != end - begin:
            raise ValueError(f"{end - begin:,} bytes at position {begin:,} do not fit")
        return decode(part), end

    return read


def _line(decode: Callable[[bytes], Any]) -> Reader:
    """Text up to the end of the line."""

    def read(data: bytes, at: int) -> tuple[Any, int]:
        end = data.index(b"\n", at)
        return decode(data[at:end]), end + 1

    return read


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _latin(data: bytes) -> str:
    return str(data, "latin-1")


def _escaped(data: bytes) -> str:
    text: bytes = escape_decode(data)[0]  # type: ignore[assignment]
    return text.decode("ascii")


def _quoted(data: bytes) -> str:
    if len(data) < 2 or data[0] not in b"'\"" or data[-1] != data[0]:
        raise ValueError("a text without its quotes")
    return _escaped(data[1:-1])


def _integer(data: bytes) -> int:
    return decode_long(_at_most(17, data))


def _short(data: bytes) -> int | bool:
    return data == b"01" if data in (b"00", b"01") else int(_at_most(40, data))


def _long(data: bytes) -> int:
    return int(_at_most(41, data).removesuffix(b"L"))


def _at_most(size: int, data: bytes) -> bytes:
    """`data`, if it is an integer of 128 bits: the state of a random generator has as many."""
    if len(data) > size:
        raise OverflowError("an integer of more than 128 bits")
    return data


def _name(data: bytes, at: int) -> tuple[tuple[str, str], int]:
    module, at = _line(_escaped)(data, at)
    name, at = _line(_escaped)(data, at)
    return (module, name), at


#: `pickletools`' name of an argument -> its reader.
_ARGUMENTS: dict[str, Reader] = {
    "uint1": _byte,
    "uint2": _number("<H"),
    "int4": _number("<i"),
    "uint4": _number("<I"),
    "uint8": _number("<Q"),
    "float8": _number(">d"),
    "long1": _counted("<B", _integer),
    "long4": _counted("<i", _integer),
    "string1": _counted("<B", _latin),
    "string4": _counted("<i", _latin),
    "bytes1": _counted("<B", bytes),
    "bytes4": _counted("<I", bytes),
    "bytes8": _counted("<Q", bytes),
    "bytearray8": _counted("<Q", bytearray),
    "unicodestring1": _counted("<B", _text),
    "unicodestring4": _counted("<I", _text),
    "unicodestring8": _counted("<Q", _text),
    "stringnl": _line(_quoted),
    "decimalnl_short": _line(_short),
    "decimalnl_long": _line(_long),
    "floatnl": _line(float),
    "unicodestringnl": _line(lambda data: raw_unicode_escape_decode(data)[0]),
    "stringnl_noescape_pair": _name,
}

#: Code of an opcode -> its name, and the reader of its argument if it has one.
OPCODES: dict[int, tuple[str, Reader | None]] = {
    ord(op.code): (op.name, _ARGUMENTS.get(op.arg.name) if op.arg else None)
    for op in pickletools.opcodes
}
