"""`Fault`: one mistake that a port can make, and how to make it on purpose.

A fault is a row: what it is called, what a person sees, why it happens, the fix, where it is
known from, and a pure function that puts it into a right port. Most faults are built from
the leaf transforms below, which name leaves by path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from porting.layouts import Rule

Leaves = Mapping[str, np.ndarray]
#: Another forward pass of the Linen module: (module, variables, *inputs, **keywords) -> output.
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Port:
    """A port that a fault can be put into.

    Attributes:
        leaves: what the port writes, path -> array.
        init: makes what the target held before the port, path -> array.
        config: the constants of the layer that no leaf holds (epsilon, activation, heads, …).
        skipped: paths that the port did not write.
        layer: a name in `LAYERS`, or "EncoderBlock".
        forward: what runs instead of the module, where a mistake lies in code that no option
            expresses; `None` for the module itself.
    """

    leaves: Leaves
    init: Callable[[], Leaves]
    config: Mapping[str, Any] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    layer: str = ""
    forward: Forward | None = None

    def with_leaves(self, changed: Leaves) -> Port:
        """The port with some of its leaves replaced."""
        return replace(self, leaves={**self.leaves, **changed})

    def under(self, *prefixes: str) -> list[str]:
        """The paths that are one of `prefixes` or below it, in the order of the tree.

        >>> Port({"ln/scale": np.ones(2), "ff/bias": np.zeros(3)}, dict).under("ln", "ff/bias")
        ['ln/scale', 'ff/bias']
        """
        return [p for p in self.leaves if any(f"{p}/".startswith(f"{q}/") for q in prefixes)]


Transform = Callable[[Port], Port]


@dataclass(frozen=True)
class Fault:
    """One row of the catalogue.

    Attributes:
        name: key of the row.
        title: what a menu shows.
        symptom: what a person sees.
        why: how it comes about.
        fix: the line that puts it right.
        source: where it is known from.
        inject: right port -> faulty port; neither is changed in place.
        kind: the verdict once the outputs show it, a key of `porting.verdict.KINDS`.
        where: "leaves", or "forward" for a constant or a line of the forward pass, which no
            comparison of leaves can see.
        fits: whether this port can have the fault.
        hidden: why no output can ever show it, where that is so; "" where outputs can.
    """

    name: str
    title: str
    symptom: str
    why: str
    fix: str
    source: str
    inject: Transform
    kind: str = "silent"
    where: str = "leaves"
    fits: Callable[[Port], bool] = lambda port: True
    hidden: Callable[[Port], str] = lambda port: ""


Paths = Callable[[Port], Sequence[str]]


def skip_paths(paths: Paths) -> Transform:
    """Leave every leaf that `paths` names at its init."""
    return lambda port: skip(*paths(port))(port)


def skip(*prefixes: str) -> Transform:
    """Leave every leaf under `prefixes` at its init.

    >>> port = Port({"a/bias": np.ones(2)}, lambda: {"a/bias": np.zeros(2)})
    >>> skip("a")(port).leaves["a/bias"].tolist()
    [0.0, 0.0]
    """

    def transform(port: Port) -> Port:
        paths, init = port.under(*prefixes), port.init()
        kept = port.with_leaves({path: init[path] for path in paths})
        return replace(kept, skipped=port.skipped | set(paths))

    return transform


def exchange(first: str, second: str) -> Transform:
    """Exchange the leaves under two prefixes.

    >>> port = Port({"q/bias": np.zeros(1), "k/bias": np.ones(1)}, dict)
    >>> exchange("q", "k")(port).leaves["q/bias"].tolist()
    [1.0]
    """

    def transform(port: Port) -> Port:
        changed = {}
        for a, b in ((first, second), (second, first)):
            for path in port.under(a):
                changed[path] = port.leaves[b + path.removeprefix(a)]
        return port.with_leaves(changed)

    return transform


def rearrange(pattern: str, *paths: str, **sizes: str) -> Transform:
    """Apply one rule too many to the leaves at `paths`.

    Args:
        pattern: named axes, as in `Rule`.
        sizes: axis -> the name of the constant in `Port.config` that holds its size.

    >>> port = Port({"kernel": np.arange(4).reshape(2, 2)}, dict)
    >>> rearrange("o i -> i o", "kernel")(port).leaves["kernel"].tolist()
    [[0, 2], [1, 3]]
    """

    def transform(port: Port) -> Port:
        rule = Rule(pattern, {axis: port.config[name] for axis, name in sizes.items()})
        return port.with_leaves({path: rule.apply(port.leaves[path]) for path in paths})

    return transform


def change(paths: Paths, edit: Callable[[np.ndarray], np.ndarray]) -> Transform:
    """Give each leaf that `paths` names through `edit`.

    >>> port = Port({"kernel": np.ones((2, 3))}, dict)
    >>> change(lambda port: ["kernel"], np.transpose)(port).leaves["kernel"].shape
    (3, 2)
    """
    return lambda port: port.with_leaves({path: edit(port.leaves[path]) for path in paths(port)})


def run_with(forward: Forward) -> Transform:
    """Run `forward` instead of the module; the leaves stay right."""
    return lambda port: replace(port, forward=forward)


def configure(**constants: Any) -> Transform:
    """Change constants of the layer; the leaves stay right.

    >>> configure(epsilon=1e-6)(Port({}, dict, {"epsilon": 1e-5})).config
    {'epsilon': 1e-06}
    """
    return lambda port: replace(port, config={**port.config, **constants})


def in_turn(*transforms: Transform) -> Transform:
    """One transform after another."""

    def transform(port: Port) -> Port:
        for step in transforms:
            port = step(port)
        return port

    return transform
