"""How long it takes to explain two traces, against recording one.

    python -m benchmarks.trace_speed [NAME …]

Models of realistic size are recorded once as they should be and once with faults, compared,
and explained. All times are CPU seconds of this process. `explain` must stay below BOUND.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from porting.trace import Trace, compare_traces, explain, record_linen

BOUND = 5.0  #: CPU seconds of one `explain`
WIDTH, HEADS, LAYERS = 768, 12, 12

Faults = frozenset[str]


class Block(nn.Module):
    """One layer of BERT; faults are named `what@layer`, or `what` for every layer."""

    faults: Faults
    number: int

    def has(self, what: str) -> bool:
        return bool({what, f"{what}@{self.number}"} & self.faults)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (
            nn.Dense(WIDTH, name=name)(x).reshape(*x.shape[:2], HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / (1 if self.has("scale") else 8)
        if self.has("odd"):
            scores = scores * scores  # no known variant
        mixed = jnp.einsum("bhts,bshd->bthd", nn.softmax(scores), v).reshape(x.shape)
        epsilon = 1e-3 if self.has("epsilon") else 1e-12
        x = nn.LayerNorm(epsilon, name="norm1")(x + nn.Dense(WIDTH, name="out")(mixed))
        h = nn.gelu(nn.Dense(4 * WIDTH, name="fc1")(x), approximate=self.has("gelu"))
        h = jnp.sin(h) * h if self.has("odd_act") else h
        h = nn.Dense(WIDTH, name="fc2")(h)
        return nn.LayerNorm(1e-12, name="norm2")(h if self.has("residual") else x + h)


class Bert(nn.Module):
    """An encoder of the size of BERT base, on vectors."""

    faults: Faults = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number in range(LAYERS):
            x = Block(self.faults, number, name=f"layer_{number}")(x)
        return x


class Recurrent(nn.Module):
    """A recurrent layer in one direction or two, and a head."""

    features: int
    both: bool
    faults: Faults = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        odd = {"gate_fn": lambda x: nn.sigmoid(1.1 * x)} if "odd" in self.faults else {}
        hard = {"gate_fn": nn.hard_sigmoid} if "gate" in self.faults else {}
        one, other = (nn.LSTMCell(self.features, name=n, **odd, **hard) for n in ("fwd", "bwd"))
        merge = (lambda a, b: jnp.concatenate([b, a], -1)) if "merge" in self.faults else _joined
        if self.both:
            x = nn.Bidirectional(nn.RNN(one), nn.RNN(other), merge_fn=merge, name="rnn")(x)
        else:
            x = nn.RNN(one, name="rnn")(x)
        return nn.Dense(8, name="fc")(x)


def _joined(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.concatenate([a, b], -1)


class Image(nn.Module):
    """The beginning of a ResNet."""

    faults: Faults = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(64, (7, 7), 2, 3, use_bias=False, name="stem")(x))
        pool = nn.avg_pool if "pool" in self.faults else nn.max_pool
        x = pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        padding = "SAME" if "padding" in self.faults else 1
        for n in range(2):
            h = nn.relu(nn.Conv(64, (3, 3), 1, padding, name=f"conv{n}a")(x))
            h = jnp.sin(h) * h if "odd_act" in self.faults and n else h
            x = nn.relu(x + nn.Conv(64, (3, 3), 1, 1, name=f"conv{n}b")(h))
        return nn.Dense(10, name="head")(x.mean((1, 2)))


class Heads(nn.Module):
    """A module that holds a whole attention."""

    faults: Faults = frozenset()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(8, name="fc")(nn.MultiHeadDotProductAttention(HEADS, name="attn")(x, x))


def _spoiled(variables: Mapping[str, Any], leaf: str) -> dict[str, Any]:
    flat = flatten_dict(dict(variables), sep="/")
    flat[f"params/{leaf}"] = flat[f"params/{leaf}"][::-1]
    return unflatten_dict(flat, sep="/")


def _without_parts(trace: Trace, module: str) -> Trace:
    """The trace of a framework that computes a module in one piece, as PyTorch does."""
    inside = [s for s in trace.stages if module not in trace.ancestors(s.path)]
    return Trace(trace.framework, tuple(inside), trace.leaves)


Maker = Callable[[Faults], nn.Module]
SIZES = {"bert": (2, 128, WIDTH), "bilstm": (2, 256, 256), "lstm": (2, 512, 512), "heads": (2, 128, WIDTH), "image": (2, 224, 224, 3)}  # fmt: skip
MODELS: dict[str, Maker] = {
    "bert": Bert,
    "bilstm": functools.partial(Recurrent, 256, True),
    "lstm": functools.partial(Recurrent, 512, False),
    "heads": Heads,
    "image": Image,
}
#: model -> what is wrong with it: faults of the code, or a leaf whose rows are turned round
CASES = {
    "bert": ("epsilon@5", "gelu@3 residual@7 scale@8", "gelu", "scale", "odd@4", "odd_act@4", "layer_4/fc1/kernel"),
    "bilstm": ("merge", "gate", "odd", "fwd/hi/kernel"),
    "lstm": ("gate", "odd", "fwd/hi/kernel"),
    "heads": ("attn/query/kernel",),
    "image": ("pool", "odd_act", "stem/kernel", "conv1a/kernel"),
}  # fmt: skip


def main() -> int:
    """Prints one line a case; 1 where one is above the bound."""
    slow = []
    print(f"{'case':44}{'record':>9}{'compare':>9}{'explain':>9}{'ratio':>8}  verdict")
    for model, cases in CASES.items():
        if sys.argv[1:] and not any(word.startswith(model) for word in sys.argv[1:]):
            continue
        x = np.random.default_rng(0).normal(size=SIZES[model]).astype(np.float32)
        variables = MODELS[model](frozenset()).init(jax.random.key(0), x)
        record = functools.partial(
            record_linen, MODELS[model](frozenset()), variables, x, double=True
        )
        reference = record()
        began = time.process_time()
        record()  # compiled by now
        recorded = time.process_time() - began
        if model == "heads":
            reference = _without_parts(reference, "attn")
        for case in cases:
            if ":".join((model, case)) in sys.argv[1:] or not any(":" in w for w in sys.argv[1:]):
                slow += _measured(model, case, variables, x, reference, recorded)
    return bool(slow)


def _measured(
    model: str, case: str, variables: Any, x: np.ndarray, reference: Trace, recorded: float
) -> list[str]:
    leaf = "/" in case
    module = MODELS[model](frozenset(() if leaf else case.split()))
    held = _spoiled(variables, case) if leaf else variables
    candidate = record_linen(module, held, x, double=True)
    times = [time.process_time()]
    comparison = compare_traces(reference, candidate)
    times.append(time.process_time())
    found = explain(comparison)
    times.append(time.process_time())
    compared, explained = np.diff(times)
    faults = "; ".join(dict.fromkeys(", ".join(c.faults) or c.verdict for c in found.causes))
    print(
        f"{model + ': ' + case:44}{recorded:8.2f}s{compared:8.2f}s{explained:8.2f}s"
        f"{explained / recorded:7.1f}x  {found.verdict} ({len(found.causes)}): {faults}",
        flush=True,
    )
    return [case] if explained > BOUND else []


if __name__ == "__main__":
    sys.exit(main())
