"""Ways to break a whole ported tree, to see the doctor at work and to test it.

The rows are `Fault`s whose leaves are those of a model: each looks for the leaves that it
fits (square kernels, convolutions, a query beside a key) and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from porting.faults import Fault, Port
from porting.layouts import Rule

Change = Callable[[Port], dict[str, np.ndarray]]
SOURCE = "fault catalogue"


def _named(port: Port, name: str, rank: int | None = None) -> list[str]:
    return [
        path
        for path, leaf in port.leaves.items()
        if path.rsplit("/", 1)[-1] == name and (rank is None or leaf.ndim == rank)
    ]


def _square(port: Port) -> dict[str, np.ndarray]:
    kernels = {p: port.leaves[p] for p in _named(port, "kernel", 2)}
    return {p: k.T for p, k in kernels.items() if k.shape[0] == k.shape[1]}


def _reshaped(port: Port) -> dict[str, np.ndarray]:
    kernels = _named(port, "kernel", 2)
    largest = max(kernels, key=lambda p: port.leaves[p].size, default=None)
    if largest is None:
        return {}
    kernel = port.leaves[largest]
    return {largest: np.ascontiguousarray(kernel.T).reshape(kernel.shape)}


def _height_width(port: Port) -> dict[str, np.ndarray]:
    swap = Rule("h w i o -> w h i o")
    kernels = {p: port.leaves[p] for p in _named(port, "kernel", 4)}
    return {p: swap.apply(k) for p, k in kernels.items() if k.shape[0] == k.shape[1] > 1}


def _conv_reshaped(port: Port) -> dict[str, np.ndarray]:
    back = Rule("h w i o -> o i h w")
    kernels = {p: port.leaves[p] for p in _named(port, "kernel", 4)[:1]}
    return {p: np.ascontiguousarray(back.apply(k)).reshape(k.shape) for p, k in kernels.items()}


def _pair(port: Port, first: str, second: str) -> dict[str, np.ndarray]:
    changed: dict[str, np.ndarray] = {}
    for path, leaf in port.leaves.items():
        twin = path.replace(f"/{first}/", f"/{second}/")
        if twin != path and twin in port.leaves and port.leaves[twin].shape == leaf.shape:
            changed |= {path: port.leaves[twin], twin: leaf}
    return changed


def _query_key(port: Port) -> dict[str, np.ndarray]:
    return _pair(port, "q_proj", "k_proj") or _pair(port, "query", "key")


def _scale_bias(port: Port) -> dict[str, np.ndarray]:
    scales = _named(port, "scale", 1)[:1]
    changed: dict[str, np.ndarray] = {}
    for scale in scales:
        bias = f"{scale.removesuffix('scale')}bias"
        if bias in port.leaves:
            changed |= {scale: port.leaves[bias], bias: port.leaves[scale]}
    return changed


def _biases_zero(port: Port) -> dict[str, np.ndarray]:
    return {p: np.zeros_like(port.leaves[p]) for p in _named(port, "bias")[-1:]}


def _random_leaf(port: Port) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        p: (rng.standard_normal(port.leaves[p].shape) * port.leaves[p].std()).astype(
            port.leaves[p].dtype
        )
        for p in _named(port, "kernel")[-1:]
    }


def _narrowed(port: Port) -> dict[str, np.ndarray]:
    return {
        p: leaf.astype(ml_dtypes.bfloat16).astype(leaf.dtype)
        for p, leaf in port.leaves.items()
        if leaf.dtype == np.float32
    }


def _twins(port: Port) -> dict[str, np.ndarray]:
    """Two leaves of one shape and name exchanged."""
    seen: dict[tuple, str] = {}
    for path, leaf in port.leaves.items():
        key = (path.rsplit("/", 1)[-1], leaf.shape)
        if leaf.ndim > 0 and key in seen and not np.array_equal(leaf, port.leaves[seen[key]]):
            return {path: port.leaves[seen[key]], seen[key]: leaf}
        seen[key] = path
    return {}


def _row(name: str, title: str, symptom: str, why: str, fix: str, change: Change) -> Fault:
    return Fault(
        name,
        title,
        symptom,
        why,
        fix,
        SOURCE,
        lambda port: port.with_leaves(change(port)),
        fits=lambda port: bool(change(port)),
    )


_ROWS = (
    _row(
        "square",
        "Every square kernel left untransposed",
        "Shapes agree; the outputs do not.",
        "A square weight fits either way.",
        "kernel = weight.T",
        _square,
    ),
    _row(
        "reshaped",
        "The largest Dense kernel reshaped, not transposed",
        "Shapes agree for every size.",
        "reshape pours the numbers in file order.",
        "kernel = weight.T",
        _reshaped,
    ),
    _row(
        "height_width",
        "Height and width of the convolutions exchanged",
        "A constant image hides it.",
        "OIHW was read as OIWH.",
        "kernel = weight.transpose(2, 3, 1, 0)",
        _height_width,
    ),
    _row(
        "conv_reshaped",
        "A convolution reshaped from OIHW, not transposed",
        "Shapes agree.",
        "reshape moves no axis.",
        "kernel = weight.transpose(2, 3, 1, 0)",
        _conv_reshaped,
    ),
    _row(
        "query_key",
        "q and k exchanged",
        "One token hides it.",
        "Two tensors of one shape, in the wrong order.",
        "q, k, v = np.split(in_proj_weight, 3)",
        _query_key,
    ),
    _row(
        "scale_bias",
        "Scale and bias of a norm exchanged",
        "A fresh norm hides nothing here: ones and zeros change places.",
        "Two vectors of one shape.",
        "scale, bias = weight, bias",
        _scale_bias,
    ),
    _row(
        "twins",
        "Two leaves of one shape exchanged",
        "Shapes agree.",
        "The loop went through the names in another order.",
        "take each leaf by its name",
        _twins,
    ),
    _row(
        "zero_bias",
        "The last bias left at zero",
        "A shift of one layer's output.",
        "The loop over names missed one.",
        "bias = source_bias",
        _biases_zero,
    ),
    _row(
        "random_leaf",
        "The last kernel left at its random init",
        "The outputs are noise.",
        "The loop over names missed one.",
        "kernel = weight.T",
        _random_leaf,
    ),
    _row(
        "narrowed",
        "Everything cast through bfloat16",
        "Small errors everywhere.",
        "The checkpoint was loaded in bfloat16 and widened again.",
        "load in float32",
        _narrowed,
    ),
)

#: name -> a way to break a tree, in the order of a menu
BREAKS: dict[str, Fault] = {row.name: row for row in _ROWS}


def break_tree(leaves: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The leaves with some of `BREAKS` put in, one after another; those that fit nothing do nothing.

    >>> tree = {"params/fc/kernel": np.arange(4.0).reshape(2, 2)}
    >>> break_tree(tree, ["square"])["params/fc/kernel"].tolist()
    [[0.0, 2.0], [1.0, 3.0]]
    """
    port = Port(dict(leaves), dict)
    for name in names:
        port = BREAKS[name].inject(port)
    return dict(port.leaves)
