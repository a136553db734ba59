"""What should be where when the fault itself misleads the names and shapes."""

import itertools
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from porting.doctor import diagnose, repair
from porting.doctor.foretell import predicted_path
from porting.doctor.names import alike
from porting.doctor.renamed import odd_paths
from porting.doctor.renumbered import renumbered
from porting.doctor.style import order_of, restyled
from porting.layouts import Rule, identity
from porting.leaves import Leaf
from porting.mapping import infer_mapping

KEPT, MOVED = Rule("o i -> o i"), Rule("o i -> i o")


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def gpt(kernel):
    """A GPT-2-like model (Conv1D weights are `(in, out)`) whose kernels are made by `kernel`."""
    source, leaves = {}, {}
    for n in range(2):
        for part, shape in {"c_attn": (7, 21), "c_proj": (7, 7)}.items():
            weight, bias = draw(*shape, seed=n), draw(shape[1], seed=n)
            source |= {f"h.{n}.attn.{part}.weight": weight, f"h.{n}.attn.{part}.bias": bias}
            leaves[f"params/h/{n}/attn/{part}/kernel"] = np.asarray(kernel(weight), order="C")
            leaves[f"params/h/{n}/attn/{part}/bias"] = bias
    return source, leaves


@pytest.mark.parametrize("kernel", [lambda w: w, lambda w: w.T], ids=["in out", "out in"])
def test_a_model_that_is_laid_out_alike_throughout_is_right(kernel):
    assert diagnose(*gpt(kernel)).ok


def test_of_two_layouts_that_shapes_speak_for_the_values_choose():
    source, leaves = gpt(lambda w: w.T)
    path = "params/h/1/attn/c_attn/kernel"
    leaves[path] = np.asarray(leaves[path].T, order="C")
    diagnosis = diagnose(source, leaves)
    assert [p for p, v in diagnosis.leaves.items() if v.wrong] == [path]
    assert diagnosis.leaves[path].fix == 'source["h.1.attn.c_attn.weight"].T'


def test_an_oblong_kernel_that_was_not_transposed_is_told_by_its_likes():
    source = {f"l.{n}.weight": draw(11, 7, seed=n) for n in range(4)}
    leaves = {f"l/{n}/kernel": np.asarray(source[f"l.{n}.weight"].T, order="C") for n in range(4)}
    assert diagnose(source, leaves).ok
    leaves["l/2/kernel"] = source["l.2.weight"]
    verdict = diagnose(source, leaves).leaves["l/2/kernel"]
    assert (verdict.status, verdict.kind) == ("wrong_layout", "untransposed")


def test_a_square_kernel_is_left_to_the_mapping():
    rows = {
        f"h_{n}/kernel": Leaf(f"h_{n}/kernel", (f"h.{n}.weight",), KEPT if n else MOVED)
        for n in range(4)
    }
    shapes = {f"h.{n}.weight": (5, 5) for n in range(4)}
    kept = {
        p: order_of(r.rule) for p, r in restyled(rows, {**shapes, "h.0.weight": (5, 3)}).items()
    }
    assert kept["h_1/kernel"] == (0, 1)


def test_layers_that_are_numbered_otherwise_stay_so():
    rows = {
        f"Dense_{n}/w": Leaf(f"Dense_{n}/w", (f"net.{2 * n}.w",), identity(1)) for n in range(4)
    }
    assert renumbered(rows, {f"net.{n}.w": (3,) for n in range(8)}) == rows


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("h.1.ln.weight", "params/h/1/ln/scale"),
        ("h.1.ln.bias", "params/h/1/ln/bias"),
        ("wpe.weight", "params/wpe/embedding"),
        ("out.bias", "params/out/bias"),
    ],
)
def test_the_path_of_a_missing_leaf_is_foretold(key, path):
    names = {
        "h.0.ln.weight": "params/h/0/ln/scale",
        "h.0.ln.bias": "params/h/0/ln/bias",
        "h.0.fc.weight": "params/h/0/fc/kernel",
        "h.0.fc.bias": "params/h/0/fc/bias",
        "wte.weight": "params/wte/embedding",
        "out.weight": "params/out/kernel",
    }
    rows = {p: Leaf(p, (k,), identity(1)) for k, p in names.items()}
    shapes = {k: (3,) if "ln" in k or "bias" in k else (5, 3) for k in [*names, key]}
    found = predicted_path(key, rows, shapes)
    assert found is not None
    assert found[0] == path


