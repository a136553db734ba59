"""Any names and shapes at all: the mapping covers both sides, and nothing but PortingError."""

import random

import numpy as np
import pytest

from porting.errors import PortingError
from porting.mapping import Mapping, infer_mapping, port_checkpoint, unport_checkpoint

NAMES = [
    "layers",
    "layer",
    "h",
    "0",
    "1",
    "10",
    "q",
    "k",
    "v",
    "qkv",
    "in_proj",
    "in_proj_weight",
    "in_proj_bias",
    "weight",
    "bias",
    "kernel",
    "scale",
    "embedding",
    "attn",
    "c_attn",
    "Dense_0",
    "Dense_1",
    "LayerNorm_0",
    "é",
    "..",
    "weight_g",
    "weight_v",
    "parametrizations",
    "original0",
    "original1",
    "running_mean",
    "gamma",
    "beta",
    "weight_ih_l0",
    "weight_hh_l0",
    "bias_ih_l0",
    "shared",
    "lm_head",
    "embed_tokens",
    "conv",
    "deconv",
    "query_key_value",
    "gate_up_proj",
    "<img>",
    "\\d+",
    "(",
    "'",
    "mean",
    "var",
    "params",
    "batch_stats",
    "model",
    "encoder",
    "decoder",
    "hi",
    "ii",
    "dense_i",
    "dense_h",
    "",
]
SIZES = (0, 1, 2, 3, 4, 6, 8, 12)


def drawn(seed):
    """A source and a target that has some of its names and shapes."""
    chance = random.Random(seed)

    def shape():
        return tuple(
            chance.choice(SIZES) for _ in range(chance.choice((0, 1, 1, 2, 2, 2, 3, 4, 5)))
        )

    def name(separator):
        return separator.join(chance.choice(NAMES) for _ in range(chance.randint(1, 5)))

    source = {name("."): np.ones(shape(), np.float32) for _ in range(chance.randint(0, 14))}
    target = {name("/"): np.ones(shape(), np.float32) for _ in range(chance.randint(0, 14))}
    for key in list(source)[:6]:
        array = chance.choice((source[key], source[key].T))
        target[key.replace(".", "/") + chance.choice(("", "/kernel"))] = array
    return source, target


@pytest.mark.parametrize("seed", range(120))
def test_any_names_and_shapes(seed):
    source, target = drawn(seed)
    mapping = infer_mapping(source, target)
    read = {key for leaf in mapping.leaves.values() for key in leaf.sources}
    assert mapping.leaves.keys() | mapping.unmapped.keys() == target.keys()
    assert not mapping.leaves.keys() & mapping.unmapped.keys()
    assert read | mapping.unused.keys() == source.keys()
    assert not read & mapping.unused.keys()
    with np.errstate(all="ignore"):
        for path, leaf in mapping.leaves.items():
            assert leaf.apply(source).shape == target[path].shape
        assert Mapping.from_rules(mapping.to_rules(), source, target) == mapping
        try:
            variables, report = port_checkpoint(source, target, mapping, allow_unused=True)
            compile(report.code(), "port.py", "exec")
            unport_checkpoint(variables, source, mapping)
        except PortingError:
            pass
