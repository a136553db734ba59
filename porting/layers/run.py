"""Port a layer to Linen or NNX, run it, and run the port backwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.errors import ArgumentError, CoverageError
from porting.layers.row import Config, Layer, State
from porting.layers.table import LAYERS
from porting.leaves import port_leaves, unport_leaves
from porting.tree import check_cover, flatten, unflatten, write_nnx

if TYPE_CHECKING:
    from flax import nnx

APIS = ("linen", "nnx", "reference")


def layer_named(name: str) -> Layer:
    """The row called `name`.

    Raises:
        ArgumentError: there is none; the text lists the names.

    >>> layer_named("Linear").family
    'dense'
    """
    if name not in LAYERS:
        raise ArgumentError(f"There is no layer {name!r}. Use one of {', '.join(LAYERS)}.")
    return LAYERS[name]


def _arrays(layer: Layer, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not isinstance(state_dict, Mapping):
        raise ArgumentError(
            f"{layer.name}: the state_dict is a {type(state_dict).__name__}. Pass a mapping of "
            "key -> array."
        )
    state = {}
    for key, value in state_dict.items():
        state[str(key)] = _array(f"{layer.name}: {key}", value)
    return state


def _array(what: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor with a gradient, or bfloat16
        raise ArgumentError(f"{what} is no array: {error}. Pass NumPy arrays.") from None
    if array.dtype.kind in "OSUM":
        raise ArgumentError(f"{what} is no array of numbers. Pass NumPy arrays.")
    return array


def settled(
    name: str, state_dict: Mapping[str, Any], config: Mapping[str, Any], api: str
) -> tuple[Layer, dict[str, np.ndarray], Config]:
    """The row, the state_dict as arrays, and the complete options, all checked.

    Raises:
        ArgumentError: an unknown layer, option or kind of value.
        CoverageError: keys missing, left over or of another shape (all at once).
        UnsupportedError: Flax cannot express an option; the text names the way round.
    """
    layer = layer_named(name)
    state = _arrays(layer, state_dict)
    shapes = {key: a.shape for key, a in state.items()}
    c = layer.settle(shapes, config)
    layer.check_cover(shapes, c)
    floats = [a.dtype for k, a in state.items() if k not in layer.ignored]
    c.dtype = np.result_type(*floats) if floats else np.dtype(np.float32)
    layer.check(c, state, api)
    return layer, state, c


def port_layer(name: str, state_dict: Mapping[str, Any], **config: Any) -> dict[str, Any]:
    """A PyTorch layer's state_dict as Linen variables.

    Args:
        name: the PyTorch class, a key of `LAYERS`.
        state_dict: key -> array in the PyTorch layout, any dtype (it is kept).
        config: what the PyTorch constructor takes, under its own keywords and with its
            defaults. Sizes that the shapes tell may be left out.

    Returns:
        Nested dictionaries of C-contiguous NumPy arrays, by collection (`params`,
        `batch_stats`); an empty collection is left out.

    Raises:
        ArgumentError, CoverageError, UnsupportedError: as `settled` says.

    >>> weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    >>> port_layer("Linear", {"weight": weight}, bias=False)["params"]["kernel"].tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    layer, state, c = settled(name, state_dict, config, "linen")
    return unflatten(_contiguous(port_leaves(layer.leaves(c) or (), state)))


