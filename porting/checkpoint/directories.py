"""A directory as a checkpoint: a folder of shards, or what Orbax writes.

For a path that the person typed, never for an upload: the chunks of an Orbax checkpoint
may be symbolic links to any file of the host (google/orbax 3375).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

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
from porting.errors import CheckpointError, LimitError, number_of

ORBAX_FORMAT = "Orbax"
_T = TypeVar("_T")
_STEP = "_CHECKPOINT_METADATA"
_MARKS = ("_METADATA", _STEP, "manifest.ocdbt", "checkpoint")
_VALUE = "/value"  # how Orbax spells the array inside a variable of NNX
_FILES = 200_000


@contextmanager
def quiet() -> Iterator[None]:
    """Orbax logs the traceback of what it then raises: the person gets a sentence instead."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


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
        return [_item(directory, names)]
    steps = [name for name in names if (directory / name / _STEP).is_file()]
    if steps:
        raise CheckpointError(
            f"{quoted(directory.name)} holds {number_of(len(steps), 'step')} of training: "
            f"{', '.join(steps[:5])}. Pass the directory of one of them."
        )
    found = ([name for name in names if name.endswith(end)] for end in _WEIGHTS)
    chosen = next(filter(None, found), [])
    if len(chosen) != 1:
        what = "no checkpoint" if not chosen else "several checkpoints: " + ", ".join(chosen[:5])
        raise CheckpointError(
            f"{quoted(directory.name)} holds {what}. Pass one file, the index of its shards, or a "
            "directory that Orbax wrote."
        )
    return [directory / chosen[0]]


def _item(directory: Path, names: list[str]) -> Path:
    """The directory of the arrays: a `CheckpointManager` keeps them one below its step."""
    if names.count(_STEP) == 0 or any(mark in names for mark in _MARKS if mark != _STEP):
        return directory
    items = [name for name in names if (directory / name / _MARKS[0]).is_file()]
    if len(items) != 1:
        raise CheckpointError(
            f"{quoted(directory.name)} holds {number_of(len(items), 'item')} of Orbax"
            f"{': ' if items else ''}{', '.join(items[:5])}. Pass the directory of one item."
        )
    return directory / items[0]


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

        with quiet():
            handler = ocp.PyTreeCheckpointer()
            tree = handler.metadata(directory.absolute()).item_metadata.tree
    except Exception as error:
        raise _refused(name, error) from None
    leaves = spelled(dict(_flatten(tree)))
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


def spelled(leaves: Mapping[str, _T]) -> dict[str, _T]:
    """Leaves by path, those of an NNX state as NNX itself spells them.

    >>> spelled({"norm/scale/value": 1, "fc/kernel/value": 2})
    {'norm/scale': 1, 'fc/kernel': 2}
    """
    is_nnx = all(path.endswith(_VALUE) for path in leaves)
    return {path.removesuffix(_VALUE) if is_nnx else path: leaf for path, leaf in leaves.items()}


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
        with quiet():
            restored = handler.restore(
                directory.absolute(), args=ocp.args.PyTreeRestore(restore_args=arguments)
            )
    except Exception as error:
        raise _refused(name, error) from None
    found = spelled(dict(_flatten(restored)))
    return {path: np.array(leaf) for path, leaf in found.items() if path in leaves}


def _refused(name: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()
    return CheckpointError(
        f"{name} cannot be read as an Orbax checkpoint: "
        f"{quoted(reason[0] if reason else type(error).__name__, 160)}. "
        "Pass the directory that holds its _METADATA."
    )
