"""What a mapping asks, and the mapping with the answers."""

import pytest

from porting.checkpoint import open_checkpoint
from porting.errors import ArgumentError
from porting.examples import EXAMPLES
from porting.layouts import Rule
from porting.leaves import Leaf
from porting.mapping import infer_mapping
from porting.models import MODELS, decided_mapping
from porting.questions import alike, answered, gloss, reading_text, readings

KERNEL = "params/dense4/kernel"


@pytest.fixture(scope="module")
def source():
    return open_checkpoint(EXAMPLES["mtcnn_rnet"].path)


@pytest.fixture(scope="module")
def found(source):
    return infer_mapping(source, MODELS["rnet-linen"].target())


def test_the_likeliest_reading_comes_first(found):
    asked = readings(found)
    assert list(asked) == [KERNEL]
    texts = ["dense4.weight by o (c h w) -> (h w c) o; c=64, w=3", "dense4.weight by o i -> i o"]
    assert [reading_text(leaf) for leaf in asked[KERNEL]] == texts


def test_an_answer_decides_its_leaf_and_no_other(found, source):
    assert answered(found, {}) == found
    chosen = answered(found, {KERNEL: 1})
    assert not chosen.unsure
    assert chosen == decided_mapping("rnet-linen", source)
    first = answered(found, {KERNEL: 0})
    assert not first.unsure
    assert first.leaves[KERNEL].rule == found.leaves[KERNEL].rule


@pytest.mark.parametrize(
    "answers", [{KERNEL: 2}, {KERNEL: -1}, {"params/conv1/bias": 0}, {"nowhere": 0}]
)
def test_an_answer_that_fits_no_question(found, answers):
    path, choice = next(iter(answers.items()))
    text = f"{path}: reading {choice} is not among those it asks about."
    with pytest.raises(ArgumentError, match=text):
        answered(found, answers)


def asked_of(*keys: tuple[str, ...]) -> dict[str, tuple[Leaf, ...]]:
    """Questions as `readings` gives them: (path, source, source, …)."""
    return {
        path: tuple(Leaf(path, (key,), Rule("o i -> i o")) for key in sources)
        for path, *sources in keys
    }


def test_alike_are_the_same_leaves_of_other_layers():
    asked = asked_of(
        ("l_0/Dense_0", "l.0.q", "l.0.k"),
        ("l_0/Dense_1", "l.0.k", "l.0.q"),
        ("l_1/Dense_0", "l.1.q", "l.1.k"),
        ("l_1/Dense_1", "l.1.k", "l.1.q"),
    )
    assert alike(asked, "l_0/Dense_0") == ["l_1/Dense_0"]
    assert alike(asked, "l_1/Dense_1") == ["l_0/Dense_1"]


@pytest.mark.parametrize(
    "other",
    [
        ("l_1/k", "l.2.a", "l.1.b"),  # another layer's tensor
        ("l_1/k", "l.1.b", "l.1.a"),  # the other answer first
        ("l_1/k", "l.1.a"),  # one answer less
        ("m_1/k", "l.1.a", "l.1.b"),  # another leaf
        ("l_0/Dense_1", "l.1.a", "l.0.b"),
    ],
)
def test_other_questions_are_not_alike(other):
    assert alike(asked_of(("l_0/k", "l.0.a", "l.0.b"), other), "l_0/k") == []


def test_fc_0_and_fc_1_of_one_layer_are_not_alike():
    asked = asked_of(("Dense_0", "fc.0", "fc.1"), ("Dense_1", "fc.1", "fc.0"))
    assert alike(asked, "Dense_0") == []


def test_both_readings_of_a_flatten_have_words(found):
    first, second = (gloss(leaf) for leaf in readings(found)[KERNEL])
    assert first.startswith("The model flattens channels first")
    assert second == "Transposed only: (out, in) becomes (in, out)."


def test_the_same_tensors_by_another_rule_are_not_alike():
    asked = asked_of(("l_0/k", "l.0.a", "l.0.b"), ("l_1/k", "l.1.a", "l.1.b"))
    assert alike(asked, "l_0/k") == ["l_1/k"]
    first, second = asked["l_1/k"]
    asked["l_1/k"] = (Leaf("l_1/k", first.sources, Rule("o i -> o i")), second)
    assert alike(asked, "l_0/k") == []
