"""Flax modules that the rows share: a function without parameters, as a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen, nnx


class LinenFunction(linen.Module):
    """A function of its inputs, without parameters."""

    fn: Callable[..., Any]

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self.fn(*inputs, **keywords)


class NNXFunction(nnx.Module):
    """A function of its inputs, without parameters."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self.fn(*inputs, **keywords)
