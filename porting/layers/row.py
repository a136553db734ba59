"""`Layer`: everything the package knows about one layer, as data and small functions.

A row names the PyTorch keys, the Flax leaves with their rules, the two Flax modules and
the reference. Porting, running, random states, the app and the tests all read rows, so a
new layer is a row and golden data, never a branch elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from porting.errors import ArgumentError, CoverageError
from porting.layers.options import check_options
from porting.leaves import Leaf
from porting.limits import elements
from porting.tree import fold

Config = SimpleNamespace  #: the settled options of one layer, as attributes
Shapes = Mapping[str, tuple[int, ...]]
State = Mapping[str, np.ndarray]

#: Sizes of named axes where an example input is made: distinct primes.
AXES = {
    "batch": 3,
    "time": 5,
    "source": 7,
    "channels": 3,
    "shuffled": 12,
    "depth": 5,
    "height": 7,
    "width": 11,
    "length": 13,
    "even": 6,
}


@dataclass(frozen=True)
class Input:
    """One input of a layer, in the PyTorch layout.

    Attributes:
        name: the argument's name in PyTorch.
        axes: a size where the layer fixes it, else a name; `"..."` stands for any number
            of axes and `"batch?"` for an axis that may be absent.
        ids: 0 for numbers, else the inputs are whole numbers below it.
    """

    name: str
    axes: tuple[int | str, ...]
    ids: int = 0

    def shape(self, sizes: Mapping[str, int] = AXES) -> tuple[int, ...]:
        """The shape of an example input.

        >>> Input("x", ("batch?", 2, "height", "width")).shape()
        (3, 2, 7, 11)
        """
        named = (a.rstrip("?") if isinstance(a, str) else a for a in self.axes)
        return tuple(sizes.get(a, 3) if isinstance(a, str) else a for a in named)

    def check(self, layer: str, x: np.ndarray) -> None:
        """Raise `ArgumentError` unless `x` has these axes.

        >>> Input("x", ("...", 5)).check("Linear", np.zeros((2, 3)))
        Traceback (most recent call last):
        porting.errors.ArgumentError: Linear: x has shape (2, 3); expected (..., 5). Pass the PyTorch layout.
        """
        fits = self._fit(x.shape)
        if not fits:
            axes = ", ".join(map(str, self.axes))
            raise ArgumentError(
                f"{layer}: {self.name} has shape {x.shape}; expected ({axes}). "
                "Pass the PyTorch layout."
            )
        if self.ids:
            self._check_ids(layer, x)

    def _check_ids(self, layer: str, x: np.ndarray) -> None:
        if x.dtype.kind not in "iu":
            raise ArgumentError(f"{layer}: {self.name} has dtype {x.dtype}. Pass whole numbers.")
        if x.size and not 0 <= x.min() <= x.max() < self.ids:
            raise ArgumentError(
                f"{layer}: {self.name} reaches from {x.min()} to {x.max()}; the table has rows "
                f"0 to {self.ids - 1}."
            )

    def _fit(self, shape: tuple[int, ...]) -> bool:
        if "..." in self.axes:
            at = self.axes.index("...")
            ends = [*zip(self.axes[:at], shape, strict=False)]
            ends += zip(reversed(self.axes[at + 1 :]), reversed(shape), strict=False)
            return len(shape) >= len(self.axes) - 1 and all(map(_equal, ends))
        kept = list(self.axes)
        for axis in reversed(self.axes):
            if len(kept) > len(shape) and isinstance(axis, str) and axis.endswith("?"):
                kept.remove(axis)
        return len(kept) == len(shape) and all(map(_equal, zip(kept, shape, strict=True)))


def _equal(pair: tuple[int | str, int]) -> bool:
    return isinstance(pair[0], str) or pair[0] == pair[1]


def _nothing(*_: Any) -> Any:
    return {}


def _same(x: Any, _: Config) -> Any:
    return x


@dataclass(frozen=True)
class Layer:
    """One layer of the zoo.

    Attributes:
        name: the PyTorch class.
        family: the module that holds the row.
        title: what it is, for a reader.
        options: PyTorch's keywords and defaults; `None` where shapes tell the size.
        example: a small configuration with distinct primes, for the app and the tests.
        keys: the state_dict's keys and shapes.
        leaves: the Linen leaves, by '/'-joined path with the collection first.
        linen: the Linen module.
        nnx: the NNX module; keywords `param_dtype` and `rngs` are passed on.
        reference: (state in float64, inputs, config) -> output, in NumPy and the PyTorch
            convention, independent of Flax.
        inputs: what the layer is called with.
        sizes: sizes that the PyTorch shapes tell.
        sizes_back: sizes that the Flax shapes tell.
        into: an input from the PyTorch layout to the Flax layout.
        out_of: the output from the Flax layout to the PyTorch layout.
        keywords: what the Flax module is called with beside its inputs.
        accept: the inputs as given -> the inputs, where PyTorch's call takes optional ones.
        examine: raises for inputs of the right axes and impossible sizes.
        nnx_leaves: the NNX leaves, where they are not the Linen ones without collection.
        check: raises `UnsupportedError` for options that Flax cannot express, and completes
            options that depend on the dtype; called with the config, the state and the API.
        ignored: keys that carry no weight, with the reason.
        facts: constants of this row that its functions read beside the options.
        terms: products in one sum, for layers that are affine in their input (the
            rounding bound applies); None for the others.
        random: (shapes, generator) -> state, where plain random numbers will not do.
        pitfalls: what goes wrong in silence.
        loses: what `unport_layer` cannot bring back.
        differs: where Linen and NNX differ.
        sources: where the convention is written down.
    """

    name: str
    family: str
    title: str
    options: Mapping[str, Any]
    example: Mapping[str, Any]
    linen: Callable[[Config], Any]
    nnx: Callable[..., Any]
    reference: Callable[[State, tuple[np.ndarray, ...], Config], np.ndarray]
    inputs: Callable[[Config], tuple[Input, ...]]
    keys: Callable[[Config], dict[str, tuple[int, ...]]] = _nothing
    leaves: Callable[[Config], Sequence[Leaf]] = _nothing
    sizes: Callable[[Shapes, Config], dict[str, Any]] = _nothing
    sizes_back: Callable[[Shapes, Config], dict[str, Any]] = _nothing
    into: Callable[[Any, Config], Any] = _same
    out_of: Callable[[Any, Config], Any] = _same
    keywords: Callable[[Config, tuple[Any, ...]], dict[str, Any]] = _nothing
    accept: Callable[[tuple[np.ndarray, ...], Config], tuple[np.ndarray, ...]] = _same
    examine: Callable[[tuple[np.ndarray, ...], Config], None] = _nothing
    nnx_leaves: Callable[[Config], Sequence[Leaf]] | None = None
    check: Callable[[Config, State | None, str], Any] = _nothing
    ignored: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    terms: Callable[[Config], int] | None = None
    random: Callable[[Config, np.random.Generator], dict[str, np.ndarray]] | None = None
    pitfalls: tuple[str, ...] = ()
    loses: str = ""
    differs: str = ""
    sources: tuple[str, ...] = ()

    def settle(self, shapes: Shapes, given: Mapping[str, Any], back: bool = False) -> Config:
        """The options, completed by what the shapes tell.

        Args:
            shapes: of the state_dict, or with `back` of the Linen leaves.
            given: what the caller passed.

        Raises:
            ArgumentError: an unknown keyword.
            CoverageError: keys are missing, left over, or of another shape (all at once).
        """
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            known = ", ".join(self.options) or "no options"
            raise ArgumentError(
                f"{self.name} does not take {', '.join(unknown)}. It takes {known}."
            )
        check_options(self.name, given, self.options)
        c = self._config(given)
        try:
            found = (self.sizes_back if back else self.sizes)(shapes, c)
        except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
            if isinstance(error, (ArgumentError, CoverageError)):
                raise
            raise self._unlike(shapes, given, back) from None
        for key, value in found.items():
            chosen = given.get(key)
            if isinstance(value, tuple) and isinstance(chosen, int):
                chosen = (chosen,) * len(value)
            setattr(c, key, value if chosen is None else _tuple(chosen))
        return c

    def _config(self, given: Mapping[str, Any]) -> Config:
        return Config(**{**self.facts, **self.options, **given})

    def _unlike(self, shapes: Shapes, given: Mapping[str, Any], back: bool) -> CoverageError:
        """What to say where the sizes cannot be read from the shapes."""
        c = self._config({**self.example, **given})
        try:
            expected = set(self._expected(c, back))
        except Exception:  # the caller's options do not even fit the example
            expected = set()
        wrong = [f"{key} is missing" for key in sorted(expected - set(shapes))]
        wrong += [f"{key} is unknown" for key in sorted(set(shapes) - expected - set(self.ignored))]
        wrong += [f"{key} has shape {shapes[key]}" for key in sorted(expected & set(shapes))]
        return CoverageError(
            "\n".join([f"{self.name}: the tensors do not fit this layer:", *fold(wrong)])
        )

    def _expected(self, c: Config, back: bool) -> Mapping[str, Any]:
        if not back:
            return self.keys(c)
        return {leaf.path: leaf for leaf in self.leaves(c) or ()}

    def check_cover(self, shapes: Shapes, c: Config) -> None:
        """Raise `CoverageError` unless `shapes` are those of the state_dict, all wrongs at once."""
        expected = self.keys(c)
        wrong = [
            f"{key} is missing (shape {shape})" + _hint(key)
            for key, shape in expected.items()
            if key not in shapes
        ]
        wrong += [
            f"{key} has shape {shapes[key]}, the layer {shape}"
            for key, shape in expected.items()
            if key in shapes and tuple(shapes[key]) != tuple(shape)
        ]
        unknown = [key for key in shapes if key not in expected and key not in self.ignored]
        wrong += [f"{key} is unknown" for key in unknown]
        if wrong:
            raise CoverageError(
                "\n".join([f"{self.name}: the state_dict does not fit:", *fold(wrong)])
            )

    def nnx_table(self, c: Config) -> list[Leaf]:
        """The NNX leaves."""
        if self.nnx_leaves is not None:
            return list(self.nnx_leaves(c))
        return [
            Leaf(leaf.path.partition("/")[2], leaf.sources, leaf.rule, leaf.join)
            for leaf in self.leaves(c) or ()
        ]

    def example_state(self, seed: int, **config: Any) -> dict[str, np.ndarray]:
        """A random state_dict of the example (or of `config`): no zeros, no ones, variances > 0.

        >>> from porting.layers import LAYERS
        >>> {k: v.shape for k, v in LAYERS["Linear"].example_state(0).items()}
        {'weight': (5, 7), 'bias': (5,)}
        """
        c = self.example_config(**config)
        generator = np.random.default_rng(seed)
        if self.random is not None:
            return self.random(c, generator)
        return {key: random_tensor(key, shape, generator) for key, shape in self.keys(c).items()}

    def example_config(self, **config: Any) -> Config:
        """The example's options, with `config` on top, settled by the shapes they imply."""
        given = {**self.example, **config}
        check_options(self.name, given, self.options)
        shapes = self.keys(self._config(given))
        elements(dict(shapes))
        c = self.settle(shapes, given)
        c.dtype = np.dtype(np.float32)
        return c

    def example_inputs(self, seed: int, **config: Any) -> tuple[np.ndarray, ...]:
        """Random inputs of the example (or of `config`), in the PyTorch layout, float32 or int32."""
        generator = np.random.default_rng((seed, 1))
        return tuple(
            generator.integers(0, i.ids, i.shape(), dtype=np.int32)
            if i.ids
            else generator.standard_normal(i.shape(), dtype=np.float32)
            for i in self.inputs(self.example_config(**config))
        )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _hint(key: str) -> str:
    return "; pass bias=False if the layer has none" if key == "bias" else ""


