"""The stages of the Linen and the NNX block in both precisions, beside the reference.

The blocks report their own stages (`block_modules`), so what is compared is what they
compute. A stage diverges where float64 does not shrink its difference as it shrinks
rounding. It *inherits* its error when, fed with the reference's formula and the port's own
earlier stages, it is right: then the fault lies further up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from porting.block import port_linen_to_nnx
from porting.block_modules import LinenEncoderBlock, NNXEncoderBlock
from porting.block_reference import Reference
from porting.compare import NetworkComparison
from porting.tree import unflatten

Leaves = Mapping[str, np.ndarray]

#: Compiled forward passes that are kept, for each kind; each serves both precisions.
COMPILED = 32

TITLES = {
    "ln1": "First norm",
    "q": "Query",
    "k": "Key",
    "v": "Value",
    "scores": "Scores q · k / √head_dim",
    "weights": "Softmax of the scores",
    "heads": "Heads, joined",
    "out": "Output projection",
    "residual1": "First residual",
    "ln2": "Second norm",
    "ff1": "First dense layer",
    "activation": "Activation",
    "ff2": "Second dense layer",
    "output": "Output, second residual",
}


@dataclass(frozen=True)
class BlockConfig:
    """The constants of a block: what no leaf holds."""

    num_heads: int
    d_model: int
    d_ff: int
    activation: str
    epsilon: float
    residual: bool = True

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What both block classes take, in their order."""
        return self.num_heads, self.d_model, self.d_ff, self.activation, self.epsilon


@dataclass(frozen=True)
class Run:
    """The stages of one block, by name: in float32 and in float64 of the same weights."""

    single: dict[str, np.ndarray]
    double: dict[str, np.ndarray]


@dataclass(frozen=True)
class Stage:
    """One stage of the NNX block, and of the Linen block, beside the reference.

    Attributes:
        name: a key of `TITLES`.
        nnx, linen: against the float64 reference of the source.
        own: the NNX stage against the reference's formula on the NNX block's own earlier
            stages: what this stage itself does wrong.
    """

    name: str
    nnx: NetworkComparison
    linen: NetworkComparison
    own: NetworkComparison

    @property
    def title(self) -> str:
        """What a reader sees."""
        return TITLES[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the stage."""
        return self.nnx.reference.shape

    @property
    def diverges(self) -> bool:
        """Whether rounding does not explain the NNX stage."""
        return not self.nnx.within

    @property
    def inherited(self) -> bool:
        """Whether it diverges only because a stage before it did."""
        return self.diverges and self.own.within


@functools.lru_cache(COMPILED)
def _linen_stages(config: BlockConfig) -> Callable[..., dict[str, jax.Array]]:
    block = LinenEncoderBlock(*config.arguments)
    return jax.jit(lambda leaves, x: block.apply(leaves, x, config.residual, method="stages"))


@functools.lru_cache(COMPILED)
def abstract_nnx(config: BlockConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """The NNX block without its numbers."""
    return nnx.split(nnx.eval_shape(lambda: NNXEncoderBlock(*config.arguments, rngs=nnx.Rngs(0))))


@functools.lru_cache(COMPILED)
def _nnx_stages(config: BlockConfig) -> Callable[..., dict[str, jax.Array]]:
    graph, _ = abstract_nnx(config)
    return jax.jit(lambda state, x: nnx.merge(graph, state).stages(x, config.residual))


def run_linen(config: BlockConfig, leaves: Leaves, x: np.ndarray) -> Run:
    """The stages of the Linen block that holds `leaves` (by Linen path).

    Raises:
        flax.errors.ScopeParamShapeError: a leaf has another shape than the block asks for.
    """
    return _in_both(_linen_stages(config), unflatten(leaves), x)


def run_nnx(config: BlockConfig, leaves: Leaves, x: np.ndarray) -> Run:
    """The stages of the NNX block that `leaves` (by Linen path) were ported into.

    Raises:
        CoverageError: a leaf does not fit.
    """
    block = nnx.merge(*abstract_nnx(config))
    port_linen_to_nnx(leaves, block)
    return _in_both(_nnx_stages(config), nnx.state(block), x)


def _in_both(stages: Callable[..., dict[str, jax.Array]], leaves: Any, x: np.ndarray) -> Run:
    single = _ordered(stages(leaves, jnp.asarray(x)))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), leaves)
        double = _ordered(stages(wide, jnp.asarray(x, jnp.float64)))
    return Run(single, double)


def _ordered(stages: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """NumPy arrays in the order of the forward pass; jit sorts its dictionaries."""
    return {name: np.asarray(stages[name]) for name in TITLES}


def compare_stages(
    reference: Reference, x: np.ndarray, linen: Run, nnx_run: Run
) -> tuple[Stage, ...]:
    """Every stage of both runs beside the reference, in the order of the forward pass."""
    expected = reference.stages(x)
    earlier = [
        {name: array.astype(np.float64) for name, array in {"x": x, **run}.items()}
        for run in (nnx_run.single, nnx_run.double)
    ]
    found = []
    for name, right in expected.items():
        rounded, exact = nnx_run.single[name], nnx_run.double[name]
        own = [
            array - reference.step(name, before)
            for array, before in zip((rounded, exact), earlier, strict=True)
        ]
        found.append(
            Stage(
                name,
                NetworkComparison(right, rounded, exact),
                NetworkComparison(right, linen.single[name], linen.double[name]),
                NetworkComparison(np.zeros_like(right), *own),
            )
        )
    return tuple(found)
