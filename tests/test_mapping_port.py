"""Porting by a mapping, back again, the rules file and the script."""

import runpy

import ml_dtypes
import numpy as np
import pytest

from porting.checkpoint import open_checkpoint, save_params
from porting.errors import ArgumentError, CoverageError, RuleError
from porting.mapping import Mapping, infer_mapping, port_checkpoint, unport_checkpoint
from porting.tree import flatten


def model(layers=3):
    """A small BERT-like source, its target, and the leaves that are right."""
    rng = np.random.default_rng(0)
    source, want = {}, {}

    def put(key, path, shape, turn=False):
        source[key] = rng.normal(size=shape).astype(np.float32)
        want[path] = source[key].T if turn else source[key]

    put("embeddings.word_embeddings.weight", "params/embeddings/word_embeddings/embedding", (11, 6))
    for i in range(layers):
        ours, theirs = f"params/encoder/layer_{i}", f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            put(
                f"{theirs}.attention.self.{name}.weight",
                f"{ours}/attention/self/{name}/kernel",
                (6, 6),
                True,
            )
            put(f"{theirs}.attention.self.{name}.bias", f"{ours}/attention/self/{name}/bias", (6,))
        put(f"{theirs}.output.dense.weight", f"{ours}/output/dense/kernel", (6, 13), True)
        put(f"{theirs}.output.LayerNorm.weight", f"{ours}/output/LayerNorm/scale", (6,))
    target = {path: np.zeros(a.shape, np.float32) for path, a in want.items()}
    return source, target, want


def test_every_leaf_is_filled_with_a_view():
    source, target, want = model()
    variables, report = port_checkpoint(source, target)
    flat = flatten(variables)
    assert flat.keys() == want.keys()
    assert all(np.array_equal(flat[p], want[p]) for p in want)
    assert all(any(np.shares_memory(a, s) for s in source.values()) for a in flat.values())
    assert report.leaves == len(want)
    assert report.keys == len(source)
    assert not report.unsure
    assert report.nbytes == sum(a.nbytes for a in source.values())
    assert report.rules == {"a -> a": 12, "o i -> i o": 12, "a b -> a b": 1}


def test_there_and_back_is_bit_equal():
    source, target, _ = model()
    source["bn.num_batches_tracked"] = np.array(0)
    source["embeddings.position_ids"] = np.arange(5)[None]
    variables, report = port_checkpoint(source, target)
    back = unport_checkpoint(variables, source, report.mapping)
    assert list(back) == list(source)
    for key, array in source.items():
        assert back[key].dtype == array.dtype, key
        assert back[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_scalar_goes_home_with_its_value(shape):
    source = {"logit_scale": np.array(2.5, np.float32)}
    target = {"params": {"logit_scale": np.zeros(shape, np.float32)}}
    variables, report = port_checkpoint(source, target)
    assert variables["params"]["logit_scale"].shape == shape
    home = unport_checkpoint(variables, source, report.mapping)["logit_scale"]
    assert home.shape == ()
    assert home == source["logit_scale"]


def test_a_tie_is_kept_and_one_that_came_apart_is_refused():
    table = np.arange(55.0).reshape(11, 5)
    source = {"embed_tokens.weight": table, "lm_head.weight": table.copy()}
    target = {"embed_tokens": {"embedding": np.zeros((11, 5))}}
    variables, report = port_checkpoint(source, target)
    assert unport_checkpoint(variables, source, report.mapping).keys() == source.keys()
    both = {**target, "lm_head": {"kernel": np.zeros((5, 11))}}
    variables, report = port_checkpoint({"embed_tokens.weight": table}, both)
    assert np.shares_memory(variables["lm_head"]["kernel"], variables["embed_tokens"]["embedding"])
    variables["lm_head"]["kernel"] = variables["lm_head"]["kernel"] + 1
    with pytest.raises(CoverageError, match="have come apart"):
        unport_checkpoint(variables, {"embed_tokens.weight": table}, report.mapping)
    source["lm_head.weight"][0, 0] = 7
    with pytest.raises(CoverageError, match=r"lm_head\.weight was taken for another name of"):
        port_checkpoint(source, target)


def test_all_that_is_wrong_is_said_at_once():
    source, target, _ = model()
    for i in range(3):
        del source[f"encoder.layer.{i}.output.LayerNorm.weight"]
    source["head.weight"] = np.zeros((3, 2), np.float32)
    with pytest.raises(CoverageError) as error:
        port_checkpoint(source, target)
    assert str(error.value) == (
        "The checkpoint does not fill the target, in 4 places:\n"
        "head.weight has no place in the target; leave it out with an [[ignore]] row, or allow_unused\n"
        "params/encoder/layer_{0,1,2}/output/LayerNorm/scale is open: nothing in the source fits "
        "its name and shape"
    )
    source, target, _ = model()
    source["head.weight"] = np.zeros((3, 2), np.float32)
    _, report = port_checkpoint(source, target, allow_unused=True)
    assert report.unused == {"head.weight": "no place in the target"}
    rules = "[[ignore]]\nsource = 'head\\..*'\nreason = 'no head here'\n"
    mapping = infer_mapping(source, target, rules=rules)
    assert port_checkpoint(source, target, mapping)[1].unused == {"head.weight": "no head here"}


def test_an_unsure_leaf_is_filled_and_reported():
    source = {"b.weight": np.ones((5, 5)), "a.weight": np.zeros((5, 5))}
    source = dict(sorted(source.items()))
    target = {f"Dense_{i}": {"kernel": np.zeros((5, 5))} for i in range(2)}
    _, report = port_checkpoint(source, target)
    assert len(report.unsure) == 2
    assert "UNSURE Dense_0/kernel <- a.weight" in str(report)


def test_dtypes_are_kept_unless_asked():
    source = {"fc.weight": np.ones((5, 3), np.float64)}
    target = {"fc": {"kernel": np.zeros((3, 5), np.float16)}}
    assert port_checkpoint(source, target)[0]["fc"]["kernel"].dtype == np.float64
    variables, report = port_checkpoint(source, target, dtype="target")
    assert variables["fc"]["kernel"].dtype == np.float16
    assert report.casts == ("1 leaf cast from float64 to float16, which rounds",)
    with pytest.raises(ArgumentError, match="is no dtype"):
        port_checkpoint(source, target, dtype="pink")


def test_an_nnx_target_gets_what_nnx_takes():
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(5, 5, rngs=rngs) for _ in range(2)])

    module = Model(nnx.Rngs(0))
    source = {f"layers.{i}.{leaf}": np.full(shape, i, np.float32)
              for i in range(2) for leaf, shape in (("weight", (5, 5)), ("bias", (5,)))}  # fmt: skip
    variables, report = port_checkpoint(source, module)
    assert list(variables["layers"]) == [0, 1]
    nnx.update(module, variables)
    assert float(module.layers[1].kernel[...].sum()) == 25.0
    back = unport_checkpoint(nnx.state(module), source, report.mapping)
    assert all(np.array_equal(back[key], source[key]) for key in source)


