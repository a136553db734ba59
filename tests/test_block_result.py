"""The engine of the encoder block tab: stages, faults, verdicts, leaf table, blind spots."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file

from porting.block import LINEN_TO_NNX
from porting.block_blind import blind_spots, seen
from porting.block_case import SOURCES, BlockCase, input_of, resolve, tensors_of
from porting.block_faults import BLOCK_FAULTS
from porting.block_modules import LinenEncoderBlock, NNXEncoderBlock
from porting.block_reference import STEPS, Reference, torch_weights
from porting.block_result import faults_for, run_block
from porting.block_stages import TITLES
from porting.block_torch import load_torch_encoder_layer
from porting.compare import NetworkComparison
from porting.errors import ArgumentError, LimitError, PortingError
from porting.tree import flatten, unflatten

GOLDEN = sorted((Path(__file__).parent / "golden" / "block").glob("[rg]elu*.safetensors"))
TORCH = BlockCase(5, 14, 2, 11, source="torch-init", randomise=True)
LINEN = replace(TORCH, source="linen-init")
REAL = BlockCase(7, source="m6aformer")

#: Faults that no output can show, and why.
INVISIBLE = {"key_bias_skipped": "it cancels in softmax"}
#: Where each fault is made: the stages that err by themselves.
BIRTHPLACES = {
    "bias_skipped": ["ff1"],
    "kernel_skipped": ["ff2"],
    "key_bias_skipped": ["k"],
    "attn_skipped": ["q", "k", "v", "out"],
    "scale_at_one": ["ln2"],
    "qk_exchanged": ["q", "k"],
    "square_transposed": ["out"],
    "qkv_order": ["k", "v"],
    "qkv_per_head": ["q", "k", "v"],
    "heads_exchanged": ["q", "k", "v"],
    "norms_exchanged": ["ln1", "ln2"],
    "shards_exchanged": ["ff2"],
    "default_epsilon": ["ln1", "ln2"],
    "tanh_gelu": ["activation"],
    "residual_dropped": ["residual1", "output"],
}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_reference_is_real_pytorch(path):
    arrays = load_file(path)
    state = {k.removeprefix("state/"): a for k, a in arrays.items() if k.startswith("state/")}
    with safe_open(path, "np") as file:
        meta = file.metadata()
    constants = int(meta["num_heads"]), meta["activation"], float(meta["epsilon"])
    stages = Reference(**torch_weights(state), **dict(zip(
        ("num_heads", "activation", "epsilon"), constants, strict=True
    ))).stages(arrays["x"])  # fmt: skip
    # PyTorch's own rounding, float32 against float64, is the measure.
    comparison = NetworkComparison(arrays["out64"], arrays["out32"], stages["output"])
    assert comparison.within, (comparison.d32, comparison.d64)


def test_the_names_of_the_stages_are_the_same_everywhere():
    assert list(STEPS) == list(TITLES) == [stage.name for stage in run_block(LINEN).stages]


@pytest.mark.parametrize("case", [LINEN, TORCH, REAL, BlockCase(), replace(LINEN, length=1)])
def test_the_clean_port_is_exact(case):
    result = run_block(case)
    assert result.verdict.kind == "exact", result.verdict
    assert result.verdict.fix == result.warning == ""
    assert result.first is None
    assert result.sums_agree
    assert result.outputs_agree
    assert {row.status for row in result.rows} == {"ok"}
    assert all(stage.linen.within and stage.own.within for stage in result.stages)


@pytest.mark.parametrize("data_seed", range(40))
def test_the_clean_port_gives_no_false_alarm(data_seed):
    case = replace(LINEN, data_seed=data_seed, seed=data_seed + 1, randomise=data_seed % 2 == 0)
    assert run_block(case).verdict.kind == "exact"


def possible(case: BlockCase) -> list[str]:
    """The faults that run: a packed source has them all."""
    needs_packed = set() if SOURCES[case.source].packed else {"qkv_order", "qkv_per_head"}
    return [name for name in BIRTHPLACES if name not in needs_packed]


@pytest.mark.parametrize(
    "case",
    [replace(case, fault=fault) for case in (TORCH, LINEN, REAL) for fault in possible(case)],
    ids=lambda case: f"{case.source}-{case.fault}",
)
def test_every_fault_is_seen_and_found_where_it_was_made(case):
    result, fault = run_block(case), case.fault
    own = [stage.name for stage in result.stages if stage.diverges and not stage.inherited]
    assert own == BIRTHPLACES[fault]
    assert result.first.name == own[0]
    if fault in INVISIBLE:
        assert result.verdict.kind == "unsure"
        assert result.outputs_agree
        assert "softmax" in result.verdict.text
    else:
        assert result.verdict.kind == BLOCK_FAULTS[fault].kind in ("silent", "values")
        assert not result.outputs_agree


def test_every_fault_has_a_birthplace_or_crashes():
    assert sorted([*BIRTHPLACES, "ff1_untransposed"]) == sorted(BLOCK_FAULTS)
    for case in (TORCH, LINEN, REAL):
        fitting = [fault.name for fault in faults_for(case)]
        assert sorted(fitting) == sorted([*possible(case), "ff1_untransposed"])


@pytest.mark.parametrize("case", [TORCH, LINEN], ids=lambda case: case.source)
def test_a_kernel_that_is_not_square_crashes_and_a_square_one_does_not(case):
    crashed = run_block(replace(case, fault="ff1_untransposed"))
    assert crashed.verdict.kind == "crash"
    assert "kernel" in crashed.verdict.detail
    assert crashed.stages == ()
    assert crashed.output is crashed.first is None
    assert crashed.verdict.text == (
        "params/ff1/kernel arrived as (11, 14), which the block does not fit. PyTorch keeps "
        "(out, in), Flax (in, out). Here the shapes differ, so Flax notices. With d_ff = d_model "
        "nothing would."
    )
    silent = run_block(replace(case, d_ff=14, fault="ff1_untransposed"))
    assert silent.verdict.kind == "silent"
    assert silent.first.name == "ff1"


def test_only_a_linen_source_keeps_the_linen_block_right():
    for case, right in ((LINEN, True), (TORCH, False)):
        result = run_block(replace(case, fault="qk_exchanged"))
        assert result.stages[-1].linen.within is right
        assert result.sums_agree is not right


def test_sums_that_agree_are_warned_of():
    pair = run_block(replace(LINEN, fault="shards_exchanged"))
    assert pair.sums_agree
    assert "a sum does not see which output is off" in pair.warning
    assert (
        "both blocks hold the same wrong port"
        in run_block(replace(TORCH, fault="qk_exchanged")).warning
    )
    assert run_block(replace(LINEN, fault="qk_exchanged")).warning == ""


def test_a_fresh_init_hides_what_random_leaves_show():
    case = replace(LINEN, randomise=False)
    for fault in ("bias_skipped", "scale_at_one", "norms_exchanged", "key_bias_skipped"):
        result = run_block(replace(case, fault=fault))
        assert result.verdict.kind == "unsure"
        assert result.verdict.text == (
            "Every leaf is right, bit for bit, by chance: this fault exchanged or left numbers "
            "that are equal at a fresh init, where biases are zero and scales one. No check can "
            "fail. Randomise every leaf to see the difference."
        )


def test_one_token_hides_exchanged_q_and_k():
    result = run_block(replace(LINEN, length=1, fault="qk_exchanged"))
    assert result.verdict.kind == "unsure"
    assert "One token" in result.verdict.text


@pytest.mark.parametrize("fault", ["", "attn_skipped", "qk_exchanged", "heads_exchanged"])
def test_the_leaf_table(fault):
    result = run_block(replace(TORCH, fault=fault))
    rows = {row.path: row for row in result.rows}
    assert len(rows) == 16
    query = rows["params/attn/q_proj/kernel"]
    assert (query.before, query.after) == (((42, 14),), (14, 14))
    assert query.attribute == "attn/q_proj/kernel"
    assert str(query.leaf.rule) == "(qkv=0 o) i -> i o; qkv=3"
    expected = {"": "ok", "attn_skipped": "skipped"}.get(fault, "wrong")
    assert query.status == expected
    assert rows["params/ff1/kernel"].status == "ok"
    for path, row in rows.items():
        assert row.same == np.array_equal(result.needed[path], result.ported[path])


@pytest.mark.parametrize("fault", [name for name in BIRTHPLACES if name != "residual_dropped"])
def test_the_fix_of_a_torch_port_puts_it_right(fault):
    result = run_block(replace(TORCH, fault=fault))
    params = unflatten(dict(result.ported))["params"]
    if any(row.status != "ok" for row in result.rows):
        exec(result.verdict.fix, {"np": np, "params": params, "state": result.source})
    assert flatten({"params": params}).keys() == result.needed.keys()
    for path, leaf in flatten({"params": params}).items():
        assert np.array_equal(leaf, result.needed[path])


def test_the_fix_of_an_nnx_port_names_the_leaf():
    assert run_block(replace(LINEN, fault="bias_skipped")).verdict.fix == (
        'block.ff1.bias.set_value(params["ff1"]["bias"])'
    )


def test_the_needed_leaves_are_those_of_the_port():
    result = run_block(TORCH)
    loaded = flatten(load_torch_encoder_layer(result.source, 2))
    assert all(np.array_equal(loaded[path], leaf) for path, leaf in result.needed.items())


def test_faults_change_nothing_in_place():
    clean = run_block(TORCH)
    before = {path: leaf.copy() for path, leaf in clean.needed.items()}
    for fault in faults_for(TORCH):
        run_block(replace(TORCH, fault=fault.name))
    assert all(np.array_equal(before[path], leaf) for path, leaf in clean.needed.items())


def test_a_recipe_is_frozen_and_its_picture_made_once():
    with pytest.raises(FrozenInstanceError):
        LINEN.seed = 3  # type: ignore[misc]
    assert run_block(LINEN) is run_block(replace(LINEN, length=5.0))
    real = resolve(REAL)
    assert (real.d_model, real.num_heads, real.d_ff, real.randomise) == (128, 4, 512, False)


def test_seeds_reach_what_they_are_for():
    other = replace(LINEN, seed=1, randomise=False), replace(LINEN, data_seed=1, randomise=False)
    first = replace(LINEN, randomise=False)
    same = [np.array_equal(input_of(first), input_of(case)) for case in other]
    assert same == [True, False]
    kernels = [tensors_of(case)["params/ff1/kernel"] for case in (first, *other)]
    assert [np.array_equal(kernels[0], kernel) for kernel in kernels[1:]] == [False, True]


BAD = [
    ({"source": "gpt"}, "There is no source 'gpt'. Use one of linen-init, torch-init, m6aformer."),
    ({"d_model": 15}, "d_model = 15 does not split into 2 heads: 15 / 2 is not whole. "
     "Pass a d_model that is a multiple of num_heads, such as 16."),
    ({"length": 0}, "T = 0 is not a size. Pass a whole number from 1 to 128."),
    ({"d_ff": float("nan")}, "d_ff = nan is not a whole number. Pass a whole number."),
    ({"fault": "qkv_order"}, "The fault 'qkv_order' (q/k/v split in the wrong order) cannot happen "
     "to this source and these sizes (A Linen block, freshly initialised). Choose another fault "
     "or source."),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), BAD)
def test_bad_recipes_are_told_word_for_word(change, text):
    with pytest.raises(ArgumentError) as caught:
        run_block(replace(LINEN, **change))
    assert str(caught.value) == text


def test_other_bad_recipes():
    with pytest.raises(LimitError, match="limit of 256"):
        run_block(replace(LINEN, d_model=512))
    with pytest.raises(PortingError, match="no fault 'nothing'"):
        run_block(replace(LINEN, fault="nothing"))


def test_what_each_check_cannot_see():
    spots = {spot.fault.name: spot for spot in blind_spots("linen-init")}
    assert list(spots) == list(BLOCK_FAULTS)
    assert spots["qkv_order"].fresh is spots["qkv_order"].randomised is None
    hidden = {name for name, spot in spots.items() if spot.fresh and not spot.fresh.outputs}
    assert hidden == {"bias_skipped", "scale_at_one", "norms_exchanged", "key_bias_skipped"}
    still = {name for name, spot in spots.items() if spot.fresh and not spot.randomised.outputs}
    assert still == set(INVISIBLE)
    assert spots["key_bias_skipped"].randomised.leaves
    assert not spots["residual_dropped"].randomised.leaves
    assert not spots["shards_exchanged"].randomised.sums


def test_a_trained_source_has_the_blind_spots_of_pytorch():
    assert seen(blind_spots("m6aformer"), "sums", True) == (1, 16)
    assert seen(blind_spots("m6aformer"), "outputs", True) == (15, 16)


def test_what_a_skipped_leaf_keeps_is_the_init_of_the_target():
    x = np.ones((1, 14), np.float32)
    linen = flatten(LinenEncoderBlock(2, 14, 11).init(jax.random.key(TORCH.seed + 1), x))
    skipped = run_block(replace(TORCH, fault="attn_skipped")).ported
    path = "params/attn/v_proj/kernel"
    assert np.array_equal(skipped[path], linen[path])
    block = NNXEncoderBlock(2, 14, 11, rngs=nnx.Rngs(LINEN.seed + 1))
    skipped = run_block(replace(LINEN, fault="attn_skipped")).ported
    assert np.array_equal(skipped[path], block.attn.v_proj.kernel[...])


def test_a_fresh_linen_source_is_what_init_gives():
    x = np.ones((1, 14), np.float32)
    linen = flatten(LinenEncoderBlock(2, 14, 11).init(jax.random.key(0), x))
    source = run_block(replace(LINEN, randomise=False)).source
    assert all(np.array_equal(source[path], leaf) for path, leaf in linen.items())


#: What each fault that leaves something out leaves out.
SKIPPED = {
    "bias_skipped": {"params/ff1/bias"},
    "kernel_skipped": {"params/ff2/kernel"},
    "key_bias_skipped": {"params/attn/k_proj/bias"},
    "scale_at_one": {"params/ln2/scale"},
    "attn_skipped": {path for path in LINEN_TO_NNX if "/attn/" in path},
}


@pytest.mark.parametrize("fault", possible(TORCH))
def test_a_fault_touches_what_its_title_says_and_no_more(fault):
    rows = run_block(replace(TORCH, fault=fault)).rows
    skipped = {row.path for row in rows if row.status == "skipped"}
    wrong = {row.path for row in rows if row.status == "wrong"}
    assert skipped == SKIPPED.get(fault, set())
    assert bool(wrong) is (fault not in SKIPPED and BLOCK_FAULTS[fault].where == "leaves")
    assert all(row.same is (row.status == "ok") for row in rows)


def test_shared_arrays_cannot_be_written():
    result = run_block(TORCH)
    for arrays in (result.source, result.needed, result.ported):
        assert not any(array.flags.writeable for array in arrays.values())
