"""The verdicts of `diagnose`: every status, its control, its fix, and what they add up to."""

import json
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from porting.doctor import STATUSES, diagnose, repair
from porting.errors import ArgumentError
from porting.layouts import Rule, identity
from porting.leaves import ONE_PLUS, STACK, SUM, Leaf, port_leaves
from porting.mapping.result import MappedLeaf

T = Rule("o i -> i o")


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture
def source():
    out = {"embed.weight": draw(17, 7), "head.weight": draw(17, 7, seed=5)}
    for n in range(3):
        for k, part in enumerate(("q", "k")):
            out[f"layers.{n}.{part}.weight"] = draw(7, 7, seed=10 * n + k)
            out[f"layers.{n}.{part}.bias"] = draw(7, seed=10 * n + k)
        out[f"layers.{n}.fc.weight"] = draw(11, 7, seed=n)
        out[f"layers.{n}.norm.weight"] = 1 + draw(7, seed=20 + n) / 8
        out[f"layers.{n}.norm.bias"] = draw(7, seed=30 + n) / 8
    return out


@pytest.fixture
def rows(source):
    table = []
    for key in source:
        *module, name = key.split(".")
        last = {"embed": "embedding", "norm": "scale"}.get(module[-1], "kernel")
        path = "/".join(["params", *module, last if name == "weight" else name])
        array = source[key]
        table.append(
            Leaf(path, (key,), T if last == "kernel" and array.ndim == 2 else identity(array.ndim))
        )
    return {row.path: row for row in table}


@pytest.fixture
def ported(source, rows):
    return {
        p: np.asarray(a, order="C") for p, a in port_leaves(list(rows.values()), source).items()
    }


def given(rows):
    return SimpleNamespace(leaves=rows, unmapped={}, unused={})


def evaluated(fix, source, leaf):
    """The fix as a person would run it."""
    return eval(fix, {"np": np, "source": source, "leaf": leaf})


def check(diagnosis, path, status, source_key, source, right):
    verdict = diagnosis.leaves[path]
    assert verdict.status == status
    assert verdict.source == source_key
    assert not diagnosis.ok
    assert np.array_equal(evaluated(verdict.fix, source, None), right)
    others = [v for p, v in diagnosis.leaves.items() if v.wrong and p != path]
    assert not others
    return verdict


@pytest.mark.parametrize("infer", [True, False])
def test_a_clean_port_raises_nothing(source, rows, ported, infer):
    diagnosis = diagnose(source, ported, None if infer else given(rows))
    assert diagnosis.ok
    assert diagnosis.counts == {"ok": len(ported)}
    assert diagnosis.findings == ()
    assert diagnosis.unused == {}
    assert all(not v.fix and not v.kind for v in diagnosis.leaves.values())


@pytest.mark.parametrize("infer", [True, False])
def test_a_square_kernel_that_was_not_transposed(source, rows, ported, infer):
    path = "params/layers/1/q/kernel"
    broken = {**ported, path: source["layers.1.q.weight"]}
    diagnosis = diagnose(source, broken, None if infer else given(rows))
    verdict = check(diagnosis, path, "wrong_layout", "layers.1.q.weight", source, ported[path])
    assert (verdict.kind, verdict.fix) == ("untransposed", 'source["layers.1.q.weight"].T')
    made = Rule.parse(verdict.rule).apply(source[verdict.source])
    assert np.array_equal(made, broken[path])


def test_two_kernels_exchanged_in_all_layers_are_one_finding(source, rows, ported):
    broken = dict(ported)
    for n in range(3):
        q, k = f"params/layers/{n}/q/kernel", f"params/layers/{n}/k/kernel"
        broken[q], broken[k] = ported[k], ported[q]
    diagnosis = diagnose(source, broken)
    (finding,) = diagnosis.findings
    assert finding.title == "q and k exchanged in layers 0…2."
    assert len(finding.leaves) == 6
    assert diagnosis.leaves["params/layers/0/q/kernel"].source == "layers.0.k.weight"
    assert {v.status for v in diagnosis.leaves.values()} == {"ok", "wrong_source"}


