"""Paths of Linen, NNX and flat mappings, and writes that are compared first."""

import jax
import numpy as np
import pytest
from flax import linen, nnx

from porting.errors import ArgumentError, CoverageError, LimitError
from porting.tree import check_cover, flatten, fold, leaves, nnx_variables, unflatten, write_nnx


class Mixin:
    """A base class that has nothing to do with Flax."""


class Net(nnx.Module, Mixin):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 7, rngs=rngs)])
        self.norm = nnx.BatchNorm(7, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


NET_SHAPES = {
    "layers/0/bias": (5,),
    "layers/0/kernel": (3, 5),
    "layers/1/bias": (7,),
    "layers/1/kernel": (5, 7),
    "norm/bias": (7,),
    "norm/mean": (7,),
    "norm/scale": (7,),
    "norm/var": (7,),
}


def shapes(found: dict) -> dict:
    return {path: tuple(leaf.shape) for path, leaf in sorted(found.items())}


def test_a_tree_goes_flat_and_back():
    tree = {"params": {"ln1": {"scale": np.ones(3)}, "layers": [np.ones(2), {"bias": np.ones(5)}]}}
    flat = flatten(tree)
    assert list(flat) == ["params/ln1/scale", "params/layers/0", "params/layers/1/bias"]
    assert flatten(unflatten(flat)).keys() == flat.keys()
    assert flatten(flat).keys() == flat.keys()


def test_nothing_is_no_leaf():
    assert flatten({"a": None, "b": {}, "c": []}) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flatten({"a": {"b": 3}}), "a/b holds a int, which is neither an array nor a mapping of arrays. Pass parameters only."),
        (lambda: flatten({"a": {"b": np.ones(1)}, "a/b": np.ones(2)}), "a/b is named twice. Name every leaf once."),
        (lambda: unflatten({"a": 1, "a/b": 2}), "a/b: a is both a leaf and a branch."),
        (lambda: unflatten({"a/b": 2, "a": 1}), "a: a is both a leaf and a branch."),
        (lambda: leaves(linen.Dense(3)), "A Linen module alone has no shapes. Pass the pair (module, sample_input)."),
        (lambda: leaves(3), "A int holds no parameters. Pass a mapping of arrays, an NNX module or its state, or the pair (linen_module, sample_input)."),
        (lambda: leaves(object()), "A object holds no parameters. Pass a mapping of arrays, an NNX module or its state, or the pair (linen_module, sample_input)."),
    ],
)  # fmt: skip
def test_what_is_no_tree_word_for_word(call, message):
    with pytest.raises(ArgumentError) as error:
        call()
    assert str(error.value) == message


def test_every_form_of_one_nnx_module_has_the_same_leaves():
    net = Net(nnx.Rngs(0))
    abstract = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
    for form in (net, nnx.state(net), abstract):
        assert shapes(leaves(form)) == NET_SHAPES


def test_random_streams_are_no_parameters():
    assert not [path for path in nnx_variables(Net(nnx.Rngs(0))) if "rngs" in path]


def test_a_linen_pair_has_the_leaves_of_its_variables_and_computes_nothing():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=True)(linen.Dense(5)(x))

    x = np.ones((2, 3), np.float32)
    variables = Model().init(jax.random.key(0), x)
    assert shapes(leaves((Model(), x))) == shapes(leaves(variables)) == shapes(flatten(variables))


def test_writing_fills_every_leaf():
    net = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    values = {path: rng.standard_normal(shape).astype("f") for path, shape in NET_SHAPES.items()}
    net = Net(nnx.Rngs(0))
    write_nnx(net, values)
    for path, leaf in leaves(net).items():
        np.testing.assert_array_equal(leaf, values[path])


def test_writing_refuses_what_flax_would_take():
    linear = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    before = np.asarray(linear.kernel[...])
    wrong = {
        "kernel": np.ones((5, 3), np.float32),
        "bias": np.ones(5, np.float64),
        "scale": np.ones(5, np.float32),
    }
    with pytest.raises(CoverageError) as error:
        write_nnx(linear, wrong)
    assert str(error.value) == (
        "The leaves do not match:\n"
        "bias has dtype float64, the target float32\n"
        "kernel has shape (5, 3), the target (3, 5)\n"
        "scale has no place in the target"
    )
    np.testing.assert_array_equal(linear.kernel[...], before)


def test_leaves_left_over_on_both_sides_are_folded():
    target = {f"layer.{i}.bias": np.ones(2) for i in range(12)}
    with pytest.raises(CoverageError) as error:
        check_cover(target, {"head": np.ones(2)})
    assert str(error.value).splitlines() == [
        "The leaves do not match:",
        "head has no place in the target",
        "layer.{0…11}.bias is not filled",
    ]


def test_folding_keeps_lines_that_differ_in_more_than_one_number():
    assert fold(["a.0 has shape (3,)", "a.1 has shape (5,)"]) == [
        "a.0 has shape (3,)",
        "a.1 has shape (5,)",
    ]
    assert fold(["Dense_0/bias", "Dense_1/bias"]) == ["Dense_{0,1}/bias"]


def test_a_bare_array_in_an_nnx_module_is_no_parameter():
    module = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    module.scale = nnx.data(jax.numpy.ones(()))
    assert sorted(leaves(module)) == sorted(nnx_variables(module)) == ["bias", "kernel"]
    assert sorted(leaves(nnx.eval_shape(lambda: module))) == ["bias", "kernel"]


@pytest.mark.parametrize("wrap", [lambda tree: {"a": tree}, lambda tree: [tree]])
def test_too_deep_a_tree_is_refused(wrap):
    tree = np.ones(3)
    for _ in range(5000):
        tree = wrap(tree)
    with pytest.raises(LimitError, match="more than 200 parts"):
        flatten({"tree": tree})


def test_a_tree_that_holds_itself_is_refused():
    tree = {}
    tree["again"] = tree
    with pytest.raises(LimitError, match="in itself"):
        flatten(tree)


def test_a_name_of_very_many_parts_is_refused():
    assert len(flatten({".".join("a" * 200): np.ones(3)})) == 1
    with pytest.raises(LimitError, match="more than 200 parts"):
        flatten({".".join("a" * 201): np.ones(3)})


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [("h." + "9" * 5000, (2,), "5,002 characters"), ("w", (1,) * 9, "9 axes. Pass at most 8")],
)
def test_a_name_or_a_rank_that_no_model_has_is_refused(name, shape, says):
    with pytest.raises(LimitError, match=says):
        flatten({name: np.zeros(shape, np.float32)})
