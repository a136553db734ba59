"""Dense layers and tables: Linear, GPT-2's Conv1D, embeddings, the tied head, flatten + Linear."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import TRANSPOSE, Rule, identity
from porting.leaves import Leaf

TORCH = "https://docs.pytorch.org/docs/2.13/generated/torch.nn."
FLAX = "https://flax.readthedocs.io/en/latest/api_reference/flax.linen/layers.html"


def bias_leaf(c: Config) -> list[Leaf]:
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


# Tables.


def _table_keys(c: Config) -> dict[str, tuple[int, ...]]:
    return {"weight": (c.num_embeddings, c.embedding_dim)}


def _table_sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    rows, columns = shapes["weight"]
    return {"num_embeddings": rows, "embedding_dim": columns}


def _table_sizes_back(shapes: Shapes, c: Config) -> dict[str, Any]:
    rows, columns = shapes["params/embedding"]
    return {"num_embeddings": rows, "embedding_dim": columns}


def _table_leaves(c: Config) -> list[Leaf]:
    return [Leaf("params/embedding", ("weight",), Rule("v e -> v e"))]


_TABLE: dict[str, Any] = {
    "family": "dense",
    "keys": _table_keys,
    "sizes": _table_sizes,
    "sizes_back": _table_sizes_back,
    "leaves": _table_leaves,
    "example": {"num_embeddings": 11, "embedding_dim": 5},
}
_TABLE_OPTIONS = {"num_embeddings": None, "embedding_dim": None, "padding_idx": None}

EMBEDDING = Layer(
    name="Embedding",
    title="Embedding: a row for each id",
    options=_TABLE_OPTIONS,
    linen=lambda c: linen.Embed(c.num_embeddings, c.embedding_dim),
    nnx=lambda c, **kw: nnx.Embed(c.num_embeddings, c.embedding_dim, **kw),
    reference=lambda state, x, c: state["weight"][_ids(x[0], c)],
    inputs=lambda c: (Input("input", ("...",), ids=c.num_embeddings),),
    pitfalls=(
        "A square table fits transposed.",
        "padding_idx only zeroes the gradient; the row is used as it is stored.",
        "An id past the end: PyTorch raises, Flax gives NaN.",
    ),
    sources=(TORCH + "Embedding.html", FLAX),
    **_TABLE,
)


def _ids(ids: np.ndarray, c: Config) -> np.ndarray:
    if ids.dtype.kind not in "iu":
        raise ArgumentError(f"The ids have dtype {ids.dtype}. Pass whole numbers.")
    if ids.size and not 0 <= ids.min() <= ids.max() < c.num_embeddings:
        raise ArgumentError(
            f"The ids reach from {ids.min()} to {ids.max()}; the table has rows "
            f"0 to {c.num_embeddings - 1}."
        )
    return ids


HEAD = Layer(
    name="TiedHead",
    title="Tied head: logits from the embedding's own table",
    options={"num_embeddings": None, "embedding_dim": None},
    linen=lambda c: _LinenHead(c.num_embeddings, c.embedding_dim),
    nnx=lambda c, **kw: _NNXHead(c.num_embeddings, c.embedding_dim, **kw),
    reference=linear,
    inputs=lambda c: (Input("input", ("...", c.embedding_dim)),),
    terms=lambda c: c.embedding_dim,
    pitfalls=(
        "A checkpoint that drops the tied key leaves a separate head at its random init.",
        "As a Dense layer the head needs the table transposed; `attend` does it itself.",
    ),
    sources=(FLAX, "https://github.com/huggingface/transformers/issues/13086"),
    **_TABLE,
)


class _LinenHead(linen.Embed):
    """`Embed`, called as `attend`."""

    def __call__(self, x: Any) -> Any:
        return self.attend(x)


class _NNXHead(nnx.Embed):
    """`Embed`, called as `attend`."""

    def __call__(self, x: Any) -> Any:
        return self.attend(x)


# EmbeddingBag: one vector for each bag of ids.


def _bags(ids: Any, offsets: Any | None) -> tuple[Any, Any, int]:
    """Ids in one row, the bag of each, and the number of bags."""
    if offsets is None:
        bags = np.repeat(np.arange(ids.shape[0]), ids.shape[1])
        return ids.reshape(-1), bags, ids.shape[0]
    bags = np.searchsorted(np.asarray(offsets), np.arange(ids.shape[0]), side="right") - 1
    return ids, bags, len(offsets)


def _bag_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    ids, bags, count = _bags(_ids(inputs[0], c), c.offsets)
    rows = state["weight"][ids]
    kept = (
        np.ones(len(ids), bool)
        if c.padding_idx is None
        else ids != c.padding_idx % c.num_embeddings
    )
    out = np.zeros((count, rows.shape[1]))
    for bag in range(count):
        chosen = rows[(bags == bag) & kept]
        if len(chosen):
            out[bag] = {"sum": np.sum, "mean": np.mean, "max": np.max}[c.mode](chosen, axis=0)
    return out


def _reduce_bags(rows: Any, ids: Any, c: Config, offsets: Any | None) -> Any:
    """Segment reduction of `rows` (ids.size, E); an empty bag gives 0, as in PyTorch."""
    _, bags, count = _bags(ids, offsets)
    rows = rows.reshape(-1, rows.shape[-1])
    kept = jnp.ones(ids.size, bool)
    if c.padding_idx is not None:
        kept = ids.reshape(-1) != c.padding_idx % c.num_embeddings
    sizes = jax.ops.segment_sum(kept.astype(rows.dtype), bags, count)[:, None]
    if c.mode == "max":
        lowest = jnp.where(kept[:, None], rows, -jnp.inf)
        return jnp.where(sizes > 0, jax.ops.segment_max(lowest, bags, count), 0)
    total = jax.ops.segment_sum(jnp.where(kept[:, None], rows, 0), bags, count)
    return total / jnp.maximum(sizes, 1) if c.mode == "mean" else total


class _LinenBag(linen.Embed):
    """`Embed`, then a reduction over each bag."""

    config: Any = None

    def __call__(self, ids: Any) -> Any:
        return _reduce_bags(super().__call__(ids), ids, self.config, self.config.offsets)


class _NNXBag(nnx.Embed):
    """`Embed`, then a reduction over each bag."""

    def __init__(self, config: Config, **kw: Any) -> None:
        super().__init__(config.num_embeddings, config.embedding_dim, **kw)
        self.config = nnx.static(config)

    def __call__(self, ids: Any) -> Any:
        return _reduce_bags(super().__call__(ids), ids, self.config, self.config.offsets)


def _check_bag(c: Config, state: State | None, api: str) -> None:
    if c.mode not in ("sum", "mean", "max"):
        raise ArgumentError(f"EmbeddingBag: mode = {c.mode!r}. Use 'sum', 'mean' or 'max'.")


def _accept_bag(given: tuple[np.ndarray, ...], c: Config) -> tuple[np.ndarray, ...]:
    """PyTorch's call takes the offsets as a second input."""
    if len(given) == 2 and c.offsets is None:
        c.offsets = given[1]
        return given[:1]
    return given


BAG = Layer(
    name="EmbeddingBag",
    title="EmbeddingBag: a sum, mean or maximum over each bag of rows",
    options=_TABLE_OPTIONS | {"mode": "mean", "offsets": None},
    linen=lambda c: _LinenBag(c.num_embeddings, c.embedding_dim, config=c),
    nnx=lambda c, **kw: _NNXBag(c, **kw),
    reference=_bag_reference,
    inputs=lambda c: (
        Input("input", ("batch", "length") if c.offsets is None else ("length",), c.num_embeddings),
    ),
    accept=_accept_bag,
    check=_check_bag,
    pitfalls=(
        "An empty bag gives 0 in PyTorch; a segment maximum gives minus infinity.",
        "The default mode is the mean, and padding_idx rows do not count in it.",
    ),
    differs="Neither has the layer: Embed and a segment reduction in both.",
    sources=(TORCH + "EmbeddingBag.html",),
    **_TABLE,
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

    def __call__(self, x: Any) -> Any:
        return super().__call__(x.reshape(x.shape[0], -1))


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

ROWS = (LINEAR, CONV1D, EMBEDDING, BAG, HEAD, FLATTEN)