def test_scale_and_bias_exchanged(source, ported):
    a, b = "params/layers/2/norm/scale", "params/layers/2/norm/bias"
    diagnosis = diagnose(source, {**ported, a: ported[b], b: ported[a]})
    assert diagnosis.leaves[a].source == "layers.2.norm.bias"
    assert [f.kind for f in diagnosis.findings] == ["exchanged"]


def test_layers_shifted_by_one(source, ported):
    broken = {
        p: ported[p.replace(f"layers/{n}/", f"layers/{max(n - 1, 0)}/")]
        for p in ported
        for n in [int(p.split("/")[2]) if "layers" in p else 0]
    }
    (finding,) = diagnose(source, broken).findings
    assert finding.kind == "shifted"
    assert len(finding.leaves) == 14


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda a: a.astype(ml_dtypes.bfloat16), "cast"),
        (lambda a: a.astype(ml_dtypes.bfloat16).astype(np.float32), "cast"),
        (lambda a: a.astype(np.float16).astype(np.float32), "cast"),
        (lambda a: np.asarray(a.astype(np.float16), order="C").view(ml_dtypes.bfloat16), "misread"),
        (lambda a: 1 + a, "one_plus"),
        (lambda a: a - 1, "minus_one"),
        (lambda a: -a, "sign"),
        (lambda a: a * np.float32(2), "scaled"),
        (lambda a: a / np.sqrt(np.float32(7)), "scaled"),
        (lambda a: a * np.float32(0.3), "scaled"),
        (lambda a: np.exp(a), "exp"),
    ],
)  # fmt: skip
def test_changed_values_are_named(source, ported, change, kind):
    path = "params/layers/0/norm/scale"
    diagnosis = diagnose(source, {**ported, path: change(ported[path])})
    verdict = check(diagnosis, path, "changed", "layers.0.norm.weight", source, ported[path])
    assert verdict.kind == kind


def test_a_standard_deviation_in_place_of_a_variance():
    source = {"bn.running_var": np.abs(draw(13)) + 0.5}
    rows = {"batch_stats/bn/var": Leaf("batch_stats/bn/var", ("bn.running_var",), identity(1))}
    for array, kind in (
        (np.sqrt(source["bn.running_var"]), "root"),
        (1 / np.sqrt(source["bn.running_var"] + 1e-5), "rsqrt"),
    ):
        verdict = diagnose(source, {"batch_stats/bn/var": array.astype(np.float32)}, given(rows))
        assert verdict.leaves["batch_stats/bn/var"].kind == kind


def test_a_whole_port_in_bfloat16_is_one_finding(source, ported):
    diagnosis = diagnose(source, {p: a.astype(ml_dtypes.bfloat16) for p, a in ported.items()})
    (finding,) = diagnosis.findings
    assert finding.title.startswith("Every leaf: narrowed")
    assert (finding.severity, len(finding.leaves)) == ("warning", len(ported))


def test_a_half_precision_checkpoint_held_exactly_is_right(source, ported):
    half = {k: a.astype(np.float16) for k, a in source.items()}
    widened = {p: a.astype(np.float16).astype(np.float32) for p, a in ported.items()}
    diagnosis = diagnose(half, widened)
    assert diagnosis.ok
    assert diagnosis.leaves["params/embed/embedding"].note.startswith("float16 in the source")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (np.zeros_like, "zeros"),
        (np.ones_like, "ones"),
        (lambda a: draw(*a.shape, seed=99), "foreign"),
        (lambda a: a + np.float32(1e-3) * draw(*a.shape, seed=98), "stale"),
    ],
)
def test_a_leaf_without_anything_of_the_source(source, ported, make, kind):
    path = "params/head/kernel"
    diagnosis = diagnose(source, {**ported, path: make(ported[path])})
    verdict = check(diagnosis, path, "unported", None, source, ported[path])
    assert verdict.kind == kind


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda a: a.T, "transposed"),
        (lambda a: np.concatenate([a, np.zeros((3, 7), np.float32)]), "padded"),
        (lambda a: a[:-2], "cut"),
    ],
)
def test_a_table_transposed_padded_or_cut(source, ported, make, kind):
    path = "params/embed/embedding"
    diagnosis = diagnose(source, {**ported, path: np.asarray(make(ported[path]), order="C")})
    verdict = check(diagnosis, path, "wrong_layout", "embed.weight", source, ported[path])
    assert verdict.kind == kind