def test_rules_are_read_back_as_the_same_mapping():
    source, target, _ = model(layers=12)
    mapping = infer_mapping(source, target)
    text = mapping.to_rules()
    assert text.count("[[leaf]]") == 9
    assert Mapping.from_rules(text, source, target) == mapping
    assert infer_mapping(source, target, rules=text) == mapping


def test_rules_file_as_toml_and_json(tmp_path):
    source, target = {"a.weight": np.zeros((5, 5))}, {"b": {"kernel": np.zeros((5, 5))}}
    toml = tmp_path / "rules.toml"
    toml.write_text("[[leaf]]\nsource = 'a\\.weight'\npath = 'b/kernel'\npattern = 'i o -> i o'\n")
    by_toml = Mapping.from_rules(str(toml), source, target)
    assert str(by_toml.leaves["b/kernel"].rule) == "i o -> i o"
    json = '{"leaf": [{"source": "a.weight", "path": "b/kernel", "pattern": "i o -> i o"}]}'
    assert Mapping.from_rules(json, source, target) == by_toml
    open_pattern = "[[leaf]]\nsource = 'a.weight'\npath = 'b/kernel'\n"
    assert (
        str(Mapping.from_rules(open_pattern, source, target).leaves["b/kernel"].rule)
        == "o i -> i o"
    )


def test_a_rule_overrules_and_the_rest_is_inferred():
    source = {"b.weight": np.ones((5, 5)), "a.weight": np.zeros((5, 5))}
    source = dict(sorted(source.items()))
    target = {f"Dense_{i}": {"kernel": np.zeros((5, 5))} for i in range(2)}
    rules = "[[leaf]]\nsource = 'b.weight'\npath = 'Dense_0/kernel'\n"
    mapping = infer_mapping(source, target, rules=rules)
    assert mapping.leaves["Dense_0/kernel"].sources == ("b.weight",)
    assert mapping.leaves["Dense_1/kernel"].sources == ("a.weight",)
    assert not mapping.unsure


