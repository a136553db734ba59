"""A ported layer's output beside its reference, judged without a magic tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np

from porting.compare import Comparison, NetworkComparison, compare, rounding_bound
from porting.layers.row import Config, Layer, State
from porting.layers.run import prepare_inputs, run_flax, run_reference, settled


def output_bound(
    layer: Layer, state: State, inputs: tuple[np.ndarray, ...], c: Config
) -> np.ndarray:
    """How far rounding may take the output of an affine layer (`layer.terms` is set).

    The reference on absolute values is |x| |W| + |b|.
    """
    absolute = {k: np.abs(a) for k, a in state.items()}
    magnitude = run_reference(layer, absolute, tuple(np.abs(x) for x in inputs), c)
    largest = sum(float(np.max(np.abs(a), initial=0)) for a in (inputs[0], *state.values()))
    assert layer.terms is not None
    return rounding_bound(magnitude, layer.terms(c), largest)


def compare_layer(
    name: str, state_dict: Mapping[str, Any], x: Any, *, api: str = "linen", **config: Any
) -> Comparison | NetworkComparison:
    """Run the port and judge it: both kinds of verdict have `within`.

    An affine layer is compared within the rounding bound of its sums; any other is run in
    float32 and float64, since rounding shrinks and an error does not.

    Args:
        name, state_dict, x, config: as for `run_layer`.
        api: `"linen"` or `"nnx"`.

    >>> state = {"weight": np.float32([[1, 2, 3]])}
    >>> compare_layer("Linear", state, np.ones((1, 3), np.float32), bias=False).within
    True
    """
    layer, state, c = settled(name, state_dict, config, api)
    inputs = prepare_inputs(layer, x, c)
    reference = run_reference(layer, state, inputs, c)
    single = run_flax(layer, state, inputs, c, api)
    if layer.terms is not None:
        return compare(reference, single, output_bound(layer, state, inputs, c))
    return NetworkComparison(reference, single, _in_double(layer, state, inputs, c, api))


def _in_double(
    layer: Layer, state: State, inputs: tuple[np.ndarray, ...], c: Config, api: str
) -> np.ndarray:
    import jax

    def wide(array: np.ndarray) -> np.ndarray:
        return array if array.dtype.kind in "iub" else np.asarray(array, np.float64)

    c = copy(c)
    c.dtype = np.dtype(np.float64)
    with jax.enable_x64(True):
        state = {key: wide(a) for key, a in state.items()}
        return run_flax(layer, state, tuple(map(wide, inputs)), c, api)
