"""Rules against einops and NumPy. Sizes are distinct primes, so no axis can hide another."""

import random

import einops
import jax.numpy as jnp
import numpy as np
import pytest

from porting.errors import RuleError
from porting.layouts import TRANSPOSE, Rule, identity

SIZES = {"a": 2, "b": 3, "c": 5, "d": 7, "e": 11}


def counting(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.int64).reshape(shape)


def grouped(names: list[str], rng: random.Random) -> str:
    """The names in order, some neighbours merged by brackets."""
    words, rest = [], list(names)
    while rest:
        take = rng.choice([1, 1, 2, 3])
        part, rest = rest[:take], rest[take:]
        words.append(part[0] if len(part) == 1 else f"({' '.join(part)})")
    return " ".join(words)


def random_patterns(count: int) -> list[str]:
    rng = random.Random(7)
    found = []
    for _ in range(count):
        names = rng.sample(sorted(SIZES), rng.choice([2, 3, 4, 5]))
        moved = rng.sample(names, len(names))
        found.append(f"{grouped(names, rng)} -> {grouped(moved, rng)}")
    return found


def source_of(pattern: str) -> np.ndarray:
    """An array that the left side of `pattern` fits."""
    left = pattern.partition(" -> ")[0]
    names = left.replace("(", "").replace(")", "").split()
    return einops.rearrange(counting(*(SIZES[n] for n in names)), f"{' '.join(names)} -> {left}")


@pytest.mark.parametrize("pattern", random_patterns(120))
def test_a_rule_is_what_einops_makes_of_it(pattern):
    array = source_of(pattern)
    sizes = {n: s for n, s in SIZES.items() if n in pattern}
    rule = Rule(pattern, sizes)
    expected = einops.rearrange(array, pattern, **sizes)
    np.testing.assert_array_equal(rule.apply(array), expected)
    assert rule.shape(array.shape) == expected.shape
    np.testing.assert_array_equal(rule.positions(array.shape), expected)
    np.testing.assert_array_equal(rule.inverse().apply(expected), array)
    back = np.full_like(array, -1)
    rule.scatter(expected, back)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("pattern", "sizes", "shape", "expected"),
    [
        ("o i -> i o", {}, (7, 5), lambda a: a.T),
        ("o i h w -> h w i o", {}, (7, 5, 3, 2), lambda a: a.transpose(2, 3, 1, 0)),
        ("i o h w -> -h -w i o", {}, (7, 5, 3, 2), lambda a: a[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)),
        ("(q=0 h d) e -> e h d", {"q": 3, "h": 5}, (30, 7), lambda a: a[:10].reshape(5, 2, 7).transpose(2, 0, 1)),
        ("(q=2 h d) e -> e h d", {"q": 3, "h": 5}, (30, 7), lambda a: a[20:].reshape(5, 2, 7).transpose(2, 0, 1)),
        ("(h q=1 d) e -> e (h d)", {"q": 3, "h": 5}, (30, 7), lambda a: a.reshape(5, 3, 2, 7)[:, 1].reshape(10, 7).T),
        ("r=2:5 e -> e r", {}, (7, 3), lambda a: a[2:5].T),
        ("r=-2: e -> r e", {}, (7, 3), lambda a: a[-2:]),
        ("r=:3 e=-1 -> r", {}, (7, 3), lambda a: a[:3, -1]),
        ("(h d)=4:14 e -> h e d", {"h": 5}, (17, 3), lambda a: a[4:14].reshape(5, 2, 3).transpose(0, 2, 1)),
        ("e (h d)=4:14 -> d h e", {"h": 5}, (3, 17), lambda a: a[:, 4:14].reshape(3, 5, 2).transpose(2, 1, 0)),
        ("-(h d) -> h d", {"h": 3}, (6,), lambda a: a[::-1].reshape(3, 2)),
        ("h d -> -(h d)", {}, (3, 2), lambda a: a.reshape(-1)[::-1]),
        ("(-h d) -> (h d)", {"h": 3}, (6,), lambda a: a.reshape(3, 2)[::-1].reshape(-1)),
        ("o 1 k -> k o", {}, (7, 1, 3), lambda a: a[:, 0].T),
        ("o k -> k 1 o", {}, (7, 3), lambda a: a.T[:, None]),
    ],
)  # fmt: skip
def test_selections_flips_and_units_are_numpy_s(pattern, sizes, shape, expected):
    array = counting(*shape)
    rule = Rule(pattern, sizes)
    found = rule.apply(array)
    np.testing.assert_array_equal(found, expected(array))
    assert rule.shape(shape) == found.shape
    np.testing.assert_array_equal(rule.apply(jnp.asarray(array)), found)


def test_scatter_puts_a_packed_projection_together_again():
    packed = counting(30, 7)
    back = np.zeros_like(packed)
    for index in range(3):
        rule = Rule(f"(q={index} h d) e -> e h d", {"q": 3, "h": 5})
        rule.scatter(rule.apply(packed), back)
    np.testing.assert_array_equal(back, packed)


def test_scatter_touches_nothing_else():
    into = np.full((7, 3), -1)
    Rule("r=2:5 e -> e r").scatter(counting(3, 3), into)
    assert np.count_nonzero(into == -1) == 12
    np.testing.assert_array_equal(into[2:5], counting(3, 3).T)


