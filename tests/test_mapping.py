"""The mapping of whole models: names and shapes of published ones, and the true answer."""

import itertools
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from porting.errors import ArgumentError
from porting.mapping import NO_PLACE, Mapping, infer_mapping
from porting.mapping.assignment import best_assignment
from porting.mapping.names import natural

TABLES = sorted((Path(__file__).parent / "golden" / "mapping").glob("*.json"), key=lambda p: p.stem)
NAMES = [path.stem for path in TABLES]


class Spec:
    """A shape and a dtype; asking it for values is an error."""

    def __init__(self, shape, dtype=np.float32):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)

    def __array__(self, *_, **__):
        raise AssertionError("a mapping looked at values")


class Keys(dict):
    def __init__(self, shapes, ordered):
        keys = list(shapes) if ordered else sorted(shapes)
        super().__init__({key: Spec(shapes[key]) for key in keys})
        self.specs, self.ordered = dict(self), ordered


def table(name):
    return json.loads((TABLES[NAMES.index(name)]).read_text())


def target(table):
    return {path: Spec(shape) for path, shape in table["target"].items()}


@pytest.mark.parametrize("ordered", [True, False], ids=["defined", "sorted"])
@pytest.mark.parametrize("name", NAMES)
def test_every_leaf_of_a_known_model(name, ordered):
    known = table(name)
    mapping = infer_mapping(Keys(known["source"], ordered), target(known))
    found = {p: [list(f.sources), str(f.rule), f.join.name] for p, f in mapping.leaves.items()}
    assert found == known["map"]
    assert not mapping.unsure
    assert not mapping.unmapped
    assert mapping.unused.keys() == known["unused"].keys()
    assert not mapping.left_over


def counted(known, seed=None):
    """old target path -> the path as Flax counts modules, inside their parent.

    Counted in the order of definition, or in a random one that no source tells.
    """
    place = {key: i for i, key in enumerate(known["source"])}
    order = {p: place[known["map"][p][0][0]] for p in known["target"]}
    paths = sorted(known["target"], key=lambda p: (order[p], natural(p)))
    leaves = {}
    for path in paths:
        *parents, leaf = path.split("/")
        leaves.setdefault("/".join(parents).split("/", 1)[-1], set()).add(leaf)
    if seed is not None:
        random.Random(seed).shuffle(paths)
    names, counts = {"": ""}, Counter()
    for path in paths:
        parents = path.split("/")[1:-1]
        for depth in range(1, len(parents) + 1):
            module, parent = "/".join(parents[:depth]), "/".join(parents[: depth - 1])
            if module not in names:
                kind = kind_of(leaves.get(module, set()))
                names[module] = f"{names[parent]}/{kind}_{counts[parent, kind]}"
                counts[parent, kind] += 1
    return {
        p: f"{p.split('/')[0]}{names['/'.join(p.split('/')[1:-1])]}/{p.split('/')[-1]}"
        for p in paths
    }


def kind_of(leaves):
    kinds = {"embedding": "Embed", "mean": "BatchNorm", "scale": "LayerNorm", "kernel": "Dense"}
    return next((kind for leaf, kind in kinds.items() if leaf in leaves), "Module")


LINEN = [name for name in NAMES if name.startswith("transformers-")]


@pytest.mark.parametrize("name", LINEN)
@pytest.mark.parametrize(
    ("ordered", "seed"),
    [(True, None), (False, None), (False, 1)],
    ids=["pt", "safetensors", "shuffled"],
)
def test_counted_names_are_never_wrong_and_sure(name, seed, ordered):
    known = table(name)
    renamed = counted(known, seed)
    goal = {renamed[p]: Spec(s) for p, s in known["target"].items()}
    mapping = infer_mapping(Keys(known["source"], ordered), goal)
    twins = {key: known["unused"].get(key, "").removeprefix("tied to ") for key in known["source"]}
    wrong_and_sure = []
    right = 0
    for path, (sources, rule, _) in known["map"].items():
        leaf = mapping.leaves[renamed[path]]
        names = {s for key in sources for s in (key, *(k for k, t in twins.items() if t == key))}
        good = set(leaf.sources) <= names and str(leaf.rule) == rule
        right += good
        if not good and leaf.confident:
            wrong_and_sure.append((path, str(leaf)))
    if seed is None:
        assert not wrong_and_sure
    else:
        assert all(is_number_order(path, known) for path, _ in wrong_and_sure), wrong_and_sure
    assert right == len(known["map"]) or not ordered


