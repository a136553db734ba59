"""The second guided port: a transformer encoder block from Linen into NNX.

The port is a table: `LINEN_TO_NNX` says where each Linen leaf goes in the NNX block. Both
keep a dense kernel as `(in, out)`, so no leaf changes its shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from porting import limits
from porting.arguments import real_array
from porting.block_modules import LinenEncoderBlock, NNXEncoderBlock
from porting.errors import ArgumentError
from porting.tree import check_cover, flatten, nnx_variables, write_nnx

#: Linen path -> NNX attribute path.
LINEN_TO_NNX: dict[str, str] = {
    "params/ln1/scale": "ln1/scale",
    "params/ln1/bias": "ln1/bias",
    "params/attn/q_proj/kernel": "attn/q_proj/kernel",
    "params/attn/q_proj/bias": "attn/q_proj/bias",
    "params/attn/k_proj/kernel": "attn/k_proj/kernel",
    "params/attn/k_proj/bias": "attn/k_proj/bias",
    "params/attn/v_proj/kernel": "attn/v_proj/kernel",
    "params/attn/v_proj/bias": "attn/v_proj/bias",
    "params/attn/out_proj/kernel": "attn/out_proj/kernel",
    "params/attn/out_proj/bias": "attn/out_proj/bias",
    "params/ln2/scale": "ln2/scale",
    "params/ln2/bias": "ln2/bias",
    "params/ff1/kernel": "ff1/kernel",
    "params/ff1/bias": "ff1/bias",
    "params/ff2/kernel": "ff2/kernel",
    "params/ff2/bias": "ff2/bias",
}


def check_heads(num_heads: int, d_model: int) -> None:
    """Raise unless the features split evenly into heads.

    >>> check_heads(3, 8)
    Traceback (most recent call last):
    porting.errors.ArgumentError: d_model = 8 does not split into 3 heads: 8 / 3 is not whole. Pass a d_model that is a multiple of num_heads, such as 9.
    """
    if d_model % num_heads:
        nearest = num_heads * math.ceil(d_model / num_heads)
        raise ArgumentError(
            f"d_model = {d_model} does not split into {num_heads} heads: "
            f"{d_model} / {num_heads} is not whole. Pass a d_model that is a multiple of "
            f"num_heads, such as {nearest}."
        )


def check_sizes(length: int, num_heads: object, d_model: object, d_ff: object) -> tuple[int, ...]:
    """`num_heads, d_model, d_ff` as integers, if a block of these sizes is within the budget.

    Args:
        length: the number of positions T; the scores take `num_heads · T · T`.

    >>> check_sizes(5, 2.0, 8.0, 16.0)
    (2, 8, 16)
    """
    heads, width, hidden = (
        limits.dimension(name, value)
        for name, value in (("num_heads", num_heads), ("d_model", d_model), ("d_ff", d_ff))
    )
    check_heads(heads, width)
    limits.elements(
        {
            "x": (length, width),
            "the attention scores": (heads, length, length),
            **{f"{name}_proj": (width, width) for name in ("q", "k", "v", "out")},
            "ff1": (width, hidden),
            "ff2": (hidden, width),
            "the activations of ff1": (length, hidden),
        }
    )
    return heads, width, hidden


def port_transformer_block(
    seed: float, x: Any, num_heads: float, d_model: float, d_ff: float
) -> jax.Array:
    """A Linen encoder block, initialised and ported into NNX leaf by leaf: both output sums.

    Equal sums are what most tutorials check. They are weak evidence: a permutation of the
    output features keeps the sum.

    Args:
        seed: its whole part initialises the Linen block; the NNX block starts from seed + 1,
            so that a leaf which the port forgot would show.
        x: `(T, d_model)`.
        num_heads: whole, divides `d_model`.
        d_model: whole, the features of `x`.
        d_ff: whole, the features of the hidden dense layer.

    Returns:
        `[sum of the NNX output, sum of the Linen output]`, shape `(2,)`, float32.

    Raises:
        PortingError: an argument is not a size, is too large, or does not fit the others.

    >>> nnx_sum, linen_sum = port_transformer_block(0.0, jnp.eye(3, 4), 2.0, 4.0, 6.0)
    >>> bool(nnx_sum == linen_sum)
    True
    """
    start = limits.truncated_seed("seed", seed)
    x = real_array("x", x, ("T", "d_model"))
    heads, width, hidden = check_sizes(x.shape[0], num_heads, d_model, d_ff)
    if x.shape[1] != width:
        raise ArgumentError(
            f"x has shape {x.shape} and d_model = {width}. "
            f"Pass x of shape (T, {width}), or d_model = {x.shape[1]}."
        )
    linen_block = LinenEncoderBlock(heads, width, hidden)
    variables = linen_init(linen_block)(jax.random.key(start), x)
    nnx_block = NNXEncoderBlock(heads, width, hidden, rngs=nnx.Rngs(start + 1))
    port_linen_to_nnx(variables, nnx_block)
    linen_out = _linen_call(linen_block)(variables, x)
    nnx_out = _nnx_call(*nnx.split(nnx_block), x)
    return jnp.asarray([float(nnx_out.sum()), float(linen_out.sum())])


#: Compiled functions that are kept, for each kind. An eager call on a new shape compiles
#: every operation by itself, which takes three times as long.
COMPILED = 32


@functools.lru_cache(COMPILED)
def linen_init(block: LinenEncoderBlock) -> Callable[..., Any]:
    """`block.init`, compiled; its values are those of the plain call, bit for bit."""
    return jax.jit(block.init)


@functools.lru_cache(COMPILED)
def _linen_call(block: LinenEncoderBlock) -> Callable[..., jax.Array]:
    return jax.jit(block.apply)


@functools.lru_cache(COMPILED)
def _nnx_compiled(graph: nnx.GraphDef) -> Callable[..., jax.Array]:
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x))


def _nnx_call(graph: nnx.GraphDef, state: nnx.State, x: jax.Array) -> jax.Array:
    return _nnx_compiled(graph)(state, x)


def port_linen_to_nnx(variables: Mapping[str, Any], block: NNXEncoderBlock) -> None:
    """Write the variables of a `LinenEncoderBlock` into an NNX block, in place.

    The current way to write one leaf is `param.set_value(array)` or `param[...] = array`;
    both replace the `param.value = array` of older tutorials, which is deprecated. None of
    them can be trusted to compare shapes, so all leaves are compared before one is written.

    Args:
        variables: `{"params": …}`, nested or by path.
        block: the target, of the same sizes; an abstract one (`nnx.eval_shape`) is filled.

    Raises:
        CoverageError: a leaf is left over on either side, or a shape or dtype differs.

    >>> block = NNXEncoderBlock(2, 4, 6, rngs=nnx.Rngs(1))
    >>> variables = LinenEncoderBlock(2, 4, 6).init(jax.random.key(0), jnp.ones((3, 4)))
    >>> port_linen_to_nnx(variables, block)
    >>> bool((block.ff1.kernel[...] == variables["params"]["ff1"]["kernel"]).all())
    True
    """
    source = flatten(variables)
    paths = {attribute: path for path, attribute in LINEN_TO_NNX.items()}
    target = {
        paths.get(attribute, attribute): variable.get_value()
        for attribute, variable in nnx_variables(block).items()
    }
    check_cover(target, source)
    write_nnx(block, {LINEN_TO_NNX[path]: leaf for path, leaf in source.items()})
