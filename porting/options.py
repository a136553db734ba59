"""A layer's options as a person writes them: `kernel_size=3, padding='same'`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from porting.errors import ArgumentError

LONGEST = 500  #: characters of an options text
PLAIN = (int, float, bool, str, type(None))


def parse_options(text: str) -> dict[str, Any]:
    """Keyword arguments with literal values; nothing is evaluated.

    Raises:
        ArgumentError: it is no list of `name=value`, or a value is no number, text or tuple.

    >>> parse_options("kernel_size=(3, 5), bias=False, padding='same'")
    {'kernel_size': (3, 5), 'bias': False, 'padding': 'same'}
    """
    if len(text) > LONGEST:
        raise ArgumentError(f"options is longer than {LONGEST} characters. Write fewer.")
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError
        found = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        if len(found) < len(call.keywords):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ArgumentError(
            "options cannot be read. Write them as in Python: kernel_size=3, padding='same'."
        ) from None
    for name, value in found.items():
        parts = value if isinstance(value, (tuple, list)) else (value,)
        if not all(isinstance(part, PLAIN) for part in parts):
            raise ArgumentError(f"{name} is no number, text, or tuple of them.")
        if any(isinstance(part, int) and abs(part) > 2**31 for part in parts):
            raise ArgumentError(f"{name} is too large. Choose a smaller number.")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def write_options(options: Mapping[str, Any]) -> str:
    """The text that `parse_options` reads.

    >>> write_options({"kernel_size": 3, "padding": "same"})
    "kernel_size=3, padding='same'"
    """
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
