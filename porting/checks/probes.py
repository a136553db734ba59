"""What a port is run on: the inputs that people take, and what each cannot show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from porting.layers import Input

#: Sizes of named axes. The images are even on every side, which is where padding shows.
EVEN = {"batch": 2, "time": 5, "source": 7, "channels": 3, "shuffled": 12, "even": 6, "...": 5}
EVEN |= {"depth": 6, "height": 8, "width": 10, "length": 12}
ODD = EVEN | {"depth": 5, "height": 7, "width": 9, "length": 11}
ONE = EVEN | {"time": 1, "source": 1, "...": 1}
_SPACE = {"depth", "height", "width", "length"}
_TOKENS = {"time", "source", "..."}

Inputs = tuple[np.ndarray, ...]
Specs = tuple[Input, ...]


@dataclass(frozen=True)
class Probe:
    """One kind of input.

    Attributes:
        name: key of the column.
        title: what a reader sees.
        hides: what it cannot show.
        make: (inputs of the layer, generator) -> arrays; `None` where the layer has no such
            input (a constant image for a layer without images).
    """

    name: str
    title: str
    hides: str
    make: Callable[[Specs, np.random.Generator], Inputs | None]


def _names(spec: Input) -> list[str]:
    return [axis.rstrip("?") if isinstance(axis, str) else "" for axis in spec.axes]


def _shape(spec: Input, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if spec.axes == ("...",) and not spec.ids:  # any axes: two, so that they can be told apart
        return sizes["..."], sizes["even"]
    return tuple(
        sizes.get(axis.rstrip("?"), 3) if isinstance(axis, str) else axis for axis in spec.axes
    )


def _has(specs: Specs, wanted: set[str]) -> bool:
    """Whether an input has such an axis; the last one holds features, unless there are ids."""
    return any(
        set(_names(spec) if spec.ids or wanted is _SPACE else _names(spec)[:-1]) & wanted
        for spec in specs
    )


def _random(specs: Specs, generator: np.random.Generator, sizes: Mapping[str, int]) -> Inputs:
    return tuple(
        generator.integers(0, spec.ids, _shape(spec, sizes), dtype=np.int32)
        if spec.ids
        else generator.standard_normal(_shape(spec, sizes), dtype=np.float32)
        for spec in specs
    )


def random_normal(specs: Specs, generator: np.random.Generator) -> Inputs:
    """Standard normal numbers (ids: any of the table's)."""
    return _random(specs, generator, EVEN)


def _ones(specs: Specs, generator: np.random.Generator) -> Inputs:
    return tuple(
        np.ones(_shape(spec, EVEN), np.int32 if spec.ids else np.float32) for spec in specs
    )


def _one_token(specs: Specs, generator: np.random.Generator) -> Inputs | None:
    return _random(specs, generator, ONE) if _has(specs, _TOKENS) else None


def _identical_rows(specs: Specs, generator: np.random.Generator) -> Inputs | None:
    """The first token everywhere."""
    if not _has(specs, _TOKENS):
        return None
    return tuple(
        _repeated(x, [name in _TOKENS for name in _names(spec)])
        for x, spec in zip(_random(specs, generator, EVEN), specs, strict=True)
    )


def _constant_image(specs: Specs, generator: np.random.Generator) -> Inputs | None:
    """One number for each channel."""
    if not _has(specs, _SPACE):
        return None
    return tuple(
        _repeated(x, [name in _SPACE for name in _names(spec)])
        for x, spec in zip(_random(specs, generator, EVEN), specs, strict=True)
    )


def _repeated(x: np.ndarray, axes: list[bool]) -> np.ndarray:
    first = x[tuple(slice(0, 1) if repeat else slice(None) for repeat in axes)]
    return np.ascontiguousarray(np.broadcast_to(first, x.shape))


def _odd_size(specs: Specs, generator: np.random.Generator) -> Inputs | None:
    return _random(specs, generator, ODD) if _has(specs, _SPACE) else None


PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe("one_token", "One token", "q and k exchanged; every rotary fault.", _one_token),
        Probe("identical_rows", "Identical rows", "q and k exchanged; masks.", _identical_rows),
        Probe("ones", "All ones", "what the features are, and where they stand.", _ones),
        Probe(
            "constant_image",
            "Constant image",
            "height and width exchanged, flips, resizing.",
            _constant_image,
        ),
        Probe("odd_size", "Odd size", "'SAME' padding at stride 2.", _odd_size),
        Probe("random_normal", "Random normal", "what small numbers would show.", random_normal),
    )
}
