"""The tape that all recorders write on: entries, exits, and the replacing of arrays.

A recorder tells the tape when a module is entered and left. The tape copies the arrays,
and in a forced run puts others in their place, so that every module works on the
reference's inputs whatever went wrong before it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np

from porting.compare import UNIT_ROUNDOFF
from porting.errors import ArgumentError, PortingError
from porting.trace.stages import ROOT, Stage

Visit = Callable[[str, Any], Any]


def walk(value: Any, visit: Visit, name: str = "") -> Any:
    """`value` with every array in it replaced by `visit(name, array)`; other things kept.

    >>> walk({"x": (np.float32(1), None)}, lambda name, a: name)
    {'x': ('x.0', None)}
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return visit(name, value)
    if isinstance(value, Mapping):
        items = {k: walk(v, visit, f"{name}.{k}".lstrip(".")) for k, v in value.items()}
        return value if _same(items.values(), value.values()) else _rebuilt(value, items)
    if isinstance(value, (tuple, list)):
        parts = [walk(v, visit, f"{name}.{i}".lstrip(".")) for i, v in enumerate(value)]
        if _same(parts, value):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not callable(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        made = {k: walk(v, visit, f"{name}.{k}".lstrip(".")) for k, v in fields.items()}
        same = _same(made.values(), fields.values())
        return value if same else dataclasses.replace(value, **made)
    return value


def _same(a: Any, b: Any) -> bool:
    return all(x is y for x, y in zip(a, b, strict=True))


def _rebuilt(value: Mapping[str, Any], items: dict[str, Any]) -> Any:
    kind: Callable[..., Any] = type(value)
    if dataclasses.is_dataclass(value) or not isinstance(value, MutableMapping):
        return kind(**items) if dataclasses.is_dataclass(value) else kind(items)
    new = copy.copy(value)  # what else it holds (a default) stays
    for key, item in items.items():
        new[key] = item
    return new


def arrays_in(value: Any, convert: Callable[[Any], np.ndarray | None]) -> dict[str, np.ndarray]:
    """The arrays inside `value` by name, in order, converted; those without a value left out.

    >>> list(arrays_in(((np.ones(2), None), {"mask": np.ones(1)}), np.asarray))
    ['0.0', '1.mask']
    """
    found: dict[str, np.ndarray] = {}

    def visit(name: str, array: Any) -> Any:
        converted = convert(array)
        if converted is not None:
            found[name] = converted
        return array

    walk(value, visit)
    return found


@dataclasses.dataclass
class _Open:
    """A stage that was entered and not left yet."""

    path: str
    kind: str
    parent: str
    started: int
    owner: Any
    inputs: dict[str, np.ndarray]
    dtypes: tuple[str, ...]


class Tape:
    """Writes stages down while a model runs.

    Args:
        convert: a framework's array -> a NumPy copy; None where it holds no value (a tracer).
        restore: (NumPy array, the array that it replaces) -> a framework's array.
        forced: the stages whose inputs and outputs are replaced, by path.
        double: whether `forced` gives its float64 arrays.
    """

    def __init__(
        self,
        convert: Callable[[Any], np.ndarray | None],
        restore: Callable[[np.ndarray, Any], Any],
        forced: Mapping[str, Stage] | None = None,
        double: bool = False,
    ) -> None:
        self.stages: list[Stage] = []
        self._convert, self._restore = convert, restore
        self._forced, self._double = forced or {}, double
        self._open: list[_Open] = []
        self._calls: Counter[str] = Counter()
        self._clock = 0

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def is_inside(self, owner: Any) -> bool:
        """Whether `owner` is the module running now (a `super().__call__`)."""
        return bool(self._open) and self._open[-1].owner is owner

    def enter(self, path: str, owner: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Note a call; give back the arguments to go on with."""
        self._calls[path] += 1
        name = (path or ROOT) + (f"#{self._calls[path]}" if self._calls[path] > 1 else "")
        named = _named(args, kwargs)
        inputs, dtypes = arrays_in(named, self._convert), _dtypes(named)
        parent = self._open[-1].path if self._open else ""
        kind = type(owner).__name__
        self._open.append(_Open(name, kind, parent, self._tick(), owner, inputs, dtypes))
        forced = self._forced.get(name)
        if forced is None:
            return args, kwargs
        arrays = forced.inputs64 if self._double else forced.inputs
        new = self._replace(named, arrays)
        return tuple(v for k, v in new.items() if k.isdigit()), {
            k: v for k, v in new.items() if not k.isdigit()
        }

    def leave(self, output: Any) -> Any:
        """Note the end of the innermost call; give back the output to go on with."""
        stage = self._open.pop()
        outputs = arrays_in(output, self._convert)
        if not outputs:
            self._hand_up(stage)
        else:
            self.stages.append(
                Stage(
                    stage.path,
                    stage.kind,
                    stage.parent,
                    stage.started,
                    self._tick(),
                    stage.inputs,
                    outputs,
                    dtype=_narrowest((*_dtypes(output), *stage.dtypes)),
                )
            )
        forced = self._forced.get(stage.path)
        if forced is None:
            return output
        return self._replace(output, forced.outputs64 if self._double else forced.outputs)

    def drop(self) -> None:
        """Forget the innermost call (it raised)."""
        self._hand_up(self._open.pop())

    def _hand_up(self, gone: _Open) -> None:
        """Give the parts of a call that is no stage to the call around it."""
        for i, stage in enumerate(self.stages):
            if stage.parent == gone.path:
                self.stages[i] = dataclasses.replace(stage, parent=gone.parent)

    def _replace(self, value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        def visit(name: str, array: Any) -> Any:
            return self._restore(arrays[name], array) if name in arrays else array

        return walk(value, visit)


def _named(args: tuple, kwargs: dict) -> dict[str, Any]:
    return {**{str(i): value for i, value in enumerate(args)}, **kwargs}


def _dtypes(value: Any) -> tuple[str, ...]:
    names: list[str] = []

    def visit(_: str, array: Any) -> Any:
        names.append(str(array.dtype).removeprefix("torch."))
        return array

    walk(value, visit)
    return tuple(names)


def _narrowest(names: tuple[str, ...]) -> str:
    """The floating dtype that rounds most: an output is no better than its inputs."""
    floating = [name for name in names if name in UNIT_ROUNDOFF]
    return max(floating, key=lambda name: UNIT_ROUNDOFF[name], default=names[0])


def joined(single: list[Stage], double: list[Stage]) -> tuple[Stage, ...]:
    """The stages of a float32 run with the arrays of a float64 run of the same model.

    A stage that stayed in a narrower type in the float64 run (a fixed `dtype`) gets none:
    its two runs say nothing about rounding.
    """
    found = {stage.path: stage for stage in double}

    def both(stage: Stage) -> Stage:
        twin = found.get(stage.path)
        narrow = stage.output.dtype.kind == "f" and twin is not None and twin.dtype != "float64"
        if twin is None or narrow:
            return stage
        return dataclasses.replace(stage, inputs64=twin.inputs, outputs64=twin.outputs)

    return tuple(both(stage) for stage in single)


def not_run(error: Exception, double: bool) -> PortingError:
    """What to say of a model that raised while it was recorded."""
    if isinstance(error, PortingError):
        return error
    what = f"{type(error).__name__}: {error}"
    if double:
        return ArgumentError(
            f"The model runs in float32 but not in float64 ({what}). Record it with double=False."
        )
    return ArgumentError(
        f"The model could not be recorded ({what}). Call it on these inputs without recording: "
        "it must run there."
    )
