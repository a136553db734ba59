"""The pre-norm encoder block, in Linen and in NNX: one forward pass, one tree of names.

    x ─ ln1 ─ attention ─ + ─ ln2 ─ ff1 ─ activation ─ ff2 ─ + ─ output
    └─────────────────────┘ └────────────────────────────────┘

Attention is built by hand from four dense projections, so that every weight is a plain
`(in, out)` kernel with a name: `attn/q_proj`, `attn/k_proj`, `attn/v_proj`, `attn/out_proj`.
The forward pass is written once, over anything that has submodules of these names, and
returns every stage: what a debugger shows is what the block computes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

#: What each activation name means. PyTorch's `gelu` is the erf form, JAX's default is tanh.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}

#: The epsilon of `flax.linen.LayerNorm` and `nnx.LayerNorm`.
FLAX_EPSILON = 1e-6
#: The epsilon of `torch.nn.LayerNorm`.
TORCH_EPSILON = 1e-5


def attention_stages(mha: Any, x: jax.Array) -> dict[str, jax.Array]:
    """The stages of self-attention, by name.

    Args:
        mha: has `num_heads` and the projections `q_proj`, `k_proj`, `v_proj`, `out_proj`.
        x: `(…, T, d_model)`.

    Returns:
        `q`, `k`, `v`, `heads` and `out` of shape `(…, T, d_model)`, `scores` and `weights`
        of shape `(…, heads, T, T)`.
    """
    q, k, v = mha.q_proj(x), mha.k_proj(x), mha.v_proj(x)
    split = [_split_heads(a, mha.num_heads) for a in (q, k, v)]
    scores = split[0] @ split[1].swapaxes(-1, -2) / math.sqrt(split[0].shape[-1])
    weights = jax.nn.softmax(scores, axis=-1)
    # (…, heads, T, head_dim) -> (…, T, heads · head_dim)
    heads = (weights @ split[2]).swapaxes(-2, -3).reshape(x.shape)
    out = mha.out_proj(heads)
    return {
        "q": q, "k": k, "v": v, "scores": scores, "weights": weights, "heads": heads, "out": out,
    }  # fmt: skip


def _split_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """`(…, T, heads · head_dim)` -> `(…, heads, T, head_dim)`: a head is a run of features."""
    return x.reshape(*x.shape[:-1], num_heads, -1).swapaxes(-2, -3)


def block_stages(block: Any, x: jax.Array, residual: bool = True) -> dict[str, jax.Array]:
    """The stages of the encoder block, by name, in the order of the forward pass.

    Args:
        block: has `ln1`, `attn`, `ln2`, `ff1`, `ff2` and the name of its `activation`.
        x: `(…, T, d_model)`.
        residual: whether the input of each half is added back. Leaving it out is a mistake
            that the debugger shows; the block itself never does.
    """

    def add(kept: jax.Array, branch: jax.Array) -> jax.Array:
        return kept + branch if residual else branch

    stages = {"ln1": block.ln1(x)}
    stages |= block.attn.stages(stages["ln1"])
    stages["residual1"] = add(x, stages["out"])
    stages["ln2"] = block.ln2(stages["residual1"])
    stages["ff1"] = block.ff1(stages["ln2"])
    stages["activation"] = ACTIVATIONS[block.activation](stages["ff1"])
    stages["ff2"] = block.ff2(stages["activation"])
    stages["output"] = add(stages["residual1"], stages["ff2"])
    return stages


class LinenMHA(nn.Module):
    """Multi-head self-attention of four named dense projections, in Linen.

    Attributes:
        num_heads: heads; divides `d_model`.
        d_model: features of input and output.

    >>> variables = LinenMHA(2, 4).init(jax.random.key(0), jax.numpy.ones((3, 4)))
    >>> sorted(variables["params"])
    ['k_proj', 'out_proj', 'q_proj', 'v_proj']
    """

    num_heads: int
    d_model: int

    def setup(self) -> None:
        self.q_proj = nn.Dense(self.d_model)
        self.k_proj = nn.Dense(self.d_model)
        self.v_proj = nn.Dense(self.d_model)
        self.out_proj = nn.Dense(self.d_model)

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage by name; `out` is the result."""
        return attention_stages(self, x)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(…, T, d_model)` -> `(…, T, d_model)`."""
        return self.stages(x)["out"]


class LinenEncoderBlock(nn.Module):
    """The pre-norm encoder block in Linen.

    Attributes:
        num_heads: heads; divides `d_model`.
        d_model: features of input and output.
        d_ff: features between the two dense layers.
        activation: a name of `ACTIVATIONS`; PyTorch's `gelu` is `"gelu"`, not `"gelu_tanh"`.
        epsilon: of both layer norms; a PyTorch checkpoint was trained with 1e-5.

    >>> block = LinenEncoderBlock(num_heads=2, d_model=4, d_ff=6)
    >>> variables = block.init(jax.random.key(0), jax.numpy.ones((3, 4)))
    >>> sorted(variables["params"]), variables["params"]["attn"]["q_proj"]["kernel"].shape
    (['attn', 'ff1', 'ff2', 'ln1', 'ln2'], (4, 4))
    """

    num_heads: int
    d_model: int
    d_ff: int
    activation: str = "relu"
    epsilon: float = FLAX_EPSILON

    def setup(self) -> None:
        self.ln1 = nn.LayerNorm(epsilon=self.epsilon)
        self.attn = LinenMHA(self.num_heads, self.d_model)
        self.ln2 = nn.LayerNorm(epsilon=self.epsilon)
        self.ff1 = nn.Dense(self.d_ff)
        self.ff2 = nn.Dense(self.d_model)

    def stages(self, x: jax.Array, residual: bool = True) -> dict[str, jax.Array]:
        """Every stage by name; `output` is the result."""
        return block_stages(self, x, residual)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(…, T, d_model)` -> `(…, T, d_model)`."""
        return self.stages(x)["output"]


class NNXMHA(nnx.Module):
    """`LinenMHA` in NNX: the same names, the same kernels `(in, out)`.

    >>> NNXMHA(2, 4, rngs=nnx.Rngs(0)).q_proj.kernel.shape
    (4, 4)
    """

    def __init__(self, num_heads: int, d_model: int, *, rngs: nnx.Rngs) -> None:
        self.num_heads = num_heads
        self.d_model = d_model
        self.q_proj = nnx.Linear(d_model, d_model, rngs=rngs)
        self.k_proj = nnx.Linear(d_model, d_model, rngs=rngs)
        self.v_proj = nnx.Linear(d_model, d_model, rngs=rngs)
        self.out_proj = nnx.Linear(d_model, d_model, rngs=rngs)

    def stages(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage by name; `out` is the result."""
        return attention_stages(self, x)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(…, T, d_model)` -> `(…, T, d_model)`."""
        return self.stages(x)["out"]


class NNXEncoderBlock(nnx.Module):
    """`LinenEncoderBlock` in NNX: the same names and arguments, and random streams.

    >>> block = NNXEncoderBlock(num_heads=2, d_model=4, d_ff=6, rngs=nnx.Rngs(0))
    >>> block(jax.numpy.ones((3, 4))).shape, block.ff1.kernel.shape
    ((3, 4), (4, 6))
    """

    def __init__(
        self,
        num_heads: int,
        d_model: int,
        d_ff: int,
        activation: str = "relu",
        epsilon: float = FLAX_EPSILON,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.num_heads = num_heads
        self.d_model = d_model
        self.d_ff = d_ff
        self.activation = activation
        self.epsilon = epsilon
        self.ln1 = nnx.LayerNorm(d_model, epsilon=epsilon, rngs=rngs)
        self.attn = NNXMHA(num_heads, d_model, rngs=rngs)
        self.ln2 = nnx.LayerNorm(d_model, epsilon=epsilon, rngs=rngs)
        self.ff1 = nnx.Linear(d_model, d_ff, rngs=rngs)
        self.ff2 = nnx.Linear(d_ff, d_model, rngs=rngs)

    def stages(self, x: jax.Array, residual: bool = True) -> dict[str, jax.Array]:
        """Every stage by name; `output` is the result."""
        return block_stages(self, x, residual)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(…, T, d_model)` -> `(…, T, d_model)`."""
        return self.stages(x)["output"]
