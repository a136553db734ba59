"""What a mapping asks, and the mapping with the answers."""

import pytest

from porting.checkpoint import open_checkpoint
from porting.errors import ArgumentError
from porting.examples import EXAMPLES
from porting.mapping import infer_mapping
from porting.models import MODELS, decided_mapping
from porting.questions import answered, reading_text, readings

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
