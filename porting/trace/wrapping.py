"""How calls of Flax modules come onto the tape: classes wrapped, rematerialisation lifted."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from porting.trace.tape import Tape

METHODS = ("__call__", "attend")  #: whose calls are stages
#: One recording at a time: it touches classes, and `jax.remat`.
_WRAPPING = threading.RLock()


def path_of(module: tuple[str, ...], method: str) -> str:
    """The path of a stage: its module's, and the method where it is not `__call__`.

    >>> path_of(("model", "embed"), "__call__"), path_of(("model", "embed"), "attend")
    ('model/embed', 'model/embed/attend')
    """
    return "/".join((*module, *(() if method == "__call__" else (method,))))


@contextlib.contextmanager
def without_remat() -> Iterator[None]:
    """`nn.remat` without effect: it computes the same, and what runs inside holds values."""
    import jax

    def plain(function: Any, **_: Any) -> Any:
        return function

    with _WRAPPING:
        remat = jax.remat
        try:
            jax.remat = plain  # type: ignore[assignment]
            yield
        finally:
            jax.remat = remat


def on_tape(tape: Tape, path: str, owner: Any, call: Any, args: tuple, kwargs: dict) -> Any:
    """The output of a call that is written on the tape."""
    args, kwargs = tape.enter(path, owner, args, kwargs)
    try:
        output = call(*args, **kwargs)
    except BaseException:
        tape.drop()
        raise
    return tape.leave(output)


@contextlib.contextmanager
def wrapped(classes: set[type], paths: Mapping[int, str], tape: Tape) -> Iterator[None]:
    """`__call__` of `classes` writing on the tape, for the modules in `paths` in this thread."""
    thread = threading.get_ident()

    def wrap(call: Any, method: str) -> Any:
        @functools.wraps(call)
        def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
            known = id(self) in paths and threading.get_ident() == thread
            if not known or tape.is_inside(self):
                return call(self, *args, **kwargs)
            bound = functools.partial(call, self)
            path = path_of(tuple(filter(None, [paths[id(self)]])), method)
            return on_tape(tape, path, self, bound, args, kwargs)

        return recorded

    with _WRAPPING:
        methods = [(c, method) for c in classes for method in METHODS if hasattr(c, method)]
        own = {(c, method): c.__dict__.get(method) for c, method in methods}
        wrappers = {(c, method): wrap(getattr(c, method), method) for c, method in methods}
        try:
            for (c, method), wrapper in wrappers.items():
                setattr(c, method, wrapper)
            yield
        finally:
            for (c, method), call in own.items():
                if call is not None:
                    setattr(c, method, call)
                elif method in c.__dict__:
                    delattr(c, method)
