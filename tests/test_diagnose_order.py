"""Layers in another order: of unequal shapes, counted in another form, and counted otherwise."""

import numpy as np
import pytest

from porting.doctor import diagnose, repair
from porting.doctor.contents import Contents
from porting.doctor.evidence import Evidence
from porting.doctor.places import places
from porting.doctor.sequences import order_of, turned

STAGES = ((1, 6), (2, 8), (3, 10), (3, 12), (3, 16))


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def staged(words="blocks"):
    """Twelve blocks of unequal widths: `net.blocks.S.L` in the source, one list in the port."""
    rng, source, leaves, wide = np.random.default_rng(3), {}, {}, 5
    numbers = [
        (stage, n, width) for stage, (count, width) in enumerate(STAGES) for n in range(count)
    ]
    for place, (stage, n, width) in enumerate(numbers):
        key, path = f"net.blocks.{stage}.{n}", f"params/{words}/{place}"
        weight, bias = draw(rng, width, wide), draw(rng, width)
        source |= {f"{key}.fc.weight": weight, f"{key}.fc.bias": bias}
        leaves |= {f"{path}/fc/kernel": np.ascontiguousarray(weight.T), f"{path}/fc/bias": bias}
        wide = width
    return source, leaves


def taken(leaves, order, kinds=("kernel", "bias"), words="blocks"):
    """The leaves, each of the layer that `order` says."""
    moved = {
        f"params/{words}/{here}/fc/{kind}": leaves[f"params/{words}/{held}/fc/{kind}"]
        for here, held in enumerate(order)
        for kind in kinds
        if here != held
    }
    return {**leaves, **moved}, set(moved)


COUNT = sum(count for count, _ in STAGES)
ORDERS = {
    "sorted": sorted(range(COUNT), key=str),
    "shifted": [*range(1, COUNT), 0],
    "shifted and one lost": [0, *range(COUNT - 1)],
    "reversed": [*range(COUNT)][::-1],
    "exchanged": [0, 10, *range(2, 10), 1, 11],
    "layer": [0, 1, 2, 9, *range(4, COUNT)],
}


@pytest.mark.parametrize("kinds", [("kernel", "bias"), ("bias",)], ids=["whole", "one leaf"])
@pytest.mark.parametrize("name", ORDERS)
def test_layers_of_unequal_shapes_in_another_order_are_found_and_repaired(name, kinds):
    source, leaves = staged()
    given, moved = taken(leaves, ORDERS[name], kinds)
    found = diagnose(source, given)
    assert {p for p, v in found.leaves.items() if v.wrong} == moved
    right = diagnose(source, leaves).leaves
    for path in moved:
        verdict = found.leaves[path]
        assert (verdict.status, verdict.kind) == ("wrong_source", name.split()[0])
        assert verdict.expected_source == right[path].source
    fixed = repair(source, given, found)
    assert all(np.array_equal(fixed[path], leaf) for path, leaf in leaves.items())
    assert len(found.findings) == 1


def test_layers_in_another_order_are_found_where_values_were_narrowed_as_well():
    source, leaves = staged()
    given, _ = taken(leaves, ORDERS["sorted"])
    given = {path: leaf.astype(np.float16).astype(np.float32) for path, leaf in given.items()}
    found = diagnose(source, given)
    verdict = found.leaves["params/blocks/2/fc/kernel"]
    assert (verdict.source, verdict.expected_source) == (
        "net.blocks.4.1.fc.weight",
        "net.blocks.1.1.fc.weight",
    )
    assert all(v.wrong for v in found.leaves.values())


def test_a_leaf_whose_values_are_gone_does_not_hide_the_order():
    source, leaves = staged()
    given, moved = taken(leaves, ORDERS["shifted"])
    path = "params/blocks/4/fc/kernel"
    given[path] = np.zeros_like(given[path])
    found = diagnose(source, given)
    assert {p for p, v in found.leaves.items() if v.wrong} == moved
    assert found.leaves[path].status == "unported"
    assert found.leaves[path].expected_source == "net.blocks.2.1.fc.weight"


def test_a_path_that_is_counted_from_the_other_end_is_right():
    source, leaves = staged()
    turned_round = [*range(COUNT)][::-1]
    paths = {f"params/up/{n}/": f"params/blocks/{turned_round[n]}/" for n in range(COUNT)}
    given = {
        path.replace(old, new): leaf
        for path, leaf in leaves.items()
        for new, old in paths.items()
        if path.startswith(old)
    }
    found = diagnose(source, given)
    assert found.ok
    assert not found.counts.get("ambiguous")


def test_a_clean_port_that_starts_at_another_number_is_right():
    source, leaves = staged()
    given = {
        path.replace(f"/{number}/", f"/{int(number) + 3}/"): leaf
        for path, leaf in leaves.items()
        for number in [path.split("/")[2]]
    }
    assert diagnose(source, given).ok


def test_layers_of_two_kinds_in_one_list_are_paired_with_their_own_lists():
    rng, source, leaves = np.random.default_rng(5), {}, {}
    for n in range(4):
        dense, step = draw(rng, 4 + n, 3 + n), draw(rng, 7 + n, 9 - n)
        source |= {f"dense.{n}.fc.weight": dense, f"transition.{n}.conv.weight": step}
        leaves[f"layers/{2 * n}/fc/kernel"] = np.ascontiguousarray(dense.T)
        leaves[f"layers/{2 * n + 1}/conv/kernel"] = np.ascontiguousarray(step.T)
    assert diagnose(source, leaves).ok
    shifted = {f"layers/{2 * n + 1}/conv/kernel": leaves[f"layers/{(2 * n + 2) % 8 + 1}/conv/kernel"] for n in range(4)}  # fmt: skip
    found = diagnose(source, {**leaves, **shifted})
    wrong = {p: v.expected_source for p, v in found.leaves.items() if v.wrong}
    assert wrong == {f"layers/{2 * n + 1}/conv/kernel": f"transition.{n}.conv.weight" for n in range(4)}  # fmt: skip


def test_a_number_that_flax_counted_is_no_place_in_a_list():
    assert places("params/Block_3/Dense_0/kernel") == []
    assert [at.number for at in places("params/Block_3/layers_1/kernel")] == [(1,)]
    assert [at.number for at in places("wav2vec2/layers/1/q/kernel")] == [(2, 1), (2,)]


def test_a_constant_is_nobodys():
    contents = Contents(Evidence({"a": np.zeros((2, 3), np.float32)}))
    assert contents.keys_of(np.zeros((3, 2), np.float32)) == []


def test_orders_are_told_from_chance():
    layers = [(n,) for n in range(11)]
    as_text = [(a, b) for a, b in zip(layers, sorted(layers, key=lambda n: str(n[0])), strict=True) if a != b]  # fmt: skip
    assert order_of(as_text, layers) == "sorted"
    assert order_of(as_text[:-1], layers) == ""
    assert not turned(as_text, layers)
    assert turned([(a, b) for a, b in zip(layers, layers[::-1], strict=True) if a != b], layers)
