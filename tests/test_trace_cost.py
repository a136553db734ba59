"""What a search for variants may cost, and that its shortcuts lose no answer."""

import dataclasses

import numpy as np
import pytest

from porting.trace import Stage, Trace, compare_traces, explain
from porting.trace.formula_search import formulas
from porting.trace.questions import LEAST_SHARE, Budget, Problem
from porting.trace.recurrence_table import KIND, RECURRENT, recurrent
from porting.trace.sampled import sampled
from porting.trace.sentences import option_in_words
from porting.trace.strangers import strangers
from porting.trace.tables import LAYERS, VARIANTS
from porting.trace.trials import trial_of
from porting.trace.variants import choices, fitting

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape) * 0.5


def recurrent_problem(steps, **choice):
    leaves = {}
    for cell in ("back", "fwd"):
        for gate in "ifgo":
            leaves[f"{cell}/i{gate}/kernel"] = draw(6, 4)
            leaves[f"{cell}/h{gate}/kernel"] = draw(4, 4)
    blank = Problem(KIND, {"x": draw(5, steps, 6)}, leaves, np.zeros((5, steps, 8)))
    rows = {row.option: row.values for row in RECURRENT}
    usual = {o: (v(blank) if callable(v) else v)[0] for o, v in rows.items()}
    target = recurrent(blank, **(usual | choice))
    return Problem(KIND, blank.operands, leaves, np.float32(target), target)


def test_a_question_without_an_answer_ends_when_its_share_is_spent():
    problem = recurrent_problem(40)
    odd = Problem(KIND, problem.operands, problem.leaves, problem.target + 1)
    budget = Budget(4 * LEAST_SHARE)
    share = budget.share()
    assert fitting(odd, None, budget) == []
    spent = 4 * LEAST_SHARE - budget.left
    assert share <= spent < 2 * share
    many = sum(1 for _ in choices(odd))
    assert many > 3000  # so that it is the share that ended it


def test_many_questions_get_less_each_and_at_least_a_little():
    budget = Budget(1e10)
    shares = []
    for _ in range(40):
        shares.append(budget.share())
        budget.left -= shares[-1]
    assert shares[0] > 2 * shares[4] > 4 * LEAST_SHARE
    assert shares[-1] == LEAST_SHARE


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("join", "the second before the first"),
        ("join", "the first twice"),
        ("direction", "forwards beside backwards, left in that order"),
        ("time", "the first axis"),
        ("carry", "ones"),
        ("gate", "hard sigmoid"),
    ],
)
def test_the_first_steps_of_a_right_choice_agree_and_those_of_a_wrong_one_do_not(option, value):
    problem = recurrent_problem(40, **{option: value})
    found = fitting(problem)
    assert found[0][option] == value
    usual = recurrent_problem(40)
    trial = trial_of(usual, 1e-6)
    error, cheap = trial(found[0])
    assert error > 1e-3
    right = next(choice for _, choice in choices(usual))
    error, whole = trial(right)
    assert error < 1e-6
    assert cheap < whole / 3


def test_a_difference_behind_the_first_steps_is_seen_by_the_run_in_full():
    problem = recurrent_problem(40)
    late = problem.target64.copy()
    late[:, 20:24] += 0.1
    assert fitting(Problem(KIND, problem.operands, problem.leaves, np.float32(late), late)) == []


def test_a_convolution_of_another_size_is_not_run():
    leaves = {"kernel": draw(3, 3, 4, 8)}
    x = draw(2, 9, 9, 4)
    y = LAYERS["conv"](Problem("conv", {"x": x}, leaves, x), padding="2 on each side", stride=2)
    problem = Problem("conv", {"x": x}, leaves, np.float32(y), y)
    assert [c["padding"] for c in fitting(problem)][:1] == ["2 on each side"]
    assert trial_of(problem, 1e-6)({"padding": "SAME", "stride": 1, "dilation": 1}) == (np.inf, 0.0)


