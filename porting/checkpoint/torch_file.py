"""PyTorch's `.pt`, `.pth` and `.bin`, in both formats, without PyTorch.

Since 1.6 `torch.save` writes a zip file: `<root>/data.pkl` and one stored member
`<root>/data/<key>` for each storage. Before, it wrote five pickles and then the storages
(`torch/serialization.py`, `_save` and `_legacy_save`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from porting import limits
from porting.checkpoint import archive
from porting.checkpoint.contents import (
    Contents,
    Spec,
    Tensor,
    check_count,
    check_shape,
    quoted,
)
from porting.checkpoint.files import MappedFile, finished
from porting.checkpoint.pickles import Hooks, read_pickle
from porting.checkpoint.state_dict import find_state_dict
from porting.checkpoint.torch_calls import (
    Storage,
    TensorRef,
    call,
    check_global,
    storage,
    torch_dtype,
)
from porting.errors import CheckpointError, LimitError

ZIP_FORMAT, LEGACY_FORMAT = "PyTorch", "PyTorch (before 1.6)"
_HOOKS = Hooks(call=call, check=check_global, persistent=storage)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_Span = tuple[int, int]  # first byte and number of bytes of a storage in the file


def read_torch_zip(file: MappedFile, entries: Mapping[str, archive.Entry]) -> Contents:
    """The tensors of a zip file that `torch.save` wrote.

    Raises:
        CheckpointError: not a plain state_dict, damaged, or asking to run code.
        LimitError: the pickle or what it describes is too large.
    """
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{file.name}: holds {len(pickles)} data.pkl, not one. Save it again."
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise CheckpointError(
            f"{file.name} is a TorchScript program, not weights. Load it with torch.jit.load where "
            "you trust it, and save its state_dict() instead."
        )
    _check_byte_order(file, entries.get(f"{root}byteorder"))
    member = entries[pickles[0]]
    _check_pickle_size(file, member.size)
    value, length = read_pickle(
        file.name, archive.expanded(file, member, limits.PICKLE_BYTES), _HOOKS
    )

    def span(key: str) -> _Span | None:
        entry = entries.get(f"{root}data/{key}")
        if entry is not None and entry.method != archive.STORED:
            raise CheckpointError(
                f"{file.name}: member {quoted(entry.name)} is compressed, which torch.save never "
                "does. Save the file again with torch.save."
            )
        return None if entry is None else (entry.start, entry.size)

    return _contents(file, ZIP_FORMAT, (value, length), span)


def read_torch_legacy(file: MappedFile) -> Contents:
    """The tensors of a file that `torch.save` wrote before PyTorch 1.6.

    Raises: as `read_torch_zip`.
    """
    magic, position = _next_pickle(file, 0, _HOOKS)
    if magic != _LEGACY_MAGIC:
        raise CheckpointError(
            f"{file.name} is a plain pickle, not a file of torch.save. Save the state_dict with "
            "torch.save, or as safetensors."
        )
    _, position = _next_pickle(file, position, _HOOKS)
    system, position = _next_pickle(file, position, _HOOKS)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _big_endian(file)
    seen: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Any:
        found = storage(identifier)
        if isinstance(found, Storage):
            seen[found.key] = found
        return found

    begin = position
    value, position = _next_pickle(file, position, replace(_HOOKS, persistent=persistent))
    keys, position = _next_pickle(file, position, _HOOKS)
    spans = _legacy_spans(file, keys, seen, position)
    return _contents(file, LEGACY_FORMAT, (value, position - begin), spans.get)


def _legacy_spans(
    file: MappedFile, keys: Any, seen: Mapping[str, Storage], position: int
) -> dict[str, _Span]:
    """Where each storage lies: one behind the other, its length in front."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"{file.name}: its list of storages is damaged. Download it again.")
    check_count(file.name, len(keys))
    spans: dict[str, _Span] = {}
    for key in keys:
        known = seen.get(key)
        if known is None or known.dtype is None:
            kind = known.type_name if known else "unknown"
            raise CheckpointError(
                f"{file.name}: holds a storage of the type {quoted(kind)}, which NumPy lacks. "
                "Save plain tensors: `.dequantize()`, or a wider type."
            )
        count = int.from_bytes(file.read(position, position + 8), "little", signed=True)
        if count != known.count:
            raise CheckpointError(
                f"{file.name}: a storage has {count:,} numbers where the pickle says "
                f"{known.count:,}. The file is damaged or cut short; download it again."
            )
        spans[key] = (position + 8, count * known.dtype.itemsize)
        position += 8 + count * known.dtype.itemsize
    return spans


def _next_pickle(file: MappedFile, start: int, hooks: Hooks) -> tuple[Any, int]:
    data = file.read(start, start + limits.PICKLE_BYTES)
    value, length = read_pickle(file.name, data, hooks)
    return value, start + length


