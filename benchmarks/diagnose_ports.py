"""More self-made ports for the fault benchmark, whose rows `diagnose` infers from the names.

Grouped-query packing, a packed gate and up, both directions of two LSTM layers, fused weight
norm, stacks of attention layers and of unequal blocks, paths that are spelled unlike the keys, and kernels, packings
and gates that only the rest of the model tells.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.diagnose_models import Port, _port, gru
from porting.layouts import Rule, identity
from porting.leaves import STACK, SUM, Leaf, weight_norm

LINEAR, CONV = Rule("o i -> i o"), Rule("o i h w -> h w i o")


def falcon(seed: int = 11, layers: int = 3, width: int = 24, groups: int = 2) -> Port:
    """q, q, k, v of every group packed together (Falcon), rows given: no name tells them."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    sizes = {"n": groups, "r": 4, "d": 6}
    for n in range(layers):
        s, p = f"transformer.h.{n}.self_attention.", f"params/transformer/h_{n}/self_attention/"
        packed = (f"{s}query_key_value.weight",)
        source |= {
            packed[0]: draw((groups * 4 * 6, width)),
            f"{s}dense.weight": draw((width, width)),
        }
        rows.append(Leaf(f"{p}query/kernel", packed, Rule("(n r=0:2 d) e -> e (n r d)", sizes)))
        for j, part in ((2, "key"), (3, "value")):
            rows.append(Leaf(f"{p}{part}/kernel", packed, Rule(f"(n r={j} d) e -> e (n d)", sizes)))
        rows.append(Leaf(f"{p}dense/kernel", (f"{s}dense.weight",), LINEAR))
    return _port("falcon", source, rows)


def gated(seed: int = 12, layers: int = 4, width: int = 16) -> Port:
    """A packed gate and up projection, square, in halves."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for n in range(layers):
        s, p = f"model.layers.{n}.", f"params/model/layers_{n}/"
        source |= {
            f"{s}mlp.gate_up_proj.weight": draw((2 * width, width)),
            f"{s}mlp.down_proj.weight": draw((width, width)),
            f"{s}norm.weight": 1 + draw(width) / 8,
        }
        for j, part in enumerate(("gate_proj", "up_proj")):
            half = Rule(f"(p={j} h) i -> i h", {"p": 2})
            rows.append(Leaf(f"{p}mlp/{part}/kernel", (f"{s}mlp.gate_up_proj.weight",), half))
        rows.append(Leaf(f"{p}mlp/down_proj/kernel", (f"{s}mlp.down_proj.weight",), LINEAR))
        rows.append(Leaf(f"{p}norm/scale", (f"{s}norm.weight",), identity(1)))
    return replace(_port("gated", source, rows), given=False)


def bidirectional(seed: int = 13, inputs: int = 9, hidden: int = 9) -> Port:
    """Two LSTM layers in both directions; every gate apart, both biases summed."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for layer, way in ((0, ""), (0, "_reverse"), (1, ""), (1, "_reverse")):
        end, width = f"l{layer}{way}", (2 * hidden if layer else inputs)
        stem = f"params/rnn_{layer}/{'backward' if way else 'forward'}_rnn/cell/"
        source |= {
            f"rnn.weight_ih_{end}": draw((4 * hidden, width)),
            f"rnn.weight_hh_{end}": draw((4 * hidden, hidden)),
            f"rnn.bias_ih_{end}": draw(4 * hidden),
            f"rnn.bias_hh_{end}": draw(4 * hidden),
        }
        for j, gate in enumerate("ifgo"):
            kernel, bias = Rule(f"(g={j} h) i -> i h", {"g": 4}), Rule(f"(g={j} h) -> h", {"g": 4})
            rows.append(Leaf(f"{stem}i{gate}/kernel", (f"rnn.weight_ih_{end}",), kernel))
            rows.append(Leaf(f"{stem}h{gate}/kernel", (f"rnn.weight_hh_{end}",), kernel))
            both = (f"rnn.bias_ih_{end}", f"rnn.bias_hh_{end}")
            rows.append(Leaf(f"{stem}h{gate}/bias", both, bias, SUM))
    return replace(_port("bidirectional", source, rows), given=False)


def weight_normed(seed: int = 14, layers: int = 3, width: int = 6) -> Port:
    """Convolutions under weight norm, fused on the way."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for n in range(layers):
        pair = (f"conv.{n}.weight_g", f"conv.{n}.weight_v")
        source |= {pair[0]: np.abs(draw((width, 1, 1))) + 0.5, pair[1]: draw((width, width, 3))}
        source[f"conv.{n}.bias"] = draw(width)
        fused = Leaf(f"params/conv_{n}/kernel", pair, Rule("o i k -> k i o"), weight_norm(0))
        rows += [fused, Leaf(f"params/conv_{n}/bias", (f"conv.{n}.bias",), identity(1))]
    return replace(_port("weight_normed", source, rows), given=False)


def stacked(seed: int = 15, layers: int = 12, width: int = 16, heads: int = 4) -> Port:
    """Attention layers stacked on a leading axis, kernels with heads and head_dim apart."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {}, []
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        keys = tuple(f"model.layers.{n}.{part}.weight" for n in range(layers))
        source |= {key: draw((width, width)) for key in keys}
        text = "l e (h d) -> l h d e" if part == "o_proj" else "l (h d) e -> l e h d"
        rows.append(
            Leaf(f"params/model/layers/{part}/kernel", keys, Rule(text, {"h": heads}), STACK)
        )
    return replace(_port("stacked", source, rows), given=False)


