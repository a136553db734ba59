"""BatchNorm, and InstanceNorm, which with running statistics is the same in eval mode."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import UnsupportedError
from porting.layers.conv import AXIS_NAMES
from porting.layers.dense import FLAX, TORCH
from porting.layers.norm import (
    affine_channels,
    along_channels,
    channel_last,
    channel_second,
    normalise,
    scale_and_bias,
)
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import identity
from porting.leaves import Leaf

TRACKED = "it counts training batches and is no weight"


_RUNNING = ("running_mean", "running_var")


def _batch_keys(c: Config) -> dict[str, tuple[int, ...]]:
    names = (("weight", "bias") if c.affine else ()) + (_RUNNING if c.track_running_stats else ())
    return dict.fromkeys(names, (c.num_features,))


def _features(shapes: Shapes, c: Config) -> dict[str, Any]:
    """The number of channels, from whichever tensor there is."""
    found = [shape[0] for key, shape in shapes.items() if len(shape) == 1]
    return {"num_features": found[0]} if found else {}


def _batch_leaves(c: Config) -> list[Leaf]:
    stats = [
        Leaf("batch_stats/mean", ("running_mean",), identity(1)),
        Leaf("batch_stats/var", ("running_var",), identity(1)),
    ]
    return scale_and_bias(c.affine, c.affine) + (stats if c.track_running_stats else [])


def _batch_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x = inputs[0]
    mean = along_channels(x, state, "running_mean", 0.0)
    var = along_channels(x, state, "running_var", 1.0)
    return affine_channels((x - mean) / np.sqrt(var + c.eps), state)


def _batch_options(c: Config) -> dict[str, Any]:
    momentum = 0.9 if c.momentum is None else 1 - c.momentum
    return {
        "momentum": momentum,
        "epsilon": c.eps,
        "use_bias": c.affine,
        "use_scale": c.affine,
        "use_running_average": True,
    }


def nnx_batch_norm(c: Config, *, param_dtype: Any, rngs: nnx.Rngs) -> nnx.Module:
    """`nnx.BatchNorm`, its statistics in the dtype of its parameters (always float32 there)."""
    options = _batch_options(c)
    module = nnx.BatchNorm(c.num_features, param_dtype=param_dtype, rngs=rngs, **options)
    module.mean = nnx.BatchStat(jnp.zeros(c.num_features, param_dtype))
    module.var = nnx.BatchStat(jnp.ones(c.num_features, param_dtype))
    return module


def _check_tracked(c: Config, state: State | None, api: str) -> None:
    if not c.track_running_stats:
        raise UnsupportedError(
            "BatchNorm without running statistics normalises by the batch in eval mode too. "
            "In Flax call BatchNorm with use_running_average=False, and mutable=['batch_stats'] "
            "in Linen."
        )


_NORM_OPTIONS = {
    "num_features": None,
    "eps": 1e-5,
    "momentum": 0.1,
    "affine": True,
}


def _batch_norm(rank: int) -> Layer:
    axes = AXIS_NAMES[rank] if rank > 1 else ("length?",)
    return Layer(
        name=f"BatchNorm{rank}d",
        family="norm",
        title=f"Batch normalisation in {rank}D, eval mode",
        options=_NORM_OPTIONS | {"track_running_stats": True},
        example={"num_features": 5},
        keys=_batch_keys,
        sizes=_features,
        sizes_back=_features,
        leaves=_batch_leaves,
        linen=lambda c: linen.BatchNorm(**_batch_options(c)),
        nnx=nnx_batch_norm,
        reference=_batch_reference,
        inputs=lambda c: (Input("input", ("batch", c.num_features, *axes)),),
        into=channel_last,
        out_of=channel_second,
        check=_check_tracked,
        ignored={"num_batches_tracked": TRACKED},
        pitfalls=(
            "The running statistics are a second collection, batch_stats: left at (0, 1) they "
            "go unnoticed on a fresh layer.",
            "running_var is a variance, not a standard deviation.",
            "Flax's momentum is 1 − PyTorch's. In training PyTorch stores the unbiased variance.",
        ),
        differs="nnx.BatchNorm starts in training mode: call module.eval(). The mean and var "
        "stand beside scale and bias, as BatchStat variables, and are made in float32 whatever "
        "param_dtype says.",
        sources=(f"{TORCH}BatchNorm{rank}d.html", FLAX),
    )


def _instance_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    if c.track_running_stats:
        return _batch_reference(state, inputs, c)
    x = inputs[0]
    return affine_channels(normalise(x, tuple(range(2, x.ndim)), c.eps), state)


def _instance_options(c: Config) -> dict[str, Any]:
    shared = {"epsilon": c.eps, "use_bias": c.affine, "use_scale": c.affine}
    return shared | {"use_fast_variance": False}


def _linen_instance(c: Config) -> linen.Module:
    if c.track_running_stats:
        return linen.BatchNorm(**_batch_options(c))
    return linen.InstanceNorm(**_instance_options(c))


def _nnx_instance(c: Config, **kw: Any) -> nnx.Module:
    if c.track_running_stats:
        return nnx_batch_norm(c, **kw)
    return nnx.InstanceNorm(c.num_features or 1, **_instance_options(c), **kw)


def _instance_norm(rank: int) -> Layer:
    def channels(c: Config) -> int | str:
        return c.num_features if c.num_features else "channels"

    return Layer(
        name=f"InstanceNorm{rank}d",
        family="norm",
        title=f"Instance normalisation in {rank}D",
        options=_NORM_OPTIONS | {"affine": False, "track_running_stats": False},
        example={"num_features": 5, "affine": True},
        keys=_batch_keys,
        sizes=_features,
        sizes_back=_features,
        leaves=_batch_leaves,
        linen=_linen_instance,
        nnx=_nnx_instance,
        reference=_instance_reference,
        inputs=lambda c: (Input("input", ("batch", channels(c), *AXIS_NAMES[rank])),),
        into=channel_last,
        out_of=channel_second,
        ignored={"num_batches_tracked": TRACKED},
        pitfalls=(
            "PyTorch's default has no weight and no bias, Flax's has both.",
            "PyTorch's eps is 1e-5, Flax's 1e-6.",
            "With track_running_stats=True, eval mode is a BatchNorm on the stored statistics.",
        ),
        sources=(f"{TORCH}InstanceNorm{rank}d.html", FLAX),
    )


ROWS = (*map(_batch_norm, (1, 2, 3)), *map(_instance_norm, (1, 2, 3)))
