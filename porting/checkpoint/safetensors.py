"""safetensors: an 8-byte length, a JSON header, then the bytes of every tensor.

The format is described at https://github.com/huggingface/safetensors#format. The header
is parsed here, not by the library, because the library takes the last of two equal keys,
a million empty tensors and 64 axes without a word.
"""

from __future__ import annotations

import json
import math
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
from porting.checkpoint.dtypes import SAFETENSORS
from porting.checkpoint.files import MappedFile, finished
from porting.errors import CheckpointError, LimitError

FORMAT = "safetensors"
_PACKED_PER_BYTE = {"F4": 2}
_NO_NUMPY_TYPE = {
    "F6_E2M3": "6-bit floats",
    "F6_E3M2": "6-bit floats",
}


def read_safetensors(file: MappedFile) -> Contents:
    """The tensors of a safetensors file; only its header is read.

    Raises:
        CheckpointError: the header is not valid, or the tensors do not cover the file.
        LimitError: the header, a name, a rank or the number of tensors is too large.
    """
    length = int.from_bytes(file.read(0, 8), "little")
    if length > limits.HEADER_BYTES:
        raise LimitError(
            f"{file.name}: its header claims {length:,} bytes; the limit is "
            f"{limits.HEADER_BYTES:,}. The file is damaged, or has too many tensors."
        )
    if 8 + length > file.size:
        raise CheckpointError(
            f"{file.name} is cut short: its header claims {length:,} bytes and the file has "
            f"{file.size:,}. Download it again."
        )
    header = parse_json(file.name, file.read(8, 8 + length))
    metadata = _metadata(file.name, header.pop("__metadata__", {}))
    check_count(file.name, len(header))
    data = 8 + length
    entries = {check_name(file.name, k): _entry(file.name, k, v) for k, v in header.items()}
    _check_cover(file, {k: (begin, end) for k, (*_, begin, end) in entries.items()}, data)
    tensors = {
        key: Tensor(
            Spec(shape, SAFETENSORS[kind]), partial(_read, file, key, kind, shape, data + begin)
        )
        for key, (kind, shape, begin, _) in entries.items()
    }
    return Contents(FORMAT, tensors, ordered=False, metadata=metadata)


def parse_json(file: str, text: bytes) -> dict[str, Any]:
    """The JSON object in `text`, in which no object names a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
            raise CheckpointError(
                f"{file}: its header names {quoted(twice)} twice. Two readers would take two "
                "different tensors; save the file again."
            )
        return table

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError):
        raise CheckpointError(
            f"{file}: its header is not valid JSON. The file is damaged; download it again."
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: its header is not a table of tensors.")
    return header


def _metadata(file: str, metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{file}: its __metadata__ is not a table of texts.")
    return metadata


def _entry(file: str, name: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    """One row of the header as type, shape, first byte and last byte, checked."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{file}: tensor {quoted(name)} lacks its dtype, shape or data_offsets. The file is "
            "damaged; download it again."
        )
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in SAFETENSORS:
        reason = _NO_NUMPY_TYPE.get(str(kind), "a type that this tool does not know")
        raise CheckpointError(
            f"{file}: tensor {quoted(name)} has the type {quoted(kind, 24)}: {reason}. "
            "Save it in a wider type, such as F32 or BF16."
        )
    pair = isinstance(offsets, list) and [type(n) for n in offsets] == [int, int]
    if not pair or not isinstance(shape, list) or not 0 <= offsets[0] <= offsets[1]:
        raise CheckpointError(
            f"{file}: tensor {quoted(name)} has a shape or data_offsets that make no sense. The "
            "file is damaged; download it again."
        )
    sizes, (begin, end) = check_shape(file, name, shape), offsets
    count, per_byte = math.prod(sizes), _PACKED_PER_BYTE.get(kind, 1)
    expected = count // per_byte if per_byte > 1 else count * SAFETENSORS[kind].itemsize
    if count % per_byte or end - begin != expected:
        raise CheckpointError(
            f"{file}: tensor {quoted(name)} of shape {sizes} in {kind} takes {expected:,} bytes, "
            f"and the header gives it {end - begin:,}. The file is damaged; download it again."
        )
    return kind, sizes, begin, end


def _check_cover(file: MappedFile, spans: dict[str, tuple[int, int]], data: int) -> None:
    """Raise unless the spans follow one another from the header to the end of the file."""
    position = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != position:
            how = "overlaps the one before it" if begin < position else "leaves a gap before it"
            raise CheckpointError(
                f"{file.name}: tensor {quoted(name)} {how} (byte {begin:,}, expected "
                f"{position:,}). The file is damaged; save it again."
            )
        position = end
    if data + position > file.size:
        raise CheckpointError(
            f"{file.name} is cut short: its tensors end at byte {data + position:,} and the file "
            f"has {file.size:,}. Download it again."
        )
    if data + position < file.size:
        raise CheckpointError(
            f"{file.name} has {file.size - data - position:,} bytes behind its last tensor. The "
            "file is damaged; download it again."
        )


def _read(file: MappedFile, key: str, kind: str, shape: tuple[int, ...], start: int) -> np.ndarray:
    dtype = SAFETENSORS[kind]
    if kind not in _PACKED_PER_BYTE:
        return file.array(key, dtype, shape, start)
    packed = file.raw(start, math.prod(shape) // 2)  # the first of two values in the low bits
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1)
    return finished(file.name, key, nibbles.reshape(shape).view(dtype))
