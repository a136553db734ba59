"""Every layer of the zoo opens: the right port is exact, a fault has the verdict of the matrix."""

import subprocess
import sys

import numpy as np
import pytest

from porting.checks import PROBES, STATES, check_matrix
from porting.errors import ArgumentError, PortingError
from porting.figures.matrix import matrix_panel
from porting.figures.zoo import zoo_leaf_infos, zoo_output_infos
from porting.layers import LAYERS
from porting.zoo import ZooCase, faults_of, leaves_of, probes_of, run_zoo
from porting.zoo_code import zoo_programs

#: one layer of each kind of trouble: joins, several inputs, no leaves, state, ids
SAMPLE = (
    "Linear",
    "Conv2d",
    "ConvTranspose1d",
    "BatchNorm2d",
    "GemmaRMSNorm",
    "WeightNormLinear",
    "Embedding",
    "PReLU",
    "GELU",
    "MaxPool2d",
)


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_the_right_port_of_every_layer_is_exact(layer):
    result = run_zoo(ZooCase(layer, fault=""))
    assert result.verdict.kind == "exact", result.verdict.text
    assert leaves_of(result.case) == tuple(leaf.path for leaf in result.table)
    assert set(result.right.leaves) == set(leaves_of(result.case))


@pytest.mark.parametrize("layer", SAMPLE)
def test_the_right_port_is_exact_on_every_probe(layer):
    for probe in probes_of(ZooCase(layer, fault="")):
        for state in STATES:
            verdict = run_zoo(ZooCase(layer, "", "", probe, state)).verdict
            assert verdict.kind == "exact", (probe, state, verdict.text)


@pytest.mark.parametrize("layer", SAMPLE)
def test_a_fault_is_seen_where_the_strongest_check_sees_it(layer):
    matrix = check_matrix(layer, checks=["bound"], probes=["random_normal"])
    assert {f.name for f in matrix.faults} >= {f.name for f in faults_of(ZooCase(layer, fault=""))}
    for fault in faults_of(ZooCase(layer, fault="")):
        result = run_zoo(ZooCase(layer, fault=fault.name))
        caught = matrix.cell(fault.name, "bound", "random_normal", "random").status == "caught"
        assert (result.verdict.kind != "unsure") == caught, (fault.name, result.verdict.text)


@pytest.mark.parametrize("layer", SAMPLE)
def test_the_pictures_link_only_what_is_true(layer):
    for fault in ("", *(f.name for f in faults_of(ZooCase(layer, fault="")))):
        result = run_zoo(ZooCase(layer, fault=fault))
        for leaf in result.table:
            source, *others = zoo_leaf_infos(result, leaf)
            numbers = dict(zip(source.places.flat, source.values.flat, strict=True))
            for info in others:
                if info.places is None:
                    continue
                pairs = zip(info.places.flat, info.values.flat, strict=True)
                assert all(numbers[p] == v for p, v in pairs if p in numbers), (fault, info.key)
        for info in zoo_output_infos(result):
            matrix_panel(info)


def test_another_output_shape_is_no_crash():
    verdict = run_zoo(ZooCase("MaxPool2d", fault="pool_stride_default")).verdict
    assert verdict.kind == "values"
    assert "The output has shape" in verdict.text
    assert verdict.fix


def test_what_flax_raises_is_the_detail_of_a_crash():
    verdict = run_zoo(ZooCase("MultiheadAttention", fault="batch_first_lost")).verdict
    assert verdict.kind == "crash"
    assert "batch" in verdict.detail


@pytest.mark.parametrize(
    "case",
    [
        ZooCase("Conv4d"),
        ZooCase("Linear", fault="no_such"),
        ZooCase("Linear", fault="conv_axes_reversed"),
        ZooCase("Linear", fault="", probe="constant_image"),
        ZooCase("Linear", fault="", probe="x"),
        ZooCase("Linear", fault="", state="x"),
        ZooCase("Linear", fault="", seed=-1),
        ZooCase("Linear", "in_features=0", ""),
        ZooCase("Linear", "in_features=10**9", ""),
        ZooCase("Linear", "in_features='a'", ""),
        ZooCase("Linear", "no_such=1", ""),
        ZooCase("MultiheadAttention", "embed_dim=7, num_heads=3", ""),
        ZooCase("Conv2d", "padding_mode='no'", ""),
    ],
)
def test_a_wrong_case_has_a_message(case):
    with pytest.raises(PortingError):
        run_zoo(case)


def test_a_probe_that_a_layer_lacks_is_not_offered():
    for name in set(PROBES) - set(probes_of(ZooCase("Linear"))):
        with pytest.raises(ArgumentError, match="no such input"):
            run_zoo(ZooCase("Linear", fault="", probe=name))


@pytest.mark.parametrize(
    ("layer", "fault"),
    [("Conv2d", "conv_axes_reversed"), ("RMSNorm", "all_at_init"), ("GRU", ""), ("ReLU", "")],
)
def test_the_programs_run_as_shown(layer, fault, capsys):
    for title, program in zoo_programs(run_zoo(ZooCase(layer, fault=fault))):
        exec(compile(program, title, "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    right = [float(line.split(": ")[1]) for line in lines if "right" in line]
    wrong = [float(line.split(": ")[1]) for line in lines if "wrong" in line]
    assert right
    assert max(right) < 1e-5
    assert (max(wrong, default=0) > 1e-2) == bool(fault)


def test_a_program_runs_in_a_fresh_interpreter():
    program = zoo_programs(run_zoo(ZooCase("Linear", fault="kernel_untransposed")))[0][1]
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert "largest difference of the wrong port" in made.stdout


def test_nnx_says_what_it_cannot_hold():
    program = dict(zoo_programs(run_zoo(ZooCase("GRU", fault=""))))["Flax NNX"]
    assert "bias" in program
    assert all(line.startswith("#") for line in program.splitlines())


def test_the_result_of_a_case_is_not_touched_by_a_fault():
    right = run_zoo(ZooCase("Conv2d", fault=""))
    before = {path: np.array(leaf) for path, leaf in right.right.leaves.items()}
    for fault in faults_of(ZooCase("Conv2d", fault="")):
        run_zoo(ZooCase("Conv2d", fault=fault.name))
    assert all(np.array_equal(before[path], leaf) for path, leaf in right.right.leaves.items())
