"""Small self-made ports for the fault benchmark: what the cases on disk do not have.

Packed projections, recurrent cells, a flatten after a convolution, a transposed convolution,
stacked layers, more than ten layers, and near misses: symmetric, duplicated, constant tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from porting.layouts import Rule, identity
from porting.leaves import STACK, SUM, Leaf, port_leaves


@dataclass(frozen=True)
class Port:
    """A clean port.

    Attributes:
        name: of the model.
        source: key -> array.
        leaves: path -> array.
        rows: path -> row that makes the leaf.
        given: whether the rows are handed to `diagnose`; else it infers them.
    """

    name: str
    source: dict[str, np.ndarray]
    leaves: dict[str, np.ndarray]
    rows: dict[str, Leaf]
    given: bool = True

    @property
    def mapping(self) -> SimpleNamespace | None:
        """What `diagnose` gets."""
        return SimpleNamespace(leaves=self.rows, unmapped={}, unused={}) if self.given else None


def _port(name: str, source: dict[str, np.ndarray], rows: list[Leaf]) -> Port:
    source = {key: np.asarray(value, np.float32) for key, value in source.items()}
    made = {p: np.asarray(a, order="C") for p, a in port_leaves(rows, source).items()}
    return Port(name, source, made, {row.path: row for row in rows})


def attention(seed: int = 0, layers: int = 3, width: int = 12, heads: int = 3) -> Port:
    """Packed `[q; k; v]` of nn.MultiheadAttention into multi-axis kernels, with norms."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for n in range(layers):
        s, p = f"layers.{n}.", f"params/layers_{n}/"
        source |= {
            f"{s}attn.in_proj_weight": draw((3 * width, width)),
            f"{s}attn.in_proj_bias": draw(3 * width),
            f"{s}attn.out_proj.weight": draw((width, width)),
            f"{s}attn.out_proj.bias": draw(width),
            f"{s}norm.weight": 1 + draw(width) / 8,
            f"{s}norm.bias": draw(width) / 8,
        }
        for j, part in enumerate(("query", "key", "value")):
            sizes = {"qkv": 3, "h": heads}
            packed = Rule(f"(qkv={j} h d) e -> e h d", sizes), Rule(f"(qkv={j} h d) -> h d", sizes)
            rows.append(Leaf(f"{p}attn/{part}/kernel", (f"{s}attn.in_proj_weight",), packed[0]))
            rows.append(Leaf(f"{p}attn/{part}/bias", (f"{s}attn.in_proj_bias",), packed[1]))
        out = Rule("e (h d) -> h d e", {"h": heads})
        rows.append(Leaf(f"{p}attn/out/kernel", (f"{s}attn.out_proj.weight",), out))
        rows.append(Leaf(f"{p}attn/out/bias", (f"{s}attn.out_proj.bias",), identity(1)))
        rows.append(Leaf(f"{p}norm/scale", (f"{s}norm.weight",), identity(1)))
        rows.append(Leaf(f"{p}norm/bias", (f"{s}norm.bias",), identity(1)))
    return _port("attention", source, rows)


