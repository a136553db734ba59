"""`save_params`: write parameters, read them back, compare bit for bit, then report."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from porting import tree
from porting.checkpoint.contents import check_count, check_name, check_shape, quoted
from porting.checkpoint.directories import spelled
from porting.checkpoint.reader import open_checkpoint
from porting.checkpoint.writers import ORBAX, WRITERS, Writer
from porting.errors import ArgumentError, CheckpointError, checked, number_of


@dataclass(frozen=True)
class SaveReport:
    """What was written, after it was read back.

    Attributes:
        path: the file, or the directory for Orbax.
        format: the name of the format.
        leaves: number of arrays.
        nbytes: bytes of all arrays together.
    """

    path: Path
    format: str
    leaves: int
    nbytes: int

    def __str__(self) -> str:
        return (
            f"{self.path.name}: {number_of(self.leaves, 'leaf')}, {self.nbytes:,} bytes, "
            f"{self.format}; read back and compared bit for bit."
        )


def save_params(
    path: str | os.PathLike[str],
    variables: Any,
    *,
    metadata: Mapping[str, str] | None = None,
) -> SaveReport:
    """Write parameters; report success only after the file was read back and compared.

    The new file takes the place of an old one in one step, and only if the comparison
    holds: a failure leaves the old file as it was and nothing else behind.

    Args:
        path: where to write. The suffix names the format: `.safetensors`, `.msgpack`,
            `.npz`; `.orbax` or no suffix for an Orbax directory, which must not exist.
        variables: nested Linen variables, a flat mapping of '/'-joined paths, an open
            `Checkpoint`, or an NNX module or state.
        metadata: texts for the header; safetensors only.

    Returns:
        What was written.

    Raises:
        ArgumentError: an unknown suffix, no arrays, or a leaf that is no array.
        CheckpointError: the format cannot hold a leaf, the path cannot be written, or what
            was read back differs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(save_params(f"{folder}/p.npz", {"params": {"kernel": np.eye(3)[:, :2]}}))
    p.npz: 1 leaf, 48 bytes, NumPy .npz; read back and compared bit for bit.
    """
    checked("path", path, (str, os.PathLike), "Pass where to write, such as params.safetensors.")
    target = Path(path)
    writer = _writer(target)
    if metadata and target.suffix != ".safetensors":
        raise ArgumentError(f"metadata = {quoted(metadata)}: only .safetensors files carry it.")
    arrays = _arrays(target.name, variables, writer)
    if writer is ORBAX and target.exists():
        raise CheckpointError(f"{target.name} exists. Choose another directory, or remove it.")
    _put(target, writer, arrays, metadata or {})
    nbytes = sum(array.nbytes for array in arrays.values())
    return SaveReport(target, writer.format, len(arrays), nbytes)


def _put(
    target: Path, writer: Writer, arrays: dict[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write beside the target, compare, and only then take its place."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        part.mkdir()
        writer.write(part / target.name, arrays, metadata)
        _compare(part / target.name, spelled(arrays) if writer is ORBAX else arrays)
        os.replace(part / target.name, target)
    except OSError as error:
        raise CheckpointError(
            f"{target.name} cannot be written: {error.strerror or error}. Choose another folder, "
            "or make room."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _writer(path: Path) -> Writer:
    writer = WRITERS.get(path.suffix.lower())
    if writer is None or not path.name:
        raise ArgumentError(
            f"{quoted(path.name)} has a suffix that names no format. Use "
            f"{', '.join(s for s in WRITERS if s)}."
        )
    return writer


def _arrays(file: str, variables: Any, writer: Writer) -> dict[str, np.ndarray]:
    """The leaves as C-contiguous NumPy arrays that the format can hold."""
    flat = tree.leaves(variables)
    if not flat:
        raise ArgumentError(f"{file}: there is no array to save. Pass the parameters.")
    check_count(file, len(flat))
    arrays: dict[str, np.ndarray] = {}
    for key, leaf in flat.items():
        check_name(file, key)
        check_shape(file, key, map(int, leaf.shape))
        dtype = leaf.dtype.newbyteorder("=") if isinstance(leaf.dtype, np.dtype) else None
        if dtype not in writer.dtypes:
            raise CheckpointError(
                f"{file}: {quoted(key)} has the type {leaf.dtype}, which {writer.format} cannot "
                "name. Choose another format, or cast it first."
            )
        # np.ascontiguousarray would turn a 0-d array into shape (1,).
        arrays[key] = np.asarray(leaf, dtype, order="C")
    return arrays


def _compare(written: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with open_checkpoint(written, allow_directories=True) as checkpoint:
        wrong = sorted(checkpoint.specs.keys() ^ arrays.keys())
        wrong += [key for key in arrays if key not in wrong and not _same(checkpoint, key, arrays)]
    if wrong:
        raise CheckpointError(
            f"{written.name} was not saved: read back, {number_of(len(wrong), 'leaf')} differ from what "
            f"was written, the first {quoted(wrong[0])}. Nothing was kept; choose another format."
        )


def _same(checkpoint: Mapping[str, np.ndarray], key: str, arrays: Mapping[str, np.ndarray]) -> bool:
    back, array = np.asarray(checkpoint[key], order="C"), arrays[key]
    if back.dtype != array.dtype or back.shape != array.shape:
        return False
    return np.array_equal(back.reshape(-1).view(np.uint8), array.reshape(-1).view(np.uint8))
