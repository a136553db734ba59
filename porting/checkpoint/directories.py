"""A directory as a checkpoint: a folder of shards, or what Orbax writes.

For a path that the person typed, never for an upload: the chunks of an Orbax checkpoint
may be symbolic links to any file of the host (google/orbax 3375).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from porting import limits
from porting.checkpoint.contents import (
    Contents,
    Spec,
    Tensor,
    check_bytes,
    check_count,
    check_name,
    check_shape,
    quoted,
)
from porting.checkpoint.dtypes import BY_NAME
from porting.checkpoint.files import finished
from porting.errors import CheckpointError, LimitError

ORBAX_FORMAT = "Orbax"
_MARKS = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint")
_FILES = 200_000


#: What a folder of weights holds, the first that is there: an index, or the one file.
_WEIGHTS = (
    ".safetensors.index.json",
    ".safetensors",
    ".bin.index.json",
    ".bin",
    ".msgpack.index.json",
    ".msgpack",
)


def weights_in(directory: Path) -> list[Path]:
    """The weight file of a folder or the index of its shards, or the folder where Orbax wrote it.

    Raises:
        CheckpointError: neither is there, or several checkpoints are.
    """
    names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    if any(mark in names for mark in _MARKS):
        return [directory]
    found = ([name for name in names if name.endswith(end)] for end in _WEIGHTS)
    chosen = next(filter(None, found), [])
    if len(chosen) != 1:
        what = "no checkpoint" if not chosen else "several checkpoints: " + ", ".join(chosen[:5])
        raise CheckpointError(
            f"{quoted(directory.name)} holds {what}. Pass one file, the index of its shards, or a "
            "directory that Orbax wrote."
        )
    return [directory / chosen[0]]


def read_orbax(directory: Path, max_bytes: int | None = None) -> Contents:
    """The arrays of an Orbax directory, with '/'-joined paths.

    Shapes and types come from its metadata; the first tensor that is asked for reads all.

    Raises:
        CheckpointError: a link inside, no metadata, or not a checkpoint.
        LimitError: too many files, tensors or bytes.
    """
    name = quoted(directory.name)[1:-1]
    size = _check_plain(directory, name)
    try:
        import orbax.checkpoint as ocp

        handler = ocp.PyTreeCheckpointer()
        tree = handler.metadata(directory.absolute()).item_metadata.tree
    except Exception as error:
        raise _refused(name, error) from None
    leaves = dict(_flatten(tree))
    check_count(name, len(leaves))
    arrays: dict[str, np.ndarray] = {}

    def read(key: str) -> np.ndarray:
        if not arrays:
            arrays.update(_restore(directory, name, handler, leaves))
        return finished(name, key, arrays[key])

    tensors = {}
    for path, leaf in leaves.items():
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        known = BY_NAME.get(getattr(dtype, "name", str(dtype)))
        if shape is not None and known is not None:
            spec = Spec(check_shape(name, path, map(int, shape)), known)
            tensors[path] = Tensor(spec, partial(read, path))
    if not tensors:
        raise CheckpointError(f"{name}: an Orbax directory without arrays.")
    check_bytes(name, tensors, size, max_bytes)
    left = [quoted(path) for path in leaves if path not in tensors]
    notes = (f"Left out what is no array: {', '.join(left[:5])}.",) if left else ()
    return Contents(ORBAX_FORMAT, tensors, ordered=False, notes=notes)


def _check_plain(directory: Path, name: str) -> int:
    """The bytes below `directory`, if all of it is plain files and folders."""
    size, count, folders = 0, 0, [directory]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_size
                else:
                    raise CheckpointError(
                        f"{name}: {quoted(entry.name)} inside it is a link or a device. Such a "
                        "directory could show any file of this machine; copy the real files."
                    )
        if count > _FILES:
            raise LimitError(f"{name}: holds more than {_FILES:,} files, the limit.")
    return size


def _flatten(tree: Any) -> Iterator[tuple[str, Any]]:
    stack: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, Mapping):
            items = [(str(key), value) for key, value in node.items()]
        elif isinstance(node, (list, tuple)):
            items = [(str(i), value) for i, value in enumerate(node)]
        else:
            yield check_name("checkpoint", "/".join(path)), node
            continue
        if len(path) > limits.DEPTH:
            raise LimitError(f"The checkpoint has tables more than {limits.DEPTH} deep.")
        stack += [((*path, key), value) for key, value in reversed(items)]


def _restore(
    directory: Path, name: str, handler: Any, leaves: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Every array as NumPy's, on the host, whatever devices wrote it."""
    try:
        import jax
        import orbax.checkpoint as ocp

        tree = handler.metadata(directory.absolute()).item_metadata.tree
        plain = ocp.RestoreArgs(restore_type=np.ndarray)
        arguments = jax.tree.map(lambda _: plain, tree)
        restored = handler.restore(
            directory.absolute(), args=ocp.args.PyTreeRestore(restore_args=arguments)
        )
    except Exception as error:
        raise _refused(name, error) from None
    return {path: np.array(leaf) for path, leaf in _flatten(restored) if path in leaves}


def _refused(name: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()
    return CheckpointError(
        f"{name} cannot be read as an Orbax checkpoint: "
        f"{quoted(reason[0] if reason else type(error).__name__, 160)}. "
        "Pass the directory that holds its _METADATA."
    )
