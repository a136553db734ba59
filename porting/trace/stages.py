"""`Trace`: what every module of a model received and gave back in one forward pass.

A stage is one call of one module. Its path is the module's own name in its framework
(`encoder.layer.0` in PyTorch, `encoder/layers_0` in Flax); a second call of the same module
is `path#2`, and the model itself is `(model)`. Stages stand in the order in which they
finish, so a child comes before its parent and every cause before its effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import ArgumentError
from porting.trace.recurrent import main_output

ROOT = "(model)"  #: the path of the outermost module
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Stage:
    """One call of one module.

    Attributes:
        path: the module's name, with `#2` behind it on its second call.
        kind: the name of its class.
        parent: the path of the stage that called it; "" for the outermost.
        started: when it was entered, on a clock that counts entries and exits.
        finished: when it was left, on the same clock.
        inputs: the arrays among its arguments, by position or keyword (`0`, `mask`, `1.0`).
        outputs: the arrays that it returned; `output` is the one that goes on.
        inputs64: the same in a float64 run; empty where none was made.
        outputs64: the same in a float64 run; empty where none was made.
        dtype: the narrowest floating dtype among its outputs and inputs (else the output's);
            bfloat16 and float16 are kept as float32 (exact).
    """

    path: str
    kind: str
    parent: str
    started: int
    finished: int
    inputs: Arrays
    outputs: Arrays
    inputs64: Arrays = field(default_factory=dict)
    outputs64: Arrays = field(default_factory=dict)
    dtype: str = "float32"

    @property
    def output(self) -> np.ndarray:
        """What goes on to the next stage: mostly the first array that was returned."""
        return self.outputs[main_output(self.kind, self.outputs)]

    @property
    def module(self) -> str:
        """The path without the number of the call."""
        return self.path.partition("#")[0]


@dataclass(frozen=True)
class Trace(Mapping[str, np.ndarray]):
    """The stages of one forward pass: a mapping from stage path to its output, in order.

    Attributes:
        framework: `torch`, `linen` or `nnx`.
        stages: in the order in which they finished.
        leaves: the model's parameters by path, where they were kept.
        replay: runs the model again with the inputs and outputs of some stages replaced;
            only of a fresh recording, never of a file.

    >>> stage = Stage("fc", "Dense", "", 0, 1, {"0": np.ones(2)}, {"": np.ones(3)})
    >>> trace = Trace("linen", (stage,))
    >>> list(trace), trace["fc"].shape, trace.double
    (['fc'], (3,), False)
    """

    framework: str
    stages: tuple[Stage, ...]
    leaves: Mapping[str, Any] = field(default_factory=dict)
    replay: Callable[[Mapping[str, Stage]], Trace] | None = field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_path", {stage.path: stage for stage in self.stages})

    def __getitem__(self, path: str) -> np.ndarray:
        return self.stage(path).output

    def __contains__(self, path: object) -> bool:
        return path in self.__dict__["_by_path"]

    def __iter__(self) -> Iterator[str]:
        return (stage.path for stage in self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def double(self) -> bool:
        """Whether a float64 run was recorded as well."""
        return any(stage.outputs64 for stage in self.stages)

    def stage(self, path: str) -> Stage:
        """The stage of that path.

        Raises:
            ArgumentError: there is none.
        """
        found: Mapping[str, Stage] = self.__dict__["_by_path"]
        if path not in found:
            some = ", ".join(list(found)[:6])
            raise ArgumentError(f"The trace has no stage {path!r}. It has {some}, …")
        return found[path]

    def save(self, path: str | Path, leaves: bool = False) -> None:
        """Write the trace to a safetensors file; see `porting.trace.store.save_trace`."""
        from porting.trace.store import save_trace

        save_trace(self, path, leaves)

    def children(self, path: str) -> tuple[Stage, ...]:
        """The stages that `path` called itself, in order."""
        return tuple(stage for stage in self.stages if stage.parent == path)

    def ancestors(self, path: str) -> Iterator[str]:
        """The stages around `path`, from the inside out."""
        parent = self.stage(path).parent
        while parent in self:
            yield parent
            parent = self.stage(parent).parent
