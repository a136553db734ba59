"""Which leaves of a port a fault can hit, by what the leaves are called."""

from __future__ import annotations

from collections.abc import Callable

from porting.faults.row import Paths, Port

#: What the projections of an attention are called: in `LAYERS`, and in the encoder block.
QUERY, KEY, VALUE = ("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")
OUT = ("out", "out_proj")
CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d")
TRANSPOSED = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
RECURRENT = ("LSTM", "GRU", "RNN")


def called(*names: str) -> Paths:
    """The leaves whose own name is one of `names`.

    >>> import numpy as np
    >>> port = Port({"params/a/kernel": np.ones(2), "params/a/bias": np.ones(2)}, dict)
    >>> called("bias")(port)
    ['params/a/bias']
    """
    return lambda port: [path for path in port.leaves if path.rpartition("/")[2] in names]


def of(names: tuple[str, ...], *own: str) -> Paths:
    """The leaves of the module called one of `names`; all of them, or those called `own`."""

    def paths(port: Port) -> list[str]:
        parts = {path: path.split("/") for path in port.leaves}
        return [
            path
            for path, (*modules, leaf) in parts.items()
            if set(modules) & set(names) and (not own or leaf in own)
        ]

    return paths


def prefix(port: Port, names: tuple[str, ...]) -> str:
    """The path of the first module called one of `names`; "" if there is none."""
    found = of(names)(port)
    return found[0].rpartition("/")[0] if found else ""


def matrices(port: Port) -> list[str]:
    """The kernels of two axes."""
    return [path for path in called("kernel")(port) if port.leaves[path].ndim == 2]


def last_module(port: Port) -> list[str]:
    """The kernel (or table) of the last module that has one, and its bias."""
    kernels = called("kernel", "embedding")(port)
    if not kernels:
        return []
    module = kernels[-1].rpartition("/")[0]
    return [path for path in port.leaves if path.rpartition("/")[0] == module]


def is_layer(*names: str) -> Callable[[Port], bool]:
    """Whether the port is of one of these layers, plain or with its weight reparametrised."""

    def fits(port: Port) -> bool:
        plain = port.layer.removeprefix("WeightNorm").removeprefix("SpectralNorm")
        return plain in names

    return fits


def has(paths: Paths) -> Callable[[Port], bool]:
    """Whether the port has such leaves."""
    return lambda port: bool(paths(port))


def attends(port: Port) -> bool:
    """Whether the port has the four projections of an attention."""
    return all(of(names, "kernel")(port) for names in (QUERY, KEY, VALUE, OUT))


def is_block(port: Port) -> bool:
    """Whether it is the encoder block of the second guided port."""
    return port.layer == "EncoderBlock"
