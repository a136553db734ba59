"""Rounding told from error: the bound, and its edges."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from porting.compare import (
    NetworkComparison,
    compare,
    dense_bound,
    dense_reference,
    indistinguishable,
    rounding_bound,
)
from porting.errors import ArgumentError

RNG = np.random.default_rng(0)
FAN_IN = [1, 2, 3, 17, 64, 257, 1021]
SCALES = [1e-30, 1e-6, 1.0, 1e6, 1e15]


def layer(n: int, fan_in: int, out: int, scale: float = 1.0):
    x, weight, bias = (
        (RNG.standard_normal(shape) * s).astype(np.float32)
        for shape, s in (((n, fan_in), scale), ((out, fan_in), 1.0), ((out,), scale))
    )
    return x, weight, bias


@pytest.mark.parametrize("fan_in", FAN_IN)
@pytest.mark.parametrize("scale", SCALES)
def test_a_right_layer_is_within_the_bound(fan_in, scale):
    x, weight, bias = layer(5, fan_in, 7, scale)
    reference, bound = dense_reference(x, weight, bias), dense_bound(x, weight, bias)
    for output in (x @ weight.T + bias, np.asarray(jnp.asarray(x) @ weight.T + bias)):
        assert compare(reference, output, bound).worst <= 1


@pytest.mark.parametrize("fan_in", [n for n in FAN_IN if n > 1])
@pytest.mark.parametrize("scale", SCALES)
def test_a_transposed_square_layer_is_not(fan_in, scale):
    x, weight, bias = layer(5, fan_in, fan_in, scale)
    found = compare(
        dense_reference(x, weight, bias), x @ weight + bias, dense_bound(x, weight, bias)
    )
    assert found.worst > 5
    assert found.over > 0.5 * found.ratio.size


def test_a_fixed_tolerance_would_fail_both_ways():
    x, weight, bias = layer(5, 257, 257)
    right, reference = x @ weight.T + bias, dense_reference(x, weight, bias)
    assert not np.allclose(right, reference, rtol=1e-7, atol=0)
    tiny = weight * np.float32(1e-6)
    wrong, reference = x @ tiny, dense_reference(x, tiny, None)
    assert np.allclose(wrong, reference, atol=1e-3)
    assert compare(reference, wrong, dense_bound(x, tiny, None)).over > 0


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_an_output_stored_in_half_precision_gets_its_own_rounding(stored):
    x, weight, bias = layer(5, 64, 7)
    dtype = ml_dtypes.bfloat16 if stored == "bfloat16" else np.float16
    output = (x @ weight.T + bias).astype(dtype).astype(np.float32)
    reference = dense_reference(x, weight, bias)
    assert compare(reference, output, dense_bound(x, weight, bias, stored)).within
    assert not compare(reference, output, dense_bound(x, weight, bias)).within


def test_a_float64_output_has_a_float64_bound():
    x, weight, bias = (a.astype(np.float64) for a in layer(5, 64, 7))
    reference, bound = dense_reference(x, weight, bias), dense_bound(x, weight, bias, "float64")
    assert compare(reference, (x @ weight.T + bias)[...], bound).within
    assert not compare(reference, (x @ weight.T + bias).astype(np.float32), bound).within


def test_flushed_denormals_are_rounding():
    x, weight = np.full((1, 3), 2e-20, np.float32), np.full((2, 3), 2e-20, np.float32)
    assert compare(
        dense_reference(x, weight, None), np.zeros((1, 2)), dense_bound(x, weight, None)
    ).within


def test_a_big_weight_is_cast_in_blocks():
    x, weight = layer(2, 4099, 1031)[:2]
    whole = x.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(dense_reference(x, weight, None), whole, rtol=0, atol=1e-10)


def test_nan_and_infinity():
    values = np.array([1.0, np.nan, np.inf, -np.inf, np.nan, np.inf, np.inf])
    output = np.array([1.0, np.nan, np.inf, -np.inf, 1.0, 1.0, -np.inf])
    found = compare(values, output, np.full(7, 1e-6))
    assert found.ratio.tolist() == [0, 0, 0, 0, np.inf, np.inf, np.inf]
    assert (found.over, found.within) == (3, False)
    assert found.largest == found.largest_relative == found.worst == np.inf


def test_one_bad_weight_does_not_change_the_verdict_on_the_rest():
    for bad in (np.nan, np.inf):
        x, weight, bias = layer(5, 7, 7)
        weight[2, 3] = bad
        reference, bound = dense_reference(x, weight, bias), dense_bound(x, weight, bias)
        assert compare(reference, x @ weight.T + bias, bound).within
        assert compare(reference, x @ weight + bias, bound).over > 25


def test_nothing_wrong_at_all():
    found = compare(np.zeros((2, 3)), np.zeros((2, 3)), 0.0)
    assert (found.over, found.largest, found.largest_relative, found.worst) == (0, 0, 0, 0)
    assert found.within


def test_any_difference_counts_where_the_bound_is_zero():
    assert compare(np.zeros(1), np.full(1, 1e-300), np.zeros(1)).worst == np.inf


def test_outputs_of_two_shapes():
    with pytest.raises(ArgumentError) as error:
        compare(np.zeros((2, 3)), np.zeros((3, 2)), 0.0)
    assert (
        str(error.value)
        == "The outputs have shapes (2, 3) and (3, 2). Compare outputs of one shape."
    )


def test_what_this_data_cannot_tell_apart():
    bound = np.full(3, 1e-6)
    assert indistinguishable(np.ones(3), np.ones(3) + 1e-6, bound)
    assert not indistinguishable(np.ones(3), np.array([1, 1, 1.1]), bound)
    assert indistinguishable(np.array([np.inf, np.nan, 1]), np.array([np.inf, np.nan, 1]), bound)
    assert not indistinguishable(np.array([np.inf, 1, 1]), np.ones(3), np.array([np.inf, 1, 1]))


def test_the_bound_grows_with_the_terms():
    one = np.ones(1)
    bounds = [float(rounding_bound(one, n, 1.0)[0]) for n in (1, 2, 64, 4096)]
    assert bounds == sorted(bounds)
    assert bounds[-1] / bounds[0] > 1000


def network(error: float) -> NetworkComparison:
    reference = RNG.standard_normal((3, 5))
    double = reference + error + 1e-16 * RNG.standard_normal((3, 5))
    return NetworkComparison(reference, (double + 1e-7).astype(np.float64), double)


def test_a_network_passes_when_float64_shrinks_its_difference():
    right, wrong = network(0.0), network(0.01)
    assert right.within
    assert right.error_over_noise < 1e-6
    assert not wrong.within
    assert wrong.error_over_noise > 1e4


def test_a_network_that_is_exact_and_one_that_is_not_finite():
    zeros = np.zeros(3)
    assert NetworkComparison(zeros, zeros, zeros).within
    assert NetworkComparison(zeros, zeros, zeros).error_over_noise == 0
    broken = NetworkComparison(zeros, zeros, np.full(3, np.nan))
    assert not broken.within
    assert broken.error_over_noise == np.inf
    same = NetworkComparison(np.full(3, np.nan), np.full(3, np.nan), np.full(3, np.nan))
    assert same.within
