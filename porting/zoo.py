"""One layer of the zoo, ported with or without a fault, run on a probe, and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from porting.checks import PROBES, STATES
from porting.checks.bench import Bench
from porting.checks.fresh import fresh_state
from porting.checks.layer_bench import layer_bench
from porting.checks.settings import SETTINGS
from porting.compare import Comparison, NetworkComparison, compare
from porting.errors import ArgumentError, number_of
from porting.faults import Fault, Port, checked, fitting
from porting.layers import Layer, layer_named
from porting.leaves import Leaf
from porting.limits import seed as checked_seed
from porting.options import parse_options, write_options
from porting.verdict import Verdict, percent

RESULTS = 16  #: results that are kept


@dataclass(frozen=True)
class ZooCase:
    """The recipe of one picture of a layer.

    Attributes:
        layer: a name in `LAYERS`.
        options: of the layer, as `parse_options` reads them; "" for those of the matrix.
        fault: a name in `FAULTS`, or "" for the right port.
        probe: a name in `PROBES`.
        state: "random" or "fresh" leaves.
        seed: of the leaves and the input.
    """

    layer: str = "Conv2d"
    options: str = ""
    fault: str = "conv_axes_reversed"
    probe: str = "random_normal"
    state: str = "random"
    seed: int = 0


@dataclass(frozen=True)
class ZooResult:
    """A layer's port, run and judged. Arrays are shared: do not write.

    Attributes:
        case: the recipe.
        layer: its row.
        config: the complete options.
        state: the PyTorch state_dict.
        table: the leaves and their rules.
        right, port: the right port, and the one with the fault.
        fault: what was put in, or `None`.
        comparison: the Linen output beside the reference; `None` after a crash.
        verdict: what happened, in words.
    """

    case: ZooCase
    layer: Layer
    config: Mapping[str, Any]
    state: Mapping[str, np.ndarray]
    table: tuple[Leaf, ...]
    right: Port
    port: Port
    fault: Fault | None
    comparison: Comparison | NetworkComparison | None
    verdict: Verdict


def options_of(layer: str) -> str:
    """The options that a layer starts with, as text.

    >>> options_of("Linear")
    'in_features=7, out_features=7'
    """
    row = layer_named(layer)
    return write_options({**row.example, **SETTINGS.get(layer, {})})


def faults_of(case: ZooCase) -> tuple[Fault, ...]:
    """The faults that fit a case.

    >>> "kernel_untransposed" in [f.name for f in faults_of(ZooCase("Linear"))]
    True
    """
    return fitting(_bench(case.layer, case.options, case.seed).ports[case.state])


def probes_of(case: ZooCase) -> tuple[str, ...]:
    """The names of the probes that a case's layer can be run on.

    >>> "constant_image" in probes_of(ZooCase("Linear"))
    False
    """
    inputs = _bench(case.layer, case.options, case.seed).inputs
    return tuple(name for name in PROBES if inputs[name] is not None)


def leaves_of(case: ZooCase) -> tuple[str, ...]:
    """The paths of a case's leaves.

    >>> leaves_of(ZooCase("Linear"))
    ('params/kernel', 'params/bias')
    """
    row = layer_named(case.layer)
    given = {**row.example, **SETTINGS.get(case.layer, {}), **parse_options(case.options)}
    return tuple(leaf.path for leaf in row.leaves(row.example_config(**given)) or ())


@lru_cache(RESULTS)
def _bench(layer: str, options: str, seed: int) -> Bench:
    return layer_bench(layer, tuple(PROBES), checked_seed("seed", seed), parse_options(options))


@lru_cache(RESULTS)
def run_zoo(case: ZooCase) -> ZooResult:
    """Port the layer with the case's fault, run Linen, and judge; cached by recipe.

    Raises:
        PortingError: a name or an option is out of range, or the fault does not fit.

    >>> run_zoo(ZooCase("Linear", fault="")).verdict.kind
    'exact'
    """
    if case.probe not in PROBES or case.state not in STATES:
        raise ArgumentError(
            f"Choose a probe of {', '.join(PROBES)} and a state of {', '.join(STATES)}."
        )
    bench = _bench(case.layer, case.options, case.seed)
    if bench.inputs[case.probe] is None:
        raise ArgumentError(
            f"{case.layer} has no such input as {PROBES[case.probe].title.lower()}. "
            "Choose another probe."
        )
    layer, right = layer_named(case.layer), bench.ports[case.state]
    fault = checked(case.fault, right) if case.fault else None
    port = fault.inject(right) if fault else right
    comparison, crash = _compared(bench, case, fault, port)
    verdict = _verdict(fault, right, port, comparison, crash)
    c = layer.example_config(**bench.config)
    make = fresh_state if case.state == "fresh" else _example
    state = make(layer, c, case.seed, bench.config)
    table = tuple(layer.leaves(c) or ())
    return ZooResult(
        case, layer, bench.config, state, table, right, port, fault, comparison, verdict
    )


def _example(layer: Layer, _: Any, seed: int, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return layer.example_state(seed, **given)


def _compared(
    bench: Bench, case: ZooCase, fault: Fault | None, port: Port
) -> tuple[Comparison | NetworkComparison | None, str]:
    """The comparison, or what Flax raised (or the shape that came out) instead."""
    reference = bench.reference(case.state, case.probe)
    bound = bench.bound(case.state, case.probe)
    wide = bench.wide[case.state]
    try:
        single = bench.run(port, case.probe, np.dtype(np.float32))
        if single.shape != reference.shape:
            return None, f"The output has shape {single.shape}, the source's has {reference.shape}."
        if bound is not None:
            return compare(reference, single, bound), ""
        # joins (a sum, a fused norm) are made in float64 too, so that only rounding shrinks
        double = bench.run(fault.inject(wide) if fault else wide, case.probe, np.dtype(np.float64))
        return NetworkComparison(reference, single, double), ""
    except Exception as error:  # whatever a wrong port makes Flax raise is the result
        return None, f"{type(error).__name__}: {error}"


def same_leaves(right: Port, port: Port) -> dict[str, bool]:
    """Whether each leaf of a port is the right one, bit for bit.

    >>> port = Port({"bias": np.zeros(2)}, dict); same_leaves(port, port)
    {'bias': True}
    """
    return {
        path: path in port.leaves and np.array_equal(leaf, port.leaves[path], equal_nan=True)
        for path, leaf in right.leaves.items()
    }


def _verdict(fault: Fault | None, right: Port, port: Port, comparison: Any, crash: str) -> Verdict:
    why = fault.why if fault else "The port is right; the layer cannot run on this input."
    if crash.startswith("The output has shape"):
        return Verdict("values", f"{crash} {why}", fault.fix if fault else "")
    if crash:
        return Verdict("crash", f"Flax does not run it. {why}", fault.fix if fault else "", crash)
    how = _amount(comparison)
    if fault is None:
        kind, words = (
            ("exact", "Every output is") if comparison.within else ("values", "Not every output is")
        )
        return Verdict(kind, f"{words} within rounding. {how}")
    blame = _blame(right, port)
    if comparison.within:
        hidden = fault.hidden(right) or fault.symptom
        return Verdict(
            "unsure", f"{fault.why} No output shows it here. {blame} {hidden}", fault.fix
        )
    return Verdict(fault.kind, f"Shapes agree. {how} {blame} {fault.why}", fault.fix)


def _blame(right: Port, port: Port) -> str:
    wrong = [path for path, same in same_leaves(right, port).items() if not same]
    if not wrong:
        return "Every leaf is right; the fault is in the forward pass."
    verb = "differs" if len(wrong) == 1 else "differ"
    return f"{number_of(len(wrong), 'leaf')} {verb}: {', '.join(wrong[:4])}."


def _amount(comparison: Comparison | NetworkComparison) -> str:
    if isinstance(comparison, NetworkComparison):
        verb = "shrinks to" if comparison.within else "stays"
        return (
            f"Largest difference {comparison.d32:.1e}; in float64 it {verb} {comparison.d64:.1e}."
        )
    if comparison.within:
        return f"Largest difference {comparison.largest:.1e}, {comparison.worst:.2g} of what rounding allows."
    over, size = comparison.over, comparison.ratio.size
    return (
        f"{over} of {size} outputs ({percent(over, size)}) are further off than rounding can explain, "
        f"by up to {comparison.worst:.1e} times."
    )
