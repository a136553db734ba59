"""Flax models of the shipped checkpoints: what a port of them is aimed at in the app."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.block_modules import TORCH_EPSILON, LinenEncoderBlock, NNXEncoderBlock
from porting.layouts import Rule
from porting.leaves import Leaf
from porting.mapping import Mapping as PortMapping
from porting.mapping import infer_mapping
from porting.trace import Trace, record_linen
from porting.tree import unflatten

#: the convolutions of RNet: name, in, out, kernel size, pooled after it
_RNET_CONVS = (("1", 3, 28, 3, True), ("2", 28, 48, 3, True), ("3", 48, 64, 2, False))


def _pool(x: Any) -> Any:
    """3 × 3 at stride 2 with PyTorch's `ceil_mode`: one more row and column where they end short."""
    pads = [(0, -(n - 3) % 2) for n in x.shape[1:3]]
    return linen.max_pool(x, (3, 3), strides=(2, 2), padding=pads)


def _flatten(x: Any) -> Any:
    """[N, H, W, C] -> [N, W·H·C], as MTCNN's `permute(0, 3, 2, 1)` orders it."""
    return x.transpose(0, 2, 1, 3).reshape(len(x), -1)


class LinenPReLU(linen.Module):
    """`max(x, 0) + slope · min(x, 0)`, one slope a channel as `torch.nn.PReLU(C)` has it."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        """x: (…, C) -> (…, C)."""
        slope = self.param("negative_slope", linen.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x >= 0, x, slope * x)


class LinenRNet(linen.Module):
    """The refinement net of MTCNN in Linen: (N, 24, 24, 3) -> box (N, 4), face (N, 2)."""

    @linen.compact
    def __call__(self, x: Any) -> tuple[Any, Any]:
        """x: (N, 24, 24, 3), NHWC."""
        for name, _, features, size, pooled in _RNET_CONVS:
            x = linen.Conv(features, (size, size), padding="VALID", name=f"conv{name}")(x)
            x = LinenPReLU(name=f"prelu{name}")(x)
            x = _pool(x) if pooled else x
        x = LinenPReLU(name="prelu4")(linen.Dense(128, name="dense4")(_flatten(x)))
        face = linen.softmax(linen.Dense(2, name="dense5_1")(x))
        return linen.Dense(4, name="dense5_2")(x), face


class NNXPReLU(nnx.Module):
    """`LinenPReLU` in NNX."""

    def __init__(self, features: int) -> None:
        self.negative_slope = nnx.Param(jnp.full(features, 0.25))

    def __call__(self, x: Any) -> Any:
        """x: (…, C) -> (…, C)."""
        return jnp.where(x >= 0, x, self.negative_slope[...] * x)


class NNXRNet(nnx.Module):
    """The refinement net of MTCNN in NNX."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        for name, channels, features, size, _ in _RNET_CONVS:
            conv = nnx.Conv(channels, features, (size, size), padding="VALID", rngs=rngs)
            setattr(self, f"conv{name}", conv)
            setattr(self, f"prelu{name}", NNXPReLU(features))
        self.dense4 = nnx.Linear(576, 128, rngs=rngs)
        self.prelu4 = NNXPReLU(128)
        self.dense5_1 = nnx.Linear(128, 2, rngs=rngs)
        self.dense5_2 = nnx.Linear(128, 4, rngs=rngs)

    def __call__(self, x: Any) -> tuple[Any, Any]:
        """x: (N, 24, 24, 3), NHWC."""
        for name, *_, pooled in _RNET_CONVS:
            x = getattr(self, f"prelu{name}")(getattr(self, f"conv{name}")(x))
            x = _pool(x) if pooled else x
        x = self.prelu4(self.dense4(_flatten(x)))
        return self.dense5_2(x), nnx.softmax(self.dense5_1(x))


@dataclass(frozen=True)
class Model:
    """A Flax model that a shipped checkpoint can be ported into.

    Attributes:
        title: what a menu shows.
        checkpoint: the key of `porting.examples.EXAMPLES` that it fits.
        kind: "linen" or "nnx".
        target: makes what `infer_mapping` takes; shapes only.
        decided: facts of this model that no name or shape tells: leaf -> pattern. MTCNN
            flattens as W, H, C and so do these models, so the kernel is the plain transpose.
    """

    title: str
    checkpoint: str
    kind: str
    target: Callable[[], Any]
    decided: tuple[tuple[str, str], ...] = ()


_BLOCK = (4, 128, 512, "gelu", TORCH_EPSILON)

MODELS: dict[str, Model] = {
    "rnet-linen": Model(
        "MTCNN RNet, Linen",
        "mtcnn_rnet",
        "linen",
        lambda: (LinenRNet(), jnp.zeros((1, 24, 24, 3))),
        (("params/dense4/kernel", "o i -> i o"),),
    ),
    "rnet-nnx": Model(
        "MTCNN RNet, NNX",
        "mtcnn_rnet",
        "nnx",
        lambda: nnx.eval_shape(lambda: NNXRNet(rngs=nnx.Rngs(0))),
        (("dense4/kernel", "o i -> i o"),),
    ),
    "block-linen": Model(
        "Encoder block, Linen",
        "m6aformer",
        "linen",
        lambda: (LinenEncoderBlock(*_BLOCK), jnp.zeros((2, 128))),
    ),
    "block-nnx": Model(
        "Encoder block, NNX",
        "m6aformer",
        "nnx",
        lambda: nnx.eval_shape(lambda: NNXEncoderBlock(*_BLOCK, rngs=nnx.Rngs(0))),
    ),
}


def decided_mapping(name: str, source: Mapping[str, Any]) -> PortMapping:
    """The mapping of a shipped model, with the questions that only its author can answer settled.

    >>> from porting.checkpoint import open_checkpoint
    >>> from porting.examples import EXAMPLES
    >>> with open_checkpoint(EXAMPLES["mtcnn_rnet"].path) as source:
    ...     decided_mapping("rnet-linen", source).unsure
    {}
    """
    model = MODELS[name]
    mapping = infer_mapping(source, model.target())
    for path, pattern in model.decided:
        leaf = mapping.leaves[path]
        mapping = mapping.choose(path, Leaf(path, leaf.sources, Rule(pattern)))
    return mapping


def traces_of(name: str, leaves: Mapping[str, Any]) -> Trace:
    """The forward pass of a shipped Linen model that holds `leaves`, on a fixed random input.

    >>> from porting.tree import leaves as shapes_of
    >>> import numpy as np
    >>> spec = shapes_of(MODELS["block-linen"].target())
    >>> ones = {path: np.ones(leaf.shape, np.float32) for path, leaf in spec.items()}
    >>> traces_of("block-linen", ones).stages[0].path
    'ln1'
    """
    module, sample = MODELS[name].target()
    x = np.random.default_rng(0).standard_normal(sample.shape, np.float32)
    return record_linen(module, unflatten(leaves), x, double=True)
