"""Tables: Embedding, EmbeddingBag, and the head that is tied to a table."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError
from porting.layers.dense import FLAX, TORCH, linear
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import Rule
from porting.leaves import Leaf


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
    reference=lambda state, x, c: state["weight"][x[0]],
    inputs=lambda c: (Input("input", ("...",), ids=c.num_embeddings),),
    pitfalls=(
        "A square table fits transposed.",
        "padding_idx only zeroes the gradient; the row is used as it is stored.",
        "An id past the end: PyTorch raises, Flax gives NaN.",
    ),
    sources=(TORCH + "Embedding.html", FLAX),
    **_TABLE,
)


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

    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        return self.attend(inputs)


# EmbeddingBag: one vector for each bag of ids.


def _bags(ids: Any, offsets: Any | None) -> tuple[Any, Any, int]:
    """Ids in one row, the bag of each, and the number of bags."""
    if offsets is None:
        bags = np.repeat(np.arange(ids.shape[0]), ids.shape[1])
        return ids.reshape(-1), bags, ids.shape[0]
    bags = np.searchsorted(np.asarray(offsets), np.arange(ids.shape[0]), side="right") - 1
    return ids, bags, len(offsets)


def _bag_reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
    ids, bags, count = _bags(inputs[0], c.offsets)
    rows = state["weight"][ids]
    kept = (
        np.ones(len(ids), bool)
        if c.padding_idx is None
        else ids != c.padding_idx % c.num_embeddings
    )
    out = np.zeros((count, rows.shape[1]))
    reduce: Any = {"sum": np.sum, "mean": np.mean, "max": np.max}[c.mode]
    for bag in range(count):
        chosen = rows[(bags == bag) & kept]
        if len(chosen):
            out[bag] = reduce(chosen, axis=0)
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

    def __call__(self, inputs: Any, out_sharding: Any = None) -> Any:
        rows = super().__call__(inputs, out_sharding)
        return _reduce_bags(rows, inputs, self.config, self.config.offsets)


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

ROWS = (EMBEDDING, BAG, HEAD)