def test_a_cast_and_a_wrong_layout_at_once(source, ported):
    path = "params/layers/0/q/kernel"
    given_ = np.asarray(ported[path].T).astype(ml_dtypes.bfloat16)
    verdict = diagnose(source, {**ported, path: given_}).leaves[path]
    assert (verdict.status, verdict.kind) == ("wrong_layout", "untransposed")
    assert "bfloat16" in verdict.note


def test_a_missing_leaf_is_foretold_by_its_likes(source, ported):
    path = "params/layers/1/norm/scale"
    diagnosis = diagnose(source, {p: a for p, a in ported.items() if p != path})
    verdict = diagnosis.leaves[path]
    assert (verdict.status, verdict.expected_source) == ("missing", "layers.1.norm.weight")
    assert not diagnosis.ok
    fixed = repair(source, {p: a for p, a in ported.items() if p != path}, diagnosis)
    assert np.array_equal(fixed[path], ported[path])


def test_a_renamed_leaf_is_found_by_its_content(source, rows, ported):
    path, other = "params/layers/1/q/kernel", "params/blocks_1/query/weight"
    moved = {other if p == path else p: a for p, a in ported.items()}
    diagnosis = diagnose(source, moved, given(rows))
    assert diagnosis.leaves[other].source == "layers.1.q.weight"
    assert diagnosis.leaves[path].status == "missing"
    assert other in diagnosis.leaves[path].note


def test_a_leaf_with_the_expected_bits_is_right_whatever_else_it_may_be(ported):
    symmetric = draw(7, 7) + draw(7, 7).T
    source = {
        "a.weight": symmetric,
        "b.weight": symmetric.copy(),
        "c.weight": np.ones((7, 7), np.float32),
    }
    leaves = {f"params/{n}/kernel": np.asarray(source[f"{n}.weight"].T, order="C") for n in "abc"}
    rows = {p: Leaf(p, (f"{p[7]}.weight",), T) for p in leaves}
    assert diagnose(source, leaves, given(rows)).ok


def test_constant_leaves_exchanged_within_a_module():
    source = {"norm.weight": np.ones(7, np.float32), "norm.bias": np.zeros(7, np.float32)}
    leaves = {
        "params/norm/scale": np.zeros(7, np.float32),
        "params/norm/bias": np.ones(7, np.float32),
    }
    diagnosis = diagnose(source, leaves)
    assert {v.status for v in diagnosis.leaves.values()} == {"wrong_source"}
    assert [f.kind for f in diagnosis.findings] == ["exchanged"]


def test_biases_left_out_and_added_twice():
    source = {"b_ih": draw(12), "b_hh": draw(12, seed=1)}
    gate = Rule("(g=1 h) -> h", {"g": 4})
    rows = {"cell/hf/bias": Leaf("cell/hf/bias", ("b_ih", "b_hh"), gate, SUM)}
    cut = slice(3, 6)
    right = (source["b_ih"] + source["b_hh"])[cut]
    for leaf, kind in (
        (source["b_ih"][cut], "partial_sum"),
        (right + source["b_hh"][cut], "summed"),
    ):
        diagnosis = diagnose(source, {"cell/hf/bias": leaf}, given(rows))
        verdict = diagnosis.leaves["cell/hf/bias"]
        assert (verdict.status, verdict.kind) == ("changed", kind)
        assert np.array_equal(evaluated(verdict.fix, source, leaf), right)
    assert diagnose(source, {"cell/hf/bias": right}, given(rows)).ok


