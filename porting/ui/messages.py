"""A `PortingError` becomes a sentence on the page; anything else is a bug and propagates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from porting.errors import PortingError


def in_lens(handler: Callable[..., Any]) -> Callable[..., Any]:
    """For handlers whose first output is a lens: the message above the last valid pictures."""

    @functools.wraps(handler)
    def safe(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except PortingError as error:
            return {"error": str(error)}

    return safe


def as_toast(handler: Callable[..., Any]) -> Callable[..., Any]:
    """For endpoints and files: a toast on the page, an `AppError` in the client."""

    @functools.wraps(handler)
    def safe(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except PortingError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return safe