def test_a_missing_leaf_is_missed_though_it_is_constant():
    source, leaves = {}, {}
    for n in range(3):
        source |= {
            f"h.{n}.ln.weight": np.ones(7, np.float32),
            f"h.{n}.ln.bias": np.zeros(7, np.float32),
        }
        leaves |= {
            f"h/{n}/ln/scale": np.ones(7, np.float32),
            f"h/{n}/ln/bias": np.zeros(7, np.float32),
        }
    assert diagnose(source, leaves).ok
    del leaves["h/1/ln/bias"]
    assert diagnose(source, leaves).leaves["h/1/ln/bias"].status == "missing"


def odd_port(odd):
    """Three layers of one square kernel each, the second under another path."""
    source = {f"h.{n}.q.weight": draw(7, 7, seed=n) for n in range(3)}
    leaves = {
        f"h/{n}/q/kernel": np.asarray(source[f"h.{n}.q.weight"].T, order="C") for n in range(3)
    }
    right = dict(leaves)
    leaves[odd] = leaves.pop("h/1/q/kernel")
    return source, leaves, right


@pytest.mark.parametrize("odd", ["h/1/query/kernel", "h/1/q/weights", "h/1/attn/q/kernel"])
def test_a_leaf_under_an_odd_name_is_missing_under_its_own(odd):
    source, leaves, right = odd_port(odd)
    diagnosis = diagnose(source, leaves)
    verdict = diagnosis.leaves["h/1/q/kernel"]
    assert not diagnosis.ok
    assert (verdict.status, verdict.kind, verdict.alternatives) == ("missing", "renamed", (odd,))
    assert diagnosis.leaves[odd].status == "ok"
    (finding,) = diagnosis.findings
    assert finding.title == f"h/1/q/kernel: under another name ({odd})."
    fixed = repair(source, leaves, diagnosis)
    assert fixed.keys() == right.keys()
    assert all(np.array_equal(fixed[path], right[path]) for path in right)


def test_an_odd_module_beside_one_other_is_reported_and_not_accused():
    source = {f"h.{n}.q.weight": draw(7, 7, seed=n) for n in range(2)}
    names = {"h/0/q/kernel": "h.0.q.weight", "h/1/attention/kernel": "h.1.q.weight"}
    leaves = {p: np.asarray(source[key].T, order="C") for p, key in names.items()}
    diagnosis = diagnose(source, leaves)
    assert diagnosis.ok
    assert [(f.kind, f.severity) for f in diagnosis.findings] == [("renamed", "warning")]


def test_an_odd_weight_in_a_model_without_layers_is_missing_under_its_own_name():
    source = {f"{n}.weight": draw(7, 7, seed=i) for i, n in enumerate("abcd")}
    source |= {f"{n}.bias": draw(7, seed=i) for i, n in enumerate("abcd")}
    right = {f"{n}/kernel": np.asarray(source[f"{n}.weight"].T, order="C") for n in "abcd"}
    right |= {f"{n}/bias": source[f"{n}.bias"] for n in "abcd"}
    odd = {"c/matrix" if path == "c/kernel" else path: leaf for path, leaf in right.items()}
    diagnosis = diagnose(source, odd)
    assert [v.path for v in diagnosis.leaves.values() if v.wrong] == ["c/kernel"]
    assert repair(source, odd, diagnosis).keys() == right.keys()
    twice = {"d/matrix" if path == "d/kernel" else path: leaf for path, leaf in odd.items()}
    assert diagnose(source, twice).ok


