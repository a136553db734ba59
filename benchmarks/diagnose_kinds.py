"""The faults of one leaf in the benchmark: how each is made, and what a right diagnosis says of it.

A fault returns the leaves that it changed and the truth about each, or None where the model
has no place for it. It is drawn at random which of the possible leaves it hits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from benchmarks.diagnose_models import Port
from porting.leaves import Leaf


@dataclass(frozen=True)
class Wrong:
    """What a right diagnosis says of one leaf: one of `statuses`, and the source it holds.

    `kinds` are as good as each other; all of `also` must be named.
    """

    statuses: tuple[str, ...]
    source: str | None = None
    kinds: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


Changes = dict[str, tuple[np.ndarray | None, Wrong]]
Fault = Callable[[Port, np.random.Generator], Changes | None]
FAULTS: dict[str, Fault] = {}
LAYOUT, SOURCE, CHANGED, UNPORTED = (
    ("wrong_layout",),
    ("wrong_source",),
    ("changed",),
    ("unported",),
)


def fault(make: Fault) -> Fault:
    """Adds a row to the table."""
    FAULTS[make.__name__] = make
    return make


def _key(port: Port, path: str) -> str:
    return ", ".join(port.rows[path].sources)


def _pick(rng: np.random.Generator, paths: Iterable[str]) -> str | None:
    paths = list(paths)
    return paths[rng.integers(len(paths))] if paths else None


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _kernels(port: Port, rank: int = 2, square: bool = False) -> list[str]:
    return [
        p
        for p, a in port.leaves.items()
        if a.ndim == rank
        and _name(p) == "kernel"
        and len(port.rows[p].sources) == 1
        and min(a.shape[-2:]) > 1
        and (not square or a.shape[0] == a.shape[1])
        and np.ptp(a) > 0
    ]


def _one(
    make: Callable[[Port, str, np.random.Generator], np.ndarray | None],
    which: Callable[[Port], list[str]],
    *kinds: str,
    statuses: tuple[str, ...] = LAYOUT,
) -> Fault:
    """A fault of one leaf that keeps its source."""

    def inject(port: Port, rng: np.random.Generator) -> Changes | None:
        path = _pick(rng, which(port))
        made = None if path is None else make(port, path, rng)
        if path is None or made is None or _same(made, port.leaves[path]):
            return None
        source = None if statuses == UNPORTED else _key(port, path)
        return {path: (np.asarray(made, order="C"), Wrong(statuses, source, kinds))}

    return inject


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a, b)


def _source(port: Port, path: str) -> np.ndarray:
    return port.source[port.rows[path].sources[0]]


def _whole(port: Port, path: str) -> bool:
    return not port.rows[path].rule.selects


def _square(port: Port) -> list[str]:
    return _kernels(port, square=True)


def _plain2(port: Port) -> list[str]:
    return [p for p in _kernels(port) if _whole(port, p)]


def _heads3(port: Port) -> list[str]:
    return [p for p in _kernels(port, 3) if port.source[port.rows[p].sources[0]].ndim == 2]


def _convs(port: Port) -> list[str]:
    return [p for p in port.leaves if _name(p) == "kernel" and _source(port, p).ndim in (3, 4, 5)]


def _convs4(port: Port) -> list[str]:
    return [p for p in _convs(port) if port.leaves[p].ndim == 4]


def _tables(port: Port) -> list[str]:
    return [p for p in port.leaves if _name(p) == "embedding" and port.leaves[p].shape[0] > 4]


def _vectors(port: Port) -> list[str]:
    return [p for p, a in port.leaves.items() if a.size >= 5 and a.ndim == 1 and np.ptp(a) > 0]


def _scales(port: Port) -> list[str]:
    return [p for p in _vectors(port) if _name(p) in ("scale", "weight")]


def _floats(port: Port) -> list[str]:
    return [p for p, a in port.leaves.items() if a.size >= 8 and np.ptp(a) > 0]


def _reshaped(port: Port, path: str, _: np.random.Generator) -> np.ndarray | None:
    source = _source(port, path)
    return (
        source.reshape(port.leaves[path].shape) if source.size == port.leaves[path].size else None
    )


def _fortran(port: Port, path: str, _: np.random.Generator) -> np.ndarray | None:
    return (
        _source(port, path).reshape(port.leaves[path].shape, order="F")
        if _whole(port, path)
        else None
    )


def _axes(port: Port, path: str, rng: np.random.Generator) -> np.ndarray:
    leaf = port.leaves[path]
    return leaf.transpose(rng.permutation(leaf.ndim))


def _grouped(axis: int, first: int, second: int, array: np.ndarray) -> np.ndarray:
    """Two factors of an axis exchanged."""
    shape = array.shape
    split = array.reshape(*shape[:axis], first, second, *shape[axis + 1 :])
    return split.swapaxes(axis, axis + 1).reshape(shape)


def _rotary(port: Port, path: str, rng: np.random.Generator) -> np.ndarray | None:
    """Every head's halves as pairs, or the other way, on the output side of q or k."""
    leaf = port.leaves[path]
    axis, width = leaf.ndim - 1, leaf.shape[-1]
    if leaf.ndim == 3:
        return (
            _grouped(2, *((2, width // 2) if rng.random() < 0.5 else (width // 2, 2)), leaf)
            if width % 2 == 0 and width > 4
            else None
        )
    each = 8 if width % 8 == 0 and width > 8 else 4
    if width % each:
        return None
    parts = leaf.reshape(*leaf.shape[:axis], width // each, each)
    order = (2, each // 2) if rng.random() < 0.5 else (each // 2, 2)
    return _grouped(parts.ndim - 1, *order, parts).reshape(leaf.shape)


def _is_qk(port: Port) -> list[str]:
    names = ("q_proj", "k_proj", "query", "key")
    return [
        p
        for p in port.leaves
        if _name(p) == "kernel" and p.split("/")[-2] in names and _whole(port, p)
    ]


def _blocks(port: Port, path: str, rng: np.random.Generator) -> np.ndarray | None:
    """Blocks along the last axis in another order."""
    leaf = port.leaves[path]
    count = next((n for n in (4, 3) if leaf.shape[-1] % n == 0 and leaf.shape[-1] > n), None)
    if count is None:
        return None
    parts = np.split(leaf, count, axis=-1)
    return np.concatenate([parts[i] for i in (0, 2, 1, *range(3, count))], axis=-1)


def _heads_dim(port: Port, path: str, _: np.random.Generator) -> np.ndarray | None:
    leaf = port.leaves[path]
    row = port.rows[path].rule.pattern
    heads = (1, 2) if row.endswith("h d") else (0, 1)
    made = leaf.swapaxes(*heads)
    return made if leaf.shape[heads[0]] == leaf.shape[heads[1]] else made.reshape(leaf.shape)


def _flipped(port: Port, path: str, rng: np.random.Generator) -> np.ndarray:
    leaf = port.leaves[path]
    space = [a for a in range(leaf.ndim - 2) if leaf.shape[a] > 1]
    return np.flip(leaf, space)


def _hw(port: Port, path: str, _: np.random.Generator) -> np.ndarray | None:
    leaf = port.leaves[path]
    return leaf.swapaxes(0, 1) if leaf.shape[0] > 1 or leaf.shape[1] > 1 else None


def _through(dtype: type) -> Callable[[Port, str, np.random.Generator], np.ndarray]:
    return lambda port, path, rng: port.leaves[path].astype(dtype).astype(np.float32)


def _value(
    change: Callable[[np.ndarray], np.ndarray],
) -> Callable[[Port, str, np.random.Generator], np.ndarray]:
    return lambda port, path, rng: change(port.leaves[path]).astype(np.float32)


def _random(port: Port, path: str, rng: np.random.Generator) -> np.ndarray:
    return (rng.standard_normal(port.leaves[path].shape) * 0.02).astype(np.float32)


def _stale(port: Port, path: str, rng: np.random.Generator) -> np.ndarray:
    leaf = port.leaves[path]
    return leaf + (0.01 * rng.standard_normal(leaf.shape)).astype(np.float32) * leaf.std()


def _padded(port: Port, path: str, rng: np.random.Generator) -> np.ndarray:
    leaf = port.leaves[path]
    return np.concatenate([leaf, np.zeros((8, leaf.shape[1]), np.float32)])


def _padded_random(port: Port, path: str, rng: np.random.Generator) -> np.ndarray:
    leaf = port.leaves[path]
    return np.concatenate([leaf, rng.standard_normal((5, leaf.shape[1])).astype(np.float32)])


def _split_wrong(port: Port, path: str, _: np.random.Generator) -> np.ndarray | None:
    """The part of a packed tensor taken per head instead of per block, or the other way."""
    row, source = port.rows[path], _source(port, path)
    if "qkv" not in dict(row.rule.sizes) or len(row.sources) > 1:
        return None
    j = int(row.rule.pattern.split("qkv=")[1][0])
    heads = dict(row.rule.sizes)["h"]
    wide = len(source) // 3 // heads
    if row.rule.pattern.startswith("(qkv"):
        part = source.reshape(heads, 3, wide, *source.shape[1:])[:, j]
    else:
        part = source.reshape(3, heads, wide, *source.shape[1:])[j]
    part = part.reshape(heads * wide, *source.shape[1:])
    return part.T.reshape(port.leaves[path].shape)


def _gate(port: Port, path: str, _: np.random.Generator) -> np.ndarray | None:
    """The next gate of the same packed tensor."""
    row = port.rows[path]
    if "g" not in dict(row.rule.sizes):
        return None
    pattern = row.rule.pattern
    count = dict(row.rule.sizes)["g"]
    j = int(pattern.split("g=")[1][0])
    other = type(row.rule)(pattern.replace(f"g={j}", f"g={(j + 1) % count}"), row.rule.sizes)
    return Leaf(path, row.sources, other, row.join).apply(port.source)


FAULTS |= {
    "square kernel not transposed": _one(lambda p, k, r: p.leaves[k].T, _square, "untransposed", "transposed", "split"),
    "kernel transposed twice": _one(lambda p, k, r: p.leaves[k].T, _plain2, "untransposed", "transposed"),
    "reshape instead of transpose": _one(_reshaped, _plain2, "reshaped", "untransposed", "transposed"),
    "Fortran order": _one(_fortran, _plain2, "fortran", "untransposed", "transposed"),
    "heads: reshape of the untransposed": _one(_reshaped, _heads3, "untransposed", "reshaped"),
    "heads: Fortran order": _one(_fortran, _heads3, "fortran", "rearranged", "untransposed", "heads"),
    "heads and head_dim": _one(_heads_dim, _heads3, "heads", "rotary"),
    "conv axes": _one(_axes, _convs, "axes", "hw", "unflipped", "flipped", "rearranged"),
    "conv reshaped": _one(_reshaped, _convs, "reshaped", "axes"),
    "conv H and W": _one(_hw, _convs4, "hw", "axes"),
    "conv flipped": _one(_flipped, _convs, "flipped", "unflipped"),
    "flatten order": _one(lambda p, k, r: _source(p, k).T, lambda p: [k for k in p.leaves if "(c h w)" in str(p.rows[k].rule)], "flatten", "rearranged", "transposed", "untransposed"),
    "rotary": _one(_rotary, _is_qk, "rotary", "heads"),
    "blocks reordered": _one(_blocks, lambda p: _plain2(p) + _vectors(p), "blocks", "heads", "rotary", "flatten"),
    "split wrongly": _one(_split_wrong, lambda p: list(p.leaves), "split"),
    "another gate": _one(_gate, lambda p: list(p.leaves), "other_part", "split"),
    "embedding transposed": _one(lambda p, k, r: p.leaves[k].T, _tables, "transposed"),
    "embedding padded with zeros": _one(_padded, _tables, "padded"),
    "embedding padded at random": _one(_padded_random, _tables, "padded"),
    "embedding cut": _one(lambda p, k, r: p.leaves[k][:-3], _tables, "cut"),
    "vector reversed": _one(lambda p, k, r: p.leaves[k][::-1], _vectors, "flipped"),
    "bfloat16": _one(_through(ml_dtypes.bfloat16), _floats, "cast", statuses=CHANGED),
    "bfloat16 dtype": _one(lambda p, k, r: p.leaves[k].astype(ml_dtypes.bfloat16), _floats, "cast", statuses=CHANGED),
    "float16": _one(_through(np.float16), _floats, "cast", statuses=CHANGED),
    "float16 read as bfloat16": _one(_value(lambda a: np.asarray(a.astype(np.float16), order="C").view(ml_dtypes.bfloat16)), _floats, "misread", statuses=CHANGED),
    "1 + w": _one(_value(lambda a: 1 + a), _scales, "one_plus", statuses=CHANGED),
    "w - 1": _one(_value(lambda a: a - 1), _scales, "minus_one", statuses=CHANGED),
    "sign": _one(_value(np.negative), _floats, "sign", statuses=CHANGED),
    "attention scale": _one(_value(lambda a: a / np.sqrt(np.float32(8))), _floats, "scaled", statuses=CHANGED),
    "doubled": _one(_value(lambda a: a * 2), _vectors, "scaled", statuses=CHANGED),
    "std for var": _one(_value(np.sqrt), lambda p: [k for k in p.leaves if _name(k) == "var"], "root", statuses=CHANGED),
    "square for root": _one(_value(np.square), lambda p: [k for k in p.leaves if _name(k) == "var"], "square", statuses=CHANGED),
    "random": _one(_random, _floats, "foreign", statuses=UNPORTED),
    "stale": _one(_stale, _floats, "stale", statuses=UNPORTED),
    "zeros": _one(lambda p, k, r: np.zeros_like(p.leaves[k]), _floats, "zeros", statuses=UNPORTED),
    "ones": _one(lambda p, k, r: np.ones_like(p.leaves[k]), _floats, "ones", statuses=UNPORTED),
    "untransposed and bfloat16": _one(lambda p, k, r: p.leaves[k].T.astype(ml_dtypes.bfloat16).astype(np.float32), _square, statuses=("wrong_layout", "changed")),
    "untransposed and scaled": _one(lambda p, k, r: p.leaves[k].T * np.float32(0.125), _square, statuses=("wrong_layout", "changed")),
    "flipped and axes": _one(lambda p, k, r: np.flip(_axes(p, k, r), 0), _convs, statuses=LAYOUT),
    "rotary and bfloat16": _one(lambda p, k, r: None if (m := _rotary(p, k, r)) is None else m.astype(ml_dtypes.bfloat16), _is_qk, statuses=("wrong_layout", "changed")),
}  # fmt: skip
