"""The bench of the encoder block: the NNX block beside the reference of its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from porting.block import LINEN_TO_NNX
from porting.block_case import BlockCase, reference_of, resolve, tensors_of
from porting.block_result import block_config, right_port
from porting.block_stages import COMPILED, BlockConfig, abstract_nnx
from porting.checks.bench import Bench, probe_inputs, within_budget
from porting.errors import ArgumentError
from porting.faults import Leaves, Port
from porting.layers import Input
from porting.tree import check_cover, nnx_variables

#: A PyTorch layer whose d_ff is d_model: every kernel is square, so every fault is silent.
SIZES = {"source": "torch-init", "d_model": 8, "num_heads": 2, "d_ff": 8}
#: Fields of a recipe that the matrix goes through itself.
_OWN = {"seed", "data_seed", "fault", "randomise", "length"}


@lru_cache(COMPILED)
def _compiled(config: BlockConfig) -> Callable[..., Any]:
    """The output of the NNX block, its leaves by attribute path."""
    import jax
    from flax import nnx

    graph, abstract = abstract_nnx(config)

    def run(values: Mapping[str, Any], x: Any) -> Any:
        filled = [
            (path, variable.replace(values["/".join(map(str, path))]))
            for path, variable in nnx.to_flat_state(abstract)
        ]
        block = nnx.merge(graph, nnx.from_flat_state(filled))
        return block.stages(x, config.residual)["output"]

    return jax.jit(run)


def _output(config: BlockConfig, leaves: Leaves, x: np.ndarray, precision: np.dtype) -> np.ndarray:
    """The NNX block that holds `leaves` (by Linen path).

    Raises:
        CoverageError: a leaf does not fit.
    """
    import jax

    values = {LINEN_TO_NNX[path]: leaf for path, leaf in leaves.items()}
    _, abstract = abstract_nnx(config)
    expected = {path: v.get_value() for path, v in nnx_variables(abstract).items()}
    check_cover(expected, values)
    with jax.enable_x64(precision == np.float64):
        wide = {path: np.asarray(leaf, precision) for path, leaf in values.items()}
        return np.asarray(_compiled(config)(wide, x.astype(precision)))


def block_bench(probes: tuple[str, ...], seed: int, config: Mapping[str, Any]) -> Bench:
    """The bench of the encoder block.

    Args:
        probes: names of the probes.
        seed: of the source, the leaves and the input.
        config: fields of `BlockCase` on top of `SIZES`.

    Raises:
        ArgumentError: an unknown field, or sizes that do not fit.
    """
    known = {field.name for field in fields(BlockCase)} - _OWN
    unknown = sorted(set(config) - known)
    if unknown:
        raise ArgumentError(
            f"EncoderBlock does not take {', '.join(unknown)}. It takes {', '.join(sorted(known))}."
        )
    given = {**SIZES, **config}
    case = resolve(BlockCase(**given, seed=seed, data_seed=seed))
    cases = {"fresh": case, "random": resolve(replace(case, randomise=True))}
    specs = (Input("x", ("time", case.d_model)),)
    inputs = probe_inputs(specs, probes, seed)

    def run(port: Port, probe: str, precision: np.dtype) -> np.ndarray:
        (x,) = inputs[probe] or ()
        return _output(block_config(port), port.leaves, x, precision)

    def reference(state: str, probe: str) -> np.ndarray:
        (x,) = inputs[probe] or ()
        return reference_of(cases[state], tensors_of(cases[state])).stages(x)["output"]

    within_budget({"weights": (4 * case.d_model + 2 * case.d_ff, case.d_model)})
    ports = {state: right_port(case) for state, case in cases.items()}
    return Bench(
        target="EncoderBlock",
        config=given,
        ports=ports,
        wide=ports,
        inputs=inputs,
        reference=reference,
        bound=lambda state, probe: None,
        run=run,
    )