def test_a_question_survives_the_file_until_it_is_answered():
    source = {"a.weight": np.zeros((5, 5)), "b.weight": np.ones((5, 5))}
    target = {f"Dense_{i}": {"kernel": np.zeros((5, 5))} for i in range(2)}
    mapping = infer_mapping(source, target)
    text = mapping.to_rules()
    assert text.count("sure = false") == 2
    assert Mapping.from_rules(text, source, target) == mapping
    answered = "\n".join(line for line in text.splitlines() if not line.startswith(("sure", "why")))
    assert not Mapping.from_rules(answered, source, target).unsure


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("[[leaf]]\npath = 'x'\n", "needs `source`"),
        ("[[leaf]]\nsource = '('\npath = 'x'\n", "is no regular expression"),
        ("[[leaf]]\nsource = 'q'\npath = 'fc/kernel'\n", "names nothing"),
        ("[[leaf]]\nsource = 'fc.weight'\npath = 'fc/\\9'\n", "does not fit"),
        ("[[leaf]]\nsource = 'fc.weight'\npath = 'fc/kernel'\njoin = 'mix'\n", "no join 'mix'"),
        ("[[leaf]]\nsource = 'fc.weight'\npath = 'fc/kernel'\npattern = 'a'\n", "no '->'"),
        ("[[leaf]]\nsource = 'fc.weight'\npath = 'fc/kernel'\nrule = 'a'\n", "has rule"),
        ("[[leaves]]\nsource = 'fc.weight'\n", "rows \\[\\[leaf\\]\\] and"),
        ("[[ignore]]\nreason = 'x'\n", "has no `source`"),
        ("[[leaf\n", "neither TOML nor JSON"),
        ('{"leaf": [1]}', "needs `source`"),
        ('{"leaf": 3}', "is not a list"),
        ("nowhere.toml", "cannot be read"),
    ],
)
def test_a_rules_file_that_is_wrong_says_how(rules, message):
    with pytest.raises(RuleError, match=message):
        infer_mapping(
            {"fc.weight": np.zeros((5, 3))}, {"fc": {"kernel": np.zeros((3, 5))}}, rules=rules
        )


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_the_script_runs_alone_and_makes_the_same_leaves(kind, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    source, target, want = model(layers=2)
    packed = np.arange(3 * 6 * 6, dtype=np.float32).reshape(18, 6)
    source["head.qkv.weight"] = packed
    for i, name in enumerate("qkv"):
        want[f"params/head/{name}/kernel"] = packed[i * 6 : i * 6 + 6].T.reshape(6, 2, 3)
        target[f"params/head/{name}/kernel"] = np.zeros((6, 2, 3), np.float32)
    safetensors.save_file(source, tmp_path / "model.safetensors")
    _, report = port_checkpoint(source, target)
    file = tmp_path / "port.py"
    file.write_text(report.code(kind, str(tmp_path / "model.safetensors")))
    assert "porting" not in file.read_text().lower().replace("portlens", "")
    made = runpy.run_path(str(file), run_name="__main__")["variables"]
    flat = flatten({str(k): v for k, v in made.items()})
    assert flat.keys() == want.keys()
    assert all(np.array_equal(flat[p], want[p]) for p in want)
    with pytest.raises(ArgumentError, match='"linen" or for "nnx"'):
        report.code("torch")


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((".safetensors", kind) for kind in ("bfloat16", "float8_e4m3fn", "float32")),
        *((".msgpack", kind) for kind in ("bfloat16", "float8_e4m3fn", "float32")),
        *((".npz", kind) for kind in ("bfloat16", "float32")),
    ],
)
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_the_script_keeps_every_bit_of_any_type_and_format(suffix, kind, dtype, tmp_path):
    draw = np.random.default_rng(0)
    source = {"fc.weight": draw.standard_normal((5, 3)), "count": np.arange(2)}
    source["fc.weight"] = source["fc.weight"].astype(getattr(ml_dtypes, kind, kind))
    path = tmp_path / f"model{suffix}"
    save_params(path, source)
    target = {"fc": {"kernel": np.zeros((3, 5))}}
    with open_checkpoint(path) as checkpoint:
        made, report = port_checkpoint(checkpoint, target, dtype=dtype, allow_unused=True)
    file = tmp_path / "port.py"
    file.write_text(report.code("nnx", str(path)))
    again = runpy.run_path(str(file), run_name="__main__")["variables"]["fc"]["kernel"]
    assert (
        again.dtype
        == made["fc"]["kernel"].dtype
        == getattr(ml_dtypes, dtype or kind, dtype or kind)
    )
    assert again.tobytes() == made["fc"]["kernel"].tobytes()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("float16", "bfloat16", "1 leaf cast from float16 to bfloat16, which rounds"),
        ("bfloat16", "float16", "1 leaf cast from bfloat16 to float16, which rounds; 1 number is "
         "too large and became inf or nan"),
        ("float16", "float32", "1 leaf cast from float16 to float32"),
        ("float32", "float64", "1 leaf cast from float32 to float64"),
        ("float8_e5m2", "float16", "1 leaf cast from float8_e5m2 to float16"),
        ("float32", "float8_e4m3fn", "1 leaf cast from float32 to float8_e4m3fn, which rounds; "
         "1 number is too large and became inf or nan"),
    ],
)  # fmt: skip
def test_a_cast_says_what_it_costs(old, new, line):
    largest = 65504 if old == "float16" else 1 if old == "float8_e5m2" else 3e38
    array = np.array([1, largest]).astype(getattr(ml_dtypes, old, old))
    _, report = port_checkpoint({"w": array}, {"w": array}, dtype=new)
    assert report.casts == (line,)


