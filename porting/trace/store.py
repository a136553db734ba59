"""A trace as one safetensors file: the arrays, and their order in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from porting.checkpoint.files import MappedFile
from porting.checkpoint.safetensors import read_safetensors
from porting.errors import CheckpointError, checked
from porting.trace.stages import Stage, Trace

_KEY = "portlens.trace"  #: of the metadata
_SLOTS = ("inputs", "outputs", "inputs64", "outputs64")
_WORDS = ("path", "kind", "parent", "started", "finished", "dtype")


def save_trace(trace: Trace, path: str | Path, leaves: bool = False) -> None:
    """Write a trace; read it back and compare it bit for bit.

    Args:
        trace: the trace.
        path: the file, `*.safetensors`.
        leaves: whether the parameters go along (they let `explain` try variants).

    Raises:
        CheckpointError: what was read back is not what was written.
    """
    from safetensors.numpy import save

    kept = dict(trace.leaves) if leaves else {}
    arrays = {f"leaf/{i}": np.asarray(value, order="C") for i, value in enumerate(kept.values())}
    table: list[dict[str, Any]] = []
    for number, stage in enumerate(trace.stages):
        row: dict[str, Any] = {word: getattr(stage, word) for word in _WORDS}
        for slot in _SLOTS:
            named = getattr(stage, slot)
            row[slot] = list(named)
            for i, value in enumerate(named.values()):
                arrays[f"{number}/{slot}/{i}"] = np.asarray(value, order="C")
        table.append(row)
    text = {"framework": trace.framework, "stages": table, "leaves": list(kept)}
    data = save(arrays, {_KEY: json.dumps(text)})
    Path(path).write_bytes(data)
    _check(load_trace(path), trace, path)


def _check(read: Trace, trace: Trace, path: str | Path) -> None:
    for mine, theirs in zip(read.stages, trace.stages, strict=True):
        for slot in _SLOTS:
            for name, array in getattr(theirs, slot).items():
                back = getattr(mine, slot)[name]
                same = back.dtype == array.dtype and back.shape == array.shape
                if not same or back.tobytes() != array.tobytes():
                    raise CheckpointError(
                        f"{path} does not hold what was written at {theirs.path}, {slot} {name}. "
                        "Write it again, to another disk if it goes on."
                    )


def load_trace(path: str | Path) -> Trace:
    """The trace that `save_trace` (or `Trace.save`) wrote.

    Raises:
        CheckpointError: the file is no safetensors file, or holds no trace.
    """
    checked("path", path, (str, Path), "Pass the file of a trace.")
    contents = read_safetensors(MappedFile(Path(path)))
    try:
        arrays = {name: tensor.read() for name, tensor in contents.tensors.items()}
        table = json.loads(contents.metadata[_KEY])
        stages = tuple(_stage(row, i, arrays) for i, row in enumerate(table["stages"]))
        leaves = {name: arrays[f"leaf/{i}"] for i, name in enumerate(table["leaves"])}
        return Trace(str(table["framework"]), stages, leaves)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{Path(path).name} is no trace ({type(error).__name__}: {error}). "
            "Pass a file that `Trace.save` wrote."
        ) from None


def _stage(row: Mapping[str, Any], number: int, arrays: Mapping[str, np.ndarray]) -> Stage:
    slots: dict[str, Any] = {
        slot: {name: arrays[f"{number}/{slot}/{i}"] for i, name in enumerate(row[slot])}
        for slot in _SLOTS
    }
    if not slots["outputs"]:
        raise ValueError(f"stage {row['path']} has no output")
    words: dict[str, Any] = {
        word: type_(row[word]) for word, type_ in zip(_WORDS, _TYPES, strict=True)
    }
    return Stage(**words, **slots)


_TYPES = (str, str, str, int, int, str)
