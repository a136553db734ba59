"""Put a fault into Linen variables: `inject`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from porting.errors import ArgumentError
from porting.faults.row import Fault, Leaves, Port
from porting.faults.table import fault_named, fitting
from porting.tree import flatten, unflatten

#: What a fresh Flax layer holds, by the name of the leaf; a kernel is random.
_STARTS = {"bias": 0.0, "mean": 0.0, "scale": 1.0, "var": 1.0, "negative_slope": 0.01}


def fresh_leaves(leaves: Leaves, seed: int) -> dict[str, np.ndarray]:
    """What a target of these shapes holds before the port, by Flax's initialisers.

    Biases and means are zero, scales and variances one, kernels random with the variance
    1 / fan-in, tables with 1 / width.

    >>> fresh_leaves({"params/bias": np.ones(2)}, 0)["params/bias"].tolist()
    [0.0, 0.0]
    """
    generator = np.random.default_rng((seed, 2))
    return {path: _start(path, leaf, generator) for path, leaf in leaves.items()}


def _start(path: str, leaf: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    own = path.rpartition("/")[2]
    if own in _STARTS:
        return np.full(leaf.shape, _STARTS[own], leaf.dtype)
    fan = leaf.shape[-1] if own == "embedding" else leaf.size // max(leaf.shape[-1:] or (1,))
    return (generator.standard_normal(leaf.shape) / np.sqrt(max(fan, 1))).astype(leaf.dtype)


def port_of(layer: str, leaves: Leaves, config: Mapping[str, Any], seed: int = 0) -> Port:
    """A right port of these leaves, whose target started from `seed`."""
    return Port(leaves, _starter(leaves, seed), config, layer=layer)


def _starter(leaves: Leaves, seed: int) -> Callable[[], Leaves]:
    return lambda: fresh_leaves(leaves, seed)


def _block_options(leaves: Leaves, config: Mapping[str, Any]) -> dict[str, Any]:
    """The constants of the encoder block that `leaves` belong to."""
    if "params/ff1/kernel" not in leaves or "num_heads" not in config:
        raise ArgumentError(
            "EncoderBlock: pass the leaves of LinenEncoderBlock, and config with num_heads."
        )
    d_model, d_ff = leaves["params/ff1/kernel"].shape
    started = {"activation": "gelu", "epsilon": 1e-5, "residual": True, "packed": True}
    return {"d_model": d_model, "d_ff": d_ff} | started | dict(config)


def _settled(
    layer: str, variables: Mapping[str, Any], leaves: Leaves, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The complete options: a layer's, with the sizes that the leaves tell."""
    if layer == "EncoderBlock":
        return _block_options(leaves, config)
    if not layer:
        return dict(config)
    from porting.layers import layer_named, unport_layer

    unport_layer(layer, variables, **config)  # it says which leaves are missing or misshapen
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    return vars(layer_named(layer).settle(shapes, config, back=True))


def checked(fault: Fault | str, port: Port) -> Fault:
    """The fault, if this port can have it.

    Raises:
        ArgumentError: there is no such fault, or it does not fit.
    """
    fault = fault if isinstance(fault, Fault) else fault_named(fault)
    if not fault.fits(port):
        raise ArgumentError(
            f"The fault {fault.name!r} ({fault.title}) cannot happen to {port.layer or 'this tree'} "
            "with these options. Choose another fault or other options."
        )
    return fault


def _right_port(
    layer: str, variables: Mapping[str, Any], config: Mapping[str, Any], seed: int
) -> Port:
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    return port_of(layer, leaves, _settled(layer, variables, leaves, config), seed)


def faults_for(
    variables: Mapping[str, Any], *, layer: str = "", config: Mapping[str, Any] | None = None
) -> tuple[Fault, ...]:
    """The faults that `inject` can put into these variables, in the order of `FAULTS`.

    Args, Raises: as for `inject`.

    >>> right = {"params": {"scale": np.ones(3), "bias": np.zeros(3)}}
    >>> [fault.name for fault in faults_for(right, layer="LayerNorm")][-3:]
    ['scale_bias_exchanged', 'scale_at_init', 'default_epsilon']
    """
    return fitting(_right_port(layer, variables, dict(config or {}), 0))


def inject(
    fault: Fault | str,
    variables: Mapping[str, Any],
    *,
    layer: str = "",
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put one fault into a right port. Nothing that is passed in is changed.

    Args:
        fault: a row of `FAULTS`, or its name.
        variables: the Linen variables of the right port, as `port_layer` returns them.
        layer: a name in `LAYERS`, or `"EncoderBlock"`; most faults need it to know their leaves.
        config: the options of the layer, as for `port_layer`.
        seed: of the target's init, which is what a skipped leaf keeps.

    Returns:
        New variables, and new options. A fault of the leaves gives the options back as they
        are; a fault of a constant gives the variables back as they are and changes an option
        (`eps`, `is_causal`, …). A fault of the code that no option expresses adds the key
        `"forward"`: a function `(module, variables, *inputs, **keywords) -> output` to call
        instead of `module.apply`.

    Raises:
        ArgumentError: there is no such fault, or it does not fit this layer.
        CoverageError: the variables are not those of the layer.

    >>> right = {"params": {"kernel": np.arange(4.0).reshape(2, 2), "bias": np.zeros(2)}}
    >>> wrong, options = inject("kernel_untransposed", right, layer="Linear")
    >>> wrong["params"]["kernel"].tolist(), options
    ([[0.0, 2.0], [1.0, 3.0]], {})
    """
    given = dict(config or {})
    right = _right_port(layer, variables, given, seed)
    wrong = checked(fault, right).inject(right)
    changed = {k: v for k, v in wrong.config.items() if right.config.get(k, wrong) is not v}
    if wrong.forward is not None:
        changed["forward"] = wrong.forward
    copies = {path: np.array(leaf, order="C") for path, leaf in wrong.leaves.items()}
    return unflatten(copies), {**given, **changed}
