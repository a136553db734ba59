"""Modules without parts, several outputs, narrow dtypes, and what the table can tell apart."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import save_file
from typer.testing import CliRunner

from porting.checkpoint import save_params
from porting.cli import app
from porting.doctor import diagnose
from porting.errors import ArgumentError
from porting.trace import (
    Cause,
    Explanation,
    Stage,
    Trace,
    compare_traces,
    explain,
    load_trace,
    record_linen,
)
from porting.trace.align import align_inputs
from porting.trace.attention import attention, rotate
from porting.trace.attention_table import ATTENTION
from porting.trace.measure import Pair, measure
from porting.trace.operands import as_mask
from porting.trace.outputs import align_outputs
from porting.trace.questions import Problem
from porting.trace.spatial import operations, spatial
from porting.trace.variants import fitting

GOLDEN = Path(__file__).parent / "golden" / "trace" / "modules.safetensors"
RNG = np.random.default_rng(8)


def attend(faults):
    """Flax's attention function, or one with a fault."""

    def function(query, key, value, mask=None):
        if "no scale" in faults:
            query = query * query.shape[-1] ** 0.5
        if "softmax axis" in faults:
            scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
            probs = nn.softmax(jnp.where(mask, scores, -1e30), axis=-2)
            return jnp.einsum("bhqk,bkhd->bqhd", probs, value)
        return nn.dot_product_attention(query, key, value, mask=mask)

    return function


class Modules(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x, ignored):
        mask = ignored if "mask polarity" in self.faults else ~ignored
        mask = None if "no mask" in self.faults else mask[:, None, None]
        attn = nn.MultiHeadDotProductAttention(3, attention_fn=attend(self.faults), name="attn")
        gate = nn.hard_sigmoid if "hard gates" in self.faults else nn.sigmoid
        cell = nn.LSTMCell(5, gate_fn=gate, name="cell")
        back = "backwards" in self.faults
        rnn = nn.RNN(cell, return_carry=True, reverse=back, keep_order=back, name="rnn")
        ones = (jnp.ones((len(x), 5), x.dtype),) * 2 if "ones" in self.faults else None
        (c, h), y = rnn(attn(x, mask=mask), initial_carry=ones)
        h = 2 * h if "carry" in self.faults else h
        return y, (h[None], c[None])


def ported(leaves):
    """PyTorch's leaves in the tree of `Modules`."""
    attn = {}
    for i, name in enumerate(("query", "key", "value")):
        rows = slice(12 * i, 12 * i + 12)
        kernel = leaves["attn.in_proj_weight"][rows].T.reshape(12, 3, 4)
        attn[name] = {"kernel": kernel, "bias": leaves["attn.in_proj_bias"][rows].reshape(3, 4)}
    out = leaves["attn.out_proj.weight"].T.reshape(3, 4, 12)
    attn["out"] = {"kernel": out, "bias": leaves["attn.out_proj.bias"]}
    cell = {}
    for i, gate in enumerate("ifgo"):
        rows = slice(5 * i, 5 * i + 5)
        cell[f"i{gate}"] = {"kernel": leaves["rnn.weight_ih_l0"][rows].T}
        bias = (leaves["rnn.bias_ih_l0"] + leaves["rnn.bias_hh_l0"])[rows]
        cell[f"h{gate}"] = {"kernel": leaves["rnn.weight_hh_l0"][rows].T, "bias": bias}
    return {"params": {"attn": attn, "cell": cell}}


@functools.cache
def compared(*faults, flip=None, double=True):
    """A recording with these faults beside PyTorch's; `flip` turns a leaf of attention over."""
    trace = load_trace(GOLDEN)
    variables = ported(trace.leaves)
    if flip:
        variables["params"]["attn"][flip]["kernel"] = variables["params"]["attn"][flip]["kernel"][
            ::-1
        ]
    inputs = trace.stage("(model)").inputs
    given = record_linen(Modules(faults), variables, *inputs.values(), double=double)
    return compare_traces(trace, given)


@pytest.mark.parametrize("double", [True, False])
def test_modules_without_parts_are_clean_and_their_outputs_pair(double):
    result = compared(double=double)
    assert result.verdict in ("same", "noise"), result.report()
    assert explain(result).causes == ()
    assert set(result.pairs) == {"attn", "rnn", "(model)"}
    pairs = {mine: theirs for mine, (theirs, _) in result.matches["rnn"].outputs.items()}
    assert pairs == {"1": "0", "0.1": "1.0", "0.0": "1.1"}  # ((c, h), out) beside (out, (h, c))


