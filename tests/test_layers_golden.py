"""Every row against real PyTorch: the reference, Linen and NNX, and the round trip."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from porting.errors import UnsupportedError
from porting.layers import (
    LAYERS,
    compare_layer,
    port_layer,
    run_layer,
    unport_layer,
)
from porting.tree import flatten

FOLDER = Path(__file__).parent / "golden" / "layers"


@dataclass(frozen=True)
class Case:
    """One configuration that real PyTorch ran."""

    family: str
    index: int
    name: str
    config: dict[str, Any]
    state: dict[str, np.ndarray]
    inputs: tuple[np.ndarray, ...]
    out32: np.ndarray
    out64: np.ndarray

    @property
    def label(self) -> str:
        return f"{self.family}-{self.index}-{self.name}"


@cache
def cases() -> tuple[Case, ...]:
    """Every case of every family; callers leave the arrays as they are."""
    return tuple(case for path in sorted(FOLDER.glob("*.npz")) for case in _read(path))


def _read(path: Path) -> list[Case]:
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(arrays.pop("about").tobytes())
    found = []
    for index, case in enumerate(about["cases"]):
        own = {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{index}/")}
        parts: dict[str, dict[str, np.ndarray]] = {"state": {}, "in": {}, "call": {}}
        for key, array in own.items():
            kind, _, rest = key.partition("/")
            if rest:
                parts[kind][rest] = array
        config = case["config"] | parts["call"]
        inputs = tuple(parts["in"][str(i)] for i in range(len(parts["in"])))
        found.append(
            Case(
                path.stem,
                index,
                case["name"],
                config,
                parts["state"],
                inputs,
                own["out32"],
                own["out64"],
            )
        )
    return found


CASES = pytest.mark.parametrize("case", cases(), ids=lambda case: case.label)


def nnx_cannot(case: Case) -> bool:
    """`nnx.GRUCell` has no bias on the hidden side."""
    return case.name == "GRU" and case.config.get("bias", True)


@CASES
def test_the_reference_is_torch_in_float64(case: Case) -> None:
    out = run_layer(case.name, case.state, case.inputs, api="reference", **case.config)
    assert out.shape == case.out64.shape
    scale = np.abs(case.out64).max()
    assert np.abs(out - case.out64).max() <= 1e-12 * scale


@CASES
def test_linen_is_within_rounding(case: Case) -> None:
    verdict = compare_layer(case.name, case.state, case.inputs, **case.config)
    assert verdict.reference.shape == case.out64.shape
    assert verdict.within


@CASES
def test_nnx_is_within_rounding(case: Case) -> None:
    if nnx_cannot(case):
        with pytest.raises(UnsupportedError, match=r"nnx\.GRUCell has no bias"):
            compare_layer(case.name, case.state, case.inputs, api="nnx", **case.config)
        return
    assert compare_layer(case.name, case.state, case.inputs, api="nnx", **case.config).within


@CASES
def test_the_round_trip(case: Case) -> None:
    layer = LAYERS[case.name]
    variables = port_layer(case.name, case.state, **case.config)
    back = unport_layer(case.name, variables, **case.config)
    kept = {k: a for k, a in case.state.items() if k not in layer.ignored}
    if not layer.loses:
        assert back.keys() == kept.keys()
        assert all(back[k].dtype == a.dtype for k, a in kept.items())
        assert all(np.array_equal(back[k], a) for k, a in kept.items())
    again, first = flatten(port_layer(case.name, back, **case.config)), flatten(variables)
    assert again.keys() == first.keys()
    assert all(np.array_equal(again[path], leaf) for path, leaf in first.items())


@CASES
def test_the_leaves_are_those_of_the_linen_module(case: Case) -> None:
    from porting.layers import settled
    from porting.layers.run import prepare_inputs

    layer, _, c = settled(case.name, case.state, case.config, "linen")
    inputs = prepare_inputs(layer, case.inputs, c)
    moved = [layer.into(x, c) for x in inputs]
    made = jax.eval_shape(lambda: layer.linen(c).init(jax.random.key(0), *moved))
    ported = flatten(port_layer(case.name, case.state, **case.config))
    assert {k: v.shape for k, v in flatten(made).items()} == {k: v.shape for k, v in ported.items()}
    assert all(leaf.flags.c_contiguous for leaf in ported.values())


def test_every_row_has_golden_cases() -> None:
    assert {case.name for case in cases()} == set(LAYERS)
