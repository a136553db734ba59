"""The program that the encoder block tab shows does what the picture shows."""

import re
from dataclasses import replace

import numpy as np
import pytest

from porting.block_case import BlockCase
from porting.block_code import MISTAKES, block_program
from porting.block_result import faults_for, run_block
from porting.errors import CoverageError

TORCH = BlockCase(5, 14, 2, 11, 3, 4, "torch-init", randomise=True)
CASES = [
    replace(case, fault=name)
    for case in (TORCH, replace(TORCH, source="linen-init"))
    for name in ("", *(fault.name for fault in faults_for(case)))
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}-{case.fault}")
def test_the_program_runs_and_gives_the_same_numbers(case, capsys):
    program, result = block_program(case), run_block(case)
    names: dict = {}
    if result.verdict.kind == "crash":
        # The Linen block of a PyTorch port is never reached: the NNX port raises first.
        with pytest.raises(CoverageError):
            exec(compile(program, "program", "exec"), names)
        return
    exec(compile(program, "program", "exec"), names)
    for path, leaf in result.ported.items():
        _, *keys = path.split("/")
        written = names["params"]
        for key in keys:
            written = written[key]
        assert np.array_equal(written, leaf), path
    nnx_sum, linen_sum, difference = map(
        float, re.findall(r"-?\d[\d.e+-]*", capsys.readouterr().out)
    )
    # Eager and compiled runs round differently; d32 and the noise say by how much.
    noise = result.output.noise + result.stages[-1].linen.noise
    size = result.output.reference.size
    assert abs(nnx_sum - result.sums[0]) <= 8 * size * noise
    assert abs(linen_sum - result.sums[1]) <= 8 * size * noise
    assert abs(difference - result.output.d32) <= 8 * noise


def test_the_program_of_the_trained_layer_compiles():
    for fault in ("", "residual_dropped", "attn_skipped", "default_epsilon"):
        program = block_program(BlockCase(source="m6aformer", fault=fault))
        compile(program, "program", "exec")
        assert "source='m6aformer'" in program


def test_every_leaf_fault_has_its_line():
    for fault in faults_for(TORCH):
        skips = "skip" in fault.name or fault.name == "scale_at_one"
        assert (fault.name in MISTAKES) is (fault.where == "leaves" and not skips), fault.name
