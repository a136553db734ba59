"""The Linen -> NNX port of the encoder block: contract, coverage, bad inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from porting.block import LINEN_TO_NNX, check_sizes, port_linen_to_nnx, port_transformer_block
from porting.block_modules import (
    ACTIVATIONS,
    NNXMHA,
    LinenEncoderBlock,
    LinenMHA,
    NNXEncoderBlock,
)
from porting.errors import ArgumentError, CoverageError, LimitError, PortingError
from porting.tree import flatten, leaves, nnx_variables

SHAPES = [(3, 2, 14, 11), (5, 3, 15, 7), (1, 1, 2, 3), (7, 5, 5, 13), (4, 4, 16, 16)]


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize(("length", "heads", "width", "hidden"), SHAPES)
def test_both_sums_agree(length, heads, width, hidden):
    pair = port_transformer_block(3.0, inputs(length, width), float(heads), float(width), hidden)
    assert isinstance(pair, jax.Array)
    assert pair.shape == (2,)
    assert pair.dtype == jnp.float32
    assert pair[0] == pair[1]


def test_the_sum_is_that_of_the_plain_linen_block():
    x = inputs(3, 14)
    block = LinenEncoderBlock(2, 14, 11)
    variables = block.init(jax.random.key(3), x)
    expected = block.apply(variables, x)
    _, linen_sum = port_transformer_block(3.9, x, 2.0, 14.0, 11.0)
    # Eager and compiled sums may round differently in the last place.
    np.testing.assert_allclose(linen_sum, expected.sum(), rtol=1e-5, atol=1e-5)


def test_the_seed_matters_and_its_fraction_does_not():
    x = inputs(3, 14)
    first, second, third = (port_transformer_block(s, x, 2, 14, 11) for s in (3.0, 3.9, 4.0))
    assert first.tolist() == second.tolist() != third.tolist()


def test_x_may_be_float64_lists_or_integers():
    for x in (inputs(3, 14).astype(np.float64), inputs(3, 14).tolist(), np.ones((3, 14), int)):
        pair = port_transformer_block(0.0, x, 2.0, 14.0, 11.0)
        assert pair[0] == pair[1]


def test_the_tree_is_the_documented_one_on_both_sides():
    linen = leaves((LinenEncoderBlock(2, 14, 11), inputs(3, 14)))
    block = nnx.eval_shape(lambda: NNXEncoderBlock(2, 14, 11, rngs=nnx.Rngs(0)))
    assert sorted(linen) == sorted(LINEN_TO_NNX)
    assert sorted(nnx_variables(block)) == sorted(LINEN_TO_NNX.values())
    assert {path.removeprefix("params/"): leaf.shape for path, leaf in linen.items()} == {
        path: leaf.shape for path, leaf in leaves(block).items()
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linen_and_nnx_agree_leaf_for_leaf_and_on_batches(activation):
    x = inputs(2, 3, 14)
    linen = LinenEncoderBlock(2, 14, 11, activation, 1e-5)
    variables = linen.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda a: a + 0.1, variables)
    block = NNXEncoderBlock(2, 14, 11, activation, 1e-5, rngs=nnx.Rngs(1))
    assert not np.array_equal(block(x), linen.apply(variables, x))
    port_linen_to_nnx(variables, block)
    assert np.array_equal(block(x), linen.apply(variables, x))
    alone = linen.apply(variables, x[1])
    np.testing.assert_allclose(block(x)[1], alone, rtol=1e-5, atol=1e-5)


def test_the_attention_modules_stand_alone():
    x = inputs(3, 14)
    variables = LinenMHA(2, 14).init(jax.random.key(0), x)
    mha = NNXMHA(2, 14, rngs=nnx.Rngs(1))
    assert sorted(f"params/{path}" for path in leaves(mha)) == sorted(flatten(variables))
    assert LinenMHA(2, 14).apply(variables, x).shape == mha(x).shape == (3, 14)


def test_the_stages_are_the_forward_pass():
    x = inputs(3, 14)
    block = NNXEncoderBlock(2, 14, 11, rngs=nnx.Rngs(1))
    stages = block.stages(x)
    assert list(stages) == [
        "ln1", "q", "k", "v", "scores", "weights", "heads", "out", "residual1", "ln2", "ff1",
        "activation", "ff2", "output",
    ]  # fmt: skip
    assert stages["weights"].shape == (2, 3, 3)
    assert np.array_equal(stages["output"], block(x))
    np.testing.assert_allclose(stages["weights"].sum(-1), 1, rtol=1e-6)


def test_an_abstract_block_is_filled():
    variables = LinenEncoderBlock(2, 14, 11).init(jax.random.key(0), inputs(3, 14))
    block = nnx.eval_shape(lambda: NNXEncoderBlock(2, 14, 11, rngs=nnx.Rngs(0)))
    port_linen_to_nnx(variables, block)
    assert np.array_equal(block.ff1.kernel[...], variables["params"]["ff1"]["kernel"])


def coverage_error(change) -> str:
    variables = LinenEncoderBlock(2, 14, 11).init(jax.random.key(0), inputs(3, 14))
    flat = flatten(variables)
    change(flat)
    block = NNXEncoderBlock(2, 14, 11, rngs=nnx.Rngs(0))
    before = np.asarray(block.ln1.scale[...])
    with pytest.raises(CoverageError) as caught:
        port_linen_to_nnx(flat, block)
    assert np.array_equal(before, block.ln1.scale[...])
    return str(caught.value)


def test_a_leaf_left_over_on_either_side_raises():
    def change(flat):
        flat["params/ff3/bias"] = flat.pop("params/ff2/bias")

    assert coverage_error(change) == (
        "The leaves do not match:\n"
        "params/ff2/bias is not filled\n"
        "params/ff3/bias has no place in the target"
    )


def test_another_shape_or_dtype_raises():
    def change(flat):
        flat["params/ff1/kernel"] = flat["params/ff1/kernel"].T
        flat["params/ff2/bias"] = np.zeros(14, np.float16)

    assert coverage_error(change) == (
        "The leaves do not match:\n"
        "params/ff1/kernel has shape (11, 14), the target (14, 11)\n"
        "params/ff2/bias has dtype float16, the target float32"
    )


def test_an_nnx_leaf_that_the_table_does_not_know_raises():
    variables = LinenEncoderBlock(2, 14, 11).init(jax.random.key(0), inputs(3, 14))
    block = NNXEncoderBlock(2, 14, 11, rngs=nnx.Rngs(0))
    block.gate = nnx.Param(jnp.ones(3))
    with pytest.raises(CoverageError, match="gate is not filled"):
        port_linen_to_nnx(variables, block)


X = np.ones((3, 14), np.float32)
WHOLE = "Pass a whole number from 1 to 8,192."
BAD = [
    ((0, X[0], 2, 14, 11), "x has shape (14,). Pass an array of 2 axes: (T, d_model)."),
    (
        (0, X[:0], 2, 14, 11),
        "x has shape (0, 14), which holds no numbers. Pass at least one along each axis.",
    ),
    ((0, "x", 2, 14, 11), "x is not an array of real numbers. Pass a NumPy or JAX array."),
    ((0, X + 1j, 2, 14, 11), "x is not an array of real numbers. Pass a NumPy or JAX array."),
    (
        (0, X, 2, 16, 11),
        "x has shape (3, 14) and d_model = 16. Pass x of shape (T, 16), or d_model = 14.",
    ),
    (
        (0, X, 3, 14, 11),
        "d_model = 14 does not split into 3 heads: 14 / 3 is not whole. "
        "Pass a d_model that is a multiple of num_heads, such as 15.",
    ),
    ((0, X, 2, 14, 0), f"d_ff = 0 is not a size. {WHOLE}"),
    ((0, X, -2, 14, 11), f"num_heads = -2 is not a size. {WHOLE}"),
    ((0, X, 2, 14, np.nan), "d_ff = nan is not a whole number. Pass a whole number."),
    ((0, X, 2, 14, np.inf), "d_ff = inf is not a whole number. Pass a whole number."),
    ((0, X, 2.5, 14, 11), "num_heads = 2.5 is not a whole number. Pass a whole number."),
    ((0, X, 2, None, 11), "d_model = None is not a number. Pass a whole number."),
    ((np.nan, X, 2, 14, 11), "seed = nan is not a seed. Pass a whole number."),
    (
        (-1, X, 2, 14, 11),
        "seed = -1 is not a seed. Pass a whole number from 0 to 4,294,967,295.",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), BAD)
def test_bad_arguments_are_told_word_for_word(arguments, text):
    with pytest.raises(ArgumentError) as caught:
        port_transformer_block(*arguments)
    assert str(caught.value) == text


HUGE = [
    ((0, X, 2, 14, 1e12), f"d_ff = 1,000,000,000,000 is larger than the limit of 8,192. {WHOLE}"),
    (
        (0, np.broadcast_to(np.float32(1), (4096, 2)), 2, 2, 3),
        "the attention scores would hold 2 × 4,096 × 4,096 = 33,554,432 numbers; the limit is "
        "16,777,216. Choose smaller sizes.",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), HUGE)
def test_sizes_past_the_limits_are_refused(arguments, text):
    with pytest.raises(LimitError) as caught:
        port_transformer_block(*arguments)
    assert str(caught.value) == text


def test_sizes_are_refused_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(LinenEncoderBlock, "init", None)
    with pytest.raises(PortingError):
        port_transformer_block(0, X, 2, 14, 9000)
    with pytest.raises(LimitError, match="in all"):
        check_sizes(2048, 4, 4096, 4096)
