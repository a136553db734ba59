"""What a check of the encoder block cannot see: every fault, fresh and with random leaves.

At a fresh init all biases are zero and all scales one, so a port that forgot them writes
what the target holds anyway: the check passes and could not fail. A sum is blind to every
permutation of what it adds up. A comparison of leaves is blind to the forward pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from porting.block_case import SOURCES, BlockCase, resolve
from porting.block_faults import BLOCK_FAULTS
from porting.block_result import BlockResult, faults_for, judge
from porting.faults import Fault


@dataclass(frozen=True)
class Sight:
    """Which checks see one fault in one port.

    Attributes:
        sums: the sum of the NNX output differs from that of the Linen output.
        outputs: the NNX output differs from the source's by more than rounding.
        leaves: a leaf differs from the right one, bit for bit.
    """

    sums: bool
    outputs: bool
    leaves: bool


@dataclass(frozen=True)
class BlindSpot:
    """One fault, at a fresh init and with every leaf random.

    Attributes:
        fault: its row in the catalogue.
        fresh, randomised: what sees it; `None` where the fault cannot happen.
    """

    fault: Fault
    fresh: Sight | None
    randomised: Sight | None


@functools.lru_cache(len(SOURCES))
def blind_spots(source: str = "linen-init") -> tuple[BlindSpot, ...]:
    """Every fault against every check, on a small block of one source.

    A trained source has no fresh state; its row is that of a fresh PyTorch layer.

    >>> spot = {s.fault.name: s for s in blind_spots()}["bias_skipped"]
    >>> spot.fresh.outputs, spot.randomised.outputs
    (False, True)
    """
    case = resolve(BlockCase(source=source))
    if not SOURCES[source].fresh:
        case = resolve(BlockCase(source="torch-init"))
    fitting = {fault.name for fault in faults_for(case)}
    return tuple(
        BlindSpot(
            fault,
            *(
                _sight(judge(replace(case, fault=name, randomise=random)))
                if name in fitting
                else None
                for random in (False, True)
            ),
        )
        for name, fault in BLOCK_FAULTS.items()
    )


def _sight(result: BlockResult) -> Sight:
    crashed = result.verdict.kind == "crash"
    return Sight(
        sums=crashed or not result.sums_agree,
        outputs=crashed or not result.outputs_agree,
        leaves=any(not row.same for row in result.rows),
    )


def seen(spots: tuple[BlindSpot, ...], check: str, randomised: bool) -> tuple[int, int]:
    """How many of the faults that can happen a check sees, and how many there are.

    >>> caught, of = seen(blind_spots(), "outputs", randomised=False)
    >>> caught < of
    True
    """
    sights = [spot.randomised if randomised else spot.fresh for spot in spots]
    found = [getattr(sight, check) for sight in sights if sight is not None]
    return sum(found), len(found)
