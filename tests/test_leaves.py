"""Leaves: joins forward and back, and tables that report everything at once."""

import numpy as np
import pytest

from porting.errors import CoverageError, RuleError
from porting.layouts import Rule
from porting.leaves import (
    CONCAT,
    ONE_PLUS,
    ONLY,
    STACK,
    SUM,
    ZEROS,
    Leaf,
    join_named,
    port_leaves,
    spectral_norm,
    unport_leaves,
    weight_norm,
)

RNG = np.random.default_rng(0)
SAME = Rule("a b -> a b")


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


PACKED = [
    Leaf(
        f"attn/{name}/kernel",
        ("in_proj_weight",),
        Rule(f"(q={i} h d) e -> e h d", {"q": 3, "h": 5}),
    )
    for i, name in enumerate("qkv")
]


def test_a_packed_projection_goes_there_and_back():
    source = {"in_proj_weight": normal(30, 7)}
    ported = port_leaves(PACKED, source)
    np.testing.assert_array_equal(
        ported["attn/k/kernel"], source["in_proj_weight"][10:20].reshape(5, 2, 7).transpose(2, 0, 1)
    )
    back = unport_leaves(PACKED, ported, source)
    np.testing.assert_array_equal(back["in_proj_weight"], source["in_proj_weight"])
    assert back["in_proj_weight"].flags.c_contiguous


@pytest.mark.parametrize(
    "join",
    [ONLY, STACK, CONCAT, SUM, ONE_PLUS, weight_norm(0), weight_norm(None), spectral_norm(0)],
)
def test_a_join_is_named_and_found_again(join):
    assert join_named(join.name).name == join.name


@pytest.mark.parametrize(
    ("join", "shapes"),
    [(ONLY, [(7, 5)]), (STACK, [(7, 5), (7, 5), (7, 5)]), (CONCAT, [(7, 5), (3, 5), (2, 5)])],
)
def test_joins_that_lose_nothing_are_undone(join, shapes):
    arrays = [normal(*shape) for shape in shapes]
    back = join.backward(join.forward(arrays), shapes)
    assert not join.loses
    for given, found in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(given, found)


@pytest.mark.parametrize(
    ("join", "shapes"),
    [
        (SUM, [(7, 5), (7, 5)]),
        (ONE_PLUS, [(7, 5)]),
        (weight_norm(0), [(7, 1), (7, 5)]),
        (weight_norm(1), [(1, 5), (7, 5)]),
        (weight_norm(None), [(), (7, 5)]),
        (spectral_norm(0), [(7, 5), (7,), (5,)]),
        (spectral_norm(1), [(7, 5), (5,), (7,)]),
    ],
)
def test_joins_that_lose_their_parts_still_give_a_source_that_joins_to_the_same(join, shapes):
    joined = join.forward([normal(*shape) for shape in shapes])
    again = join.forward(join.backward(joined, shapes))
    assert join.loses
    np.testing.assert_allclose(again, joined, rtol=1e-6, atol=1e-7)


def test_a_sum_goes_back_to_its_first_part_exactly():
    joined = SUM.forward([normal(7, 5), normal(7, 5)])
    np.testing.assert_array_equal(SUM.forward(SUM.backward(joined, [(7, 5), (7, 5)])), joined)


ZERO_BIAS = [Leaf("bias", ("weight",), Rule("o -> o"), ZEROS)]


def test_a_bias_that_the_source_lacks_is_zero_and_checked_on_the_way_back():
    source = {"weight": normal(7, 5)}
    ported = port_leaves(ZERO_BIAS, source)
    np.testing.assert_array_equal(ported["bias"], np.zeros(7, np.float32))
    assert unport_leaves(ZERO_BIAS, ported, source) == {}
    with pytest.raises(CoverageError, match="holds numbers for which the source has no tensor"):
        unport_leaves(ZERO_BIAS, {"bias": np.ones(7, np.float32)}, source)


def test_everything_that_is_wrong_is_said_at_once():
    table = [
        Leaf("a", ("x",), SAME),
        Leaf("b", ("missing",), SAME),
        Leaf("c", ("x",), Rule("a b c -> a b c")),
    ]
    with pytest.raises(CoverageError) as error:
        port_leaves(table, {"x": normal(7, 5)})
    assert str(error.value) == (
        "2 leaves cannot be ported:\n"
        "b needs missing, which the source lacks.\n"
        "c from x: The rule 'a b c -> a b c' names 3 axes and the array has 2: (7, 5)."
    )


def test_the_source_is_not_changed():
    weight = normal(30, 7)
    weight.setflags(write=False)
    before = weight.copy()
    port_leaves(PACKED, {"in_proj_weight": weight})
    np.testing.assert_array_equal(weight, before)


def test_an_unknown_join():
    with pytest.raises(
        RuleError, match=r"^There is no join 'average'\. Use one of only, stack, concat"
    ):
        join_named("average")


def test_a_leaf_reads_as_a_sentence():
    leaf = Leaf("lstm/bias", ("bias_ih", "bias_hh"), Rule("(g h) -> g h", {"g": 4}), SUM)
    assert str(leaf) == "lstm/bias <- sum of bias_ih, bias_hh by (g h) -> g h; g=4"