FAULTS = [
    (
        "no scale",
        "attn",
        "the scale of the scores",
        "the scale of the scores: 1/√d, d the width of a head",
        "the scale of the scores: none",
    ),
    (
        "mask polarity",
        "attn",
        "the mask",
        "the mask: as given (mask), inverted",
        "the mask: as given (mask)",
    ),
    (
        "no mask",
        "attn",
        "the mask",
        "the mask: of the reference (key_padding_mask), inverted",
        "the mask: none",
    ),
    (
        "softmax axis",
        "attn",
        "the axis of the softmax",
        "the axis of the softmax: over the keys",
        "the axis of the softmax: over the queries",
    ),
    (
        "hard gates",
        "rnn",
        "the activation of the gates",
        "the activation of the gates: sigmoid",
        "the activation of the gates: hard sigmoid",
    ),
    (
        "backwards",
        "rnn",
        "the direction",
        "the direction: forwards",
        "the direction: backwards, put back in order",
    ),
    (
        "ones",
        "rnn",
        "the state at the first step",
        "the state at the first step: zeros",
        "the state at the first step: ones",
    ),
]


@pytest.mark.parametrize(("fault", "stage", "title", "restores", "does"), FAULTS)
def test_a_fault_inside_a_module_is_named(fault, stage, title, restores, does):
    result = compared(fault)
    assert [row.stage for row in result.parting] == [stage], result.report()
    said = explain(result, diagnose(result.reference.leaves, result.candidate.leaves))
    assert said.verdict == "code"
    cause = said.causes[0]
    assert cause.faults == (title,), said.report()
    assert (restores in cause.restores, does in cause.does) == (True, True), said.report()


def test_a_leaf_and_the_code_of_one_module_are_told_apart():
    result = compared("no scale", flip="query")
    said = explain(result, diagnose(result.reference.leaves, result.candidate.leaves))
    assert [(c.stage, c.verdict) for c in said.causes] == [("attn", "weight and code")]
    assert said.causes[0].faults == ("the scale of the scores",)
    alone = compared(flip="query")
    said = explain(alone, diagnose(alone.reference.leaves, alone.candidate.leaves))
    assert said.verdict == "weight"
    assert "With the right leaves its code restores parity." in said.report()


def test_an_output_beside_the_main_one_is_judged():
    result = compared("carry")
    (row,) = result.parting
    assert (row.stage, row.sites[0].name, row.sites[0].main) == ("(model)", "1.0", False)
    assert "its output 1.0 is off" in explain(result).report()


def test_outputs_pair_by_role_by_name_or_by_the_only_shape_that_fits():
    wide, flat, other = RNG.normal(size=(2, 3, 5)), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 7))
    mine = Stage("s", "Own", "", 0, 1, {}, {"0": flat, "1": wide})
    theirs = Stage("s", "Own", "", 0, 1, {}, {"0": wide, "1": flat})
    found = {m: t for m, (t, _) in align_outputs(theirs, mine).items()}
    assert list(found.items()) == [("1", "0"), ("0", "1")]
    cell = Stage("s", "LSTMCell", "", 0, 1, {}, {"0.0": flat, "0.1": flat + 1, "1": flat + 1})
    torch = Stage("s", "LSTMCell", "", 0, 1, {}, {"0": flat + 1, "1": flat})
    assert {m: t for m, (t, _) in align_outputs(torch, cell).items()} == {"1": "0", "0.0": "1"}
    counts = Stage("s", "Own", "", 0, 1, {}, {"0": wide, "1": other.astype(int)})
    assert list(align_outputs(counts, counts)) == ["0"]  # a tie may turn an index


class Dropping(nn.Module):
    off: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=self.off)(nn.relu(nn.Dense(11, name="fc")(x)))


def test_a_dropout_that_is_on_is_no_rounding():
    x = RNG.normal(size=(4, 7)).astype(np.float32)
    variables = Dropping().init(jax.random.key(0), x)
    runs = [
        record_linen(Dropping(off), variables, x, double=True, rngs={"dropout": jax.random.key(1)})
        for off in (True, False)
    ]
    said = explain(compare_traces(*runs))
    assert [cause.faults for cause in said.causes] == [("a dropout that is on",)]
    wide = RNG.normal(size=9)
    pair = Pair(np.float32(wide), np.float32(wide * 0), wide, wide)
    assert measure(pair).parts  # the float64 run agrees, the float32 run did something else


class Narrow(nn.Module):
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(13, dtype=self.dtype, name="fc1")(x)
        x = x + nn.Dense(11, dtype=self.dtype, name="fc2")(nn.gelu(y)).astype(x.dtype)
        return nn.LayerNorm(epsilon=1e-5, name="norm")(x)


