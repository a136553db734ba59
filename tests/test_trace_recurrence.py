"""Recurrent layers as functions beside Flax's own, and what ports of them get wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from porting.trace.questions import Problem
from porting.trace.recurrence import BACK, LEFT, ONWARD, recurrence
from porting.trace.recurrence_table import KIND, RECURRENT, all_cells, counts, recurrent
from porting.trace.variants import fitting

X = np.random.default_rng(5).normal(size=(3, 7, 5))
LENGTHS = np.array([7, 4, 5])
CELLS = {"LSTM": nn.OptimizedLSTMCell, "GRU": nn.GRUCell, "RNN": nn.SimpleCell}


def leaves_of(kind, *names):
    """Random leaves of cells of four features, by path."""
    found = {}
    for number, name in enumerate(names):
        cell = CELLS[kind](4)
        carry = cell.initialize_carry(jax.random.key(0), (3, 5))
        tree = cell.init(jax.random.key(number), carry, jnp.ones((3, 5)))["params"]
        rng = np.random.default_rng(number)
        for path, leaf in flatten_dict(tree, sep="/").items():
            found[f"{name}/{path}"] = rng.normal(size=leaf.shape) * 0.5
    return found


def flax(kind, leaves, x=X, lengths=None, **options):
    tree = {}
    for path, leaf in leaves.items():
        *_, part, name = path.split("/")
        tree.setdefault(part, {})[name] = np.float32(leaf)
    layer = nn.RNN(CELLS[kind](4), **options)
    ends = None if lengths is None else jnp.asarray(lengths)
    return layer.apply({"params": {"cell": tree}}, np.float32(x), seq_lengths=ends)


WAYS = {
    ONWARD: {},
    BACK: {"reverse": True, "keep_order": True},
    LEFT: {"reverse": True, "keep_order": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CELLS)
def test_a_recurrence_is_that_of_flax(kind, way):
    leaves = leaves_of(kind, "cell")
    given = recurrence(X, all_cells(leaves)["cell"], way)
    np.testing.assert_allclose(given, flax(kind, leaves, **WAYS[way]), atol=2e-6)


def test_padded_sequences_turn_within_their_length_as_in_flax():
    leaves = leaves_of("GRU", "cell")
    given = recurrence(X, all_cells(leaves)["cell"], BACK, lengths=LENGTHS)
    wanted = np.asarray(flax("GRU", leaves, lengths=LENGTHS, **WAYS[BACK]))
    seen = np.arange(7)[None] < LENGTHS[:, None]
    np.testing.assert_allclose(given[seen], wanted[seen], atol=2e-6)


def problem(kind, paths, width, choice):
    """A question whose answer is one choice of values."""
    leaves = leaves_of(kind, *paths)
    blank = Problem(KIND, {"x": X, "lengths n": LENGTHS}, leaves, np.zeros((3, 7, width)))
    rows = {row.option: row.values for row in RECURRENT}
    usual = {o: (v(blank) if callable(v) else v)[0] for o, v in rows.items()}
    target = recurrent(blank, **(usual | choice))
    return Problem(KIND, blank.operands, leaves, np.float32(target), target)


CHOICES = [
    (kind, ("cell",), 4, row.option, value)
    for kind in CELLS
    for row in RECURRENT
    for blank in [
        Problem(KIND, {"x": X, "lengths n": LENGTHS}, leaves_of(kind, "cell"), X[..., :4])
    ]
    for value in (row.values(blank) if callable(row.values) else row.values)[1:4]
    # Without a step backwards the length alone shows in nothing but the zeros.
    if (row.option, value) != ("lengths", "lengths n") and (kind, row.option) != ("RNN", "gate")
] + [
    ("LSTM", ("bwd", "fwd"), 8, "join", "the second before the first"),
    ("LSTM", ("bwd", "fwd"), 8, "join", "the first twice"),
    ("LSTM", ("bwd", "fwd"), 8, "direction", f"{ONWARD} beside {LEFT}"),
    ("LSTM", ("bwd", "fwd"), 8, "lengths", "lengths n, zeros behind"),
    ("GRU", ("bwd", "fwd"), 8, "cells", "bwd beside fwd"),
]


@pytest.mark.parametrize(("kind", "paths", "width", "option", "value"), CHOICES)
def test_every_option_of_a_recurrent_layer_is_found_by_its_output(
    kind, paths, width, option, value
):
    found = fitting(problem(kind, paths, width, {option: value}))
    assert [choice[option] for choice in found] == [value]


def test_masks_and_counts_of_steps_are_read():
    mask = np.arange(7)[None] < LENGTHS[:, None]
    for array in (LENGTHS, mask, mask.astype(np.float32)):
        (found,) = counts({"n": array}, 3, 7).values()
        assert found.tolist() == [7, 4, 5]
    assert counts({"all": np.full(3, 7), "ids": np.full(3, 9)}, 3, 7) == {}