def test_scatter_undoes_a_flip():
    rule, array = Rule("i o h w -> -h -w i o"), counting(7, 5, 3, 2)
    back = np.zeros_like(array)
    rule.scatter(rule.apply(array), back)
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(rule.inverse().apply(rule.apply(array)), array)


def test_a_transpose_is_a_view_and_leaves_its_source_alone():
    array = counting(7, 5)
    array.setflags(write=False)
    assert np.shares_memory(TRANSPOSE.apply(array), array)


def test_rules_that_differ_are_told_apart_by_their_positions():
    shape = (3, 3)
    places = {
        rule: Rule(rule).positions(shape).tolist() for rule in ("a b -> a b", "a b -> b a", "a b -> -a b")
    }  # fmt: skip
    assert len({str(p) for p in places.values()}) == 3


@pytest.mark.parametrize("rank", range(9))
def test_the_identity_is_one(rank):
    rule = identity(rank)
    array = counting(*[2, 3, 5, 1, 1, 2, 1, 1][:rank])
    assert rule.is_identity
    assert not rule.selects
    np.testing.assert_array_equal(rule.apply(array), array)
    assert rule.inverse() == rule


def test_spaces_do_not_matter():
    assert Rule("a  b->b   a") == Rule("a b -> b a")
    assert str(Rule("a b->b a").inverse()) == "b a -> a b"


@pytest.mark.parametrize(
    "text", ["a b -> b a", "(q=0 h d) e -> e h d; q=3, h=5", "-a (b c)=2:8 -> (a b) c; b=3"]
)
def test_a_rule_is_read_back_from_its_text(text):
    assert str(Rule.parse(text)) == text
    assert Rule.parse(str(Rule.parse(text))) == Rule.parse(text)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a b", "The rule 'a b' has no '->' between its two sides."),
        ("a * b -> b a", "The rule 'a * b -> b a' cannot be read at '* b'."),
        ("(a (b c)) -> a b c", "The rule '(a (b c)) -> a b c' cannot be read at '(a (b c))'."),
        ("a= b -> b", "The rule 'a= b -> b' has an '=' with nothing behind it."),
        ("a a -> a", "The rule 'a a -> a' names an axis twice on one side."),
        ("a b -> a", "The rule 'a b -> a' names ['b'] on one side only. Name every axis on both sides, or take one index of it (`axis=0`)."),
        ("a=0 b -> a b", "The rule 'a=0 b -> a b' names ['a'] on one side only. Name every axis on both sides, or take one index of it (`axis=0`)."),
        ("a b -> b a=1:2", "The rule 'a b -> b a=1:2' selects on the right. Select on the left."),
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_be_read(pattern, message):
    with pytest.raises(RuleError) as error:
        Rule(pattern)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("rule", "shape", "message"),
    [
        ("o i -> i o", (7, 5, 3), "The rule 'o i -> i o' names 2 axes and the array has 3: (7, 5, 3)."),
        ("(h d) e -> h d e", (6, 5), "The rule '(h d) e -> h d e' does not say how 6 splits into h × d. Give the size of all but one."),
        ("(h d) e -> h d e; h=5", (7, 3), "The rule '(h d) e -> h d e; h=5' does not fit an array of shape (7, 3): an axis of 7 is not h=5 × d=?."),
        ("(h d) -> h d; h=5, d=3", (14,), "The rule '(h d) -> h d; h=5, d=3' does not fit an array of shape (14,): an axis of 14 is not h=5 × d=3."),
        ("o 1 -> o", (7, 3), "The rule 'o 1 -> o' does not fit an array of shape (7, 3): an axis of 3 is not 1=?."),
        ("(q=5 d) -> d; q=3", (21,), "The rule '(q=5 d) -> d; q=3' takes 5 of an axis of 3."),
        ("r=2:11 -> r", (7,), "The rule 'r=2:11 -> r' takes 2:11 of an axis of 7."),
        ("r=-8: -> r", (7,), "The rule 'r=-8: -> r' takes -8: of an axis of 7."),
        ("(h d)=0:11 -> h d; h=5", (7,), "The rule '(h d)=0:11 -> h d; h=5' takes 0:11 of an axis of 7."),
    ],
)  # fmt: skip
def test_an_array_that_does_not_fit(rule, shape, message):
    for use in (Rule.parse(rule).shape, Rule.parse(rule).positions):
        with pytest.raises(RuleError) as error:
            use(shape)
        assert str(error.value) == message


def test_a_size_below_one_is_refused():
    with pytest.raises(RuleError) as error:
        Rule("(h d) -> h d", {"h": -2})
    assert str(error.value) == "The rule '(h d) -> h d; h=-2' has a size below 1: h = -2."


def test_a_leaf_of_another_shape_cannot_be_scattered():
    with pytest.raises(RuleError) as error:
        TRANSPOSE.scatter(np.zeros((7, 5)), np.zeros((7, 5)))
    assert str(error.value) == (
        "The rule 'o i -> i o' makes a leaf of shape (5, 7) from (7, 5); this leaf has (7, 5)."
    )


def test_a_part_has_no_inverse():
    with pytest.raises(RuleError) as error:
        Rule("r=0:2 e -> e r").inverse()
    assert (
        str(error.value) == "The rule 'r=0:2 e -> e r' takes a part of its source: use `scatter`."
    )