def test_a_large_port_only_makes_views():
    big = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (4096, 4096), (0, 0))
    source = {f"layers.{i}.weight": big for i in range(64)}
    target = {f"layers/{i}/kernel": big for i in range(64)}
    variables, _ = port_checkpoint(source, target)
    kernels = [layer["kernel"] for layer in variables["layers"].values()]
    assert all(np.shares_memory(kernel, big) for kernel in kernels)  # 4 GiB were not copied


def test_a_name_cannot_write_code_into_the_script_or_rows_into_the_rules():
    bad = "a'\"\n    pass\n[[leaf]]\n\x7f\u2028.weight"
    source = {bad: np.zeros((5, 5)), "b.weight": np.ones((5, 5))}
    target = {f"Dense_{i}": {"kernel": np.zeros((5, 5))} for i in range(2)}
    _, report = port_checkpoint(source, target)
    assert len(report.unsure) == 2
    for line in report.code().splitlines():
        assert line.strip() != "pass"
    compile(report.code(), "port.py", "exec")
    assert Mapping.from_rules(report.mapping.to_rules(), source, target) == report.mapping


def test_a_square_transposed_convolution_is_a_question():
    source = {"deconv.weight": np.zeros((5, 5, 3, 3)), "deconv.bias": np.zeros(5)}
    target = {"deconv": {"kernel": np.zeros((3, 3, 5, 5)), "bias": np.zeros(5)}}
    leaf = infer_mapping(source, target).leaves["deconv/kernel"]
    assert not leaf.confident
    assert str(leaf.rule) == "i o h w -> -h -w i o"
    assert [str(other.rule) for other in leaf.alternatives] == ["i o h w -> h w o i"]


def test_a_target_in_the_layout_of_torch_keeps_its_weights():
    source = {"fc1.weight": np.zeros((5, 5)), "fc2.weight": np.zeros((7, 5))}
    mapping = infer_mapping(source, {k.replace(".", "/"): a for k, a in source.items()})
    assert mapping.leaves["fc1/weight"].rule.pattern == "o i -> o i"
    assert not mapping.unsure


def test_a_second_name_is_that_of_a_table_before_that_of_a_head():
    table, head = np.arange(12.0).reshape(4, 3), -np.arange(12.0).reshape(4, 3)
    sides = ("encoder", "decoder")
    source = {"shared.weight": table, "lm_head.weight": head}
    source |= {f"{side}.embed_tokens.weight": table for side in sides}
    target = {"lm_head/kernel": head.T}
    target |= {f"{side}/embed_tokens/embedding": table for side in sides}
    variables, _report = port_checkpoint(source, target)
    assert np.array_equal(variables["lm_head"]["kernel"], head.T)
    assert infer_mapping(source, target).unused == {
        "shared.weight": "tied to decoder.embed_tokens.weight"
    }


def test_a_bias_that_the_source_lacks_is_a_row_of_zeros():
    """A rule that only counts a weight's rows does not take the weight away from its kernel."""
    source = {"k_proj.weight": np.ones((6, 4), np.float32)}
    target = {"k_proj": {"kernel": np.zeros((4, 6)), "bias": np.zeros(6)}}
    with pytest.raises(CoverageError, match="join = 'zeros'"):
        port_checkpoint(source, target)
    row = "[[leaf]]\nsource = 'k_proj\\.weight'\npath = 'k_proj/bias'\n"
    mapping = infer_mapping(source, target, row + "pattern = 'o -> o'\njoin = 'zeros'\n")
    made, _ = port_checkpoint(source, target, mapping)
    np.testing.assert_array_equal(made["k_proj"]["kernel"], source["k_proj.weight"].T)
    np.testing.assert_array_equal(made["k_proj"]["bias"], np.zeros(6, np.float32), strict=True)
    home = unport_checkpoint(made, source, mapping)
    np.testing.assert_array_equal(home["k_proj.weight"], source["k_proj.weight"])
