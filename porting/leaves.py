"""`Leaf`: how one Flax leaf is made from the tensors of a source.

A port is a table of leaves. Each reads one or more source tensors, joins them, and
rearranges the result by a `Rule`. Joins are the only steps that compute (a sum of two
biases, a fused weight norm); everything else moves elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting.errors import CoverageError, PortingError, RuleError, number_of
from porting.layouts import Rule
from porting.tensors import array_of

Arrays = list[np.ndarray]
Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Join:
    """How several source tensors become one array before the rule is applied.

    Attributes:
        name: what a reader sees, and what a rules file holds.
        forward: source arrays -> one array.
        backward: that array and the shapes of the sources -> source arrays.
        loses: what cannot be had back, or "" when nothing is lost.
        constant: the array depends on the shapes of the sources only, so going back it is
            checked and gives nothing.
    """

    name: str
    forward: Callable[[Arrays], np.ndarray]
    backward: Callable[[np.ndarray, Shapes], Arrays]
    loses: str = ""
    constant: bool = False


def _split(array: np.ndarray, shapes: Shapes) -> Arrays:
    return np.split(array, np.cumsum([shape[0] for shape in shapes])[:-1])


def _unsum(array: np.ndarray, shapes: Shapes) -> Arrays:
    return [array, *(np.zeros(shape, array.dtype) for shape in shapes[1:])]


ONLY = Join("only", lambda arrays: arrays[0], lambda array, _: [array])
STACK = Join("stack", lambda arrays: np.stack(arrays), lambda array, _: list(array))
CONCAT = Join("concat", lambda arrays: np.concatenate(arrays), _split)
SUM = Join("sum", lambda a: sum(a[1:], a[0]), _unsum, "the sum does not tell its parts")
ONE_PLUS = Join(
    "one_plus",
    lambda arrays: arrays[0] + arrays[0].dtype.type(1),
    lambda array, _: [array - array.dtype.type(1)],
    "1 + w rounds away the last bits of a small w",
)
#: A bias that Flax always has, where the source has none: one zero for each row of the source.
ZEROS = Join(
    "zeros",
    lambda arrays: np.zeros(arrays[0].shape[:1], arrays[0].dtype),
    lambda array, _: [],
    constant=True,
)


def norm_except(array: np.ndarray, dim: int | None) -> np.ndarray:
    """The Euclidean norm over all axes but `dim` (`None`: over all), axes kept.

    The convention of `torch.norm_except_dim`, which weight norm uses.

    >>> norm_except(np.array([[3.0, 4.0], [6.0, 8.0]]), 0).tolist()
    [[5.0], [10.0]]
    """
    axes = tuple(a for a in range(array.ndim) if dim is None or a != dim % array.ndim)
    return np.sqrt(np.sum(np.square(array), axis=axes, keepdims=True, dtype=array.dtype))


def weight_norm(dim: int | None) -> Join:
    """The join of (g, v): `v · (g / ‖v‖)`, norms over all axes but `dim`.

    >>> weight_norm(0).forward([np.array([[2.0]]), np.array([[3.0, 4.0]])]).tolist()
    [[1.2000000000000002, 1.6]]
    """

    def fuse(arrays: Arrays) -> np.ndarray:
        magnitude, direction = arrays
        norm = norm_except(direction, dim)
        return direction * (magnitude.reshape(norm.shape) / norm)

    def part(array: np.ndarray, shapes: Shapes) -> Arrays:
        return [norm_except(array, dim).reshape(shapes[0]), array]

    return Join(f"weight_norm:{dim}", fuse, part, "the length of v is gone once g and v are fused")


def spectral_norm(dim: int) -> Join:
    """The join of (W, u, v): `W / (uᵀ W v)`, W as a matrix with rows along `dim`.

    What PyTorch does in eval mode, with the stored u and v.

    >>> spectral_norm(0).forward([np.eye(2) * 4, np.eye(2)[0], np.eye(2)[0]]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def fuse(arrays: Arrays) -> np.ndarray:
        weight, u, v = arrays
        matrix = np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)
        return weight / (u @ (matrix @ v))

    def part(array: np.ndarray, shapes: Shapes) -> Arrays:
        matrix = np.moveaxis(array, dim, 0).reshape(array.shape[dim], -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.argwhere(matrix * (1 / matrix) == 1)
        row, column = exact[0] if len(exact) else (0, 0)
        u, v = (np.zeros(shape, array.dtype) for shape in shapes[1:])
        u[row] = 1
        v[column] = 1 / matrix[row, column] if len(exact) else 1
        return [array, u, v]

    return Join(f"spectral_norm:{dim}", fuse, part, "σ is divided out and u and v are gone")


def join_named(name: str) -> Join:
    """The join that a rules file calls `name`.

    >>> join_named("sum") is SUM, join_named("weight_norm:2").name
    (True, 'weight_norm:2')
    """
    plain = {join.name: join for join in (ONLY, STACK, CONCAT, SUM, ONE_PLUS, ZEROS)}
    kind, _, dim = name.partition(":")
    if kind == "weight_norm" and re.fullmatch(r"-?\d|None", dim):
        return weight_norm(None if dim == "None" else int(dim))
    if kind == "spectral_norm" and re.fullmatch(r"-?\d", dim):
        return spectral_norm(int(dim))
    if name not in plain:
        raise RuleError(
            f"There is no join {name!r}. Use one of {', '.join(plain)}, weight_norm:0, spectral_norm:0."
        )
    return plain[name]


@dataclass(frozen=True)
class Leaf:
    """One row of a port.

    Attributes:
        path: where it goes: a '/'-joined Linen path or NNX attribute path.
        sources: the source keys that it reads, in the order of the join.
        rule: the rearrangement.
        join: how several sources become one array first.

    >>> kernel = Leaf("params/kernel", ("weight",), Rule("o i -> i o"))
    >>> kernel.apply({"weight": np.zeros((5, 3), np.float32)}).shape
    (3, 5)
    """

    path: str
    sources: tuple[str, ...]
    rule: Rule
    join: Join = ONLY

    def apply(self, source: Mapping[str, Any]) -> np.ndarray:
        """The leaf's array: a view of the source where the rule allows it.

        Raises:
            CoverageError: a source key is missing.
            RuleError: the rule does not fit the source's shape.
        """
        missing = [key for key in self.sources if key not in source]
        if missing:
            raise CoverageError(f"{self.path} needs {', '.join(missing)}, which the source lacks.")
        try:
            return self.rule.apply(self.joined([array_of(source[key]) for key in self.sources]))
        except PortingError as error:
            raise RuleError(f"{self.path} from {', '.join(self.sources)}: {error}") from None

    def joined(self, arrays: Arrays) -> np.ndarray:
        """The source arrays as the one array that the rule reads.

        Raises:
            RuleError: there are too few of them, or their shapes do not fit together.

        >>> Leaf("k", ("a", "b"), Rule("l -> l"), SUM).joined([np.ones(2), np.ones(2)]).tolist()
        [2.0, 2.0]
        """
        try:
            return self.join.forward(arrays)
        except (ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise RuleError(f"the join {self.join.name} does not fit {shapes}: {error}.") from None

    def __str__(self) -> str:
        joined = "" if self.join is ONLY else f"{self.join.name} of "
        return f"{self.path} <- {joined}{', '.join(self.sources)} by {self.rule}"


def port_leaves(table: Sequence[Leaf], source: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every leaf of `table`, by path; all that is wrong is reported at once.

    >>> rows = [Leaf("params/kernel", ("weight",), Rule("o i -> i o"))]
    >>> {path: a.shape for path, a in port_leaves(rows, {"weight": np.zeros((5, 3))}).items()}
    {'params/kernel': (3, 5)}
    """
    made, wrong = {}, []
    for leaf in table:
        try:
            made[leaf.path] = leaf.apply(source)
        except PortingError as error:
            wrong.append(str(error))
    if wrong:
        raise CoverageError(
            "\n".join([f"{number_of(len(wrong), 'leaf')} cannot be ported:", *wrong])
        )
    return made


def unport_leaves(
    table: Sequence[Leaf], leaves: Mapping[str, Any], specs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The table run backwards: the source tensors that `leaves` came from.

    Args:
        table: the rows of the port.
        leaves: arrays by path.
        specs: source keys -> anything with `.shape` and `.dtype`.

    Returns:
        One C-contiguous array for each key that a row reads. A tensor that several rows
        read in parts (a packed projection) is put together again.

    >>> rows = [Leaf("params/kernel", ("weight",), Rule("o i -> i o"))]
    >>> unport_leaves(rows, {"params/kernel": np.zeros((3, 5))}, {"weight": np.zeros((5, 3))})["weight"].shape
    (5, 3)
    """
    groups: dict[tuple[tuple[str, ...], str], _Group] = {}
    for leaf in table:
        shapes = [tuple(specs[key].shape) for key in leaf.sources]
        value = np.asarray(leaves[leaf.path])
        name = (leaf.sources, leaf.join.name)
        if name not in groups:
            groups[name] = _Group.empty(leaf, shapes, value.dtype)
        leaf.rule.scatter(value, groups[name].array)
        leaf.rule.scatter(np.ones_like(value), groups[name].written)
    out: dict[str, np.ndarray] = {}
    for (sources, _), group in groups.items():
        for key, part, written in zip(sources, *group.parts(), strict=False):
            kept = out.get(key, part)
            out[key] = np.asarray(np.where(written > 0, part, kept), order="C")
    return out


@dataclass(frozen=True)
class _Group:
    """The leaves that read the same sources by the same join, on their way back."""

    join: Join
    shapes: Shapes
    array: np.ndarray
    written: np.ndarray

    @classmethod
    def empty(cls, leaf: Leaf, shapes: Shapes, dtype: np.dtype) -> _Group:
        made = leaf.join.forward([np.broadcast_to(dtype.type(1), shape) for shape in shapes])
        return cls(leaf.join, shapes, np.zeros(made.shape, dtype), np.zeros(made.shape, dtype))

    def parts(self) -> tuple[Arrays, Arrays]:
        """The source arrays, and for each where it was written."""
        if self.join.constant and self.array.any():
            raise CoverageError(
                "A leaf holds numbers for which the source has no tensor: it must be zero. "
                "Was it trained after the port?"
            )
        back = self.join.backward
        return back(self.array, self.shapes), back(self.written, self.shapes)