def random_tensor(key: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """A random float32 tensor: variances and lengths positive, matrices scaled by fan-in."""
    if key.endswith(("running_var", "weight_g", "original0")):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    fan = max(int(np.prod(shape[1:])), 1) if len(shape) > 1 else 1
    return (generator.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


def room(layer: str, sizes: Sequence[int], space: Sequence[int], channels: int) -> None:
    """Raise unless an output of these spatial `sizes` exists and is small enough to make.

    >>> room("Conv1d", [0], [3], 5)
    Traceback (most recent call last):
    porting.errors.ArgumentError: Conv1d: an input of spatial size (3,) is smaller than the window. Pass a larger input.
    """
    if min(sizes, default=1) < 1:
        raise ArgumentError(
            f"{layer}: an input of spatial size {tuple(space)} is smaller than the window. "
            "Pass a larger input."
        )
    elements({"output": (channels, *sizes)})


def spread(value: Any, count: int) -> tuple[int, ...]:
    """PyTorch's "a number, or one for each axis".

    >>> spread(3, 2), spread((1, 2), 2)
    ((3, 3), (1, 2))
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return (int(value),) * count
    if not isinstance(value, (tuple, list)) or len(value) not in (1, count):
        raise ArgumentError(f"{value!r} is not a whole number, nor {count} of them.")
    return tuple(int(v) for v in value) * (count if len(value) == 1 else 1)