@pytest.mark.parametrize("double", [True, False])
def test_bfloat16_and_what_follows_it_is_rounding(double):
    x = RNG.normal(size=(4, 11)).astype(np.float32)
    variables = Narrow().init(jax.random.key(0), x)
    wanted = record_linen(Narrow(), variables, x, double=double)
    result = compare_traces(wanted, record_linen(Narrow("bfloat16"), variables, x, double=double))
    assert result.verdict == "noise", result.report()
    assert result.row("norm").error > 1e-4
    assert "computed in bfloat16" in result.report()
    broken = jax.tree.map(lambda a: a[::-1], variables)
    result = compare_traces(wanted, record_linen(Narrow("bfloat16"), broken, x, double=double))
    assert result.verdict == "parts"


def test_a_model_that_does_not_run_in_float64_is_explained():
    class Fixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            if x.dtype == jnp.float64:
                raise TypeError("float32 only")
            return x

    with pytest.raises(
        ArgumentError, match=r"not in float64 \(TypeError: float32 only\)\. Record it with"
    ):
        record_linen(Fixed(), {}, np.ones(3, np.float32), double=True)


def test_a_mask_and_its_negation_are_no_pair():
    mask = np.array([[True, False, True]])
    assert align_inputs({"a": mask}, {"b": ~mask}) == {}
    assert set(align_inputs({"a": mask}, {"b": mask})) == {"b"}


def test_masks_are_read_whatever_their_shape_and_sort():
    sees = np.array([[True, False, True], [True, True, True]])
    for given in (sees, sees.astype(int), np.where(sees, 0.0, -1e9), sees[:, None, None]):
        np.testing.assert_array_equal(as_mask(given, (2, 5, 3)), sees[:, None, None])
    assert as_mask(np.ones((2, 5, 4)), (2, 5, 3)) is None
    assert as_mask(np.arange(6).reshape(2, 3), (2, 5, 3)) is None  # ids


ARRAYS = {n: RNG.normal(size=(2, 6, 4, 8)) for n in "qkv"}
ANGLES = RNG.normal(size=(4, 4))
GIVEN = {"cos": np.cos(ANGLES), "sin": np.sin(ANGLES)}
OPTIONS = {
    "mask": ("causal, without itself", "causal, window of 3 tokens", "as given, inverted"),
    "scale": ("none", "1/d"),
    "rotary": ("interleaved",),
    "roles": ("k, q, v", "q, v, k"),
    "axis": ("over the queries", "over the heads"),
    "cap": ("30.0",),
    "merge": ("without a transpose",),
}


@pytest.mark.parametrize(("option", "value"), [(o, v) for o, vs in OPTIONS.items() for v in vs])
def test_every_option_of_attention_is_found_by_its_output(option, value):
    operands = ARRAYS | {"as given": RNG.integers(0, 2, (2, 1, 6, 6)).astype(bool)}
    target = attention(operands, {}, **({"heads": 4} | {option: value}))
    found = fitting(Problem("attention", operands, {}, np.float32(target), target))
    assert [choice[option] for choice in found] == [value]


@pytest.mark.parametrize("precision", ["float32", "bfloat16 in the rotation"])
def test_angles_that_are_given_turn_the_last_tokens(precision):
    choice = {"heads": 4, "rotary": "half-split by the given angles", "precision": precision}
    target = attention(ARRAYS | GIVEN, {}, **choice)
    (found,) = fitting(Problem("attention", ARRAYS | GIVEN, {}, np.float32(target), target))
    assert {name: found[name] for name in choice} == choice


def test_a_rotation_in_bfloat16_rounds_as_jax_does():
    x, cos, sin = (jnp.asarray(a, jnp.bfloat16) for a in (ARRAYS["q"], *GIVEN.values()))
    a, b = x[:, 2:, :, :4], x[:, 2:, :, 4:]
    cos, sin = cos[:, None], sin[:, None]
    wanted = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    given = tuple(GIVEN.values())
    style = "half-split by the given angles"
    turned = rotate(ARRAYS["q"], style, given=given, precision="bfloat16 in the rotation")
    np.testing.assert_array_equal(turned[:, 2:], np.asarray(wanted, np.float64))
    np.testing.assert_array_equal(turned[:, :2], np.asarray(x[:, :2], np.float64))


class Extra(nn.Module):
    """A part whose second output nobody uses."""

    times: float = 1.0

    @nn.compact
    def __call__(self, x):
        return nn.Dense(5, name="head")(Half(self.times, name="half")(x)[0])


class Half(nn.Module):
    times: float

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(7, name="fc")(x)
        return y, self.times * y.sum(-1)


def test_a_wrong_output_that_nobody_uses_is_seen():
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    variables = Extra().init(jax.random.key(0), x)
    runs = [record_linen(Extra(times), variables, x, double=True) for times in (1.0, 2.0)]
    assert [row.stage for row in compare_traces(*runs).parting] == ["half"]


