"""Walks against the positions that the rule itself moves."""

import numpy as np
import pytest

from porting.layouts import Rule
from porting.walk import Origin, walk

CASES = [
    ("o i -> i o", (7, 5)),
    ("a b -> a b", (7, 5)),
    ("o i h w -> h w i o", (5, 3, 2, 7)),
    ("i o h w -> -h -w i o", (5, 3, 2, 7)),
    ("(h d) e -> e h d; h=3", (21, 5)),
    ("(p=1 h d) e -> e h d; p=3, h=2", (30, 7)),
    ("(h p=2 d) e -> h d e; h=2, p=3", (30, 7)),
    ("o=2:7 i -> i o", (11, 5)),
    ("(o x)=4:10 i=1:4 -> i (x o); o=3", (14, 5)),
    ("l=3 o i -> i o", (5, 7, 3)),
    ("o 1 -> o", (7, 1)),
    ("o i -> 1 i o", (7, 5)),
    ("o (c h w) -> (h w c) o; c=5, h=3", (7, 30)),
    ("-a -> a", (13,)),
    ("a -> a", (1,)),
]


@pytest.mark.parametrize(("text", "shape"), CASES)
def test_a_walk_says_what_the_rule_does(text, shape):
    rule = Rule.parse(text)
    expected = rule.positions(shape)
    found = walk(rule, shape).places(np.arange(expected.size))
    np.testing.assert_array_equal(found, expected.reshape(-1))


@pytest.mark.parametrize(("text", "shape"), CASES)
def test_an_order_of_the_axes_is_a_transpose_of_the_result(text, shape):
    rule = Rule.parse(text)
    expected = rule.positions(shape)
    order = tuple(reversed(range(expected.ndim)))
    found = Origin(rule, shape, start=1000).walk(order).places(np.arange(expected.size))
    np.testing.assert_array_equal(found, 1000 + expected.transpose(order).reshape(-1))


def test_the_size_costs_nothing():
    large = walk(Rule("o i -> i o"), (2**24, 2**12))
    assert large.places(np.array([1, 2**24])).tolist() == [2**12, 1]
