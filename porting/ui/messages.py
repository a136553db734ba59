"""A `PortingError` becomes a sentence on the page; anything else is a bug and propagates."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from porting.errors import PortingError
from porting.ui.memory import purge_above


def in_lens(handler: Callable[..., Any], others: int = 0) -> Callable[..., Any]:
    """For handlers whose first output is a lens: the message above the last valid pictures.

    Args:
        handler: what may raise.
        others: how many outputs follow the lens; they stay as they are.
    """

    @functools.wraps(handler)
    def safe(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except PortingError as error:
            message = {"error": str(error)}
            return (message, *[gr.skip()] * others) if others else message
        finally:
            purge_above()

    return safe


def as_toast(handler: Callable[..., Any]) -> Callable[..., Any]:
    """For endpoints and files: a toast on the page, an `AppError` in the client.

    A handler that works in steps (a generator) stays one.
    """

    @functools.wraps(handler)
    def stepwise(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from handler(*args, **kwargs)
        except PortingError as error:
            raise gr.Error(str(error), print_exception=False) from None

    @functools.wraps(handler)
    def safe(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except PortingError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return stepwise if inspect.isgeneratorfunction(handler) else safe
