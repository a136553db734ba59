"""Tables of leaves as the layer rows need them: overlapping joins, constants, lost parts."""

from __future__ import annotations

import numpy as np
import pytest

from porting.errors import CoverageError
from porting.layouts import Rule, identity
from porting.leaves import (
    ONE_PLUS,
    SUM,
    ZEROS,
    Leaf,
    join_named,
    port_leaves,
    spectral_norm,
    unport_leaves,
    weight_norm,
)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def test_a_tensor_that_several_joins_read_is_put_together() -> None:
    """As the GRU's biases: the first gate is a sum, the second stays apart."""
    source = {"ih": random(6), "hh": random(6)}
    sizes = {"gate": 2}
    table = [
        Leaf("r", ("ih", "hh"), Rule("(gate=0 h) -> h", sizes), SUM),
        Leaf("in", ("ih",), Rule("(gate=1 h) -> h", sizes)),
        Leaf("hn", ("hh",), Rule("(gate=1 h) -> h", sizes)),
    ]
    leaves = port_leaves(table, source)
    back = unport_leaves(table, leaves, source)
    assert np.array_equal(back["ih"][3:], source["ih"][3:])
    assert np.array_equal(back["hh"][3:], source["hh"][3:])
    assert np.array_equal(back["ih"][:3], source["ih"][:3] + source["hh"][:3])
    assert not back["hh"][:3].any()
    again = port_leaves(table, back)
    assert all(np.array_equal(again[path], leaf) for path, leaf in leaves.items())


def test_a_constant_leaf_gives_nothing_back_and_must_be_constant() -> None:
    source = {"hh": random(5, 3)}
    table = [
        Leaf("kernel", ("hh",), Rule("o i -> i o")),
        Leaf("bias", ("hh",), identity(1), ZEROS),
    ]
    leaves = port_leaves(table, source)
    assert leaves["bias"].shape == (5,)
    assert np.array_equal(unport_leaves(table, leaves, source)["hh"], source["hh"])
    with pytest.raises(CoverageError, match="must be zero"):
        unport_leaves(table, leaves | {"bias": np.ones(5, np.float32)}, source)


def test_a_leaf_without_axes_goes_back() -> None:
    table = [Leaf("slope", ("weight",), Rule("a=0 -> "))]
    source = {"weight": np.float32([0.25])}
    leaves = port_leaves(table, source)
    assert leaves["slope"].shape == ()
    assert np.array_equal(unport_leaves(table, leaves, source)["weight"], source["weight"])


JOINS = [
    (weight_norm(0), [(5, 1, 1), (5, 3, 2)]),
    (weight_norm(2), [(1, 1, 2), (5, 3, 2)]),
    (weight_norm(None), [(), (5, 3)]),
    (spectral_norm(0), [(5, 3, 2), (5,), (6,)]),
    (spectral_norm(1), [(5, 3, 2), (3,), (10,)]),
    (ONE_PLUS, [(7,)]),
]


@pytest.mark.parametrize(("join", "shapes"), JOINS, ids=lambda value: str(value)[:24])
def test_what_a_join_loses_comes_back_the_same(join, shapes) -> None:
    arrays = [np.asarray(np.abs(random(*shape)) + np.float32(0.1)) for shape in shapes]
    fused = join.forward(arrays)
    back = join.backward(fused, shapes)
    assert [np.shape(a) for a in back] == shapes
    assert np.array_equal(join.forward(back), fused)
    assert join_named(join.name).name == join.name