def _check_pickle_size(file: MappedFile, size: int) -> None:
    if size > limits.PICKLE_BYTES:
        raise LimitError(
            f"{file.name}: its pickle has {size:,} bytes; the limit is {limits.PICKLE_BYTES:,}. "
            "Save the state_dict alone, or as safetensors."
        )


def _big_endian(file: MappedFile) -> CheckpointError:
    return CheckpointError(
        f"{file.name} was written on a machine with the other byte order. Save it as safetensors."
    )


def _check_byte_order(file: MappedFile, member: archive.Entry | None) -> None:
    if member is not None and archive.expanded(file, member, 16) != b"little":
        raise _big_endian(file)


@dataclass(frozen=True)
class _Place:
    """A tensor in the file: its type, the numbers of its storage, and its view of them."""

    dtype: np.dtype
    start: int
    count: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _contents(
    file: MappedFile, label: str, pickled: tuple[Any, int], span: Callable[[str], _Span | None]
) -> Contents:
    refs, notes = find_state_dict(file.name, *pickled)
    places = {name: _place(file, name, ref, span) for name, ref in refs.items()}
    first: dict[_Place, str] = {}
    aliases = {}
    for name, place in places.items():
        original = first.setdefault(place, name)
        if original != name and 0 not in place.shape:
            aliases[name] = original
    tensors = {
        name: Tensor(Spec(place.shape, place.dtype), partial(_read, file, name, place))
        for name, place in places.items()
    }
    return Contents(label, tensors, ordered=True, aliases=aliases, notes=notes)


def _place(
    file: MappedFile, name: str, ref: TensorRef, span: Callable[[str], _Span | None]
) -> _Place:
    """Where a tensor lies, if its view stays inside its storage.

    Raises:
        CheckpointError: the type is unknown, the storage is missing, or the view leaves it.
    """
    held = ref.storage
    dtype = _dtype(file, name, ref)
    shape = check_shape(file.name, name, ref.shape if isinstance(ref.shape, tuple) else (None,))
    strides = ref.strides if isinstance(ref.strides, tuple) else ()
    numbers = (ref.offset, *strides)
    if len(strides) != len(shape) or not all(type(n) is int and 0 <= n < 2**60 for n in numbers):
        raise _bad_view(file, name, "its offset or strides make no sense")
    found = span(held.key)
    if found is None:
        raise _bad_view(file, name, f"its data {quoted(held.key, 24)} is not in the file")
    start, nbytes = found
    unit = held.dtype.itemsize
    if start + nbytes > file.size or held.count * unit > nbytes:
        raise _bad_view(file, name, "the file is cut short before its data ends")
    count = held.count * unit // dtype.itemsize
    offset = ref.offset + held.start
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= count:
        raise _bad_view(file, name, f"it reaches number {last:,} of {count:,}")
    return _Place(dtype, start, count, offset, shape, strides)


def _dtype(file: MappedFile, name: str, ref: TensorRef) -> np.dtype:
    held = ref.storage
    if not isinstance(held, Storage):
        raise _bad_view(file, name, "it has no storage")
    if ref.pending is not None and ref.pending != {}:
        raise CheckpointError(
            f"{file.name}: tensor {quoted(name)} is a conjugated or negated view that was not "
            "carried out. Call `.resolve_conj().resolve_neg()` before saving."
        )
    dtype = held.dtype if ref.dtype is None else torch_dtype(ref.dtype)
    if dtype is None or held.dtype is None:
        kind = held.type_name if ref.dtype is None else str(ref.dtype)
        raise CheckpointError(
            f"{file.name}: tensor {quoted(name)} has the type {quoted(kind, 40)}, which NumPy "
            "lacks. Save it in a wider type, such as float32."
        )
    return dtype


def _bad_view(file: MappedFile, name: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{file.name}: tensor {quoted(name)} cannot be read: {why}. Download or save the file again."
    )


def _read(file: MappedFile, name: str, place: _Place) -> np.ndarray:
    """The tensor as a read-only view; strides are those of PyTorch, in numbers."""
    if not math.prod(place.shape):
        return finished(file.name, name, np.zeros(place.shape, place.dtype))
    unit = place.dtype.itemsize
    last = sum((n - 1) * step for n, step in zip(place.shape, place.strides, strict=True))
    start = place.start + place.offset * unit
    raw = file.array(name, np.dtype(np.uint8), ((last + 1) * unit,), start)
    if start % unit:
        raw = raw.copy()
    strides = [step * unit for step in place.strides]
    return finished(file.name, name, np.ndarray(place.shape, place.dtype, raw, 0, strides))
