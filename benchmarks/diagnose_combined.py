"""Several faults on one leaf, and whole modules and layers that are not there.

Each must be named for all that was done: `Wrong.also` lists what a diagnosis must say besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np

from benchmarks.diagnose_kinds import (
    FAULTS,
    Changes,
    Fault,
    Wrong,
    _key,
    _pick,
    _plain2,
    _rotary,
    _square,
    _tables,
    fault,
)
from benchmarks.diagnose_models import Port
from benchmarks.diagnose_several import _layered, _swap

Change = Callable[[np.ndarray], np.ndarray | None]


def untransposed(leaf: np.ndarray) -> np.ndarray | None:
    """A kernel built from the weight as it is, its heads apart or not."""
    if leaf.ndim not in (2, 3) or len({leaf.shape[0], leaf[0].size}) > 1:
        return None
    return np.asarray(leaf.reshape(len(leaf), -1).T.reshape(leaf.shape), order="C")


def narrowed(leaf: np.ndarray) -> np.ndarray | None:
    """Through bfloat16, unless its values are there already."""
    made = leaf.astype(ml_dtypes.bfloat16).astype(np.float32)
    return None if np.array_equal(made, leaf) else made


def scaled(leaf: np.ndarray) -> np.ndarray | None:
    """An attention scale folded in."""
    return leaf * np.float32(0.125) if leaf.dtype == np.float32 else None


#: what is done besides -> the change, what a diagnosis calls it, and the leaves that it may hit
BESIDES: dict[str, tuple[Change, str, Callable[[Port, str], bool]]] = {
    "untransposed": (untransposed, "untransposed", lambda p, k: k.endswith("kernel") and len(p.rows[k].sources) == 1 and "(h d) ->" not in str(p.rows[k].rule) and " h d e" not in str(p.rows[k].rule)),
    "narrowed": (narrowed, "cast", lambda p, k: p.leaves[k].size > 8),
    "scaled": (scaled, "scaled", lambda p, k: p.leaves[k].size > 8),
}  # fmt: skip


def _told(wrong: Wrong, *also: str) -> Wrong:
    """A truth that asks for more; the first kind is whatever fits the status."""
    return replace(wrong, kinds=(), also=also)


def _exchanged(change: Change, name: str, fits: Callable[[Port, str], bool]) -> Fault:
    """Two leaves of one module exchanged, and both changed."""

    def inject(port: Port, rng: np.random.Generator) -> Changes | None:
        paths = [p for p in _telling(port) if fits(port, p) and change(port.leaves[p]) is not None]
        pairs = [
            (a, b) for a in paths for b in paths if a < b and _siblings(a, b) and _swap(port, a, b)
        ]
        if not pairs:
            return None
        found = _swap(port, *pairs[rng.integers(len(pairs))]) or {}
        made = {
            p: (change(m), _told(w, "exchanged", name))
            for p, (m, w) in found.items()
            if m is not None
        }
        return (
            made
            if all(
                m is not None and not np.array_equal(m, port.leaves[p])
                for p, (m, _) in made.items()
            )
            else None
        )

    return inject


def _telling(port: Port) -> list[str]:
    """Leaves that no symmetry, and no other leaf, makes hard to tell."""
    alike = [a.T for a in port.leaves.values() if a.ndim == 2] + list(port.leaves.values())
    return [
        p for p, leaf in port.leaves.items()
        if 2 * len(np.unique(leaf)) > leaf.size and sum(np.array_equal(leaf, a) for a in alike) == 1
    ]  # fmt: skip


def _siblings(a: str, b: str) -> bool:
    (*left, _, x), (*right, _, y) = a.split("/"), b.split("/")
    return left == right and x == y


def _of_another_layer(change: Change, name: str, fits: Callable[[Port, str], bool]) -> Fault:
    """A leaf of another layer, changed."""

    def inject(port: Port, rng: np.random.Generator) -> Changes | None:
        stems = [paths for paths in _layered(port).values() if fits(port, paths[0])]
        if not stems:
            return None
        a, b = rng.choice(stems[rng.integers(len(stems))], 2, replace=False).tolist()
        same = port.leaves[a].shape == port.leaves[b].shape
        made = change(port.leaves[b]) if same else None
        return (
            {a: (made, Wrong(("wrong_source",), _key(port, b), (), ("layer", name)))}
            if made is not None
            else None
        )

    return inject


FAULTS |= {f"exchanged and {name}": _exchanged(*row) for name, row in BESIDES.items()}
FAULTS |= {f"another layer and {name}": _of_another_layer(*row) for name, row in BESIDES.items()}


@fault
def rotary_and_untransposed(port: Port, rng: np.random.Generator) -> Changes | None:
    """Rotary pairs in a kernel that was then not transposed."""
    path = _pick(rng, [p for p in _square(port) if re.search(r"(q|k)_proj|query|key", p)])
    made = None if path is None else _rotary(port, path, rng)
    if path is None or made is None:
        return None
    wrong = Wrong(("wrong_layout",), _key(port, path), (), ("rotary", "untransposed"))
    return {path: (np.asarray(made.T, order="C"), wrong)}


@fault
def table_cut_and_scaled(port: Port, rng: np.random.Generator) -> Changes | None:
    """An embedding without its last rows, times 8."""
    path = _pick(rng, [p for p in _tables(port) if len(port.leaves[p]) > 8])
    if path is None:
        return None
    wrong = Wrong(("wrong_layout",), _key(port, path), (), ("cut", "scaled"))
    return {path: (port.leaves[path][:-3] * np.float32(8), wrong)}


@fault
def module_missing(port: Port, rng: np.random.Generator) -> Changes | None:
    """All leaves of a module of one layer are not there."""
    inside = [p for paths in _layered(port).values() for p in paths]
    path = _pick(rng, inside)
    stem = path.rsplit("/", 1)[0] if path else ""
    lost = [p for p in port.leaves if path and p.rsplit("/", 1)[0] == stem]
    return {p: (None, Wrong(("missing",))) for p in lost} or None


def _oblong(port: Port) -> list[str]:
    """Kernels whose shape changes when they are left as they are, `out` first by their bias."""
    biases = {p: f"{_key(port, p).rsplit('.', 1)[0]}.bias" for p in _plain2(port)}
    return [
        p for p, bias in biases.items()
        if bias in port.source and len(set(port.leaves[p].shape)) > 1
        and port.source[bias].shape == port.leaves[p].shape[-1:]
    ]  # fmt: skip


def _left(port: Port, paths: list[str]) -> Changes | None:
    """Kernels left as the source has them; the clean squares beside them must stay clean."""
    return {
        p: (np.asarray(port.leaves[p].T, order="C"), Wrong(("wrong_layout",), _key(port, p), ("untransposed", "transposed")))
        for p in paths
    } or None  # fmt: skip


@fault
def one_oblong_untransposed(port: Port, rng: np.random.Generator) -> Changes | None:
    """One kernel of another shape than the model's, told by its likes."""
    likes = _plain2(port)
    path = _pick(rng, [p for p in likes if len(set(port.leaves[p].shape)) > 1])
    return _left(port, [path]) if path and len(likes) > 3 else None


@fault
def all_oblong_untransposed(port: Port, rng: np.random.Generator) -> Changes | None:
    """Every oblong kernel left as it is, every square one right."""
    plain, oblong = _plain2(port), _oblong(port)
    squares = [p for p in plain if len(set(port.leaves[p].shape)) == 1]
    told = squares and len(oblong) + len(squares) == len(plain)
    return _left(port, oblong) if told else None


@fault
def gate_missing(port: Port, rng: np.random.Generator) -> Changes | None:
    """A leaf of a recurrent cell is not there (a GRU's hidden bias of n is none in NNX)."""
    cells = [p for p in port.leaves if "/cell/" in p and not p.endswith("hn/bias")]
    path = _pick(rng, cells)
    return {path: (None, Wrong(("missing",)))} if path else None
