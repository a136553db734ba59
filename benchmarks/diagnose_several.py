"""Faults of several leaves, and of what a leaf is made from: exchanged, shifted, merged, missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import ml_dtypes
import numpy as np

from benchmarks.diagnose_kinds import (
    CHANGED,
    FAULTS,
    LAYOUT,
    SOURCE,
    Changes,
    Fault,
    Wrong,
    _key,
    _pick,
    _square,
    fault,
)
from benchmarks.diagnose_models import Port


@fault
def only_one_bias(port: Port, rng: np.random.Generator) -> Changes | None:
    """One of two biases that should be summed."""
    return _bias(port, rng, lambda parts: parts[0])


@fault
def bias_added_twice(port: Port, rng: np.random.Generator) -> Changes | None:
    """Both biases, and one of them again."""
    return _bias(port, rng, lambda parts: parts[0] + parts[1] + parts[1])


def _bias(
    port: Port, rng: np.random.Generator, change: Callable[[list[np.ndarray]], np.ndarray]
) -> Changes | None:
    path = _pick(rng, [p for p, row in port.rows.items() if row.join.name == "sum"])
    if path is None:
        return None
    row = port.rows[path]
    made = row.rule.apply(change([port.source[k] for k in row.sources]))
    return {path: (made, Wrong(CHANGED, None, ("partial_sum", "summed")))}


@fault
def hidden_bias_merged(port: Port, rng: np.random.Generator) -> Changes | None:
    """The GRU's b_hn with b_in added to it."""
    path = "params/cell/hn/bias"
    if path not in port.leaves:
        return None
    made = port.leaves[path] + port.leaves["params/cell/in/bias"]
    return {path: (made, Wrong(CHANGED, _key(port, path), ("summed",)))}


def _swap(port: Port, a: str, b: str) -> Changes | None:
    left, right = port.leaves[a], port.leaves[b]
    if left.shape != right.shape or np.array_equal(left, right):
        return None
    whole = SOURCE if _key(port, a) != _key(port, b) else LAYOUT
    return {
        a: (right, Wrong(whole, _key(port, b), ("exchanged", "other_part", "layer"))),
        b: (left, Wrong(whole, _key(port, a), ("exchanged", "other_part", "layer"))),
    }


def _swapped(first: tuple[str, ...], second: tuple[str, ...], level: int) -> Fault:
    """Two siblings exchanged: path components `first` and `second` at `level` from the end."""

    def inject(port: Port, rng: np.random.Generator) -> Changes | None:
        pairs = []
        for path in port.leaves:
            parts = path.split("/")
            if len(parts) < level or parts[-level] not in first:
                continue
            for name in second:
                other = "/".join([*parts[:-level], name, *parts[len(parts) - level + 1 :]])
                for twin in (other, other.replace("params/", "batch_stats/", 1)):
                    if twin in port.leaves:
                        pairs.append((path, twin))
        pairs = [p for p in pairs if _swap(port, *p)]
        return _swap(port, *pairs[rng.integers(len(pairs))]) if pairs else None

    return inject


FAULTS |= {
    "q and k exchanged": _swapped(("query", "q_proj"), ("key", "k_proj"), 2),
    "k and v exchanged": _swapped(("key", "k_proj"), ("value", "v_proj"), 2),
    "gate and up exchanged": _swapped(("gate_proj",), ("up_proj",), 2),
    "scale and bias exchanged": _swapped(("scale",), ("bias",), 1),
    "mean and var exchanged": _swapped(("mean",), ("var",), 1),
}


def _layered(port: Port) -> dict[str, list[str]]:
    """Path template -> the leaves of all layers, in order; one source each."""
    import re

    groups: dict[str, dict[int, str]] = {}
    for path, row in port.rows.items():
        found = re.search(r"(?:layers?|h|stages|blocks)[/_](\d+)(?=/)", path)
        if found and len(row.sources) == 1:
            stem = f"{path[: found.start(1)]}#{path[found.end(1) :]}"
            groups.setdefault(stem, {})[int(found[1])] = path
    return {s: [g[n] for n in sorted(g)] for s, g in groups.items() if len(g) > 1}


