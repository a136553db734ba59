"""The bench of one layer: its Linen module beside its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from porting.checks.bench import Bench, probe_inputs, within_budget
from porting.checks.fresh import fresh_state
from porting.checks.settings import SETTINGS
from porting.faults import Forward, Port, port_of
from porting.layers import Config, Layer, layer_named
from porting.layers.judge import output_bound
from porting.layers.run import prepare_inputs, run_reference
from porting.leaves import port_leaves
from porting.tree import flatten, unflatten

#: Compiled modules that are kept; each serves all shapes and both precisions.
COMPILED = 256


class _Recipe:
    """A module as a key: the layer, its options, and what runs instead of it."""

    def __init__(self, layer: str, options: Mapping[str, Any], forward: Forward | None) -> None:
        self.layer, self.options, self.forward = layer, options, forward
        self.key = (layer, forward, tuple((k, _frozen(v)) for k, v in sorted(options.items())))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Recipe) and self.key == other.key


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@lru_cache(COMPILED)
def _compiled(recipe: _Recipe) -> Callable[..., Any]:
    import jax

    module = layer_named(recipe.layer).linen(Config(**recipe.options))
    call = module.apply if recipe.forward is None else partial(recipe.forward, module)
    return jax.jit(lambda variables, inputs, keywords: call(variables, *inputs, **keywords))


def _apply(
    layer: Layer, port: Port, inputs: tuple[np.ndarray, ...], precision: np.dtype
) -> np.ndarray:
    """The Linen module of a port, inputs and output in the PyTorch layout."""
    import jax

    options = {**port.config, "dtype": precision}
    c = Config(**options)
    moved = tuple(layer.into(_cast(x, precision), c) for x in inputs)
    variables = unflatten({path: _cast(leaf, precision) for path, leaf in port.leaves.items()})
    recipe = _Recipe(layer.name, options, port.forward)
    with jax.enable_x64(precision == np.float64):
        out = _compiled(recipe)(variables, moved, layer.keywords(c, moved))
    return np.asarray(layer.out_of(np.asarray(out), c))


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array if array.dtype.kind in "iub" else np.asarray(array, dtype)


def run_variables(
    name: str, variables: Mapping[str, Any], x: Any, *, config: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Run a layer's Linen module on variables as `inject` returns them, right or wrong.

    Args:
        name: a key of `LAYERS`.
        variables: Linen variables.
        x: the input or a tuple of inputs, in the PyTorch layout.
        config: the options, `"forward"` among them where `inject` added it.

    Returns:
        The output in the PyTorch layout, float32.

    Raises:
        PortingError: the layer, the options or the inputs do not fit.
        flax.errors.ScopeParamShapeError: a leaf has another shape than the module asks for.

    >>> right = {"params": {"kernel": np.eye(2), "bias": np.zeros(2)}}
    >>> run_variables("Linear", right, np.ones((1, 2))).tolist()
    [[1.0, 1.0]]
    """
    layer = layer_named(name)
    options = dict(config or {})
    forward = options.pop("forward", None)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    c = layer.settle({path: leaf.shape for path, leaf in leaves.items()}, options, back=True)
    c.dtype = np.dtype(np.float32)
    layer.check(c, None, "linen")
    within_budget({**layer.keys(c), **{i.name: i.shape() for i in layer.inputs(c)}})
    inputs = prepare_inputs(layer, x, c)
    return _apply(layer, Port(leaves, dict, vars(c), layer=name, forward=forward), inputs, c.dtype)


def layer_bench(name: str, probes: tuple[str, ...], seed: int, config: Mapping[str, Any]) -> Bench:
    """The bench of the layer called `name`.

    Args:
        name: a key of `LAYERS`.
        probes: names of the probes.
        seed: of the source's leaves, of the inputs, and (plus one) of the target's init.
        config: the layer's options, on top of those of `SETTINGS`.

    Raises:
        PortingError: there is no such layer, or the options do not fit it.
    """
    layer = layer_named(name)
    given = {**layer.example, **SETTINGS.get(name, {}), **config}
    c = layer.example_config(**given)
    layer.check(c, None, "linen")
    within_budget({**layer.keys(c), **{i.name: i.shape() for i in layer.inputs(c)}})
    states = {
        "fresh": fresh_state(layer, c, seed, given),
        "random": layer.example_state(seed, **given),
    }
    inputs = probe_inputs(layer.inputs(c), probes, seed)

    def port(state: Mapping[str, np.ndarray], precision: np.dtype) -> Port:
        cast = {key: _cast(array, precision) for key, array in state.items()}
        leaves = port_leaves(layer.leaves(c) or (), cast)
        contiguous = {path: np.array(leaf, order="C") for path, leaf in leaves.items()}
        return port_of(name, contiguous, vars(c), seed + 1)

    def given_to(probe: str) -> tuple[np.ndarray, ...]:
        arrays = inputs[probe]
        assert arrays is not None
        return arrays

    def bound(state: str, probe: str) -> np.ndarray | None:
        if layer.terms is None:
            return None
        return output_bound(layer, states[state], given_to(probe), c)

    return Bench(
        target=name,
        config=given,
        ports={state: port(source, np.dtype(np.float32)) for state, source in states.items()},
        wide={state: port(source, np.dtype(np.float64)) for state, source in states.items()},
        inputs=inputs,
        reference=lambda state, probe: run_reference(layer, states[state], given_to(probe), c),
        bound=bound,
        run=lambda port, probe, precision: _apply(layer, port, given_to(probe), precision),
    )