def is_number_order(path, known):
    """Whether the source numbers this layer, and the shuffled count contradicts that."""
    return any(part.isdigit() or part[-1:].isdigit() for part in path.split("/"))


def test_a_shuffled_dictionary_tells_no_order():
    names = ["eta", "zeta", "theta", "iota"]
    shapes = {f"{n}.{leaf}": s for n in names for leaf, s in (("weight", (7, 7)), ("bias", (7,)))}
    goal = {f"params/Dense_{i}/{leaf}": Spec(s) for i in range(4)
            for leaf, s in (("kernel", (7, 7)), ("bias", (7,)))}  # fmt: skip
    in_order = infer_mapping({k: Spec(s) for k, s in shapes.items()}, goal)
    assert in_order.leaves["params/Dense_2/kernel"].sources == ("theta.weight",)
    assert not in_order.unsure
    keys = list(shapes)
    random.Random(3).shuffle(keys)
    assert len(infer_mapping({k: Spec(shapes[k]) for k in keys}, goal).unsure) == 8
    assert len(infer_mapping({k: Spec(shapes[k]) for k in sorted(keys)}, goal).unsure) == 8


def test_a_question_names_its_alternatives_and_a_person_answers_it():
    goal = {f"params/Dense_{i}/kernel": Spec((7, 7)) for i in range(2)}
    mapping = infer_mapping(Keys({"a.weight": (7, 7), "b.weight": (7, 7)}, False), goal)
    leaf = mapping.leaves["params/Dense_0/kernel"]
    assert not leaf.confident
    assert "nothing tells them apart" in leaf.reason
    assert [other.sources for other in leaf.alternatives] == [("b.weight",)]
    answered = mapping.choose("params/Dense_0/kernel", leaf.alternatives[0])
    assert answered.leaves["params/Dense_0/kernel"].confident
    assert answered.leaves["params/Dense_0/kernel"].sources == ("b.weight",)


def test_layer_ten_comes_after_layer_nine():
    shapes = {f"layer.{i}.weight": (7, 7) for i in range(12)}
    goal = {f"params/block_{i}/kernel": Spec((7, 7)) for i in range(12)}
    mapping = infer_mapping(Keys(shapes, False), goal)
    assert all(mapping.leaves[f"params/block_{i}/kernel"].sources == (f"layer.{i}.weight",)
               for i in range(12))  # fmt: skip
    assert not mapping.unsure


def test_what_is_left_over_has_a_reason():
    shapes = {
        "embed_tokens.weight": (11, 5), "lm_head.weight": (11, 5), "bn.num_batches_tracked": (),
        "attn.bias": (1, 1, 7, 7), "rotary.inv_freq": (3,), "extra.weight": (3, 2),
    }  # fmt: skip
    mapping = infer_mapping(Keys(shapes, False), {"params/embed_tokens/embedding": Spec((11, 5))})
    assert mapping.unused == {
        "attn.bias": "a buffer: a causal mask",
        "bn.num_batches_tracked": "a step counter that Flax does not keep",
        "extra.weight": NO_PLACE,
        "lm_head.weight": "tied to embed_tokens.weight",
        "rotary.inv_freq": "a buffer: rotary frequencies, computed from the configuration",
    }
    assert mapping.left_over == ["extra.weight"]