def renamed(seed: int = 16, layers: int = 3, width: int = 16) -> Port:
    """Paths with words of their own."""
    draw = np.random.default_rng(seed).standard_normal
    source, rows = {"tok.weight": draw((width, width))}, []
    for n in range(layers):
        s, p = f"backbone.stage{n}.", f"params/trunk/level_{n}/"
        source |= {
            f"{s}proj.weight": draw((width, width + 4 * n)),
            f"{s}proj.bias": draw(width),
            f"{s}norm.weight": 1 + draw(width) / 8,
            f"{s}norm.bias": draw(width) / 8,
            f"{s}mix.weight": draw((width, width)),
        }
        rows += [
            Leaf(f"{p}lin/kernel", (f"{s}proj.weight",), LINEAR),
            Leaf(f"{p}lin/bias", (f"{s}proj.bias",), identity(1)),
            Leaf(f"{p}ln/scale", (f"{s}norm.weight",), identity(1)),
            Leaf(f"{p}ln/bias", (f"{s}norm.bias",), identity(1)),
            Leaf(f"{p}mixer/kernel", (f"{s}mix.weight",), LINEAR),
        ]
    rows.append(Leaf("params/table/embedding", ("tok.weight",), identity(2)))
    return replace(_port("renamed", source, rows), given=False)


def conv1d(seed: int = 17, layers: int = 3, width: int = 12) -> Port:
    """GPT-2's Conv1D, `(in, out)`, into kernels of `(out, in)` as transformers' Flax has them."""
    draw = np.random.default_rng(seed).standard_normal
    sizes = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    source, rows = {}, []
    for n in range(layers):
        for part, (i, o) in sizes.items():
            s, p = (
                f"transformer.h.{n}.{part}.",
                f"params/transformer/h/{n}/{part}/".replace(".", "/"),
            )
            source |= {f"{s}weight": draw((i * width, o * width)), f"{s}bias": draw(o * width)}
            rows.append(Leaf(f"{p}kernel", (f"{s}weight",), LINEAR))
            rows.append(Leaf(f"{p}bias", (f"{s}bias",), identity(1)))
    return replace(_port("conv1d", source, rows), given=False)


def interleaved(seed: int = 18, layers: int = 3, width: int = 16) -> Port:
    """A packed gate and up projection, row by row; no name tells it from halves."""
    port = gated(seed, layers, width)
    by_row = Rule("(h p=0) i -> i h", {"p": 2}), Rule("(h p=1) i -> i h", {"p": 2})
    rows = [
        replace(row, rule=by_row["up_proj" in path]) if row.rule.selects else row
        for path, row in port.rows.items()
    ]
    return replace(_port("interleaved", port.source, rows), given=False)


def cell(seed: int = 19) -> Port:
    """A GRU cell of which only the names tell what its gates are."""
    return replace(gru(seed, 9, 16), name="cell", given=False)


def staged(seed: int = 16) -> Port:
    """Twelve blocks of unequal shapes, a list of lists in the source and one list in the port."""
    draw, wide = np.random.default_rng(seed).standard_normal, 6
    source, rows, place = {}, [], 0
    for stage, (count, width) in enumerate(((1, 6), (2, 8), (3, 10), (3, 12), (3, 16))):
        for n in range(count):
            s, p = f"net.blocks.{stage}.{n}.", f"params/blocks/{place}/"
            source |= {
                f"{s}conv_pw.weight": draw((3 * wide, wide, 1, 1)),
                f"{s}conv_dw.weight": draw((3 * wide, 1, 3, 3)),
                f"{s}bn1.weight": 1 + draw(3 * wide) / 8,
                f"{s}bn1.bias": draw(3 * wide),
                f"{s}conv_pwl.weight": draw((width, 3 * wide, 1, 1)),
            }
            for name, key in (
                ("expand", "conv_pw"),
                ("depthwise", "conv_dw"),
                ("project", "conv_pwl"),
            ):
                rows.append(Leaf(f"{p}{name}/kernel", (f"{s}{key}.weight",), CONV))
            for name, key in (("scale", "weight"), ("bias", "bias")):
                rows.append(Leaf(f"{p}bn0/{name}", (f"{s}bn1.{key}",), identity(1)))
            place, wide = place + 1, width
    return replace(_port("staged", source, rows), given=False)


MORE = (
    falcon,
    gated,
    bidirectional,
    weight_normed,
    stacked,
    renamed,
    conv1d,
    interleaved,
    cell,
    staged,
)
