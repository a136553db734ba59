"""`check_matrix`: every fault against every check, every probe and both states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from porting import limits
from porting.checks.bench import Bench
from porting.checks.columns import CHECKS
from porting.checks.filler import Filler
from porting.checks.layer_bench import layer_bench
from porting.checks.matrix import Cell, CheckMatrix
from porting.checks.probes import PROBES
from porting.errors import ArgumentError
from porting.faults import checked, fitting

#: Matrices that are kept.
MATRICES = 128
BLOCK = "EncoderBlock"


def check_matrix(
    target: str,
    *,
    faults: Iterable[str] | None = None,
    checks: Iterable[str] | None = None,
    probes: Iterable[str] | None = None,
    seed: int = 0,
    **config: Any,
) -> CheckMatrix:
    """Mutation testing for port checks: which check sees which fault.

    Every fault that fits is put into a right port, and every check is asked whether it
    notices, on every probe, with the leaves of a fresh layer and with random ones.

    Args:
        target: a name in `LAYERS`, or `"EncoderBlock"`.
        faults: names of `FAULTS`; all that fit, if left out.
        checks: names of `CHECKS`; all, if left out.
        probes: names of `PROBES`; all, if left out.
        seed: of the leaves and the inputs.
        config: options of the layer, on top of a small configuration in which faults are
            silent (square kernels, stride 2, a causal mask); for the block those of
            `BlockCase` (`source`, `d_model`, `num_heads`, `d_ff`, `length`).

    Returns:
        The matrix; made once for equal arguments.

    Raises:
        ArgumentError: an unknown name, a fault that does not fit, or options that do not.
        LimitError: a size is too large.

    >>> matrix = check_matrix("Linear", probes=["random_normal"])
    >>> matrix.cell("kernel_reshaped", "shapes").status
    'missed'
    >>> matrix.cell("kernel_reshaped", "bound").status
    'caught'
    """
    options = tuple(sorted((key, _kept(value)) for key, value in config.items()))
    seed = limits.seed("seed", seed)
    names = (_chosen("check", checks, CHECKS), _chosen("probe", probes, PROBES))
    wanted = None if faults is None else tuple(faults)
    return _matrix(target, wanted, *names, seed, options)


def _kept(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raise ArgumentError("A matrix takes no masks: pass is_causal=True.")
    return tuple(map(_kept, value)) if isinstance(value, (list, tuple)) else value


def _chosen(kind: str, names: Iterable[str] | None, table: Mapping[str, Any]) -> tuple[str, ...]:
    if names is None:
        return tuple(table)
    chosen = tuple(names)
    unknown = [name for name in chosen if name not in table]
    if unknown:
        raise ArgumentError(f"There is no {kind} {unknown[0]!r}. Use one of {', '.join(table)}.")
    return tuple(name for name in table if name in chosen)


@lru_cache(MATRICES)
def _matrix(
    target: str,
    faults: tuple[str, ...] | None,
    checks: tuple[str, ...],
    probes: tuple[str, ...],
    seed: int,
    config: tuple[tuple[str, Any], ...],
) -> CheckMatrix:
    bench = _bench(target, probes, seed, dict(config))
    right = bench.ports["random"]
    rows = fitting(right) if faults is None else tuple(checked(name, right) for name in faults)
    cells: dict[tuple[str, str, str, str], Cell] = {}
    filler = Filler(bench, checks, probes)
    for fault in (None, *rows):
        cells |= filler.row(fault)
    return CheckMatrix(
        target,
        tuple(bench.config.items()),
        rows,
        tuple(CHECKS[name] for name in checks),
        tuple(PROBES[name] for name in probes),
        cells,
    )


def _bench(target: str, probes: tuple[str, ...], seed: int, config: dict[str, Any]) -> Bench:
    if target == BLOCK:
        from porting.checks.block_bench import block_bench

        return block_bench(probes, seed, config)
    return layer_bench(target, probes, seed, config)