@pytest.mark.parametrize("split", ["thirds", "q, k and v of each head"])
def test_how_a_projection_is_packed_is_found(split):
    operands = {"qkv": RNG.normal(size=(2, 6, 24))}
    target = attention(operands, {}, heads=2, split=split, mask="causal")
    found = fitting(Problem("packed attention", operands, {}, np.float32(target), target))
    assert {(c["split"], c["heads"], c["mask"]) for c in found} == {(split, 2, "causal")}


def test_no_row_of_attention_says_the_same_as_another():
    for kind in {row.layer for row in ATTENTION}:
        options = [row.option for row in ATTENTION if row.layer == kind]
        assert len(options) == len(set(options))


IMAGE = RNG.normal(size=(2, 8, 8, 3))
RESIZED = [
    ("linear", (4, 4), False, "linear resize"),
    ("linear", (4, 4), True, "linear resize, antialiased"),
    ("linear", (16, 16), False, "linear resize"),
    ("cubic", (16, 16), False, "cubic (a = -0.5) resize"),
]


@pytest.mark.parametrize(("method", "size", "antialias", "name"), RESIZED)
def test_resizes_are_those_of_jax(method, size, antialias, name):
    wanted = jax.image.resize(np.float32(IMAGE), (2, *size, 3), method, antialias=antialias)
    given = spatial(IMAGE, size, name)
    np.testing.assert_allclose(given, wanted, atol=2e-5)


@pytest.mark.parametrize("counted", [True, False])
def test_pools_are_those_of_flax(counted):
    pads = ((1, 1), (1, 1))
    wanted = nn.avg_pool(np.float32(IMAGE), (3, 3), (2, 2), pads, count_include_pad=counted)
    kind = "average pool" if counted else "average pool without its padding"
    name = f"{kind} of 3, stride 2, padding 1"
    given = spatial(IMAGE, (4, 4), name)
    np.testing.assert_allclose(given, wanted, atol=1e-6)
    assert name in operations((8, 8), (4, 4))


def test_the_command_line_tries_variants_on_the_leaves_of_the_file(tmp_path):
    class Layer(nn.Module):
        epsilon: float = 1e-5

        @nn.compact
        def __call__(self, x):
            return nn.LayerNorm(epsilon=self.epsilon, name="norm")(x)

    x = 0.1 * RNG.normal(size=(4, 7)).astype(np.float32)
    leaves = {"norm": {n: np.float32(RNG.normal(size=7)) for n in ("scale", "bias")}}
    for name, epsilon in (("wanted", 1e-5), ("given", 1e-6)):
        trace = record_linen(Layer(epsilon), {"params": leaves}, x, double=True)
        trace.save(tmp_path / f"{name}.safetensors")
    torch = {"norm.weight": leaves["norm"]["scale"], "norm.bias": leaves["norm"]["bias"]}
    save_file(torch, tmp_path / "model.safetensors")
    save_params(tmp_path / "flax.safetensors", {"params": leaves})
    files = [str(tmp_path / f"{n}.safetensors") for n in ("model", "flax", "wanted", "given")]
    arguments = ["doctor", *files[:2], "--traces", *files[2:]]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 1
    assert "Parity is restored by epsilon = 1e-05" in " ".join(printed.output.split())
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert answer["ok"]
    assert (answer["forward"]["verdict"], answer["forward"]["fault"]) == ("parts", "code")
    clean = CliRunner().invoke(app, [*arguments[:4], files[2], files[2]])
    assert clean.exit_code == 0


def test_files_alone_keep_the_order_of_stages_and_their_outputs(tmp_path):
    result = compared("carry")
    result.candidate.save(tmp_path / "t.safetensors", leaves=True)
    read = load_trace(tmp_path / "t.safetensors")
    again = compare_traces(load_trace(GOLDEN), read)
    assert [row.stage for row in again.parting] == ["(model)"]
    assert dataclasses.asdict(again.rows[0])["stage"] == result.rows[0].stage
    assert isinstance(read, Trace)


def test_a_second_call_and_another_layer_are_told_with_the_first():
    parts = compared("carry").parting[0].sites[0]

    def cause(stage):
        site = dataclasses.replace(parts, path=stage)
        return Cause(stage, "r", site, "code", ("epsilon",), (), (), {}, f"{stage}: epsilon.")

    said = Explanation((cause("mid"), cause("mid#2"), cause("end_1"), cause("end_2")), "code")
    assert said.sentences() == (
        ("code", "mid: epsilon. The same at mid#2."),
        ("code", "end_1: epsilon. The same at end_2."),
    )
