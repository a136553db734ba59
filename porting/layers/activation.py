"""Activations with PyTorch's defaults, and PReLU, which has a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.dense import TORCH
from porting.layers.modules import LinenFunction, NNXFunction
from porting.layers.row import Config, Input, Layer, State
from porting.layouts import Rule, identity
from porting.leaves import Leaf
from porting.special import erf, expit

FLAX = "https://docs.jax.dev/en/latest/jax.nn.html"


def _gelu(x: np.ndarray, c: Config) -> np.ndarray:
    if c.approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def _softplus(x: Any, beta: float, threshold: float, api: Any) -> Any:
    """log(1 + exp(βx)) / β, and x itself where βx is over the threshold."""
    return api.where(x * beta > threshold, x, api.logaddexp(x * beta, 0.0) / beta)


def _softmax(x: np.ndarray, c: Config) -> np.ndarray:
    shifted = np.exp(x - x.max(c.dim, keepdims=True))
    return shifted / shifted.sum(c.dim, keepdims=True)


def _log_softmax(x: np.ndarray, c: Config) -> np.ndarray:
    shifted = x - x.max(c.dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(c.dim, keepdims=True))


def _halves(x: Any, c: Config, api: Any) -> Any:
    return api.split(x, 2, axis=c.dim)


def _negative(x: np.ndarray) -> np.ndarray:
    """exp(x) − 1 where x is negative, without overflow elsewhere."""
    return np.expm1(np.minimum(x, 0))


_SELU = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

#: name: (options, NumPy, JAX). Options that need a value have None.
_TABLE: Mapping[str, tuple[dict[str, Any], Callable[..., Any], Callable[..., Any]]] = {
    "ReLU": ({}, lambda x, c: np.maximum(x, 0), lambda x, c: jax.nn.relu(x)),
    "ReLU6": ({}, lambda x, c: np.clip(x, 0, 6), lambda x, c: jax.nn.relu6(x)),
    "LeakyReLU": (
        {"negative_slope": 0.01},
        lambda x, c: np.where(x > 0, x, c.negative_slope * x),
        lambda x, c: jax.nn.leaky_relu(x, c.negative_slope),
    ),
    "ELU": (
        {"alpha": 1.0},
        lambda x, c: np.where(x > 0, x, c.alpha * _negative(x)),
        lambda x, c: jax.nn.elu(x, c.alpha),
    ),
    "CELU": (
        {"alpha": 1.0},
        lambda x, c: np.where(x > 0, x, c.alpha * _negative(x / c.alpha)),
        lambda x, c: jax.nn.celu(x, c.alpha),
    ),
    "SELU": (
        {},
        lambda x, c: _SELU[0] * np.where(x > 0, x, _SELU[1] * _negative(x)),
        lambda x, c: jax.nn.selu(x),
    ),
    "GELU": (
        {"approximate": "none"},
        _gelu,
        lambda x, c: jax.nn.gelu(x, approximate=c.approximate == "tanh"),
    ),
    "QuickGELU": (
        {},
        lambda x, c: x * expit(1.702 * x),
        lambda x, c: x * jax.nn.sigmoid(1.702 * x),
    ),
    "SiLU": ({}, lambda x, c: x * expit(x), lambda x, c: jax.nn.silu(x)),
    "Mish": (
        {},
        lambda x, c: x * np.tanh(np.logaddexp(x, 0)),
        lambda x, c: jax.nn.mish(x),
    ),
    "Sigmoid": ({}, lambda x, c: expit(x), lambda x, c: jax.nn.sigmoid(x)),
    "LogSigmoid": (
        {},
        lambda x, c: -np.logaddexp(-x, 0),
        lambda x, c: jax.nn.log_sigmoid(x),
    ),
    "Tanh": ({}, lambda x, c: np.tanh(x), lambda x, c: jnp.tanh(x)),
    "Tanhshrink": ({}, lambda x, c: x - np.tanh(x), lambda x, c: x - jnp.tanh(x)),
    "Softplus": (
        {"beta": 1.0, "threshold": 20.0},
        lambda x, c: _softplus(x, c.beta, c.threshold, np),
        lambda x, c: _softplus(x, c.beta, c.threshold, jnp),
    ),
    "Softsign": ({}, lambda x, c: x / (1 + np.abs(x)), lambda x, c: jax.nn.soft_sign(x)),
    "Hardtanh": (
        {"min_val": -1.0, "max_val": 1.0},
        lambda x, c: np.clip(x, c.min_val, c.max_val),
        lambda x, c: jnp.clip(x, c.min_val, c.max_val),
    ),
    "Hardsigmoid": (
        {},
        lambda x, c: np.clip(x + 3, 0, 6) / 6,
        lambda x, c: jax.nn.hard_sigmoid(x),
    ),
    "Hardswish": (
        {},
        lambda x, c: x * np.clip(x + 3, 0, 6) / 6,
        lambda x, c: jax.nn.hard_swish(x),
    ),
    "Hardshrink": (
        {"lambd": 0.5},
        lambda x, c: np.where(np.abs(x) > c.lambd, x, 0),
        lambda x, c: jnp.where(jnp.abs(x) > c.lambd, x, 0),
    ),
    "Softshrink": (
        {"lambd": 0.5},
        lambda x, c: np.sign(x) * np.maximum(np.abs(x) - c.lambd, 0),
        lambda x, c: jnp.sign(x) * jnp.maximum(jnp.abs(x) - c.lambd, 0),
    ),
    "Threshold": (
        {"threshold": None, "value": None},
        lambda x, c: np.where(x > c.threshold, x, c.value),
        lambda x, c: jnp.where(x > c.threshold, x, c.value),
    ),
    "Softmax": ({"dim": None}, _softmax, lambda x, c: jax.nn.softmax(x, c.dim)),
    "LogSoftmax": ({"dim": None}, _log_softmax, lambda x, c: jax.nn.log_softmax(x, c.dim)),
    "GLU": (
        {"dim": -1},
        lambda x, c: _halves(x, c, np)[0] * expit(_halves(x, c, np)[1]),
        lambda x, c: _halves(x, c, jnp)[0] * jax.nn.sigmoid(_halves(x, c, jnp)[1]),
    ),
    "Identity": ({}, lambda x, c: x, lambda x, c: x),
    "Dropout": ({"p": 0.5}, lambda x, c: x, lambda x, c: x),
}

_INPLACE = {"ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "SiLU", "Mish", "Hardtanh"} | {
    "Hardsigmoid",
    "Hardswish",
    "Threshold",
    "Dropout",
}

_EXAMPLES: Mapping[str, dict[str, Any]] = {
    "Threshold": {"threshold": 0.1, "value": -0.7},
    "Softmax": {"dim": -1},
    "LogSoftmax": {"dim": -1},
}

_PITFALLS: Mapping[str, tuple[str, ...]] = {
    "GELU": (
        "PyTorch's default is the erf form, jax.nn.gelu's the tanh form: up to 4.7e-4 apart.",
        "transformers: gelu is erf, gelu_new is tanh, quick_gelu is x · sigmoid(1.702 x).",
    ),
    "QuickGELU": ("CLIP's activation; neither GELU stands in for it (0.02 apart).",),
    "LeakyReLU": ("The slope is 0.01 by default in both.",),
    "Softplus": ("PyTorch returns x over the threshold of 20.",),
    "Softmax": ("dim counts PyTorch's axes: the channel axis moves in a channels-last model.",),
    "Dropout": ("Nothing in eval mode; nnx.Dropout starts in training mode.",),
}


def _check_options(name: str) -> Callable[[Config, State | None, str], None]:
    options = _TABLE[name][0]

    def check(c: Config, state: State | None, api: str) -> None:
        for option in options:
            if option in ("dim", "threshold", "value") and getattr(c, option) is None:
                raise ArgumentError(f"{name}: pass {option}.")
        if name == "Hardtanh" and c.min_val > c.max_val:
            raise ArgumentError(f"Hardtanh: min_val = {c.min_val} is above max_val = {c.max_val}.")
        if name in ("Softplus", "CELU") and not getattr(c, "beta", getattr(c, "alpha", 1)):
            raise ArgumentError(f"{name} divides by its parameter: it cannot be 0.")
        if name == "GELU" and c.approximate not in ("none", "tanh"):
            raise ArgumentError(f"GELU: approximate = {c.approximate!r}. Use 'none' or 'tanh'.")

    return check


def _check_dim(given: tuple[np.ndarray, ...], c: Config) -> None:
    """Raise unless the input has the axis `dim`."""
    dim, rank = getattr(c, "dim", 0), given[0].ndim
    if hasattr(c, "dim") and not -rank <= dim < rank:
        raise ArgumentError(f"dim = {dim} is no axis of an input of {rank} axes.")


def _even(given: tuple[np.ndarray, ...], c: Config) -> None:
    """Raise unless the axis `dim` can be halved."""
    _check_dim(given, c)
    x = given[0]
    if x.shape[c.dim] % 2:
        raise ArgumentError(f"GLU halves axis {c.dim}, which has an odd size: {x.shape}.")


def _apply(x: Any, name: str, c: Config) -> Any:
    return _TABLE[name][2](x, c)


def _activation(name: str) -> Layer:
    options, numpy, _ = _TABLE[name]
    size: tuple[int | str, ...] = ("...", "even") if name == "GLU" else ("...",)
    return Layer(
        name=name,
        family="activation",
        title=name,
        options=options | ({"inplace": False} if name in _INPLACE else {}),
        example=_EXAMPLES.get(name, {}),
        linen=lambda c: LinenFunction(partial(_apply, name=name, c=c)),
        nnx=lambda c, **_: NNXFunction(partial(_apply, name=name, c=c)),
        reference=lambda state, x, c: numpy(x[0], c),
        inputs=lambda c: (Input("input", size),),
        examine=_even if name == "GLU" else _check_dim,
        check=_check_options(name),
        pitfalls=_PITFALLS.get(name, ()),
        sources=(FLAX,) if name == "QuickGELU" else (f"{TORCH}{name}.html", FLAX),
    )


# PReLU: one slope, or one for each channel.


def _slopes(x: Any, slope: Any) -> Any:
    """Slopes along the last axis (channels last)."""
    return jnp.where(x >= 0, x, slope * x)


class _LinenSlopes(linen.Module):
    """PReLU with a slope for each channel, which Flax lacks."""

    count: int

    @linen.compact
    def __call__(self, x: Any) -> Any:
        init = linen.initializers.constant(0.25)
        return _slopes(x, self.param("negative_slope", init, (self.count,)))


class _NNXSlopes(nnx.Module):
    """PReLU with a slope for each channel, which Flax lacks."""

    def __init__(self, count: int, *, param_dtype: Any, rngs: nnx.Rngs) -> None:
        self.negative_slope = nnx.Param(jnp.full((count,), 0.25, param_dtype))

    def __call__(self, x: Any) -> Any:
        return _slopes(x, self.negative_slope[...])


def _prelu_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    x, slope = inputs[0], state["weight"]
    if c.num_parameters > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    return np.where(x >= 0, x, slope * x)


def _nnx_prelu(c: Config, *, param_dtype: Any, rngs: nnx.Rngs) -> nnx.Module:
    if c.num_parameters == 1:
        return nnx.PReLU(param_dtype=param_dtype)
    return _NNXSlopes(c.num_parameters, param_dtype=param_dtype, rngs=rngs)


def _slope_leaf(c: Config) -> list[Leaf]:
    rule = Rule("a=0 -> ") if c.num_parameters == 1 else identity(1)
    return [Leaf("params/negative_slope", ("weight",), rule)]


PRELU = Layer(
    name="PReLU",
    family="activation",
    title="PReLU: a learned slope for negative inputs",
    options={"num_parameters": None, "init": 0.25},
    example={"num_parameters": 5},
    keys=lambda c: {"weight": (1 if c.num_parameters is None else c.num_parameters,)},
    sizes=lambda shapes, c: {"num_parameters": shapes["weight"][0]},
    sizes_back=lambda shapes, c: {
        "num_parameters": (*shapes["params/negative_slope"], 1)[0],
    },
    leaves=_slope_leaf,
    linen=lambda c: linen.PReLU() if c.num_parameters == 1 else _LinenSlopes(c.num_parameters),
    nnx=_nnx_prelu,
    reference=_prelu_reference,
    inputs=lambda c: (
        Input("input", ("...",))
        if c.num_parameters == 1
        else Input("input", ("batch", c.num_parameters, "height?", "width?")),
    ),
    into=lambda x, c: np.moveaxis(x, 1, -1) if c.num_parameters > 1 else x,
    out_of=lambda x, c: np.moveaxis(x, -1, 1) if c.num_parameters > 1 else x,
    pitfalls=("The slopes belong to axis 1 in PyTorch, to the last axis in channels last.",),
    differs="Flax's PReLU has one slope, a scalar, in both; for more a few lines in both.",
    sources=(TORCH + "PReLU.html", FLAX),
)

ROWS = (*map(_activation, _TABLE), PRELU)