def _contiguous(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {path: np.array(leaf, order="C") for path, leaf in leaves.items()}


def port_layer_nnx(name: str, state_dict: Mapping[str, Any], **config: Any) -> nnx.Module:
    """A PyTorch layer's state_dict as an NNX module, in eval mode.

    Leaves of several dtypes are brought to their common one. JAX holds float64 only inside
    `jax.enable_x64`; outside it, it narrows to float32.

    Raises:
        ArgumentError, CoverageError, UnsupportedError: as `settled` says.

    >>> linear = port_layer_nnx("Linear", {"weight": np.ones((2, 3), np.float32)}, bias=False)
    >>> linear.kernel.shape
    (3, 2)
    """
    layer, state, c = settled(name, state_dict, config, "nnx")
    return _nnx_module(layer, state, c)


def _nnx_module(layer: Layer, state: Mapping[str, np.ndarray], c: Config) -> nnx.Module:
    import jax
    from flax import nnx

    dtype = jax.dtypes.canonicalize_dtype(c.dtype)
    made = port_leaves(layer.nnx_table(c), state)
    module = nnx.eval_shape(lambda: layer.nnx(c, param_dtype=dtype, rngs=nnx.Rngs(0)))
    write_nnx(module, {path: np.array(a, dtype, order="C") for path, a in made.items()})
    module.eval()
    return module


def run_layer(
    name: str, state_dict: Mapping[str, Any], x: Any, *, api: str = "linen", **config: Any
) -> np.ndarray:
    """Run a layer on PyTorch-shaped inputs and return a PyTorch-shaped output.

    Args:
        name: the PyTorch class, a key of `LAYERS`.
        state_dict: key -> array in the PyTorch layout.
        x: the input, or a tuple of inputs (query, key, value), in the PyTorch layout: NCHW,
            and (T, B, E) unless `batch_first`.
        api: `"linen"`, `"nnx"`, or `"reference"` (float64 NumPy in the PyTorch convention).
        config: the constructor's keywords; arguments of the call that are no inputs
            (`attn_mask`, `key_padding_mask`, `is_causal`, `src_mask`) go here as well, with
            PyTorch's polarity.

    Returns:
        The output (of a recurrent layer, the output sequence), float64 for the reference.

    Raises:
        ArgumentError: as `settled` says, or an input has other axes.
        CoverageError, UnsupportedError: as `settled` says.

    >>> weight = np.float32([[1, 2, 3]])
    >>> run_layer("Linear", {"weight": weight}, np.ones((1, 3), np.float32), bias=False).tolist()
    [[6.0]]
    """
    if api not in APIS:
        raise ArgumentError(f"There is no API {api!r}. Use one of {', '.join(APIS)}.")
    layer, state, c = settled(name, state_dict, config, api)
    inputs = prepare_inputs(layer, x, c)
    if api == "reference":
        return run_reference(layer, state, inputs, c)
    return run_flax(layer, state, inputs, c, api)


def prepare_inputs(layer: Layer, x: Any, c: Config) -> tuple[np.ndarray, ...]:
    """The inputs as a tuple of arrays whose axes are checked.

    Raises:
        ArgumentError: another number of inputs, or other axes.
    """
    several = x if isinstance(x, tuple) else (x,)
    given = layer.accept(tuple(_array(f"{layer.name}: an input", one) for one in several), c)
    expected = layer.inputs(c)
    if len(given) != len(expected):
        names = ", ".join(i.name for i in expected)
        raise ArgumentError(f"{layer.name} takes ({names}); {len(given)} given. Pass a tuple.")
    for spec, array in zip(expected, given, strict=True):
        spec.check(layer.name, array)
    layer.examine(given, c)
    return given


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind not in "iub"  # bfloat16 has a kind of its own


def run_reference(
    layer: Layer, state: State, inputs: tuple[np.ndarray, ...], c: Config
) -> np.ndarray:
    """The layer in float64 NumPy, in the PyTorch convention."""
    used = {k: np.asarray(a, np.float64) for k, a in state.items() if k not in layer.ignored}
    doubles = tuple(np.asarray(x, np.float64) if _is_float(x) else x for x in inputs)
    return np.asarray(layer.reference(used, doubles, c))


def run_flax(
    layer: Layer, state: State, inputs: tuple[np.ndarray, ...], c: Config, api: str
) -> np.ndarray:
    """The layer in Linen or NNX, inputs and output in the PyTorch layout."""
    import jax.numpy as jnp

    has_floats = any(_is_float(a) for key, a in state.items() if key not in layer.ignored)
    cast = (x.astype(c.dtype) if has_floats and _is_float(x) else x for x in inputs)
    moved = tuple(jnp.asarray(layer.into(x, c)) for x in cast)
    keywords = layer.keywords(c, moved)
    if api == "nnx":
        out = _nnx_module(layer, state, c)(*moved, **keywords)
    else:
        variables = unflatten(_contiguous(port_leaves(layer.leaves(c) or (), state)))
        out = layer.linen(c).apply(variables, *moved, **keywords)
    return np.asarray(layer.out_of(np.asarray(out), c))


def unport_layer(name: str, variables: Mapping[str, Any], **config: Any) -> dict[str, np.ndarray]:
    """The state_dict that Linen `variables` came from: `port_layer` run backwards.

    Args:
        name: the PyTorch class.
        variables: what `port_layer` returns.
        config: as for `port_layer`.

    Returns:
        key -> C-contiguous array, bit-equal to what was ported, except where the row's
        `loses` says otherwise; porting the result again gives the same variables. Keys that
        carry no weight (`num_batches_tracked`) are left out.

    Raises:
        CoverageError: leaves are missing, left over, or of another shape.

    >>> unport_layer("Linear", {"params": {"kernel": np.ones((3, 2))}}, bias=False)["weight"].shape
    (2, 3)
    """
    layer = layer_named(name)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    c = layer.settle({path: leaf.shape for path, leaf in leaves.items()}, config, back=True)
    specs = {k: np.broadcast_to(np.float32(1), shape) for k, shape in layer.keys(c).items()}
    table = list(layer.leaves(c) or ())
    expected = {
        path: np.broadcast_to(
            leaves[path].dtype.type(0) if path in leaves else np.float32(0), a.shape
        )
        for path, a in port_leaves(table, specs).items()
    }
    try:
        check_cover(expected, leaves)
    except CoverageError as error:
        raise CoverageError(f"{name}: {error}") from None
    return unport_leaves(table, leaves, specs)
