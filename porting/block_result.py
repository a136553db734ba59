"""A port of the encoder block, run and judged: from a `BlockCase` to a `BlockResult`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from flax import errors as flax_errors
from flax import nnx

from porting.block import LINEN_TO_NNX
from porting.block_case import (
    SOURCES,
    Arrays,
    BlockCase,
    init_leaves,
    input_of,
    reference_of,
    resolve,
    tensors_of,
)
from porting.block_faults import BLOCK_FAULTS
from porting.block_modules import NNXEncoderBlock
from porting.block_stages import BlockConfig, Stage, compare_stages, run_linen, run_nnx
from porting.block_verdict import LeafRow, leaf_rows, verdict_of
from porting.compare import NetworkComparison, rounding_bound
from porting.errors import ArgumentError, CoverageError
from porting.faults import Fault, Port
from porting.leaves import port_leaves
from porting.tree import leaves as leaves_of
from porting.verdict import Verdict

#: Results that are kept: one holds the leaves three times over.
RESULTS = 24


@dataclass(frozen=True)
class BlockResult:
    """Everything that a picture of the encoder block shows. Arrays are shared and read-only.

    Attributes:
        case: the recipe, resolved.
        fault: what was injected, if anything.
        source: the tensors of the source, by key.
        needed: the right leaves, by Linen path.
        ported: the leaves that this port wrote, by Linen path.
        rows: the leaf table.
        stages: the forward pass; empty after a crash.
        sums: of the NNX output and of the Linen output, float32; NaN after a crash.
        sums_agree: whether rounding explains their difference.
        verdict: what happened, in words.
    """

    case: BlockCase
    fault: Fault | None
    source: Arrays
    needed: Arrays
    ported: Arrays
    rows: tuple[LeafRow, ...]
    stages: tuple[Stage, ...]
    sums: tuple[float, float]
    sums_agree: bool
    verdict: Verdict

    @property
    def output(self) -> NetworkComparison | None:
        """The NNX output beside the reference; `None` after a crash."""
        return self.stages[-1].nnx if self.stages else None

    @property
    def outputs_agree(self) -> bool:
        """Whether rounding explains the output."""
        return self.output is not None and self.output.within

    @property
    def first(self) -> Stage | None:
        """The first stage that diverges."""
        return next((stage for stage in self.stages if stage.diverges), None)

    @property
    def warning(self) -> str:
        """What is wrong with the check of the tutorials, where it passes and should not."""
        if self.outputs_agree or not self.sums_agree:
            return ""
        why = (
            "both blocks hold the same wrong port"
            if SOURCES[self.case.source].packed
            else "a sum does not see which output is off"
        )
        return (
            f"The sums agree ({self.sums[0]:.6g} and {self.sums[1]:.6g}) and the outputs do "
            f"not: {why}. Compare outputs with the source, not sums with each other."
        )


def run_block(case: BlockCase) -> BlockResult:
    """Make the source, port it, run both blocks, and judge; cached by recipe.

    Raises:
        PortingError: a size or name of the recipe is out of range, or the fault does not fit.

    >>> run_block(BlockCase()).verdict.kind, run_block(BlockCase(fault="attn_skipped")).first.name
    ('exact', 'q')
    """
    return _judged(resolve(case))


def faults_for(case: BlockCase) -> list[Fault]:
    """The faults that fit a case, in the order of a menu.

    >>> [f.name for f in faults_for(BlockCase())][:2]
    ['bias_skipped', 'kernel_skipped']
    """
    port = right_port(resolve(case))
    return [fault for fault in BLOCK_FAULTS.values() if fault.fits(port)]


def right_port(case: BlockCase) -> Port:
    """The right port of a resolved case."""
    source = SOURCES[case.source]
    config = BlockConfig(case.num_heads, case.d_model, case.d_ff, source.activation, source.epsilon)
    return Port(
        port_leaves(source.table, tensors_of(case)),
        _target_init(case),
        {**asdict(config), "packed": source.packed},
        layer="EncoderBlock",
    )


def _target_init(case: BlockCase) -> Callable[[], Arrays]:
    """What the target of the port holds before it: its own init, from seed + 1."""
    make = init_leaves if SOURCES[case.source].packed else _nnx_init
    return lambda: make(case.d_model, case.d_ff, case.seed + 1)


@functools.lru_cache(16)
def _nnx_init(d_model: int, d_ff: int, seed: int) -> Arrays:
    block = NNXEncoderBlock(1, d_model, d_ff, rngs=nnx.Rngs(seed))
    made = leaves_of(block)
    return {path: np.asarray(made[attribute]) for path, attribute in LINEN_TO_NNX.items()}


def ports_of(case: BlockCase) -> tuple[Fault | None, Port, Port]:
    """The fault of a resolved case, the right port, and the port that has the fault.

    Raises:
        ArgumentError: there is no such fault, or it cannot happen here.
    """
    right = right_port(case)
    if not case.fault:
        return None, right, right
    if case.fault not in BLOCK_FAULTS:
        known = ", ".join(BLOCK_FAULTS)
        raise ArgumentError(f"There is no fault {case.fault!r}. Use one of {known}.")
    fault = BLOCK_FAULTS[case.fault]
    if not fault.fits(right):
        raise ArgumentError(
            f"The fault {fault.name!r} ({fault.title}) cannot happen to this source and these "
            f"sizes ({SOURCES[case.source].title}). Choose another fault or source."
        )
    return fault, right, fault.inject(right)


def block_config(port: Port) -> BlockConfig:
    """The constants that a port runs with."""
    return BlockConfig(**{key: value for key, value in port.config.items() if key != "packed"})


@functools.lru_cache(RESULTS)
def _judged(case: BlockCase) -> BlockResult:
    return judge(case)


def judge(case: BlockCase) -> BlockResult:
    """`run_block` of a resolved case, computed anew."""
    source = tensors_of(case)
    fault, right, port = ports_of(case)
    x = input_of(case)
    # A PyTorch layer is ported into Linen first, so both blocks hold the fault.
    linen = port if SOURCES[case.source].packed else right
    stages: tuple[Stage, ...] = ()
    sums, agree, crash = (np.nan, np.nan), False, ""
    try:
        runs = (
            run_linen(block_config(linen), linen.leaves, x),
            run_nnx(block_config(port), port.leaves, x),
        )
        stages = compare_stages(reference_of(case, source), x, *runs)
        sums, agree = _sums(stages[-1])
    except (flax_errors.FlaxError, CoverageError) as error:
        crash = str(error)
    rows = leaf_rows(SOURCES[case.source].table, source, right, port)
    verdict = verdict_of(case, fault, stages, rows, crash)
    arrays = (source, dict(right.leaves), dict(port.leaves))
    for array in (array for each in arrays for array in each.values()):
        array.setflags(write=False)
    return BlockResult(case, fault, *arrays, rows, stages, sums, agree, verdict)


def _sums(output: Stage) -> tuple[tuple[float, float], bool]:
    """The sums of both outputs, and whether rounding explains their difference."""
    sums = float(output.nnx.single.sum()), float(output.linen.single.sum())
    magnitude = np.abs(output.linen.double).sum()
    # n terms in the sum, and each output has already been rounded on its way.
    rounded = output.nnx.noise + output.linen.noise
    size = output.linen.double.size
    bound = float(rounding_bound(magnitude, size, magnitude)) + size * rounded
    return sums, abs(sums[0] - sums[1]) <= bound
