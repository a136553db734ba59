"""Faults on top of each other, parts that are missing, and what must stay silent beside them."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from porting.doctor import diagnose, repair
from porting.layouts import Rule, identity
from porting.leaves import SUM, Leaf, weight_norm

E, H, LAYERS = 12, 3, 3
PARTS = ("query", "key", "value")


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def attention():
    """Packed q, k, v of three layers and its clean port."""
    source = {f"layers.{n}.in_proj_weight": draw(3 * E, E, seed=n) for n in range(LAYERS)}
    rows = {}
    for n in range(LAYERS):
        for j, part in enumerate(PARTS):
            rule = Rule(f"(qkv={j} h d) e -> e h d", {"qkv": 3, "h": H})
            path = f"params/layers_{n}/{part}/kernel"
            rows[path] = Leaf(path, (f"layers.{n}.in_proj_weight",), rule)
    return source, rows, made(rows, source)


def made(rows, source):
    return {path: np.asarray(row.apply(source), order="C") for path, row in rows.items()}


def given(rows):
    return SimpleNamespace(leaves=rows, unmapped={}, unused={})


def untransposed(kernel):
    return np.asarray(kernel.reshape(E, E).T.reshape(kernel.shape), order="C")


def repaired(verdict, source):
    return eval(verdict.fix, {"np": np, "source": source})


def test_q_and_k_exchanged_and_not_transposed_is_named_both():
    source, rows, leaves = attention()
    assert diagnose(source, leaves, given(rows)).ok
    broken = dict(leaves)
    for n in range(LAYERS):
        q, k = (f"params/layers_{n}/{part}/kernel" for part in PARTS[:2])
        broken[q], broken[k] = untransposed(leaves[k]), untransposed(leaves[q])
    found = diagnose(source, broken, given(rows))
    verdict = found.leaves["params/layers_0/query/kernel"]
    assert (verdict.kind, verdict.also) == ("exchanged", ("untransposed",))
    assert verdict.holds == "params/layers_0/key/kernel"
    titles = [finding.title for finding in found.findings]
    assert titles == ["query and key exchanged in layers 0…2, and not transposed."]
    assert np.array_equal(repaired(verdict, source), leaves[verdict.path])


def test_k_of_another_layer_is_told_from_a_wrong_cut():
    source, rows, leaves = attention()
    q = "params/layers_0/query/kernel"
    verdict = diagnose(
        source, leaves | {q: leaves["params/layers_2/key/kernel"]}, given(rows)
    ).leaves[q]
    assert (verdict.status, verdict.source) == ("wrong_source", "layers.2.in_proj_weight")
    assert verdict.holds == "params/layers_2/key/kernel"


LINEAR = {"a/kernel": Leaf("a/kernel", ("a.weight",), Rule("o i -> i o")),
          "b/kernel": Leaf("b/kernel", ("b.weight",), Rule("o i -> i o"))}  # fmt: skip
SQUARES = {"a.weight": draw(8, 8, seed=1), "b.weight": draw(8, 8, seed=2)}


def pairs(kernel):
    return kernel.reshape(8, 2, 2, 2).swapaxes(2, 3).reshape(8, 8)


@pytest.mark.parametrize(
    ("leaf", "kinds"),
    [
        (pairs(SQUARES["a.weight"]), {"rotary", "untransposed"}),
        (SQUARES["b.weight"], {"other", "untransposed"}),
        (SQUARES["b.weight"].astype(ml_dtypes.bfloat16), {"other", "untransposed", "cast"}),
        (SQUARES["b.weight"].T * np.float32(0.125), {"other", "scaled"}),
        (pairs(SQUARES["a.weight"].T) * np.float32(0.125), {"rotary", "scaled"}),
    ],
)
def test_all_that_was_done_to_a_leaf_is_named(leaf, kinds):
    leaves = made(LINEAR, SQUARES) | {"a/kernel": np.asarray(leaf, order="C")}
    verdict = diagnose(SQUARES, leaves, given(LINEAR)).leaves["a/kernel"]
    assert {verdict.kind, *verdict.also} == kinds
    assert np.array_equal(repaired(verdict, SQUARES), SQUARES["a.weight"].T)


def test_a_table_that_was_cut_or_padded_and_scaled():
    source = {"tok.weight": draw(20, 6)}
    rows = {"tok/embedding": Leaf("tok/embedding", ("tok.weight",), identity(2))}
    more = np.concatenate([source["tok.weight"], draw(3, 6, seed=5)])
    for leaf, kind in (
        (source["tok.weight"][:-3] * np.float32(4), "cut"),
        (more * np.float32(4), "padded"),
    ):
        verdict = diagnose(source, {"tok/embedding": leaf}, given(rows)).leaves["tok/embedding"]
        assert (verdict.kind, verdict.also, verdict.source) == (kind, ("scaled",), "tok.weight")


def test_rows_of_a_packed_part_that_are_not_the_sources():
    source, rows, leaves = attention()
    path = "params/layers_1/value/kernel"
    broken = leaves[path].copy()
    broken[:2] = draw(2, H, E // H, seed=9)
    verdict = diagnose(source, leaves | {path: broken}, given(rows)).leaves[path]
    assert (verdict.kind, verdict.source) == ("partly", "layers.1.in_proj_weight")


def cell(inputs=7, hidden=5):
    """One LSTM cell: i, f, g, o apart, two biases summed."""
    keys = ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0")
    shapes = ((4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
    source = {
        k: draw(*shape, seed=n) for n, (k, shape) in enumerate(zip(keys, shapes, strict=True))
    }
    rows = {}
    for j, gate in enumerate("ifgo"):
        for path, sources, rule, join in (
            (f"params/cell/i{gate}/kernel", keys[:1], Rule(f"(g={j} h) i -> i h", {"g": 4}), None),
            (f"params/cell/h{gate}/kernel", keys[1:2], Rule(f"(g={j} h) i -> i h", {"g": 4}), None),
            (f"params/cell/h{gate}/bias", keys[2:], Rule(f"(g={j} h) -> h", {"g": 4}), SUM),
        ):
            rows[path] = Leaf(path, sources, rule, join) if join else Leaf(path, sources, rule)
    return source, rows, made(rows, source)


def test_summed_biases_of_two_gates_exchanged():
    source, rows, leaves = cell()
    a, b = "params/cell/hf/bias", "params/cell/hg/bias"
    found = diagnose(source, leaves | {a: leaves[b], b: leaves[a]}, given(rows))
    assert [found.leaves[p].kind for p in (a, b)] == ["exchanged"] * 2
    assert found.counts == {"ok": 10, "wrong_layout": 2}


@pytest.mark.parametrize(
    "lost", ["params/cell/ig/kernel", "params/cell/hf/kernel", "params/cell/ho/bias"]
)
def test_a_gate_that_is_not_there_is_missing_and_no_other_is_accused(lost):
    source, _, leaves = cell()
    assert diagnose(source, leaves).counts == {"ok": 12}
    found = diagnose(source, {p: a for p, a in leaves.items() if p != lost})
    assert found.counts == {"ok": 11, "missing": 1}
    assert np.array_equal(repaired(found.leaves[lost], source), leaves[lost])


def test_the_parts_and_layers_that_are_not_there_are_missing():
    source, _, leaves = attention()
    for lost in (["params/layers_1/value/kernel"], [p for p in leaves if "layers_0/" in p]):
        found = diagnose(source, {p: a for p, a in leaves.items() if p not in lost})
        assert [p for p, v in found.leaves.items() if v.wrong] == lost
        assert all(found.leaves[p].status == "missing" for p in lost)


def test_a_head_that_a_port_leaves_out_is_not_missing():
    source = {
        f"body.layer.{n}.fc.{name}": draw(*shape, seed=n)
        for n in range(3)
        for name, shape in (("weight", (5, 6)), ("bias", (5,)))
    }
    leaves = {
        f"params/body/layer/{n}/fc/kernel": source[f"body.layer.{n}.fc.weight"].T for n in range(3)
    }
    leaves |= {
        f"params/body/layer/{n}/fc/bias": source[f"body.layer.{n}.fc.bias"] for n in range(3)
    }
    source |= {
        "body.pooler.weight": draw(6, 6),
        "body.pooler.bias": draw(6),
        "head.weight": draw(4, 6),
    }
    assert diagnose(source, leaves).counts == {"ok": 6}


def test_a_square_transposed_convolution_is_a_question_unless_a_mapping_says_what_it_is():
    source = {"up.weight": draw(6, 6, 3, 3), "up.bias": draw(6)}
    turned = np.asarray(Rule("i o h w -> -h -w i o").apply(source["up.weight"]), order="C")
    leaves = {"up/kernel": turned, "up/bias": source["up.bias"]}
    assert diagnose(source, leaves).leaves["up/kernel"].status == "ambiguous"
    rows = {"up/kernel": Leaf("up/kernel", ("up.weight",), Rule("o i h w -> h w i o")),
            "up/bias": Leaf("up/bias", ("up.bias",), identity(1))}  # fmt: skip
    verdict = diagnose(source, leaves, given(rows)).leaves["up/kernel"]
    assert (verdict.status, verdict.kind, verdict.also) == ("wrong_layout", "flipped", ("axes",))


def test_a_tensor_of_zeros_explains_no_random_leaf():
    source = SQUARES | {"b.weight": np.zeros((8, 8), np.float32)}
    leaves = made(LINEAR, source) | {"a/kernel": draw(8, 8, seed=7)}
    verdict = diagnose(source, leaves, given(LINEAR)).leaves["a/kernel"]
    assert (verdict.status, verdict.kind) == ("unported", "foreign")


def test_layers_with_every_other_number_shifted_by_one():
    source = {f"net.{n}.weight": draw(8, 8, seed=n) for n in (0, 2, 4, 6)}
    leaves = {f"net/layers/{n}/kernel": source[f"net.{(n + 2) % 8}.weight"].T for n in (0, 2, 4, 6)}
    found = diagnose(source, leaves)
    assert {v.kind for v in found.leaves.values()} == {"shifted"}


def test_a_fused_weight_norm_has_a_fix_that_is_the_join_bit_for_bit():
    source = {"c.weight_g": np.abs(draw(6, 1, 1)) + 1, "c.weight_v": draw(6, 5, 3)}
    keys = ("c.weight_g", "c.weight_v")
    rows = {"c/kernel": Leaf("c/kernel", keys, Rule("o i k -> k i o"), weight_norm(0))}
    right = made(rows, source)["c/kernel"]
    verdict = diagnose(source, {"c/kernel": right * np.float32(2)}, given(rows)).leaves["c/kernel"]
    assert verdict.kind == "scaled"
    assert np.array_equal(repaired(verdict, source), right)


@pytest.mark.parametrize("narrow", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("stored", ["narrow", "float32"])
def test_a_port_from_a_finer_copy_of_the_source(narrow, stored):
    """The checkpoint was narrowed after the port was made; one kernel is not transposed besides."""
    fine = {f"h.{n}.{name}.weight": draw(8, 8, seed=7 * n + i)
            for n in range(2) for i, name in enumerate("qkv")}  # fmt: skip
    source = {key: array.astype(narrow) for key, array in fine.items()}
    if stored == "float32":
        source = {key: array.astype(np.float32) for key, array in source.items()}
    port = {
        key.replace(".", "/").replace("weight", "kernel"): np.asarray(array.T, order="C")
        for key, array in fine.items()
    }
    port["h/1/q/kernel"] = fine["h.1.q.weight"]
    port["h/0/v/kernel"] = draw(8, 8, seed=99)
    found = diagnose(source, port)
    turned, foreign = found.leaves["h/1/q/kernel"], found.leaves["h/0/v/kernel"]
    assert (turned.status, turned.kind, turned.also) == ("wrong_layout", "untransposed", ("finer",))
    assert (foreign.status, foreign.kind) == ("unported", "foreign")
    rest = [v for v in found.leaves.values() if v not in (turned, foreign)]
    assert {(v.status, v.kind) for v in rest} == {("changed", "finer")}
    assert {f.severity for f in found.findings if f.kind == "finer"} == {"warning"}
    fixed = repair(source, port, found)
    for key, array in source.items():
        path = key.replace(".", "/").replace("weight", "kernel")
        assert np.array_equal(fixed[path], array.T.astype(np.float32))
