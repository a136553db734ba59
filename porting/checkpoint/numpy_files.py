"""NumPy's `.npy` and `.npz`, without its pickle.

An `.npy` file is a magic, a version, a dict written as Python text, and the bytes
(`numpy/lib/_format_impl.py`). The text is matched, not evaluated.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from porting.checkpoint import archive
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
from porting.errors import CheckpointError

NPY_FORMAT, NPZ_FORMAT = "NumPy .npy", "NumPy .npz"
MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 10_000  # NumPy's own limit
_HEADER = re.compile(
    r"\{\s*'descr':\s*(?P<descr>'[^']{1,16}'|\[.*\]),\s*'fortran_order':\s*(?P<order>True|False),"
    r"\s*'shape':\s*\((?P<shape>[\d\s,]*)\),?\s*\}\s*",
    re.DOTALL,
)
_DESCR = re.compile(r"'(?P<order>[<>|=]?)(?P<kind>[a-zA-Z])(?P<size>\d{1,9})?(\[\w+\])?'")
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_NOT_NUMBERS = {"U": "text", "S": "text", "M": "dates", "m": "time spans"}


@dataclass(frozen=True)
class _Header:
    """An `.npy` header: the type, whether its bytes are swapped, the order, where data begin."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    kind: str
    swapped: bool
    fortran: bool
    data: int


def read_npy(file: MappedFile) -> Contents:
    """The one array of an `.npy` file, under the key `array`.

    Raises:
        CheckpointError: damaged, cut short, or not numbers.
    """
    name = "array"
    header = _header(file, name, file.read(0, _HEADER_BYTES + 12))
    spec = _spec(file, name, header)
    if header.data + spec.nbytes != file.size:
        raise CheckpointError(
            f"{file.name}: its array of shape {spec.shape} ends at byte "
            f"{header.data + spec.nbytes:,} and the file has {file.size:,}. Download it again."
        )
    read = partial(_mapped, file, name, spec, header, header.data)
    return Contents(
        NPY_FORMAT, {name: Tensor(spec, read)}, ordered=False, notes=_notes(name, header)
    )


def read_npz(file: MappedFile, entries: Mapping[str, archive.Entry]) -> Contents:
    """The arrays of an `.npz` file; members that are no arrays are left out and noted.

    Raises:
        CheckpointError: damaged, a name twice, or an array of Python objects.
        LimitError: too many arrays.
    """
    check_count(file.name, len(entries))
    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    for member in entries.values():
        name = check_name(file.name, member.name.removesuffix(".npy"))
        start = archive.expanded(file, member, min(_HEADER_BYTES + 12, member.size))
        if not start.startswith(MAGIC):
            notes.append(f"Left out {quoted(name)}: not an array.")
            continue
        header = _header(file, name, start)
        if header.dtype is None and header.kind in _NOT_NUMBERS:
            notes.append(f"Left out {quoted(name)}: {_NOT_NUMBERS[header.kind]}, not numbers.")
            continue
        if name in tensors:
            raise CheckpointError(f"{file.name}: holds two arrays called {quoted(name)}.")
        spec = _spec(file, name, header)
        if header.data + spec.nbytes != member.size:
            raise archive.damaged(file, member.name, "its array does not fill it")
        tensors[name] = Tensor(spec, partial(_member, file, name, spec, header, member))
        notes += _notes(name, header)
    if not tensors:
        raise CheckpointError(f"{file.name}: a zip file without arrays of numbers.")
    return Contents(NPZ_FORMAT, tensors, ordered=False, notes=tuple(notes))


def _header(file: MappedFile, name: str, start: bytes) -> _Header:
    width = {1: 2, 2: 4, 3: 4}.get(start[6] if len(start) > 6 else 0)
    length = int.from_bytes(start[8 : 8 + width], "little") if width else 0
    data = 8 + (width or 0) + length
    text = start[data - length : data]
    match = None
    if width and length <= _HEADER_BYTES and len(text) == length:
        match = _HEADER.fullmatch(text.decode("latin-1"))
    if match is None or not start.startswith(MAGIC):
        raise CheckpointError(
            f"{file.name}: the header of array {quoted(name)} is not one that NumPy writes. The "
            "file is damaged; save it again."
        )
    sizes = [part.strip() for part in match["shape"].split(",") if part.strip()]
    if any(not size.isdecimal() or len(size) > 18 for size in sizes):
        raise CheckpointError(f"{file.name}: array {quoted(name)} has sizes that make no sense.")
    shape = check_shape(file.name, name, map(int, sizes))
    dtype, kind, swapped = _dtype(match["descr"])
    return _Header(shape, dtype, kind, swapped, match["order"] == "True", data)


def _dtype(descr: str) -> tuple[np.dtype | None, str, bool]:
    """The type that a `descr` means, its letter, and whether its bytes are swapped."""
    match = _DESCR.fullmatch(descr)
    if match is None:
        return None, "fields", False
    kind, size = match["kind"], int(match["size"] or 0)
    if (kind, size) == ("V", 2):  # what NumPy makes of bfloat16; jnp.load reads it so too
        return BY_NAME["bfloat16"], kind, match["order"] == ">"
    stem = _KINDS.get(kind, "")
    name = "bool" if (kind, size) == ("b", 1) else f"{stem}{8 * size}"
    return (BY_NAME.get(name) if stem else None), kind, match["order"] == ">"


def _notes(name: str, header: _Header) -> tuple[str, ...]:
    if header.kind != "V":
        return ()
    return (f"{quoted(name)} is stored as 2-byte blocks without a type; read as bfloat16.",)


def _spec(file: MappedFile, name: str, header: _Header) -> Spec:
    if header.dtype is not None:
        return Spec(header.shape, header.dtype)
    what = "Python objects, a pickle" if header.kind == "O" else "no plain numbers"
    raise CheckpointError(
        f"{file.name}: array {quoted(name)} holds {what}. Nothing was loaded; save plain numeric "
        "arrays."
    )


def _shaped(file: MappedFile, name: str, header: _Header, flat: np.ndarray) -> np.ndarray:
    if header.swapped:
        unit = flat.dtype.itemsize // (2 if flat.dtype.kind == "c" else 1)
        flat = flat.view(f"u{unit}").byteswap().view(flat.dtype)
    array = flat.reshape(header.shape, order="F" if header.fortran else "C")
    return finished(file.name, name, array)


def _mapped(file: MappedFile, name: str, spec: Spec, header: _Header, start: int) -> np.ndarray:
    return _shaped(
        file, name, header, file.array(name, spec.dtype, (math.prod(spec.shape),), start)
    )


def _member(
    file: MappedFile, name: str, spec: Spec, header: _Header, member: archive.Entry
) -> np.ndarray:
    if member.method == archive.STORED:
        raw = file.raw(member.start, member.size)
    else:
        raw = archive.inflated(file, member)
    if zlib.crc32(raw.data) != member.crc:
        raise archive.damaged(file, member.name, "its checksum differs")
    if member.method == archive.STORED:
        return _mapped(file, name, spec, header, member.start + header.data)
    return _shaped(file, name, header, raw[header.data :].copy().view(spec.dtype))