def test_a_norm_is_asked_about_the_positions_that_part():
    x = draw(1, 500, 6)
    apart = np.zeros_like(x)
    apart[0, 333] = 1
    x[0, :333] *= 1e4  # epsilon shows only where values are small
    x[0, 334:] *= 1e4
    y = LAYERS["norm"](Problem("norm", {"x": x}, {}, x), epsilon=1e-3)
    problem = Problem("norm", {"x": x}, {}, np.float32(y), y, apart)
    assert len(sampled(problem).target[0]) == 64
    assert [choice["epsilon"] for choice in fitting(problem)] == [1e-3]


def test_what_is_cut_off_at_one_element_of_a_pool_is_seen():
    x = np.abs(draw(2, 24, 24, 64)) + 0.1
    x[0, 4:6, 4:6, 37] = -1
    top = x.reshape(2, 12, 2, 12, 2, 64).max((2, 4))
    found = formulas({"x": x}, np.maximum(top, 0), 1e-9)
    assert [str(f) for f in found] == ["ReLU of max pool of 2, stride 2, padding 0 of x"]


def test_an_activation_that_is_a_module_is_no_layer_left_out():
    stage = Stage("act", "GELU", "m", 1, 2, {"0": np.ones(2)}, {"": np.float32([[1, 2]])})
    assert strangers(Trace("torch", (stage,)), "m", set(), 3, False, False) == {}


def test_a_module_around_a_paired_layer_is_no_layer_left_out():
    """ViT's `intermediate` of transformers: a linear layer and its activation in one module."""
    y = {"": np.float32([[1, 2]])}
    inner = Stage("m.fc.dense", "Linear", "m.fc", 2, 3, {}, y)
    outer = Stage("m.fc", "Intermediate", "m", 1, 4, {}, y)
    trace = Trace("torch", (inner, outer, Stage("m", "Layer", "", 0, 5, {}, y)))
    assert strangers(trace, "m", {"m.fc.dense"}, 5, False, False) == {}
    assert list(strangers(trace, "m", set(), 5, False, False)) == ["m.fc"]


def norm_trace(epsilon, leaves):
    x = np.float32(RNG.normal(size=(3, 8)) * 0 + np.linspace(-0.01, 0.02, 24).reshape(3, 8))
    x64 = x.astype(np.float64)
    y = LAYERS["norm"](Problem("norm", {"x": x64}, {}, x64), epsilon=epsilon)
    stage = Stage("norm", "LayerNorm", "", 1, 2, {"0": x}, {"": np.float32(y)}, {"0": x64}, {"": y})
    return Trace("nnx", (stage,), leaves)


def test_a_norm_without_leaves_has_a_fault_of_its_code():
    leaves = {"fc/kernel": np.ones((2, 2))}
    result = compare_traces(norm_trace(1e-6, leaves), norm_trace(1e-5, leaves))
    found = explain(result)
    assert found.verdict == "code"
    assert found.causes[0].restores == ("epsilon = 1e-06",)


@pytest.mark.parametrize(("leaves", "verdict"), [({"fc/kernel": 1}, "code"), ({}, "undecided")])
def test_a_module_without_leaves_has_a_fault_of_its_code_though_no_variant_fits(leaves, verdict):
    usual = norm_trace(1e-6, leaves).stages[0]

    def times(number):
        odd = dataclasses.replace(usual, outputs={"": usual.output * number}, outputs64={})
        return Trace("nnx", (odd,), leaves)

    found = explain(compare_traces(times(1.3), times(1.5)))
    assert (found.verdict, found.causes[0].restores) == (verdict, ())


def test_no_option_is_said_by_the_name_of_an_argument():
    words = {option_in_words(row.title, 1) for row in VARIANTS}
    assert not any(
        text.startswith(f"{row.option} ")
        for text in words
        for row in VARIANTS
        if row.option != "epsilon"
    )
    assert option_in_words("the order of the gates", "ifgo").endswith("input, forget, cell, output")
