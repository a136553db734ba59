"""The encoder block in float64 NumPy, from the layout of its source: what a port must equal.

Written without Flax and without the tables of the port, so that a mistake there cannot hide
here. Each stage is one row of `STEPS`, computed from the stages before it; so it can also be
computed from the stages of *another* run, which tells a stage that errs from one that only
inherits an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from porting.special import erf, softmax

Stages = Mapping[str, np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


@dataclass(frozen=True)
class Reference:
    """The weights of a block in float64, its layout undone, and the constants of its source.

    Attributes:
        norms: `ln1`, `ln2` -> (scale, bias).
        dense: `q`, `k`, `v`, `out`, `ff1`, `ff2` -> (matrix `(in, out)`, bias).
        num_heads: heads.
        activation: a name of `ACTIVATIONS`.
        epsilon: of both norms.
    """

    norms: dict[str, Pair]
    dense: dict[str, Pair]
    num_heads: int
    activation: str
    epsilon: float

    def stages(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Every stage on `x` `(T, d_model)`, in the order of the forward pass."""
        found = {"x": np.asarray(x, np.float64)}
        for name, step in STEPS.items():
            found[name] = step(self, found)
        del found["x"]
        return found

    def step(self, name: str, stages: Stages) -> np.ndarray:
        """One stage, computed from `stages` (with the input under `x`) in float64."""
        return STEPS[name](self, stages)


def torch_weights(state: Mapping[str, np.ndarray]) -> dict[str, dict[str, Pair]]:
    """`norms` and `dense` of a `nn.TransformerEncoderLayer`: linear weights are `(out, in)`."""
    state = {key: np.asarray(leaf, np.float64) for key, leaf in state.items()}
    packed = zip(
        np.split(state["self_attn.in_proj_weight"], 3),
        np.split(state["self_attn.in_proj_bias"], 3),
        strict=True,
    )
    dense = {name: (w.T, b) for name, (w, b) in zip("qkv", packed, strict=True)}
    for name, key in (("out", "self_attn.out_proj"), ("ff1", "linear1"), ("ff2", "linear2")):
        dense[name] = (state[f"{key}.weight"].T, state[f"{key}.bias"])
    norms = {f"ln{i}": (state[f"norm{i}.weight"], state[f"norm{i}.bias"]) for i in (1, 2)}
    return {"norms": norms, "dense": dense}


def linen_weights(leaves: Mapping[str, np.ndarray]) -> dict[str, dict[str, Pair]]:
    """`norms` and `dense` of the variables of a Linen block by path: kernels are `(in, out)`."""
    leaves = {path: np.asarray(leaf, np.float64) for path, leaf in leaves.items()}
    places = {name: f"params/attn/{name}_proj" for name in ("q", "k", "v", "out")}
    places |= {name: f"params/{name}" for name in ("ff1", "ff2")}
    return {
        "norms": {
            n: (leaves[f"params/{n}/scale"], leaves[f"params/{n}/bias"]) for n in ("ln1", "ln2")
        },
        "dense": {n: (leaves[f"{p}/kernel"], leaves[f"{p}/bias"]) for n, p in places.items()},
    }


def _norm(name: str, before: str) -> Callable[[Reference, Stages], np.ndarray]:
    def step(block: Reference, stages: Stages) -> np.ndarray:
        x = stages[before]
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt(np.mean(np.square(centred), -1, keepdims=True) + block.epsilon)
        scale, bias = block.norms[name]
        return centred / deviation * scale + bias

    return step


def _dense(name: str, before: str) -> Callable[[Reference, Stages], np.ndarray]:
    def step(block: Reference, stages: Stages) -> np.ndarray:
        matrix, bias = block.dense[name]
        return stages[before] @ matrix + bias

    return step


def _heads_of(x: np.ndarray, num_heads: int) -> np.ndarray:
    """`(T, d_model)` -> `(heads, T, head_dim)`."""
    return x.reshape(len(x), num_heads, -1).transpose(1, 0, 2)


def _scores(block: Reference, stages: Stages) -> np.ndarray:
    q, k = (_heads_of(stages[name], block.num_heads) for name in "qk")
    return q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])


def _heads(block: Reference, stages: Stages) -> np.ndarray:
    mixed = stages["weights"] @ _heads_of(stages["v"], block.num_heads)
    return mixed.transpose(1, 0, 2).reshape(stages["v"].shape)


#: stage -> how it follows from the stages before it, in the order of the forward pass.
STEPS: dict[str, Callable[[Reference, Stages], np.ndarray]] = {
    "ln1": _norm("ln1", "x"),
    "q": _dense("q", "ln1"),
    "k": _dense("k", "ln1"),
    "v": _dense("v", "ln1"),
    "scores": _scores,
    "weights": lambda block, stages: softmax(stages["scores"], -1),
    "heads": _heads,
    "out": _dense("out", "heads"),
    "residual1": lambda block, stages: stages["x"] + stages["out"],
    "ln2": _norm("ln2", "residual1"),
    "ff1": _dense("ff1", "ln2"),
    "activation": lambda block, stages: ACTIVATIONS[block.activation](stages["ff1"]),
    "ff2": _dense("ff2", "activation"),
    "output": lambda block, stages: stages["residual1"] + stages["ff2"],
}