def _moved(
    port: Port, stems: Iterable[str], order: Callable[[int], list[int]], kinds: tuple[str, ...]
) -> Changes | None:
    layers, out = _layered(port), {}
    for stem in stems:
        paths = layers[stem]
        for path, held in zip(paths, [paths[i] for i in order(len(paths))], strict=True):
            given = port.leaves[held]
            if not np.array_equal(given, port.leaves[path]):
                out[path] = (given, Wrong(SOURCE, _key(port, held), kinds))
    return out or None


@fault
def layers_shifted(port: Port, rng: np.random.Generator) -> Changes | None:
    """Every layer holds the one before it, and the first is kept."""
    return _moved(
        port, _layered(port), lambda n: [0, *range(n - 1)], ("shifted", "layer", "exchanged")
    )


@fault
def layers_as_text(port: Port, rng: np.random.Generator) -> Changes | None:
    """Layers in the order 0, 1, 10, 11, 2."""
    return _moved(port, _layered(port), lambda n: sorted(range(n), key=str), ("sorted",))


@fault
def layers_reversed(port: Port, rng: np.random.Generator) -> Changes | None:
    """The last layer first."""
    kinds = ("reversed", "layer", "exchanged")
    return _moved(port, _layered(port), lambda n: [*range(n)][::-1], kinds)


@fault
def layers_exchanged(port: Port, rng: np.random.Generator) -> Changes | None:
    """The second layer and the last."""
    kinds = ("exchanged", "layer", "reversed")
    return _moved(port, _layered(port), lambda n: [0, n - 1, *range(2, n - 1), 1][:n], kinds)


@fault
def leaf_of_another_layer(port: Port, rng: np.random.Generator) -> Changes | None:
    """One leaf of the next layer."""
    stem = _pick(rng, _layered(port))
    if stem is None:
        return None
    return _moved(port, [stem], lambda n: [1, *range(1, n)], ("layer", "shifted"))


@fault
def stack_as_text(port: Port, rng: np.random.Generator) -> Changes | None:
    """Layers stacked in the order 0, 1, 10, 11, 2."""
    path = _pick(rng, [p for p, row in port.rows.items() if row.join.name == "stack"])
    if path is None:
        return None
    order = sorted(range(len(port.leaves[path])), key=str)
    return {path: (port.leaves[path][order], Wrong(LAYOUT, _key(port, path), ("sorted",)))}


@fault
def leaf_missing(port: Port, rng: np.random.Generator) -> Changes | None:
    """A leaf is not there."""
    path = _pick(rng, port.leaves)
    return {path: (None, Wrong(("missing",)))} if path else None


@fault
def all_bfloat16(port: Port, rng: np.random.Generator) -> Changes | None:
    """Every leaf narrowed."""
    out: Changes = {}
    for path, leaf in port.leaves.items():
        made = leaf.astype(ml_dtypes.bfloat16)
        if not np.array_equal(made.astype(np.float32), leaf):
            out[path] = (made, Wrong(CHANGED, None, ("cast",)))
    return out or None


@fault
def all_square_untransposed(port: Port, rng: np.random.Generator) -> Changes | None:
    """Every square kernel left as it is."""
    out: Changes = {}
    for path in _square(port):
        if not np.array_equal(port.leaves[path], port.leaves[path].T):
            made = np.asarray(port.leaves[path].T, order="C")
            out[path] = (
                made,
                Wrong(LAYOUT, _key(port, path), ("untransposed", "transposed", "split")),
            )
    return out or None


@fault
def exchanged_and_untransposed(port: Port, rng: np.random.Generator) -> Changes | None:
    """Two square kernels exchanged, and both not transposed."""
    paths = _square(port)
    if len(paths) < 2:
        return None
    a, b = rng.choice(paths, 2, replace=False)
    if _key(port, a) == _key(port, b):
        return None
    found = _swap(port, str(a), str(b))
    return found and {
        p: (np.asarray(m.T, order="C"), w) for p, (m, w) in found.items() if m is not None
    }
