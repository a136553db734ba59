"""`BlockCase`: the recipe of one picture of the encoder block, and what it is made from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from porting import limits
from porting.block import LINEN_TO_NNX, check_sizes, linen_init
from porting.block_modules import TORCH_EPSILON, LinenEncoderBlock
from porting.block_reference import Pair, Reference, linen_weights, torch_weights
from porting.block_torch import TORCH_TO_LINEN, torch_shapes
from porting.checkpoint import open_checkpoint
from porting.errors import ArgumentError
from porting.examples import EXAMPLES
from porting.layouts import identity
from porting.leaves import Leaf
from porting.tree import flatten

Arrays = dict[str, np.ndarray]

#: The largest sizes that the page shows.
LARGEST = {"T": 128, "num_heads": 32, "d_model": 256, "d_ff": 1024}


@dataclass(frozen=True)
class BlockCase:
    """Everything that a picture of the encoder block is computed from.

    Attributes:
        length: positions T.
        d_model, num_heads, d_ff: sizes; a trained source brings its own.
        seed: of the source's init; the target starts from seed + 1.
        data_seed: of the input, and of the leaves when they are randomised.
        source: a name in `SOURCES`.
        fault: a name in `BLOCK_FAULTS`, or "" for the right port.
        randomise: whether a fresh source gets random biases and scales, as if it was trained.
    """

    length: int = 5
    d_model: int = 8
    num_heads: int = 2
    d_ff: int = 16
    seed: int = 0
    data_seed: int = 0
    source: str = "linen-init"
    fault: str = ""
    randomise: bool = False


@dataclass(frozen=True)
class BlockSource:
    """Where the weights come from.

    Attributes:
        title: what a menu shows.
        table: source keys -> Linen leaves.
        weights: undoes the layout of the source, for the reference.
        make: case -> its tensors.
        fresh: whether it was never trained: its biases are zero and its scales one.
        packed: whether it is a PyTorch layer, whose query, key and value are one tensor; if
            so the Linen block is a target as well, else it is the source.
        sizes: num_heads, d_model, d_ff, if the source brings its own.
        activation, epsilon: what it was made with.
    """

    title: str
    table: tuple[Leaf, ...]
    weights: Callable[[Mapping[str, np.ndarray]], dict[str, dict[str, Pair]]]
    make: Callable[[BlockCase], Arrays]
    fresh: bool
    packed: bool
    sizes: tuple[int, int, int] | None = None
    activation: str = "gelu"
    epsilon: float = TORCH_EPSILON


def _linen_init(case: BlockCase) -> Arrays:
    return init_leaves(case.d_model, case.d_ff, case.seed)


@functools.lru_cache(16)
def init_leaves(d_model: int, d_ff: int, seed: int) -> Arrays:
    """The leaves of `LinenEncoderBlock.init` by path, read-only; the heads do not matter."""
    init = linen_init(LinenEncoderBlock(1, d_model, d_ff))
    variables = init(jax.random.key(seed), jnp.zeros((1, d_model)))
    return {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}


def _torch_init(case: BlockCase) -> Arrays:
    """As `nn.TransformerEncoderLayer` starts: `MultiheadAttention` and `Linear` have their own."""
    rng = np.random.default_rng(case.seed)
    state = {}
    for key, shape in torch_shapes(case.d_model, case.d_ff).items():
        fan_in = case.d_ff if key.startswith("linear2") else case.d_model
        if key.startswith("norm") or key.endswith(("in_proj_bias", "out_proj.bias")):
            state[key] = np.full(shape, key.endswith("weight"), np.float32)
        else:
            edge = np.sqrt(6 / sum(shape)) if "in_proj" in key else fan_in**-0.5
            state[key] = rng.uniform(-edge, edge, shape).astype(np.float32)
    return state


@functools.cache
def _m6aformer() -> Arrays:
    with open_checkpoint(EXAMPLES["m6aformer"].path) as checkpoint:
        return {key: np.array(checkpoint[key]) for key in checkpoint}


_SAME = tuple(
    Leaf(path, (path,), identity(2 if path.endswith("kernel") else 1)) for path in LINEN_TO_NNX
)

SOURCES: dict[str, BlockSource] = {
    "linen-init": BlockSource(
        "A Linen block, freshly initialised", _SAME, linen_weights, _linen_init, True, False
    ),
    "torch-init": BlockSource(
        "A PyTorch layer, freshly initialised",
        TORCH_TO_LINEN,
        torch_weights,
        _torch_init,
        True,
        True,
    ),
    "m6aformer": BlockSource(
        "A trained PyTorch layer (m6aformer)",
        TORCH_TO_LINEN,
        torch_weights,
        lambda case: _m6aformer(),
        False,
        True,
        (4, 128, 512),
    ),
}


def resolve(case: BlockCase) -> BlockCase:
    """The case with whole, checked numbers; equal pictures have equal cases.

    Raises:
        PortingError: a size or a seed is out of range, or there is no such source.

    >>> resolve(BlockCase(source="m6aformer", d_model=8)).d_model
    128
    """
    if case.source not in SOURCES:
        raise ArgumentError(f"There is no source {case.source!r}. Use one of {', '.join(SOURCES)}.")
    source = SOURCES[case.source]
    sizes: tuple[Any, ...] = source.sizes or (case.num_heads, case.d_model, case.d_ff)
    named = {"T": case.length, "num_heads": sizes[0], "d_model": sizes[1], "d_ff": sizes[2]}
    length, heads, width, hidden = (limits.dimension(n, v, LARGEST[n]) for n, v in named.items())
    check_sizes(length, heads, width, hidden)
    return replace(
        case,
        length=length,
        num_heads=heads,
        d_model=width,
        d_ff=hidden,
        seed=limits.seed("seed", case.seed),
        data_seed=limits.seed("data seed", case.data_seed),
        randomise=bool(case.randomise) and source.fresh,
    )


def tensors_of(case: BlockCase) -> Arrays:
    """The tensors of the source of a resolved case, by key."""
    tensors = SOURCES[case.source].make(case)
    return randomised(tensors, case.data_seed) if case.randomise else tensors


def randomised(tensors: Mapping[str, np.ndarray], seed: int) -> Arrays:
    """The tensors with every vector made random: no zero, no one, as after training.

    Matrices are random already and stay as they are.

    >>> randomised({"bias": np.zeros(2, np.float32)}, 0)["bias"].all()
    np.True_
    """
    rng = np.random.default_rng(seed)
    return {
        key: leaf if leaf.ndim > 1 else leaf + rng.normal(0.0, 0.5, leaf.shape).astype(leaf.dtype)
        for key, leaf in tensors.items()
    }


def input_of(case: BlockCase) -> np.ndarray:
    """The input `(T, d_model)`, float32 standard normal, by the data seed."""
    rng = np.random.default_rng([case.data_seed, 1])
    return rng.standard_normal((case.length, case.d_model), np.float32)


def reference_of(case: BlockCase, tensors: Mapping[str, np.ndarray]) -> Reference:
    """The block of the source in float64."""
    source = SOURCES[case.source]
    return Reference(
        **source.weights(tensors),
        num_heads=case.num_heads,
        activation=source.activation,
        epsilon=source.epsilon,
    )
