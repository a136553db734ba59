"""An epsilon that no table lists is worked out from what a norm gave."""

import numpy as np
import pytest

from porting.trace.questions import Problem
from porting.trace.tables import LAYERS
from porting.trace.variants import fitting

RNG = np.random.default_rng(5)
X = RNG.normal(size=(6, 5, 64)) * 10 ** RNG.normal(size=(6, 1, 1))
AFFINE = {"scale": RNG.normal(size=64), "bias": RNG.normal(size=64)}
RUNNING = {"mean": RNG.normal(size=64), "var": RNG.normal(size=64) ** 2}
LEAVES = {"norm": AFFINE, "batch norm": AFFINE | RUNNING, "group norm": AFFINE}


@pytest.mark.parametrize("layer", LEAVES)
@pytest.mark.parametrize("epsilon", [0.03, 5e-4, 2e-7])
@pytest.mark.parametrize("double", [True, False])
def test_an_epsilon_that_nobody_listed_is_named(layer, epsilon, double):
    x = np.float32(X).astype(np.float64)
    y = LAYERS[layer](Problem(layer, {"x": x}, LEAVES[layer], x), epsilon=epsilon)
    asked = Problem(layer, {"x": x}, LEAVES[layer], np.float32(y), y if double else None)
    found = [choice["epsilon"] for choice in fitting(asked)]
    if double or epsilon > 1e-6:
        assert found == [epsilon]
    else:
        assert max(found) <= 1e-5  # rounding hides the rest


def test_a_norm_that_does_something_else_gets_no_epsilon():
    problem = Problem("norm", {"x": X}, AFFINE, np.float32(np.tanh(X)), np.tanh(X))
    assert fitting(problem) == []