def test_one_plus_that_was_missed():
    source = {"norm.weight": draw(13) / 8}
    rows = {"norm/scale": Leaf("norm/scale", ("norm.weight",), identity(1), ONE_PLUS)}
    verdict = diagnose(source, {"norm/scale": source["norm.weight"]}, given(rows)).leaves[
        "norm/scale"
    ]
    assert (verdict.status, verdict.kind) == ("changed", "minus_one")


def test_layers_stacked_in_the_order_of_their_names_as_text():
    source = {f"h.{n}.weight": draw(5, 3, seed=n) for n in range(12)}
    row = Leaf("params/h/kernel", tuple(source), Rule("l o i -> l i o"), STACK)
    right = row.apply(source)
    wrong = right[sorted(range(12), key=str)]
    verdict = diagnose(source, {row.path: wrong}, given({row.path: row})).leaves[row.path]
    assert verdict.status == "wrong_layout"
    assert verdict.kind == "sorted"
    assert diagnose(source, {row.path: right}, given({row.path: row})).ok


def test_unsure_names_accuse_nobody():
    source = {"a.query_key_value.weight": draw(21, 7)}
    row = Leaf("a/query/kernel", tuple(source), Rule("(p=0 o) i -> i o", {"p": 3}))
    per_head = source["a.query_key_value.weight"].reshape(1, 3, 7, 7)[:, 0].reshape(7, 7)
    interleaved = source["a.query_key_value.weight"].reshape(7, 3, 7)[:, 0]
    unsure = MappedLeaf(row.path, row.sources, row.rule, confident=False, reason="two packings")
    for held, status in ((per_head, "ok"), (interleaved, "ambiguous")):
        leaf = {row.path: np.asarray(held.T, order="C")}
        diagnosis = diagnose(source, leaf, given({row.path: unsure}))
        assert diagnosis.leaves[row.path].status == status
        assert diagnosis.ok


def test_the_report_and_its_json(source, ported):
    path = "params/layers/1/q/kernel"
    diagnosis = diagnose(source, {**ported, path: source["layers.1.q.weight"]})
    text = diagnosis.report()
    assert text.splitlines()[0] == f"1 of {len(ported)} leaves is wrong."
    assert f'fix for {path}: source["layers.1.q.weight"].T' in text
    plain = json.loads(diagnosis.to_json())
    assert plain["leaves"][path]["status"] == "wrong_layout"
    assert set(plain["counts"]) <= set(STATUSES)


def test_repair_puts_every_wrong_leaf_right(source, ported):
    broken = {
        p: (np.asarray(a.T, order="C") if a.shape == (7, 7) else a) for p, a in ported.items()
    }
    broken["params/head/kernel"] = np.zeros((7, 17), np.float32)
    fixed = repair(source, broken, diagnose(source, broken))
    assert fixed.keys() == ported.keys()
    assert all(np.array_equal(fixed[p], ported[p]) for p in ported)


def test_an_nnx_module_can_be_diagnosed():
    from flax import nnx

    linear = nnx.Linear(7, 7, rngs=nnx.Rngs(0))
    weight, bias = draw(7, 7), draw(7)
    linear.kernel[...], linear.bias[...] = weight, bias
    diagnosis = diagnose({"weight": weight, "bias": bias}, linear)
    assert diagnosis.leaves["kernel"].kind == "untransposed"
    assert diagnosis.leaves["bias"].status == "ok"


def test_what_cannot_be_diagnosed_is_explained():
    with pytest.raises(ArgumentError, match="hold no array"):
        diagnose({"w": draw(3)}, {})
    with pytest.raises(ArgumentError, match="The source is a list"):
        diagnose([draw(3)], {"w": draw(3)})
