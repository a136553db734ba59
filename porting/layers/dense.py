"""Dense layers: Linear, GPT-2's Conv1D, and Linear behind a flattened feature map."""

from __future__ import annotations

from typing import Any

import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import TRANSPOSE, Rule, identity
from porting.leaves import Leaf

TORCH = "https://docs.pytorch.org/docs/2.13/generated/torch.nn."
FLAX = "https://flax.readthedocs.io/en/latest/api_reference/flax.linen/layers.html"


def bias_leaf(c: Config) -> list[Leaf]:
    """The row of a bias `(out,)`, which needs no rearrangement; none where there is no bias."""
    return [Leaf("params/bias", ("bias",), identity(1))] if c.bias else []


# Linear, and GPT-2's Conv1D, whose weight is stored the other way round.


def _linear_keys(c: Config) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {"weight": (c.out_features, c.in_features)}
    return keys | ({"bias": (c.out_features,)} if c.bias else {})


def _linear_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    out_features, in_features = shapes["weight"]
    return {"in_features": in_features, "out_features": out_features}


def _linear_sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    in_features, out_features = shapes["params/kernel"]
    return {"in_features": in_features, "out_features": out_features}


def linear(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    """x @ weight.T + bias, the convention of `torch.nn.Linear`."""
    out = inputs[0] @ state["weight"].T
    return out + state["bias"] if "bias" in state else out


LINEAR = Layer(
    name="Linear",
    family="dense",
    title="Linear: a matrix and a bias",
    options={"in_features": None, "out_features": None, "bias": True},
    example={"in_features": 7, "out_features": 5},
    keys=_linear_keys,
    sizes=_linear_sizes,
    sizes_back=_linear_sizes_back,
    leaves=lambda c: [Leaf("params/kernel", ("weight",), TRANSPOSE), *bias_leaf(c)],
    linen=lambda c: linen.Dense(c.out_features, use_bias=c.bias),
    nnx=lambda c, **kw: nnx.Linear(c.in_features, c.out_features, use_bias=c.bias, **kw),
    reference=linear,
    inputs=lambda c: (Input("input", ("...", c.in_features)),),
    terms=lambda c: c.in_features,
    pitfalls=(
        "A square weight fits untransposed, and a reshape to (in, out) fits always.",
        "GPT-2's Conv1D looks the same and is already (in, out).",
    ),
    sources=(TORCH + "Linear.html", FLAX),
)


def _conv1d_keys(c: Config) -> dict[str, tuple[int, ...]]:
    return {"weight": (c.nx, c.nf), "bias": (c.nf,)}


CONV1D = Layer(
    name="Conv1D",
    family="dense",
    title="GPT-2's Conv1D: a Linear stored as (in, out)",
    options={"nf": None, "nx": None},
    example={"nf": 5, "nx": 7},
    keys=_conv1d_keys,
    sizes=lambda shapes, c: dict(zip(("nx", "nf"), shapes["weight"], strict=True)),
    sizes_back=lambda shapes, c: dict(zip(("nx", "nf"), shapes["params/kernel"], strict=True)),
    leaves=lambda c: [
        Leaf("params/kernel", ("weight",), Rule("i o -> i o")),
        Leaf("params/bias", ("bias",), identity(1)),
    ],
    linen=lambda c: linen.Dense(c.nf),
    nnx=lambda c, **kw: nnx.Linear(c.nx, c.nf, **kw),
    reference=lambda state, x, c: x[0] @ state["weight"] + state["bias"],
    inputs=lambda c: (Input("x", ("...", c.nx)),),
    terms=lambda c: c.nx,
    pitfalls=("It is no convolution and no Linear: transposing it is the mistake.",),
    sources=(
        "https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/pytorch_utils.py",
    ),
)


# Flatten, then Linear: the order of the flattened axes is a fact of the model.


def _flatten_leaves(c: Config) -> list[Leaf]:
    channels, height, width = c.feature_map
    sizes = dict(zip("chw", (channels, height, width), strict=True))
    flat = " ".join(c.flatten_order.lower())
    return [
        Leaf("params/kernel", ("weight",), Rule(f"o ({flat}) -> (h w c) o", sizes)),
        *bias_leaf(c),
    ]


def _flatten_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    order = ["CHW".index(axis) + 1 for axis in c.flatten_order]
    x = inputs[0].transpose(0, *order)
    return linear(state, (x.reshape(x.shape[0], -1),), c)


def _check_flatten(c: Config, state: State | None, api: str) -> None:
    if not isinstance(c.flatten_order, str) or sorted(c.flatten_order) != ["C", "H", "W"]:
        raise ArgumentError(
            f"flatten_order = {c.flatten_order!r}. Name the axes in the order in which the "
            "PyTorch code flattens them: 'CHW', 'HWC' or, as MTCNN, 'WHC'."
        )


def _flatten_keys(c: Config) -> dict[str, tuple[int, ...]]:
    _check_map(c)
    keys: dict[str, tuple[int, ...]] = {"weight": (c.out_features, int(np.prod(c.feature_map)))}
    return keys | ({"bias": (c.out_features,)} if c.bias else {})


def _flatten_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    _check_map(c)
    _check_flatten(c, None, "")
    out = shapes["weight"][0] if "weight" in shapes else shapes["params/kernel"][1]
    return {"out_features": out, "in_features": int(np.prod(c.feature_map))}


def _check_map(c: Config) -> None:
    if not isinstance(c.feature_map, (tuple, list)) or len(c.feature_map) != 3:
        raise ArgumentError(
            f"FlattenLinear: feature_map = {c.feature_map!r}. Pass (C, H, W), the shape of "
            "the feature map that is flattened."
        )


class _LinenFlatten(linen.Dense):
    """`Dense` on a feature map (B, H, W, C), flattened."""

    def __call__(self, x: Any) -> Any:
        return super().__call__(x.reshape(x.shape[0], -1))


class _NNXFlatten(nnx.Linear):
    """`Linear` on a feature map (B, H, W, C), flattened."""

    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        return super().__call__(inputs.reshape(inputs.shape[0], -1), out_sharding)


FLATTEN = Layer(
    name="FlattenLinear",
    family="dense",
    title="Flatten a feature map, then Linear",
    options={
        "in_features": None,
        "out_features": None,
        "bias": True,
        "feature_map": None,
        "flatten_order": "CHW",
    },
    example={"feature_map": (3, 5, 2), "out_features": 7},
    keys=_flatten_keys,
    sizes=_flatten_sizes,
    sizes_back=_flatten_sizes,
    leaves=_flatten_leaves,
    linen=lambda c: _LinenFlatten(c.out_features, use_bias=c.bias),
    nnx=lambda c, **kw: _NNXFlatten(c.in_features, c.out_features, use_bias=c.bias, **kw),
    reference=_flatten_reference,
    inputs=lambda c: (Input("input", ("batch", *c.feature_map)),),
    into=lambda x, c: np.moveaxis(x, 1, -1),
    terms=lambda c: c.in_features,
    check=_check_flatten,
    pitfalls=(
        "PyTorch flattens (C, H, W), Flax (H, W, C): a plain transpose fits and is wrong.",
        "Nothing changes where H = W = 1, or where the PyTorch code flattens channels last.",
        "MTCNN flattens (W, H, C): the order is a fact of the model, not a default.",
    ),
    sources=(
        "https://flax.readthedocs.io/en/latest/guides/converting_and_upgrading/convert_pytorch_to_flax.html",
    ),
)

ROWS = (LINEAR, CONV1D, FLATTEN)
