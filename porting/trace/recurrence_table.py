"""The rows of the table that are about recurrent layers, and what they need."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from porting.trace.functions import Leaves
from porting.trace.questions import Problem, Variant
from porting.trace.recurrence import BACK, GATES, LEFT, ONWARD, Cell, cell_of, recurrence

KIND = "recurrent"
BESIDE = " beside "  #: joins the cells of two directions
TIME_FIRST = 8  #: the largest batch that may have been taken for time
_LENGTHS = "lengths "  #: begins the names of operands that count steps


def all_cells(leaves: Leaves) -> dict[str, Cell]:
    """Every cell among leaves by path: a group that is called as the gates of one are.

    >>> leaves = {f"rnn/cell/{s}/kernel": np.ones((2, 2)) for s in "ih"}
    >>> list(all_cells(leaves))
    ['rnn/cell']
    """
    groups: dict[str, dict[str, np.ndarray]] = {}
    for path, leaf in leaves.items():
        *owner, part, name = path.split("/") if path.count("/") > 1 else ("", "", "")
        if name in ("kernel", "bias"):
            groups.setdefault("/".join(owner), {})[f"{part}/{name}"] = np.asarray(leaf, np.float64)
    found = {owner: cell_of(group) for owner, group in groups.items()}
    return {owner: cell for owner, cell in found.items() if cell is not None}


def fitting_cells(leaves: Leaves, inputs: int, width: int) -> dict[str, Cell]:
    """The cells that take that many features and give that many, alone or two together."""
    found = {path: cell for path, cell in all_cells(leaves).items() if cell.wi.shape[0] == inputs}
    both = {p: c for p, c in found.items() if 2 * c.wh.shape[0] == width}
    return {p: c for p, c in found.items() if c.wh.shape[0] == width} or both


def _kind(problem: Problem) -> str:
    return next(iter(all_cells(problem.leaves).values())).kind


def _two(problem: Problem) -> bool:
    return next(iter(all_cells(problem.leaves).values())).wh.shape[0] < problem.target.shape[-1]


def _which(problem: Problem) -> Sequence[str]:
    """The cells, or two of them: in the order of their names, which begins with the forward one."""
    paths = sorted(all_cells(problem.leaves), key=lambda p: ("back" in p or "bw" in p, p))
    if not _two(problem):
        return paths
    pairs = itertools.product(paths, paths)
    return [BESIDE.join(two) for two in sorted(pairs, key=lambda two: two[0] == two[1])]


def _directions(problem: Problem) -> Sequence[str]:
    if problem.operands["x"].shape[1] == 1:
        return (ONWARD,)
    if not _two(problem):
        return (ONWARD, BACK, LEFT)
    pairs = ((ONWARD, BACK), (ONWARD, LEFT), (ONWARD, ONWARD), (BACK, ONWARD), (LEFT, LEFT))
    return tuple(BESIDE.join(pair) for pair in pairs)


def _joins(problem: Problem) -> Sequence[str]:
    joins = ("the first before the second", "the second before the first", "the first twice")
    return joins if _two(problem) else joins[:1]


def _orders(problem: Problem) -> Sequence[str]:
    gates = "".join(GATES[_kind(problem)])
    return ["".join(some) for some in itertools.permutations(gates)]


def _only(kind: str, *values: object) -> object:
    return lambda problem: values if _kind(problem) == kind else values[:1]


def _axes(problem: Problem) -> Sequence[str]:
    batch, steps = problem.operands["x"].shape[:2]
    return ("the second axis", "the first axis")[: 1 + (batch <= TIME_FIRST and steps > 1)]


def _lengths(problem: Problem) -> Sequence[str]:
    names = [name for name in problem.operands if name.startswith(_LENGTHS)]
    return ("the whole length", *(f"{n}{end}" for n in names for end in ("", ", zeros behind")))


def _carries(problem: Problem) -> Sequence[str]:
    return ("zeros", "ones") if not {"h", "c"} & set(problem.operands) else ("as given", "zeros")


RECURRENT = tuple(
    Variant(KIND, *row)
    for row in (
        ("cells", "which cell is read", _which),
        ("lengths", "where the sequences end", _lengths),
        ("direction", "the direction", _directions),
        ("join", "how the two directions are joined", _joins),
        ("activation", "the activation", ("tanh", "ReLU", "no activation", "SiLU")),
        ("gate", "the activation of the gates", ("sigmoid", "hard sigmoid", "tanh")),
        ("reset", "where the reset gate acts", _only("GRU", "after its kernel", "before its kernel")),
        ("carry", "the state at the first step", _carries),
        ("time", "the axis of time", _axes),
        ("output", "the activation of the cell state", _only("LSTM", "activated", "as it is")),
        ("update", "the update gate, turned round", _only("GRU", "z keeps the old state", "z takes the new state")),
        ("forget", "what is added to the forget gate", _only("LSTM", 0.0, 1.0, -1.0)),
        ("order", "the order of the gates", _orders, "weight"),
    )
)  # fmt: skip


def recurrent(
    problem: Problem, cells: str, direction: str, lengths: str, time: str, carry: str, join: str, **choice: object
) -> np.ndarray:  # fmt: skip
    """The output of a question about a recurrent layer with one choice of values."""
    known = all_cells(problem.leaves)
    x, ends = timed(problem.operands["x"], time), ends_of(problem, lengths)
    paths, ways = cells.split(BESIDE), direction.split(BESIDE)
    parts = [
        recurrence(x, known[path], way, lengths=ends, carry=begins(problem, carry), **choice)  # type: ignore[arg-type]
        for path, way in zip(paths, ways, strict=True)
    ]
    parts = parts[::-1] if join == "the second before the first" else parts
    parts = [parts[0]] * len(parts) if join == "the first twice" else parts
    y = np.concatenate(parts, -1)
    if "zeros" in lengths and ends is not None:
        y = y * (np.arange(y.shape[1])[None] < ends[:, None])[..., None]
    y = timed(y, time)
    return y if problem.target.ndim == 3 else y[:, -1]


def timed(array: np.ndarray, time: str) -> np.ndarray:
    """An array with its axis of time second, or put back."""
    return array if time == "the second axis" else array.swapaxes(0, 1)


def ends_of(problem: Problem, lengths: str) -> np.ndarray | None:
    """How many steps of each sequence count."""
    return problem.operands.get(lengths.removesuffix(", zeros behind"))


def begins(problem: Problem, carry: str, rows: Any = slice(None)) -> Any:
    """What the states begin with: a number, or arrays by name."""
    given = {n: problem.operands[n][rows] for n in "hc" if n in problem.operands}
    return given if carry == "as given" else float(carry == "ones")


def counts(arrays: Mapping[str, np.ndarray], batch: int, steps: int) -> dict[str, np.ndarray]:
    """The arrays that count the steps of each sequence, or mark them.

    >>> counts({"n": np.array([2, 1]), "x": np.ones(2)}, 2, 3)
    {'lengths n': array([2, 1])}
    """
    found = {}
    for name, array in arrays.items():
        if array.shape == (batch, steps) and np.all((array == 0) | (array == 1)):
            array = array.astype(int).sum(1)
        whole = array.dtype.kind in "iu" and array.shape == (batch,)
        if whole and np.all((array > 0) & (array <= steps)) and np.any(array < steps):
            found[f"{_LENGTHS}{name}"] = array
    return found