def neox(seed: int = 1, layers: int = 2, width: int = 12, heads: int = 3) -> Port:
    """Per-head packed q, k, v (GPT-NeoX) into separate square kernels."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for n in range(layers):
        s, p = f"layers.{n}.attention.", f"params/layers_{n}/attention/"
        source[f"{s}query_key_value.weight"] = draw((3 * width, width))
        source[f"{s}query_key_value.bias"] = draw(3 * width)
        for j, part in enumerate(("query", "key", "value")):
            sizes = {"h": heads, "qkv": 3}
            kernel = Rule(f"(h qkv={j} d) e -> e (h d)", sizes)
            bias = Rule(f"(h qkv={j} d) -> (h d)", sizes)
            rows.append(Leaf(f"{p}{part}/kernel", (f"{s}query_key_value.weight",), kernel))
            rows.append(Leaf(f"{p}{part}/bias", (f"{s}query_key_value.bias",), bias))
    return _port("neox", source, rows)


def lstm(seed: int = 2, inputs: int = 7, hidden: int = 7) -> Port:
    """nn.LSTM into LSTMCell: gates i, f, g, o apart, both biases summed."""
    draw = np.random.default_rng(seed).standard_normal
    source = {
        "lstm.weight_ih_l0": draw((4 * hidden, inputs)),
        "lstm.weight_hh_l0": draw((4 * hidden, hidden)),
        "lstm.bias_ih_l0": draw(4 * hidden),
        "lstm.bias_hh_l0": draw(4 * hidden),
    }
    biases, rows = ("lstm.bias_ih_l0", "lstm.bias_hh_l0"), []
    for j, gate in enumerate("ifgo"):
        kernel = Rule(f"(g={j} h) e -> e h", {"g": 4})
        rows.append(Leaf(f"params/cell/i{gate}/kernel", ("lstm.weight_ih_l0",), kernel))
        rows.append(Leaf(f"params/cell/h{gate}/kernel", ("lstm.weight_hh_l0",), kernel))
        rows.append(
            Leaf(f"params/cell/h{gate}/bias", biases, Rule(f"(g={j} h) -> h", {"g": 4}), SUM)
        )
    return _port("lstm", source, rows)


def gru(seed: int = 3, inputs: int = 5, hidden: int = 7) -> Port:
    """nn.GRU into GRUCell: r and z with summed biases, n with two of its own."""
    draw = np.random.default_rng(seed).standard_normal
    source = {
        "gru.weight_ih_l0": draw((3 * hidden, inputs)),
        "gru.weight_hh_l0": draw((3 * hidden, hidden)),
        "gru.bias_ih_l0": draw(3 * hidden),
        "gru.bias_hh_l0": draw(3 * hidden),
    }
    ih, hh, rows = "gru.bias_ih_l0", "gru.bias_hh_l0", []
    for j, gate in enumerate("rzn"):
        kernel, bias = Rule(f"(g={j} h) e -> e h", {"g": 3}), Rule(f"(g={j} h) -> h", {"g": 3})
        rows.append(Leaf(f"params/cell/i{gate}/kernel", ("gru.weight_ih_l0",), kernel))
        rows.append(Leaf(f"params/cell/h{gate}/kernel", ("gru.weight_hh_l0",), kernel))
        if gate == "n":
            rows.append(Leaf("params/cell/in/bias", (ih,), bias))
            rows.append(Leaf("params/cell/hn/bias", (hh,), bias))
        else:
            rows.append(Leaf(f"params/cell/i{gate}/bias", (ih, hh), bias, SUM))
    return _port("gru", source, rows)


def convnet(seed: int = 4) -> Port:
    """Square-ish convolutions, batch norms, a flatten, a transposed convolution."""
    draw = np.random.default_rng(seed).standard_normal
    source = {
        "conv1.weight": draw((3, 3, 3, 3)),
        "conv2.weight": draw((5, 3, 3, 3)),
        "conv3.weight": draw((5, 5, 1, 7)),
        "bn.weight": 1 + draw(5) / 8,
        "bn.bias": draw(5),
        "bn.running_mean": draw(5),
        "bn.running_var": np.abs(draw(5)) + 0.5,
        "up.weight": draw((5, 5, 3, 3)),
        "fc.weight": draw((11, 5 * 2 * 3)),
        "fc.bias": draw(11),
        "video.weight": draw((3, 3, 3, 3, 3)),
    }
    conv = Rule("o i h w -> h w i o")
    rows = [
        *(Leaf(f"params/conv{n}/kernel", (f"conv{n}.weight",), conv) for n in (1, 2, 3)),
        Leaf("params/bn/scale", ("bn.weight",), identity(1)),
        Leaf("params/bn/bias", ("bn.bias",), identity(1)),
        Leaf("batch_stats/bn/mean", ("bn.running_mean",), identity(1)),
        Leaf("batch_stats/bn/var", ("bn.running_var",), identity(1)),
        Leaf("params/up/kernel", ("up.weight",), Rule("i o h w -> -h -w i o")),
        Leaf("params/fc/kernel", ("fc.weight",), Rule("o (c h w) -> (h w c) o", {"h": 2, "w": 3})),
        Leaf("params/fc/bias", ("fc.bias",), identity(1)),
        Leaf("params/video/kernel", ("video.weight",), Rule("o i d h w -> d h w i o")),
    ]
    return _port("convnet", source, rows)


def scanned(seed: int = 5, layers: int = 12, width: int = 6) -> Port:
    """Layers stacked on a leading axis (nn.scan)."""
    draw = np.random.default_rng(seed).standard_normal
    source = {f"h.{n}.fc.weight": draw((width, width)) for n in range(layers)}
    source |= {f"h.{n}.fc.bias": draw(width) for n in range(layers)}
    rows = [
        Leaf("params/h/fc/kernel", tuple(f"h.{n}.fc.weight" for n in range(layers)),
             Rule("l o i -> l i o"), STACK),
        Leaf("params/h/fc/bias", tuple(f"h.{n}.fc.bias" for n in range(layers)),
             Rule("l o -> l o"), STACK),
    ]  # fmt: skip
    return _port("scanned", source, rows)


def deep(seed: int = 6, layers: int = 12, width: int = 8) -> Port:
    """Twelve layers of square kernels and biases with a gated MLP."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for n in range(layers):
        for part in ("q_proj", "k_proj", "gate_proj", "up_proj"):
            key = f"model.layers.{n}.{part}.weight"
            source[key] = draw((width, width))
            rows.append(Leaf(f"params/layers_{n}/{part}/kernel", (key,), Rule("o i -> i o")))
        key = f"model.layers.{n}.norm.weight"
        source[key] = 1 + draw(width) / 8
        rows.append(Leaf(f"params/layers_{n}/norm/scale", (key,), identity(1)))
    return _port("deep", source, rows)


def near_misses(seed: int = 7, width: int = 8) -> Port:
    """Tensors that cannot be told apart: symmetric, duplicated, constant, of one value."""
    draw = np.random.default_rng(seed).standard_normal
    one = draw((width, width))
    source = {
        "a.weight": one + one.T,
        "b.weight": draw((width, width)),
        "c.weight": np.eye(width),
        "d.weight": np.full((width, width), 0.5),
        "e.weight": np.zeros((width, width)),
        "norm1.weight": np.ones(width),
        "norm1.bias": np.zeros(width),
        "norm2.weight": np.ones(width),
        "norm2.bias": np.zeros(width),
        "tiny.bias": np.array([0.25]),
        "pair.bias": np.array([0.5, -0.5]),
    }
    source["f.weight"] = source["b.weight"].copy()
    rows = [Leaf(f"params/{k}/kernel", (f"{k}.weight",), Rule("o i -> i o")) for k in "abcdef"]
    for n in (1, 2):
        rows.append(Leaf(f"params/norm{n}/scale", (f"norm{n}.weight",), identity(1)))
        rows.append(Leaf(f"params/norm{n}/bias", (f"norm{n}.bias",), identity(1)))
    rows.append(Leaf("params/tiny/bias", ("tiny.bias",), identity(1)))
    rows.append(Leaf("params/pair/bias", ("pair.bias",), identity(1)))
    return _port("near_misses", source, rows)


MODELS = (attention, neox, lstm, gru, convnet, scanned, deep, near_misses)
