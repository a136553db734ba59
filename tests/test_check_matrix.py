"""Which check sees which fault: every fault of every layer, and the known blind spots."""

from __future__ import annotations

import numpy as np
import pytest

from porting.checks import CHECKS, CLEAN, PROBES, STATES, STATUSES, CheckMatrix, check_matrix
from porting.checks.bench import Run
from porting.errors import ArgumentError, LimitError, PortingError
from porting.faults import FAULTS
from porting.layers import LAYERS

TARGETS = [*LAYERS, "EncoderBlock"]
#: What the strongest checks are: no tolerance, random leaves, two inputs, and all leaves.
STRONGEST = ("two_probes", "leaves")
ONE = ["random_normal"]
#: What a check of outputs may say of a fault that no output shows.
QUIET = {"equivalent", "n/a", "false_alarm"}


def seen(matrix: CheckMatrix, fault: str) -> bool:
    """Whether one of the strongest checks sees a fault, with random leaves."""
    return any(
        matrix.cell(fault, check, probe.name, "random").status == "caught"
        for check in STRONGEST
        for probe in matrix.probes
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_fault_is_caught_or_declared_and_no_right_port_is_blamed(target):
    matrix = check_matrix(target)
    sizes = len(matrix.rows) * len(CHECKS) * len(PROBES) * len(STATES)
    assert len(matrix.cells) == sizes
    for (row, check, _, _), cell in matrix.cells.items():
        assert cell.status in STATUSES
        assert cell.story.endswith((".", ")")) or "Error" in cell.story, cell
        if row == CLEAN:
            prone = bool(CHECKS[check].prone)
            assert cell.status in ("passed", "n/a") or (prone and cell.status == "false_alarm")
        else:
            assert cell.status != "passed"
            assert cell.status != "false_alarm" or CHECKS[check].prone
    for fault in matrix.faults:
        if not seen(matrix, fault.name):
            told = [
                cell for key, cell in matrix.cells.items()
                if key[0] == fault.name and key[1] not in ("leaves",)
            ]  # fmt: skip
            assert {cell.status for cell in told} <= QUIET, fault.name


def statuses(matrix: CheckMatrix, fault: str, probe: str, state: str = "random") -> dict[str, str]:
    return {check: matrix.cell(fault, check, probe, state).status for check in CHECKS}


def test_a_sum_is_blind_to_a_permutation():
    matrix = check_matrix("Linear")
    assert statuses(matrix, "shards_exchanged", "random_normal") == {
        "runs": "missed",
        "shapes": "missed",
        "sums": "missed",
        "allclose": "caught",
        "atol_1e-3": "caught",
        "bound": "caught",
        "bound_randomised": "caught",
        "two_probes": "caught",
        "leaves": "caught",
    }
    story = matrix.cell("shards_exchanged", "sums", state="random").story
    assert "agree to four digits, while outputs differ by up to" in story


@pytest.mark.parametrize("probe", ["one_token", "identical_rows", "ones"])
def test_one_token_and_identical_rows_hide_exchanged_queries_and_keys(probe):
    matrix = check_matrix("MultiheadAttention")
    found = statuses(matrix, "qk_exchanged", probe)
    assert found["bound_randomised"] == found["atol_1e-3"] == "missed"
    assert found["two_probes"] == found["leaves"] == "caught"
    assert statuses(matrix, "qk_exchanged", "random_normal")["bound"] == "caught"


def test_one_token_hides_every_rotary_fault():
    matrix = check_matrix("GroupedQueryAttention")
    for fault in ("rotary_pairs", "rotary_base", "rotary_lost"):
        assert statuses(matrix, fault, "one_token")["bound"] == "missed"
        assert statuses(matrix, fault, "random_normal")["bound"] == "caught"


def test_a_constant_image_hides_exchanged_axes_where_nothing_is_padded():
    matrix = check_matrix("Conv2d", padding=0, stride=1)
    for fault in ("conv_axes_reversed", "conv_flipped"):
        assert statuses(matrix, fault, "constant_image")["bound"] == "missed"
        assert statuses(matrix, fault, "random_normal")["bound"] == "caught"


def test_an_odd_size_hides_same_padding():
    matrix = check_matrix("Conv2d")
    assert statuses(matrix, "same_padding", "odd_size")["bound_randomised"] == "missed"
    assert statuses(matrix, "same_padding", "random_normal")["bound"] == "caught"
    assert statuses(matrix, "same_padding", "odd_size")["leaves"] == "missed"


def test_a_fresh_batch_norm_hides_its_statistics():
    matrix = check_matrix("BatchNorm2d")
    for fault in (
        "statistics_at_init",
        "scale_at_init",
        "biases_at_init",
        "deviation_for_variance",
    ):
        fresh = statuses(matrix, fault, "random_normal", "fresh")
        assert fresh["bound"] == fresh["leaves"] == "missed"
        assert fresh["bound_randomised"] == "caught"
        assert statuses(matrix, fault, "random_normal")["bound"] == "caught"


@pytest.mark.parametrize(
    "target", ["MultiheadAttention", "TransformerEncoderLayer", "EncoderBlock"]
)
def test_no_output_shows_a_key_bias(target):
    matrix = check_matrix(target)
    for probe in PROBES:
        found = statuses(matrix, "key_bias_skipped", probe)
        leaves = found.pop("leaves")
        assert leaves == "caught"
        assert set(found.values()) <= QUIET
    assert "softmax takes it out" in matrix.cell("key_bias_skipped", "bound").story


def test_with_rotary_positions_a_key_bias_shows():
    matrix = check_matrix("GroupedQueryAttention")
    assert matrix.cell("key_bias_skipped", "bound", state="random").status == "caught"


def test_one_step_hides_untransposed_hidden_kernels():
    matrix = check_matrix("LSTM")
    assert statuses(matrix, "hidden_untransposed", "one_token")["bound"] == "missed"
    assert statuses(matrix, "hidden_untransposed", "random_normal")["bound"] == "caught"


def test_a_loose_tolerance_misses_a_small_error():
    matrix = check_matrix("GELU", probes=ONE)
    assert matrix.cell("tanh_gelu", "atol_1e-3").status == "missed"
    assert matrix.cell("tanh_gelu", "bound").status == "caught"


def test_a_comparison_of_leaves_is_blind_to_the_forward_pass():
    for target in ("BatchNorm2d", "MultiheadAttention", "EncoderBlock"):
        matrix = check_matrix(target)
        for fault in matrix.faults:
            leaves = matrix.cell(fault.name, "leaves", state="random").status
            assert leaves == ("caught" if fault.where == "leaves" else "missed"), fault.name


def test_momentum_is_declared_and_nothing_sees_it():
    matrix = check_matrix("BatchNorm2d")
    assert [fault.name for fault in matrix.unseen()] == ["momentum_kept"]
    assert "training only" in matrix.cell("momentum_kept", "bound").story


def test_a_fault_that_changes_nothing_is_told():
    matrix = check_matrix("FlattenLinear", feature_map=(3, 1, 1), probes=ONE)
    cell = matrix.cell("flatten_order", "leaves", state="random")
    assert (cell.status, cell.story) == (
        "equivalent",
        "With these options the fault changes nothing: the port is the right one.",
    )


def test_a_kernel_that_is_not_square_crashes_before_any_check():
    matrix = check_matrix("Linear", out_features=5, probes=ONE)
    cell = matrix.cell("kernel_untransposed", "runs")
    assert cell.status == "caught"
    assert cell.story.startswith("ScopeParamShapeError: ")
    assert matrix.cell("kernel_untransposed", "sums").story.startswith("It never gets that far: ")
    leaf = matrix.cell("kernel_untransposed", "leaves").story
    assert leaf == "params/kernel: shape (5, 7) where (7, 5) belongs."
    assert matrix.cell("kernel_reshaped", "shapes").status == "missed"


def test_another_size_is_caught_by_shapes():
    matrix = check_matrix("Conv2d", probes=ONE)
    cell = matrix.cell("padding_lost", "shapes")
    assert (cell.status, cell.difference) == ("caught", np.inf)


def test_sums_near_zero_blame_the_right_port():
    matrix = check_matrix("LayerNorm")
    alarms = {key[1] for key, cell in matrix.cells.items() if cell.status == "false_alarm"}
    assert alarms == {"sums"}


def test_only_checks_without_a_tolerance_never_blame_the_right_port():
    never = {name for name, check in CHECKS.items() if not check.prone}
    assert never == {"runs", "shapes", "bound", "bound_randomised", "two_probes", "leaves"}


def test_tallies_add_up():
    matrix = check_matrix("MultiheadAttention")
    weak, strong = matrix.tally("runs"), matrix.tally("two_probes")
    assert weak.caught < matrix.tally("bound").caught < strong.caught == strong.faults
    assert str(matrix.tally("shapes", "one_token")) == "sees 0 of 18 faults"
    assert str(check_matrix("Conv2d").tally("allclose")).endswith("it fails on the right port")


def test_a_matrix_is_made_once_and_the_same_again():
    assert check_matrix("Linear", seed=3.0) is check_matrix("Linear", seed=3)
    first = check_matrix("Linear", probes=ONE, seed=5)
    other = check_matrix("Linear", probes=[*ONE, "ones"], seed=5)
    assert all(other.cells[key] == cell for key, cell in first.cells.items())


def test_parts_can_be_asked_for():
    matrix = check_matrix(
        "Linear", faults=["kernel_reshaped"], checks=["leaves", "sums"], probes=ONE
    )
    assert matrix.rows == ("clean", "kernel_reshaped")
    assert [check.name for check in matrix.checks] == ["sums", "leaves"]
    assert [probe.name for probe in matrix.probes] == ONE


REFUSED = [
    (("Dense",), {}, "There is no layer 'Dense'"),
    (("Linear",), {"checks": ["eye"]}, "There is no check 'eye'. Use one of runs, shapes, "),
    (("Linear",), {"probes": ["two"]}, "There is no probe 'two'. Use one of one_token, "),
    (("Linear",), {"faults": ["typo"]}, "There is no fault 'typo'"),
    (("Linear",), {"faults": ["qk_exchanged"]}, "cannot happen to Linear"),
    (("Linear",), {"width": 3}, "Linear does not take width"),
    (("Linear",), {"seed": -1}, "seed = -1 is not a seed"),
    (("EncoderBlock",), {"fault": "x"}, "EncoderBlock does not take fault. It takes d_ff, "),
    (("EncoderBlock",), {"d_model": 9}, "does not split into 2 heads"),
]


@pytest.mark.parametrize(("args", "options", "text"), REFUSED)
def test_what_is_refused(args, options, text):
    with pytest.raises(PortingError) as caught:
        check_matrix(*args, **options)
    assert text in str(caught.value)


def test_a_size_is_checked_before_anything_is_made():
    with pytest.raises(LimitError):
        check_matrix("Linear", in_features=2**20)


def test_a_cell_that_is_not_there_lists_what_is():
    with pytest.raises(ArgumentError, match="Rows: clean, all_at_init, "):
        check_matrix("Linear", probes=ONE).cell("clean", "sums", "ones")


def test_a_mask_is_refused_in_words():
    with pytest.raises(ArgumentError) as caught:
        check_matrix("MultiheadAttention", attn_mask=np.zeros((5, 7), bool))
    assert str(caught.value) == "A matrix takes no masks: pass is_causal=True."


def test_the_right_port_must_run():
    """A crash of the right port is a bug and no verdict."""

    def broken():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _ = Run(np.zeros(1), None, broken, broken).crash
    assert Run(np.zeros(1), None, broken, broken, noise=0.0).crash == "ZeroDivisionError: "


def test_every_fault_is_in_a_matrix():
    usual = {fault.name for target in TARGETS for fault in check_matrix(target).faults}
    rare = (
        ("groups_interleaved", "Conv2d", {"in_channels": 4, "out_channels": 4, "groups": 2}),
        ("padding_mode_lost", "Conv2d", {"padding_mode": "reflect", "stride": 1}),
        ("layers_exchanged", "LSTM", {"num_layers": 2, "input_size": 10}),
    )
    assert set(FAULTS) - usual == {fault for fault, _, _ in rare}
    for fault, target, options in rare:
        assert seen(check_matrix(target, faults=[fault], probes=ONE, **options), fault)
