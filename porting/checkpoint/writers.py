"""One writer a format. Each takes C-contiguous arrays by path and writes a new file.

safetensors is written here, not by its library: `safetensors.numpy.save_file` 0.8.0 writes
garbage for arrays that are not C-contiguous (safetensors 825) and lacks the 8-bit floats.
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from porting.checkpoint.directories import quiet
from porting.checkpoint.dtypes import BY_NAME, PLAIN, SAFETENSORS
from porting.errors import CheckpointError
from porting.tree import unflatten

Arrays = Mapping[str, np.ndarray]
_TO_SAFETENSORS = {dtype: name for name, dtype in SAFETENSORS.items() if name != "F4"}
_BFLOAT16 = BY_NAME["bfloat16"]
_TO_NUMPY = frozenset(BY_NAME[name] for name in PLAIN) | {_BFLOAT16}


@dataclass(frozen=True)
class Writer:
    """How a format is written.

    Attributes:
        format: its name, for people.
        dtypes: the types that it can name.
        write: puts arrays and metadata into a file that does not exist yet.
    """

    format: str
    dtypes: frozenset[np.dtype]
    write: Callable[[Path, Arrays, Mapping[str, str]], None]


def _write_safetensors(path: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    # Largest types first keeps every tensor aligned, as the library does.
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key in order:
        array = arrays[key]
        header[key] = {
            "dtype": _TO_SAFETENSORS[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in order:
            file.write(_bytes_of(arrays[key]))


def _write_npz(path: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    with path.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            plain = array.view("V2") if array.dtype == _BFLOAT16 else array
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, plain, allow_pickle=False)


def _write_msgpack(path: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    from flax import serialization

    with path.open("xb") as file:
        file.write(serialization.msgpack_serialize(unflatten(arrays)))


def _write_orbax(path: Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
    import orbax.checkpoint as ocp

    try:
        with quiet():
            ocp.PyTreeCheckpointer().save(path.absolute(), unflatten(arrays))
    except (ValueError, RuntimeError) as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"Orbax cannot write these arrays: {reason:.160}.") from None


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


_ALL = frozenset(BY_NAME.values())
ORBAX = Writer("Orbax", _ALL, _write_orbax)

#: Suffix -> writer. A path without a suffix is an Orbax directory.
WRITERS: dict[str, Writer] = {
    ".safetensors": Writer("safetensors", frozenset(_TO_SAFETENSORS), _write_safetensors),
    ".msgpack": Writer("Flax msgpack", _ALL, _write_msgpack),
    ".npz": Writer("NumPy .npz", _TO_NUMPY, _write_npz),
    ".orbax": ORBAX,
    "": ORBAX,
}