def test_a_tied_head_that_was_not_saved_comes_from_the_table():
    mapping = infer_mapping(
        Keys({"model.embed_tokens.weight": (11, 5)}, False),
        {"params/embed_tokens/embedding": Spec((11, 5)), "params/lm_head/kernel": Spec((5, 11))},
    )
    leaf = mapping.leaves["params/lm_head/kernel"]
    assert leaf.sources == ("model.embed_tokens.weight",)
    assert str(leaf.rule) == "o i -> i o"
    assert leaf.confident
    assert "tied" in leaf.reason


def test_a_square_table_is_not_transposed_and_a_square_linear_is():
    mapping = infer_mapping(
        Keys({"wte.weight": (7, 7), "proj.weight": (7, 7)}, False),
        {"params/wte/embedding": Spec((7, 7)), "params/proj/kernel": Spec((7, 7))},
    )
    assert mapping.leaves["params/wte/embedding"].rule.is_identity
    assert str(mapping.leaves["params/proj/kernel"].rule) == "o i -> i o"
    assert not mapping.unsure


def test_an_open_leaf_is_listed():
    mapping = infer_mapping(
        {"fc.weight": Spec((5, 3))}, {"fc": {"kernel": Spec((3, 5)), "bias": Spec((5,))}}
    )
    assert mapping.unmapped == {"fc/bias": "the source has no bias beside fc.weight"}
    assert str(mapping).splitlines()[0] == (
        "1 of 2 leaves sure, 0 unsure, 1 open; 0 source keys without a place"
    )


def test_modules_of_flax_are_targets_and_sources():
    import jax
    from flax import linen, nnx

    module = nnx.eval_shape(lambda: nnx.Linear(3, 5, rngs=nnx.Rngs(0)))
    source = {"weight": Spec((5, 3)), "bias": Spec((5,))}
    assert str(infer_mapping(source, module).leaves["kernel"].rule) == "o i -> i o"
    assert infer_mapping(source, nnx.state(module)) == infer_mapping(source, module)
    pair = (linen.Dense(5), np.zeros((2, 3), np.float32))
    assert set(infer_mapping(source, pair).leaves) == {"params/kernel", "params/bias"}
    variables = jax.eval_shape(pair[0].init, jax.random.key(0), pair[1])
    back = infer_mapping(variables, module)
    assert back.leaves["kernel"].rule.is_identity
    assert not back.unsure


def test_a_side_without_parameters_is_refused():
    with pytest.raises(ArgumentError, match="holds no parameters"):
        infer_mapping({"w": Spec((3,))}, 7)


def test_nothing_at_all_maps_to_nothing():
    assert infer_mapping({}, {}) == Mapping({})
    assert infer_mapping({"w": Spec((3,))}, {}).left_over == ["w"]


def test_shapes_of_no_elements_and_scalars_are_mapped_by_name():
    source = Keys({"logit_scale": (), "empty.weight": (0, 3)}, False)
    mapping = infer_mapping(source, {"logit_scale": Spec(()), "empty": {"kernel": Spec((3, 0))}})
    assert mapping.leaves["logit_scale"].sources == ("logit_scale",)
    assert mapping.leaves["empty/kernel"].sources == ("empty.weight",)
    assert math.prod(mapping.leaves["logit_scale"].rule.shape(())) == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 6), (6, 4), (5, 5)])
def test_the_assignment_is_the_best_of_all(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        gain = rng.integers(-3, 7, shape).astype(float)
        found = best_assignment(gain)
        assert len({r for r, _ in found}) == len({c for _, c in found}) == min(shape)
        wide = gain if shape[0] <= shape[1] else gain.T
        best = max(
            sum(wide[i, c] for i, c in enumerate(chosen))
            for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
        )
        assert sum(gain[r, c] for r, c in found) == best


def test_keys_that_are_one_tensor_in_the_file_excuse_each_other():
    source = Keys({"table.weight": (11, 5), "other.weight": (11, 5)}, True)
    goal = {"params/table/embedding": Spec((11, 5))}
    assert infer_mapping(source, goal).left_over == ["other.weight"]
    source.aliases = {"other.weight": "table.weight"}
    assert infer_mapping(source, goal).unused == {"other.weight": "tied to table.weight"}
