"""What a person names on the command line: the files of a checkpoint, the model of a port."""

from __future__ import annotations

import glob
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from porting.checkpoint import open_checkpoint
from porting.errors import ArgumentError, CheckpointError, PortingError
from porting.tree import leaves

#: How the code of a person fails; a program that parses its arguments ends.
_FAILS = (Exception, SystemExit)


def open_named(names: Sequence[str]) -> Any:
    """The checkpoint that a command line names, open; a folder is read as well.

    Args:
        names: one file, folder, index, `hf://owner/name` or pattern in quotes
            (`'model-*.safetensors'`), or all shards one by one.

    Raises:
        CheckpointError: a pattern that fits no file, or what `open_checkpoint` raises.
    """
    paths = [path for name in names for path in _expanded(name)]
    return open_checkpoint(paths[0] if len(paths) == 1 else paths, allow_directories=True)


def _expanded(name: str) -> list[str]:
    if name.startswith("hf://") or os.path.exists(name) or not glob.has_magic(name):
        return [name]
    found = sorted(glob.glob(name))
    if not found:
        raise CheckpointError(f"No file fits {name!r}. Check the folder and the pattern.")
    return found


def is_callable_name(text: str) -> bool:
    """Whether `text` is `package.module:callable` and not a path.

    >>> is_callable_name("models.bert:make"), is_callable_name("params.msgpack")
    (True, False)
    """
    return ":" in text and not text.startswith("hf://") and not Path(text).exists()


def flax_target(text: str) -> Any:
    """What the object named by `package.module:callable` gives as target of a mapping.

    A callable is called: it may return an NNX module (made without its numbers where that
    works), an abstract one, the pair (linen_module, sample_input), or a tree of parameters.
    An NNX class whose only argument is `rngs` may be named itself. The working directory
    comes first on the path of imports.

    Raises:
        ArgumentError: it cannot be imported, or raises.

    >>> flax_target("porting.models:NNXRNet").dense4.kernel.shape
    (576, 128)
    """
    module, _, name = text.partition(":")
    with _working_directory():
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except _FAILS as error:
            raise ArgumentError(
                f"TARGET {text!r} cannot be imported: {_said(error)}. Write "
                "package.module:callable, or the path of a parameters file."
            ) from None
        is_module = hasattr(found, "init") and not isinstance(found, type)
        made = _called(text, found) if callable(found) and not is_module else found
        return _initialised(text, made) if isinstance(made, tuple) else made


def _called(text: str, make: Callable[..., Any]) -> Any:
    """What a callable returns; an NNX module without its numbers where that works."""
    from flax import nnx

    ready = _with_rngs(make)
    try:
        return nnx.eval_shape(ready)
    except _FAILS:  # a Linen module in a tuple, say, is no tree of arrays
        try:
            return ready()
        except _FAILS as error:
            raise ArgumentError(
                f"TARGET {text!r} raises {_said(error)}. Name a callable without arguments that "
                "returns an NNX module, (linen_module, sample_input), or a tree of parameters."
            ) from None


def _initialised(text: str, pair: tuple[Any, ...]) -> Any:
    """The leaves of a Linen module and its sample inputs, without their numbers."""
    try:
        return leaves(pair)
    except PortingError as error:
        raise ArgumentError(f"TARGET {text!r}: {error}") from None


def _with_rngs(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, given the random streams if it asks for nothing else."""
    from flax import nnx

    # The metaclass of NNX hides the signature of a class; this is that very class, no subclass.
    called: Any = make.__init__ if isinstance(make, type) else make  # type: ignore[misc]
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):
        return make
    asked = {p.name for p in parameters if p.default is p.empty and "VAR" not in p.kind.name}
    return (lambda: make(rngs=nnx.Rngs(0))) if asked - {"self"} == {"rngs"} else make


def _said(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "no text")
    return f"{type(error).__name__}: {first}"


@contextmanager
def _working_directory() -> Iterator[None]:
    """The working directory first on the path of imports."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
