"""LSTM, GRU and plain recurrences as float64 NumPy functions, with what ports get wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from porting.trace.functions import ACTIVATIONS, Leaves

#: gates in the order of PyTorch's rows, by how many there are
GATES = {"LSTM": "ifgo", "GRU": "rzn", "RNN": ("",)}
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sigmoid": ACTIVATIONS["sigmoid"],
    "tanh": np.tanh,
    "hard sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "ReLU": ACTIVATIONS["ReLU"],
    "no activation": ACTIVATIONS["no activation"],
    "SiLU": ACTIVATIONS["SiLU"],
}
ONWARD, BACK, LEFT = "forwards", "backwards, put back in order", "backwards, left in that order"


@dataclass(frozen=True)
class Cell:
    """The leaves of one cell: kernels of (in, gates, hidden), biases of (gates, hidden).

    Attributes:
        kind: a key of `GATES`.
    """

    kind: str
    wi: np.ndarray
    wh: np.ndarray
    bi: np.ndarray
    bh: np.ndarray


def cell_of(leaves: Leaves) -> Cell | None:
    """The cell that these leaves are, by their names; None where they are none.

    >>> one = {f"{s}{g}/kernel": np.ones((2, 2)) for s in "ih" for g in "ifgo"}
    >>> cell_of(one).wi.shape, cell_of({"kernel": np.ones((2, 2))}) is None
    ((2, 4, 2), True)
    """
    named = {name.replace("if_/", "if/"): array for name, array in leaves.items()}
    for kind, gates in GATES.items():
        sides = [[f"{side}{gate}" for gate in gates] for side in "ih"]
        if {f"{part}/kernel" for side in sides for part in side} <= set(named):
            found = [_stacked(named, side) for side in sides]
            return Cell(kind, found[0][0], found[1][0], found[0][1], found[1][1])
    wide = [np.asarray(named.get(f"dense_{side}/kernel", np.zeros(0))) for side in "ih"]
    kinds = {4: "LSTM", 3: "GRU", 1: "RNN"}
    if wide[1].ndim != 2 or wide[0].ndim != 2 or wide[1].shape[1] % wide[1].shape[0]:
        return None
    hidden = wide[1].shape[0]
    made_of = wide[1].shape[1] // hidden
    if made_of not in kinds:
        return None
    none = np.zeros(wide[1].shape[1])
    biases = [np.reshape(named.get(f"dense_{s}/bias", none), (-1, hidden)) for s in "ih"]
    wi, wh = (w.reshape(len(w), -1, hidden) for w in wide)
    return Cell(kinds[made_of], wi, wh, *biases)


def _stacked(named: Leaves, parts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    kernel = np.stack([named[f"{part}/kernel"] for part in parts], 1)
    none = np.zeros(kernel.shape[-1])
    return kernel, np.stack([named.get(f"{part}/bias", none) for part in parts])


def recurrence(
    x: np.ndarray,
    cell: Cell,
    direction: str = ONWARD,
    order: str = "",
    gate: str = "sigmoid",
    activation: str = "tanh",
    output: str = "activated",
    reset: str = "after its kernel",
    update: str = "z keeps the old state",
    forget: float = 0.0,
    carry: float | Mapping[str, np.ndarray] = 0.0,
    lengths: np.ndarray | None = None,
    steps: int | None = None,
) -> np.ndarray:
    """The hidden states of (batch, time, hidden).

    Args:
        x: the inputs, of (batch, time, in).
        cell: the leaves.
        direction: `ONWARD`, `BACK` or `LEFT`.
        order: which block of the leaves is which gate; "" for the names they have.
        gate, activation: keys of `FUNCTIONS`.
        output: whether the cell state of an LSTM is `activated` or goes out `as it is`.
        reset: whether the reset gate of a GRU acts `after its kernel` or `before`.
        update: `z keeps the old state`, or `z takes the new state`.
        forget: what is added to the forget gate.
        carry: what `h` and `c` begin with.
        lengths: how many steps of each sequence count.
        steps: how many steps are run; their states stand in the order in which they ran.

    >>> cell = Cell("RNN", np.ones((1, 1, 1)), np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))
    >>> recurrence(np.ones((1, 2, 1)), cell, activation="ReLU").ravel().tolist()
    [1.0, 1.0]
    """
    gates = GATES[cell.kind]
    at = [(order or "".join(gates)).index(g) for g in gates]
    wh, bh = cell.wh.reshape(len(cell.wh), -1), cell.bh[at]
    x = (x if direction == ONWARD else turned(x, lengths))[:, :steps]
    ins = np.tensordot(x, cell.wi, 1)[..., at, :] + cell.bi[at]
    begin = carry if isinstance(carry, Mapping) else {}
    value = 0.0 if isinstance(carry, Mapping) else carry
    h = begin.get("h", np.full((len(x), cell.wh.shape[-1]), value))
    c = begin.get("c", np.full((len(x), cell.wh.shape[-1]), value))
    sigma, act = FUNCTIONS[gate], FUNCTIONS[activation]
    states = []
    for step in range(x.shape[1]):
        outs = (h @ wh).reshape(len(h), len(gates), -1)[:, at] + bh
        both = ins[:, step] + outs
        if cell.kind == "LSTM":
            c = sigma(both[:, 1] + forget) * c + sigma(both[:, 0]) * act(both[:, 2])
            h = sigma(both[:, 3]) * (act(c) if output == "activated" else c)
        elif cell.kind == "GRU":
            r, z = sigma(both[:, 0]), sigma(both[:, 1])
            late = (
                r * outs[:, 2]
                if reset == "after its kernel"
                else (r * h) @ cell.wh[:, at[2]] + bh[2]
            )
            n = act(ins[:, step, 2] + late)
            z = z if update == "z keeps the old state" else 1 - z
            h = (1 - z) * n + z * h
        else:
            h = act(both[:, 0])
        states.append(h)
    y = np.stack(states, 1)
    return turned(y, lengths) if direction == BACK and steps is None else y


def turned(x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Sequences backwards; with lengths each within its own, what follows stays.

    >>> turned(np.arange(3.0).reshape(1, 3, 1), np.array([2])).ravel().tolist()
    [1.0, 0.0, 2.0]
    """
    if lengths is None:
        return x[:, ::-1]
    at, ends = np.arange(x.shape[1])[None], lengths[:, None]
    at = np.where(at < ends, ends - 1 - at, at)
    return np.take_along_axis(x, at[..., None], 1)
