"""`DenseCase`: the recipe of one picture of a Dense port, and the random numbers it names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from porting import limits
from porting.dense import LARGEST_FEATURES


@dataclass(frozen=True)
class DenseCase:
    """The recipe of one picture: everything else is computed from it.

    Attributes:
        port: a name in `PORTS`.
        source: "random", "paste", "real" or "upload".
        n, in_dim, features: sizes; a weight from a file brings its own `in_dim`, `features`.
        seed: of the Flax init.
        data_seed: of the inputs, and of a random weight and bias.
        layer: the tensor of a file, as `checkpoint:key` for a shipped one.
    """

    port: str = "untransposed"
    source: str = "random"
    n: int = 6
    in_dim: int = 6
    features: int = 6
    seed: int = 0
    data_seed: int = 0
    layer: str = "mtcnn_rnet:dense4.weight"


def random_inputs(n: int, in_dim: int, data_seed: int) -> np.ndarray:
    """Inputs `(n, in_dim)`, float32 standard normal.

    >>> random_inputs(2, 3, 0).shape
    (2, 3)
    """
    shape = (limits.dimension("N", n), limits.dimension("in", in_dim, LARGEST_FEATURES))
    limits.elements({"x": shape})
    rng = np.random.default_rng(limits.seed("data seed", data_seed))
    return rng.standard_normal(shape, np.float32)


def random_layer(in_dim: int, features: int, data_seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight `(features, in_dim)` and a bias `(features,)`, float32, by the data seed.

    They have the spread of a fresh `torch.nn.Linear`: uniform in ±1/√in.

    >>> [a.shape for a in random_layer(3, 5, 0)]
    [(5, 3), (5,)]
    """
    shape = (limits.dimension("features", features), limits.dimension("in", in_dim))
    limits.elements({"weight": shape})
    rng = np.random.default_rng((limits.seed("data seed", data_seed), 1))
    edge = in_dim**-0.5
    weight = rng.uniform(-edge, edge, shape).astype(np.float32)
    return weight, rng.uniform(-edge, edge, shape[0]).astype(np.float32)