def test_a_weight_is_missing_beside_its_bias():
    source = {"conv.weight": draw(3, 5, 2, 2), "head.weight": draw(7, 3), "head.bias": draw(7)}
    leaves = {"Conv_0/kernel": source["conv.weight"].transpose(2, 3, 1, 0)}
    leaves["Dense_0/bias"] = source["head.bias"]
    verdict = diagnose(source, leaves).leaves["Dense_0/kernel"]
    assert (verdict.status, verdict.fix) == ("missing", 'source["head.weight"].T')


def unlike_names():
    """Three norms of one size that no name or shape tells apart, and their port."""
    parts = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    modules = {
        "features.alpha": "init_bn",
        "features.beta": "middle_bn",
        "features.gamma": "final_bn",
    }
    source, right = {}, {}
    for i, (key, path) in enumerate(modules.items()):
        for j, (old, new) in enumerate(parts.items()):
            source[f"{key}.{old}"] = right[f"{path}/{new}"] = draw(8, seed=10 * i + j)
    return source, right


def test_a_module_that_no_name_tells_is_known_by_its_other_leaves():
    source, right = unlike_names()
    assert diagnose(source, right).ok
    broken = {**right, "init_bn/mean": right["init_bn/var"], "init_bn/var": right["init_bn/mean"]}
    found = diagnose(source, broken)
    wrong = {v.path: (v.kind, v.expected_source) for v in found.leaves.values() if v.wrong}
    assert wrong == {
        "init_bn/mean": ("exchanged", "features.alpha.running_mean"),
        "init_bn/var": ("exchanged", "features.alpha.running_var"),
    }
    short = {path: leaf for path, leaf in right.items() if path != "init_bn/scale"}
    assert [v.path for v in diagnose(source, short).leaves.values() if v.wrong] == ["init_bn/scale"]


@pytest.mark.parametrize("lost", ["one", "two", "three"])
def test_the_bias_that_is_left_of_a_module_is_not_accused(lost):
    """Three equal layers under unlike names, and one kernel is missing: its bias goes with it."""
    names = dict(zip(("gamma", "alpha", "beta"), ("one", "two", "three"), strict=True))
    source, right = {}, {}
    for i, (key, path) in enumerate(names.items()):
        source |= {f"{key}.weight": draw(6, 6, 3, 3, seed=i), f"{key}.bias": draw(6, seed=i)}
        right[f"{path}/kernel"] = source[f"{key}.weight"].transpose(2, 3, 1, 0)
        right[f"{path}/bias"] = source[f"{key}.bias"]
    assert diagnose(source, right).ok
    short = {path: leaf for path, leaf in right.items() if path != f"{lost}/kernel"}
    wrong = [v.path for v in diagnose(source, short).leaves.values() if v.wrong]
    assert wrong in ([], [f"{lost}/kernel"])


def test_a_missing_norm_is_not_named_as_the_convolution_beside_it():
    source, right = {}, {}
    for n in range(3):
        source[f"stages.{n}.down.0.weight"] = right[f"stages/{n}/down/0/scale"] = draw(5 + n)
        source[f"stages.{n}.down.1.weight"] = draw(6 + n, 5 + n, 2, 2)
        kernel = source[f"stages.{n}.down.1.weight"].transpose(2, 3, 1, 0)
        right[f"stages/{n}/down/1/kernel"] = kernel
    del right["stages/2/down/0/scale"]
    wrong = [v.path for v in diagnose(source, right).leaves.values() if v.wrong]
    assert wrong == ["stages/2/down/0/scale"]


