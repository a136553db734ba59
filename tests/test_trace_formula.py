"""What stands between two layers: found as a formula, said, and compared."""

import numpy as np
import pytest

from porting.trace.formula import titles
from porting.trace.formula_search import formulas
from porting.trace.spatial import spatial

RNG = np.random.default_rng(11)
X, ATTN, MLP, NORM = (RNG.normal(size=(2, 5, 12)) for _ in range(4))
ADA = RNG.normal(size=(2, 36))
IMAGE, SKIP = RNG.normal(size=(2, 6, 6, 3)), RNG.normal(size=(2, 12, 12, 4))
TEXT = {"x": X, "attn": ATTN, "mlp": MLP, "norm": NORM, "ada": ADA}
PICTURE = {"image": IMAGE, "skip": SKIP}
SHIFT, SCALE, GATE = np.split(ADA[:, None], 3, -1)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


UP = spatial(IMAGE, (12, 12), "nearest resize")
POOLED = spatial(relu(IMAGE), (3, 3), "max pool of 2, stride 2, padding 0")
FORMULAS = [
    (TEXT, X + 0.22 * ATTN, "attn × 0.22 + x"),
    (TEXT, X * 12**0.5 + ATTN, "attn + x × √width"),
    (TEXT, X + ATTN + MLP + NORM, "attn + mlp + norm + x"),
    (TEXT, relu(X * sigmoid(GATE) + ATTN), "ReLU of (sigmoid of part 3 of 3 of ada × x + attn)"),
    (TEXT, NORM * (1 + SCALE) + SHIFT, "norm + part 1 of 3 of ada + part 2 of 3 of ada × norm"),
    (TEXT, relu(X + ATTN) + MLP, "ReLU of (attn + x) + mlp"),
    (TEXT, np.where(X > 0, X, 0.1 * X), "leaky ReLU (0.1) of x"),
    (TEXT, NORM[:, 0], "first position of norm"),
    (TEXT, NORM.mean(1), "mean of all positions of norm"),
    (TEXT, np.roll(X, 1, 1), "the position before of x"),
    (TEXT, np.concatenate([X, ATTN], -1), "(x, then attn)"),
    (PICTURE, np.concatenate([UP, SKIP], -1), "(image [nearest resize], then skip)"),
    (PICTURE, IMAGE.swapaxes(1, 2), "image with height and width exchanged"),
    (
        PICTURE,
        POOLED.transpose(0, 3, 1, 2).reshape(2, -1),
        "ReLU of image flattened with its channels first, after max pool of 2, stride 2, padding 0",
    ),
]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize(("operands", "target", "said"), FORMULAS, ids=lambda one: str(one)[:40])
def test_a_formula_is_found(operands, target, said, double):
    scale = np.max(np.abs(target))
    found = formulas(operands, target if double else np.float32(target), 2e-6 * scale)
    assert [str(formula) for formula in found] == [said]


def test_what_is_no_formula_is_not_named():
    assert formulas(TEXT, RNG.normal(size=(2, 5, 12)), 1e-6) == []
    nearly = X + ATTN + 1e-4 * RNG.normal(size=X.shape)
    assert formulas(TEXT, nearly, 1e-6) == []


def test_a_picture_that_is_exchanged_before_it_is_pooled_is_named():
    target = spatial(IMAGE.swapaxes(1, 2), (3, 3), "max pool of 2, stride 2, padding 0")
    (found,) = formulas({"image": IMAGE}, target, 1e-9)
    assert str(found).startswith("image with height and width exchanged, then max pool")


TITLES = [
    (X + ATTN, ATTN, "a missing residual"),
    (X + ATTN, X, "a missing part of the sum"),
    (ATTN, X + ATTN, "a residual too many"),
    (X + ATTN, X + 0.5 * ATTN, "the factor 0.5"),
    (relu(X), X * sigmoid(X), "the activation"),
    (sigmoid(ATTN) * X, X, "a missing gate"),
    (sigmoid(ATTN) * X, sigmoid(X) * ATTN, "the gate, exchanged with what it is multiplied by"),
    (sigmoid(ATTN) * X, sigmoid(ATTN) + X, "a sum in place of a product"),
    (relu(X + ATTN), relu(X) + ATTN, "the order of the activation and the sum"),
    (NORM[:, 0], NORM.mean(1), "how positions are pooled or resized"),
    (NORM * (1 + SCALE) + SHIFT, NORM * (1 + SHIFT) + SCALE, "which part of the features is which"),
    (np.concatenate([X, ATTN], -1), np.concatenate([ATTN, X], -1), "how the parts are joined"),
    (NORM, X, "the order of the layers"),
    (np.concatenate([X, X], -1), np.concatenate([ATTN, X], -1), "how the parts are joined"),
]


@pytest.mark.parametrize(("wanted", "given", "title"), TITLES, ids=[t for _, _, t in TITLES])
def test_what_two_formulas_differ_in_is_named(wanted, given, title):
    (a,), (b,) = (formulas(TEXT, target, 1e-9) for target in (wanted, given))
    assert titles(a, b, order=list(TEXT)) == [title], (str(a), str(b))
    assert titles(a, a) == []


def test_a_layer_of_one_model_alone_is_named():
    (a,), (b,) = formulas(TEXT, NORM, 1e-9), formulas(TEXT, X + ATTN, 1e-9)
    assert titles(a, b, alone=({"norm"}, set())) == ["a layer that is left out"]
    assert titles(b, a, alone=(set(), {"norm"})) == ["a layer too many"]


def test_a_target_that_an_outer_function_made_of_zeros_is_no_formula():
    """What a dropout left is zeros and nothing else: no warning, no sum of it."""
    x = RNG.normal(size=(4, 8))
    assert formulas({"x": x}, np.maximum(x * 0, 0), 1e-6) == []
    half = np.full((4, 8), 0.5)
    assert [str(f) for f in formulas({"x": x}, half, 1e-6)] == []
