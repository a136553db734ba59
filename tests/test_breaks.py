"""Every way to break a shipped model is found, named and repaired; a clean port gives nothing."""

from itertools import combinations

import numpy as np
import pytest

from porting.breaks import BREAKS, break_tree
from porting.checkpoint import open_checkpoint
from porting.doctor import diagnose, repair
from porting.examples import EXAMPLES
from porting.faults import Port
from porting.mapping import port_checkpoint
from porting.models import MODELS, decided_mapping
from porting.tree import flatten

MODEL_NAMES = [name for name, model in MODELS.items() if model.kind == "linen"]
#: break -> what the doctor may call it
NAMED = {
    "square": {"untransposed"},
    "reshaped": {"reshaped"},
    "height_width": {"hw"},
    "conv_reshaped": {"reshaped"},
    "query_key": {"exchanged"},
    "scale_bias": {"exchanged"},
    "twins": {"exchanged", "other", "other_part", "split"},
    "zero_bias": {"zeros"},
    "random_leaf": {"foreign"},
    "narrowed": {"cast"},
}


@pytest.fixture(scope="module", params=MODEL_NAMES)
def clean(request):
    """The right leaves of a shipped model, its source and its mapping."""
    model = MODELS[request.param]
    with open_checkpoint(EXAMPLES[model.checkpoint].path) as checkpoint:
        source = {key: np.array(checkpoint[key]) for key in checkpoint}
    mapping = decided_mapping(request.param, source)
    variables, _ = port_checkpoint(source, model.target(), mapping)
    return flatten(variables), source, mapping


def changed(leaves, others):
    return {path for path, leaf in leaves.items() if not np.array_equal(leaf, others[path])}


def fitting(leaves):
    return [name for name, row in BREAKS.items() if row.fits(Port(leaves, dict))]


def test_a_clean_port_is_accused_of_nothing(clean):
    leaves, source, mapping = clean
    found = diagnose(source, leaves, mapping)
    assert found.ok
    assert found.findings == ()


def test_every_break_is_found_named_and_repaired(clean):
    leaves, source, mapping = clean
    for name in fitting(leaves):
        broken = break_tree(leaves, [name])
        found = diagnose(source, broken, mapping)
        wrong = {path for path, verdict in found.leaves.items() if verdict.wrong}
        assert wrong == changed(leaves, broken), name
        assert {found.leaves[path].kind for path in wrong} <= NAMED[name], name
        assert all(found.leaves[path].fix for path in wrong), name
        assert not changed(leaves, repair(source, broken, found)), name


def test_two_breaks_at_once_are_found_and_repaired(clean):
    leaves, source, mapping = clean
    for names in combinations(fitting(leaves), 2):
        broken = break_tree(leaves, list(names))
        found = diagnose(source, broken, mapping)
        wrong = {path for path, verdict in found.leaves.items() if verdict.wrong}
        assert wrong == changed(leaves, broken), names
        assert not changed(leaves, repair(source, broken, found)), names


def test_every_break_fits_a_shipped_model_and_leaves_the_right_port_alone(clean):
    leaves, _, _ = clean
    before = {path: leaf.copy() for path, leaf in leaves.items()}
    assert changed(leaves, break_tree(leaves, list(BREAKS)))
    assert not changed(before, leaves)
    assert set(fitting(leaves)) <= set(NAMED) == set(BREAKS)


def test_a_break_that_fits_nothing_does_nothing():
    leaves = {"params/fc/kernel": np.arange(15.0).reshape(3, 5)}
    unfitting = [name for name in BREAKS if name not in fitting(leaves)]
    assert len(unfitting) >= 5
    assert not changed(leaves, break_tree(leaves, unfitting))