def test_a_missing_leaf_is_placed_by_the_layer_of_its_neighbours():
    """A list of lists in the source is one list in the port: its numbers are no numbers there."""
    source, right = {}, {}
    for place, (stage, n) in enumerate([(0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]):
        wide = 5 + place
        key, path = f"blocks.{stage}.{n}", f"blocks/{place}"
        source[f"{key}.conv.weight"] = draw(wide + 1, wide, 3, 3)
        right[f"{path}/conv/kernel"] = source[f"{key}.conv.weight"].transpose(2, 3, 1, 0)
        for old, new in (("weight", "scale"), ("bias", "bias")):
            source[f"{key}.bn.{old}"] = right[f"{path}/norm/{new}"] = draw(wide + 1, seed=len(new))
    assert diagnose(source, right).ok
    short = {p: a for p, a in right.items() if not p.startswith("blocks/3/norm")}
    wrong = [v.path for v in diagnose(source, short).leaves.values() if v.wrong]
    assert sorted(wrong) == ["blocks/3/norm/bias", "blocks/3/norm/scale"]


def test_a_name_that_other_layers_use_for_another_leaf_is_not_odd():
    """EfficientNet's first block has no expansion; timm counts its projection as the first."""
    names = {
        "b/0/project/kernel": "b.0.first.weight",
        "b/1/first/kernel": "b.1.first.weight",
        "b/1/project/kernel": "b.1.second.weight",
        "b/2/first/kernel": "b.2.first.weight",
        "b/2/project/kernel": "b.2.second.weight",
    }
    assert odd_paths({p: Leaf(p, (k,), Rule("o i -> i o")) for p, k in names.items()}) == {}


def test_names_are_alike_by_their_words():
    assert alike("params/h_0/attn/q/kernel", "h.0.attn.q.weight") == pytest.approx(4 / 5)


def test_the_diagnosis_imports_without_jax():
    code = "import sys, porting.doctor; sys.exit(bool({'jax', 'flax', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_zeros_are_the_bias_of_a_layer_that_has_none():
    source = {"k.weight": draw(7, 5), "q.weight": draw(7, 5, seed=1), "q.bias": draw(7)}
    leaves = {f"{n}/kernel": np.asarray(source[f"{n}.weight"].T, order="C") for n in "kq"}
    leaves |= {"q/bias": source["q.bias"], "k/bias": np.zeros(7, np.float32)}
    diagnosis = diagnose(source, leaves)
    assert diagnosis.ok
    assert not diagnosis.findings
    assert diagnosis.leaves["k/bias"].note == (
        "The source has no bias beside k.weight: zeros add nothing."
    )
    assert not diagnose(source, {**leaves, "k/bias": np.ones(7, np.float32)}).ok
    assert not diagnose({**source, "offset": draw(7, 1, seed=3)}, leaves).ok


def test_zeros_are_not_the_bias_that_another_layer_has_lost():
    source = {f"{n}.weight": draw(7, 5, seed=i) for i, n in enumerate("kqv")}
    source |= {f"{n}.bias": draw(7, seed=i) for i, n in enumerate("qv")}
    leaves = {f"{n}/kernel": np.asarray(source[f"{n}.weight"].T, order="C") for n in "kqv"}
    leaves |= {"q/bias": source["q.bias"], "k/bias": np.zeros(7, np.float32)}
    diagnosis = diagnose(source, leaves)
    assert diagnosis.leaves["k/bias"].status == "ok"
    assert [v.path for v in diagnosis.leaves.values() if v.wrong] == ["v/bias"]


def test_a_buffer_of_the_target_is_no_fault():
    source = {"k.weight": draw(7, 5)}
    leaves = {"k/kernel": np.asarray(source["k.weight"].T, order="C"), "embed_scale": np.float32(2)}
    diagnosis = diagnose(source, leaves)
    assert diagnosis.ok
    assert diagnosis.leaves["embed_scale"].status == "ambiguous"


def test_a_leaf_of_two_tensors_of_another_layer_is_told_from_its_own():
    source = {f"model.layers.{i}.self_attn.{n}_proj.weight": draw(6, 6, seed=i * 2 + j) for i in range(3)
              for j, n in enumerate("kv")}  # fmt: skip
    packed = [
        np.stack([source[f"model.layers.{i}.self_attn.{n}_proj.weight"].reshape(2, 3, 6).transpose(0, 2, 1) for n in "kv"])
        for i in range(3)
    ]  # fmt: skip
    path = "layers/{}/attn/kv_einsum/w"
    assert diagnose(source, {path.format(i): packed[i] for i in range(3)}).ok
    shifted = diagnose(source, {path.format(i): packed[(i + 1) % 3] for i in range(3)})
    for i in range(3):
        verdict = shifted.leaves[path.format(i)]
        assert verdict.wrong
        assert np.array_equal(verdict.row.apply(source), packed[i])


def accused(diagnosis, broken=()):
    return [p for p, v in diagnosis.leaves.items() if v.wrong and p not in broken]


@pytest.mark.parametrize("part", ["attn/c_attn", "attn/c_proj", "mlp/c_proj"])
def test_one_kernel_left_as_it_is_accuses_no_square_beside_it(part):
    sizes = {"attn.c_attn": (7, 21), "attn.c_proj": (7, 7), "mlp.c_fc": (7, 28), "mlp.c_proj": (28, 7)}  # fmt: skip
    source, leaves = {}, {}
    for n in range(3):
        for name, shape in sizes.items():
            key, path = f"h.{n}.{name}", f"h/{n}/{name}".replace(".", "/")
            source |= {f"{key}.weight": draw(*shape, seed=n), f"{key}.bias": draw(shape[1], seed=n)}
            leaves[f"{path}/kernel"] = np.asarray(source[f"{key}.weight"].T, order="C")
            leaves[f"{path}/bias"] = source[f"{key}.bias"]
    path = f"h/1/{part}/kernel"
    leaves[path] = np.asarray(leaves[path].T, order="C")
    diagnosis = diagnose(source, leaves)
    assert diagnosis.leaves[path].kind == "untransposed"
    assert not accused(diagnosis, [path])


def encoder(bias):
    source, leaves = {}, {}
    for n in range(3):
        for name, shape in {"q": (7, 7), "k": (7, 7), "fc1": (28, 7), "fc2": (7, 28)}.items():
            key = f"layer.{n}.{name}"
            source[f"{key}.weight"] = draw(*shape, seed=10 * n + ord(name[0]))
            leaves[f"layer/{n}/{name}/kernel"] = np.asarray(source[f"{key}.weight"].T, order="C")
            if bias:
                source[f"{key}.bias"] = leaves[f"layer/{n}/{name}/bias"] = draw(shape[0], seed=n)
    return source, leaves


def untransposed(leaves, square):
    return {
        p: np.asarray(a.T, order="C") for p, a in leaves.items()
        if a.ndim == 2 and (a.shape[0] == a.shape[1]) == square
    }  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_all_oblong_kernels_left_as_they_are_accuse_no_square(bias):
    source, leaves = encoder(bias)
    broken = untransposed(leaves, square=False)
    diagnosis = diagnose(source, leaves | broken)
    assert not accused(diagnosis, broken)
    if bias:  # a bias tells that `out` comes first: a Dense would have it last
        assert {diagnosis.leaves[p].kind for p in broken} == {"untransposed"}
    else:  # without one, the model may keep them so
        open_ = {p for p, v in diagnosis.leaves.items() if v.status == "ambiguous"}
        assert open_ == broken.keys()


def test_all_square_kernels_left_as_they_are_are_still_wrong():
    source, leaves = encoder(bias=True)
    broken = untransposed(leaves, square=True)
    diagnosis = diagnose(source, leaves | broken)
    assert {p for p, v in diagnosis.leaves.items() if v.kind == "untransposed"} == broken.keys()
    assert not accused(diagnosis, broken)


def gate_and_up(read, layers=3):
    source = {f"layers.{n}.mlp.gate_up_proj.weight": draw(16, 8, seed=n) for n in range(layers)}
    leaves = {}
    for n, packed in enumerate(source.values()):
        for j, name in enumerate(("gate_proj", "up_proj")):
            part = np.asarray(read(packed, j, n).T, order="C")
            leaves[f"params/layers_{n}/mlp/{name}/kernel"] = part
    return source, leaves


def halves(packed, j, n):
    return packed[8 * j : 8 * j + 8]


def by_row(packed, j, n):
    return packed[j::2]


def in_groups(packed, j, n):
    return packed.reshape(4, 2, 2, 8)[:, j].reshape(8, 8)


@pytest.mark.parametrize("read", [by_row, in_groups])
def test_a_packing_that_no_name_tells_is_a_question(read):
    source, leaves = gate_and_up(read)
    diagnosis = diagnose(source, leaves)
    assert diagnosis.counts == {"ambiguous": 6}
    note = diagnosis.leaves["params/layers_0/mlp/up_proj/kernel"].note
    assert "interleaved" in note
    assert "in blocks" in note
    path = "params/layers_1/mlp/up_proj/kernel"
    broken = diagnose(source, leaves | {path: np.asarray(leaves[path].T, order="C")})
    assert accused(broken) == [path]
    assert np.array_equal(eval(broken.leaves[path].fix, {"np": np, "source": source}), leaves[path])


def test_a_packing_is_wrong_where_another_layer_or_a_mapping_decides():
    assert diagnose(*gate_and_up(halves)).counts == {"ok": 6}
    source, leaves = gate_and_up(lambda w, j, n: (by_row if n == 1 else halves)(w, j, n))
    assert diagnose(source, leaves).counts == {"ok": 4, "wrong_layout": 2}
    source, leaves = gate_and_up(by_row)
    rows = infer_mapping(source, leaves)
    assert diagnose(source, leaves, rows).counts == {"wrong_layout": 6}


def test_gates_of_an_lstm_interleaved_are_wrong_as_its_names_tell():
    source = {"rnn.weight_ih_l0": draw(32, 8), "rnn.weight_hh_l0": draw(32, 8, seed=1)}
    leaves = {
        f"cell/{side}{gate}/kernel": np.asarray(source[f"rnn.weight_{side}h_l0"][j::4].T, order="C")
        for side in "ih"
        for j, gate in enumerate("ifgo")
    }
    assert diagnose(source, leaves).counts == {"wrong_layout": 8}


def gru_cell(hidden=6):
    source = {
        "gru.weight_ih_l0": draw(3 * hidden, 5), "gru.weight_hh_l0": draw(3 * hidden, hidden),
        "gru.bias_ih_l0": draw(3 * hidden), "gru.bias_hh_l0": draw(3 * hidden, seed=1),
    }  # fmt: skip
    leaves = {}
    for j, gate in enumerate("rzn"):
        part = slice(hidden * j, hidden * (j + 1))
        for side in "ih":
            weight = source[f"gru.weight_{side}h_l0"][part]
            leaves[f"params/cell/{side}{gate}/kernel"] = np.asarray(weight.T, order="C")
        biases = [source[f"gru.bias_{side}h_l0"][part] for side in "ih"]
        if gate == "n":
            leaves |= {f"params/cell/{s}n/bias": b for s, b in zip("ih", biases, strict=True)}
        else:
            leaves[f"params/cell/i{gate}/bias"] = biases[0] + biases[1]
    return source, leaves


@pytest.mark.parametrize("lost", [p for p in gru_cell()[1] if p != "params/cell/hn/bias"])
def test_a_gru_that_lost_a_leaf_has_no_other_that_is_wrong(lost):
    source, leaves = gru_cell()
    assert diagnose(source, leaves).counts == {"ok": 10}
    diagnosis = diagnose(source, {p: a for p, a in leaves.items() if p != lost})
    assert diagnosis.counts == {"ok": 9, "missing": 1}
    made = eval(diagnosis.leaves[lost].fix, {"np": np, "source": source})
    assert np.array_equal(made, leaves[lost])


def test_a_gru_without_a_hidden_bias_of_its_own_misses_none():
    source, leaves = gru_cell()
    del leaves["params/cell/hn/bias"]  # nnx.GRUCell has no place for it
    assert diagnose(source, leaves).counts == {"ok": 9}


def test_the_bias_of_another_layer_where_the_source_has_none():
    """A key without a bias, its zeros exchanged with the bias of the query."""
    source = {f"{n}_proj.weight": draw(6, 6, seed=i) for i, n in enumerate("qk")}
    source["q_proj.bias"] = draw(6, seed=7)
    zeros = np.zeros(6, np.float32)
    right = {f"{n}_proj/kernel": np.asarray(source[f"{n}_proj.weight"].T, order="C") for n in "qk"}
    right |= {"q_proj/bias": source["q_proj.bias"], "k_proj/bias": zeros}
    assert diagnose(source, right).ok
    broken = {**right, "q_proj/bias": zeros, "k_proj/bias": right["q_proj/bias"]}
    found = diagnose(source, broken)
    key, query = (found.leaves[f"{n}_proj/bias"] for n in "kq")
    assert (key.status, key.kind, key.source) == ("wrong_source", "exchanged", "q_proj.bias")
    assert key.note == (
        "Holds q_proj.bias. The source has no bias beside k_proj.weight: it should be zeros."
    )
    assert key.fix == 'np.zeros(len(source["k_proj.weight"]), source["k_proj.weight"].dtype)'
    assert (query.status, query.kind, query.holds) == ("wrong_source", "exchanged", "k_proj/bias")
    assert [f.title for f in found.findings] == [
        "q_proj and k_proj exchanged: q_proj/bias, k_proj/bias."
    ]
    fixed = repair(source, broken, found)
    assert all(np.array_equal(fixed[path], right[path]) for path in right)


def test_a_random_bias_where_the_source_has_none_should_be_zeros():
    """A bias of heads and their size, as NNX attention has it."""
    source = {f"{n}.weight": draw(6, 6, seed=i) for i, n in enumerate("qk")}
    source["q.bias"] = draw(6, seed=7)
    right = {f"{n}/kernel": source[f"{n}.weight"].T.reshape(6, 2, 3) for n in "qk"}
    right |= {"q/bias": source["q.bias"].reshape(2, 3), "k/bias": np.zeros((2, 3), np.float32)}
    assert diagnose(source, right).ok
    broken = {**right, "k/bias": draw(2, 3, seed=9)}
    found = diagnose(source, broken)
    assert found.leaves["k/bias"].status == "unported"
    assert not repair(source, broken, found)["k/bias"].any()


@pytest.mark.parametrize("shape", [(), (1,), (5,)])
def test_one_number_that_was_cast_was_not_left_at_its_init(shape):
    """A scalar, and a tensor of one value over and over (a fresh layer scale)."""
    source = {"fc.weight": draw(7, 5), "scale": np.full(shape, 0.1191, np.float32)}
    leaves = {"fc/kernel": np.asarray(source["fc.weight"].T, order="C"), "scale": source["scale"]}
    cast = {p: a.astype(ml_dtypes.bfloat16).astype(np.float32) for p, a in leaves.items()}
    found = diagnose(source, cast)
    assert {v.status for v in found.leaves.values()} == {"changed"}
    assert {v.kind for v in found.leaves.values()} == {"cast"}


def test_one_exchange_in_many_modules_is_one_finding():
    source, ported = {}, {}
    for i, module in enumerate(("encoder.0.attn", "encoder.1.attn", "decoder.0.cross")):
        for j, name in enumerate(("query", "key")):
            weight, bias = draw(6, 6, seed=10 * i + j), draw(6, seed=100 + 10 * i + j)
            other, path = ("key", "query")[j], module.replace(".", "/")
            source |= {f"{module}.{name}.weight": weight, f"{module}.{name}.bias": bias}
            ported |= {f"{path}/{other}/kernel": weight.T, f"{path}/{other}/bias": bias}
    found = diagnose(source, ported)
    assert [(f.title, len(f.leaves)) for f in found.findings] == [
        ("key and query exchanged in layers 0…1.", 12)
    ]


def test_a_buffer_that_any_model_has_so_is_right():
    """Gemma's √width and a range of positions are in the port and not in the source."""
    source = {"embed.weight": draw(7, 16), "head.weight": draw(5, 16)}
    right = {
        "embed/embedding": source["embed.weight"],
        "embed/embed_scale": np.float32([4]),
        "embed/position_ids": np.arange(7)[None],
        "head/kernel": np.asarray(source["head.weight"].T, order="C"),
        "dropout/rngs/key": np.uint32([3, 5]),
    }
    diagnosis = diagnose(source, right)
    assert {v.status for v in diagnosis.leaves.values()} == {"ok"}
    assert not diagnosis.findings
    odd = {
        **right,
        "embed/embed_scale": np.float32([4.5]),
        "embed/position_ids": np.arange(7)[::-1],
    }
    unsure = diagnose(source, odd).leaves
    assert [p for p, v in unsure.items() if v.status == "ambiguous"] == list(right)[1:3]


@pytest.mark.parametrize("rows", [46, 50])
def test_a_tied_table_of_another_length_is_known_by_its_values(rows):
    source = {"lm_head.weight": draw(48, 24)}
    source["model.embed_tokens.weight"] = source["lm_head.weight"]
    table = np.resize(source["lm_head.weight"], (rows, 24))
    port = {"embedder/embedding": table, "lm_head/kernel": source["lm_head.weight"].T}
    for n, part in itertools.product(range(2), "qkv"):
        key = f"model.layers.{n}.self_attn.{part}_proj.weight"
        source[key] = draw(36, 24, seed=n + ord(part))
        port[f"layers/{n}/attn/{part}_proj/w"] = source[key].T.reshape(24, 3, 12)
    found = diagnose(source, port)
    assert [v.path for v in found.leaves.values() if v.wrong] == ["embedder/embedding"]
    fixed = repair(source, port, found)["embedder/embedding"]
    assert np.array_equal(fixed, source["model.embed_tokens.weight"])


def test_the_zeros_of_a_layer_without_a_bias_stay_right_beside_a_missing_kernel():
    source = {f"h.{n}.k.weight": draw(7, 7, seed=n) for n in range(3)}
    port = {f"h/{n}/k/kernel": np.asarray(source[f"h.{n}.k.weight"].T, order="C") for n in range(3)}
    port |= {f"h/{n}/k/bias": np.zeros(7, np.float32) for n in range(3)}
    del port["h/2/k/kernel"]
    wrong = [v.path for v in diagnose(source, port).leaves.values() if v.wrong]
    assert wrong == ["h/2/k/kernel"]


def two_towers(prefix):
    """A model of text and images: two towers, each with a projection beside it."""
    source, right = {}, {}
    for key in ("text_model.fc", "vision_model.fc", "text_projection", "visual_projection"):
        weight = source[f"{key}.weight"] = draw(6, 5, seed=len(key))
        right[f"{prefix}{key.replace('.', '/')}/kernel"] = np.asarray(weight.T, order="C")
    return source, right


@pytest.mark.parametrize("prefix", ["params/", ""])
def test_the_head_of_one_tower_is_missed_where_the_other_has_its_own(prefix):
    source, right = two_towers(prefix)
    path = f"{prefix}visual_projection/kernel"
    verdict = diagnose(source, {p: a for p, a in right.items() if p != path}).leaves[path]
    assert (verdict.status, verdict.fix) == ("missing", 'source["visual_projection.weight"].T')


@pytest.mark.parametrize("left", ["text_projection", "vis", "projection"])
def test_a_head_is_not_missed_without_its_tower_or_its_like(left):
    source, right = two_towers("params/")
    port = {p: a for p, a in right.items() if left not in p and "visual_projection" not in p}
    assert diagnose(source, port).ok


def test_a_number_of_the_source_that_the_port_does_not_keep_names_no_leaf():
    source, right = {}, {}
    for n, (number, out) in enumerate(((0, 3), (3, 4), (6, 5), (10, 6))):
        weight = source[f"features.{number}.weight"] = draw(out, out - 1, 3, 3, seed=n)
        right[f"params/Conv_{n}/kernel"] = np.asarray(weight.transpose(2, 3, 1, 0), order="C")
    port = {p: a for p, a in right.items() if p != "params/Conv_3/kernel"}
    assert set(diagnose(source, port).leaves) <= set(right)
