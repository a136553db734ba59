"""Recurrent layers: LSTM, GRU and RNN, in several layers and both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from porting.errors import ArgumentError, UnsupportedError
from porting.layers.attention import batch_first
from porting.layers.dense import FLAX, TORCH
from porting.layers.row import Config, Input, Layer, Shapes, State
from porting.layouts import Rule, identity
from porting.leaves import SUM, ZEROS, Leaf

SUMMED = "the two biases are one sum in Flax; going back it is bias_ih, and bias_hh is 0"


def _suffixes(c: Config) -> list[tuple[int, bool, str]]:
    """(layer, backward, key suffix) of every direction of every layer."""
    return [
        (k, back, f"_l{k}{'_reverse' if back else ''}")
        for k in range(c.num_layers)
        for back in ((False, True) if c.bidirectional else (False,))
    ]


def _width(c: Config, layer: int) -> int:
    return c.hidden_size * (2 if c.bidirectional else 1) if layer else c.input_size


def _keys(c: Config) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}
    rows = c.gates * c.hidden_size
    for layer, _, suffix in _suffixes(c):
        keys[f"weight_ih{suffix}"] = (rows, _width(c, layer))
        keys[f"weight_hh{suffix}"] = (rows, c.hidden_size)
        if c.bias:
            keys |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
    return keys


def _linen_prefix(c: Config, layer: int, back: bool) -> str:
    """The path of a cell in `Sequential` of `Bidirectional` of `RNN`, each only where needed."""
    outer = f"layers_{layer}/" if c.num_layers > 1 else ""
    inner = f"{'backward' if back else 'forward'}_rnn/" if c.bidirectional else ""
    return f"params/{outer}{inner}cell/"


def _nnx_prefix(c: Config, layer: int, back: bool) -> str:
    inner = f"{'backward' if back else 'forward'}_rnn/" if c.bidirectional else ""
    return f"layers/{layer}/{inner}cell/"


def _table(
    c: Config, prefix: Callable[[Config, int, bool], str], cell: Callable[..., list[Leaf]]
) -> list[Leaf]:
    return [
        leaf
        for layer, back, suffix in _suffixes(c)
        for leaf in cell(prefix(c, layer, back), suffix, c)
    ]


def _gate(j: int, gates: int, bias: bool = False) -> Rule:
    pattern = f"(gate={j} h) -> h" if bias else f"(gate={j} h) i -> i h"
    return Rule(pattern, {"gate": gates})


def _bias(path: str, suffix: str, rule: Rule, c: Config) -> Leaf:
    """The sum of both biases, or zeros where the layer has none."""
    if not c.bias:
        return Leaf(path, (f"weight_hh{suffix}",), rule, ZEROS)
    return Leaf(path, (f"bias_ih{suffix}", f"bias_hh{suffix}"), rule, SUM)


def _lstm_leaves(names: str) -> Callable[[str, str, Config], list[Leaf]]:
    def leaves(prefix: str, suffix: str, c: Config) -> list[Leaf]:
        rows = []
        for j, gate in enumerate("ifgo"):
            inner = names if gate == "f" else f"i{gate}"
            rows += [
                Leaf(f"{prefix}{inner}/kernel", (f"weight_ih{suffix}",), _gate(j, 4)),
                Leaf(f"{prefix}h{gate}/kernel", (f"weight_hh{suffix}",), _gate(j, 4)),
                _bias(f"{prefix}h{gate}/bias", suffix, _gate(j, 4, bias=True), c),
            ]
        return rows

    return leaves


def _gru_leaves(prefix: str, suffix: str, c: Config) -> list[Leaf]:
    rows = []
    for j, gate in enumerate("rzn"):
        rows += [
            Leaf(f"{prefix}i{gate}/kernel", (f"weight_ih{suffix}",), _gate(j, 3)),
            Leaf(f"{prefix}h{gate}/kernel", (f"weight_hh{suffix}",), _gate(j, 3)),
        ]
        if gate != "n" or not c.bias:
            rows.append(_bias(f"{prefix}i{gate}/bias", suffix, _gate(j, 3, bias=True), c))
    if not c.bias:
        return [*rows, _bias(f"{prefix}hn/bias", suffix, _gate(2, 3, bias=True), c)]
    return [
        *rows,
        Leaf(f"{prefix}in/bias", (f"bias_ih{suffix}",), _gate(2, 3, bias=True)),
        Leaf(f"{prefix}hn/bias", (f"bias_hh{suffix}",), _gate(2, 3, bias=True)),
    ]


def _whole_leaves(inner: str, hidden: str) -> Callable[[str, str, Config], list[Leaf]]:
    """A cell with one kernel for all gates, and its one bias on the input side."""

    def leaves(prefix: str, suffix: str, c: Config) -> list[Leaf]:
        transpose = Rule("g i -> i g")
        return [
            Leaf(f"{prefix}{inner}/kernel", (f"weight_ih{suffix}",), transpose),
            Leaf(f"{prefix}{hidden}/kernel", (f"weight_hh{suffix}",), transpose),
            _bias(f"{prefix}{inner}/bias", suffix, identity(1), c),
        ]

    return leaves


# The reference.


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _lstm_step(
    into: np.ndarray, from_h: np.ndarray, carry: list[np.ndarray], c: Config
) -> list[np.ndarray]:
    i, f, g, o = np.split(into + from_h, 4, axis=-1)
    cell = _sigmoid(f) * carry[1] + _sigmoid(i) * np.tanh(g)
    return [_sigmoid(o) * np.tanh(cell), cell]


def _gru_step(
    into: np.ndarray, from_h: np.ndarray, carry: list[np.ndarray], c: Config
) -> list[np.ndarray]:
    (ir, iz, i_n), (hr, hz, hn) = (np.split(a, 3, axis=-1) for a in (into, from_h))
    z = _sigmoid(iz + hz)
    return [(1 - z) * np.tanh(i_n + _sigmoid(ir + hr) * hn) + z * carry[0]]


def _rnn_step(
    into: np.ndarray, from_h: np.ndarray, carry: list[np.ndarray], c: Config
) -> list[np.ndarray]:
    total = into + from_h
    return [np.tanh(total) if c.nonlinearity == "tanh" else np.maximum(total, 0)]


def _one_direction(
    state: State, x: np.ndarray, suffix: str, c: Config, step: Callable[..., list[np.ndarray]]
) -> np.ndarray:
    """x (T, B, I) -> the hidden states (T, B, H) of one direction."""
    into = x @ state[f"weight_ih{suffix}"].T + state.get(f"bias_ih{suffix}", 0.0)
    hidden, bias = state[f"weight_hh{suffix}"].T, state.get(f"bias_hh{suffix}", 0.0)
    carry = [np.zeros((x.shape[1], c.hidden_size))] * 2
    out = []
    for row in into:
        carry = step(row, carry[0] @ hidden + bias, carry, c)
        out.append(carry[0])
    return np.stack(out)


def _reference(step: Callable[..., list[np.ndarray]]) -> Callable[..., np.ndarray]:
    def reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
        x = inputs[0][:, None] if inputs[0].ndim == 2 else inputs[0]
        x = np.swapaxes(x, 0, 1) if c.batch_first and inputs[0].ndim == 3 else x
        for layer in range(c.num_layers):
            parts = []
            for k, back, suffix in _suffixes(c):
                if k == layer:
                    turned = x[::-1] if back else x
                    out = _one_direction(state, turned, suffix, c, step)
                    parts.append(out[::-1] if back else out)
            x = np.concatenate(parts, axis=-1)
        if inputs[0].ndim == 2:
            return x[:, 0]
        return np.swapaxes(x, 0, 1) if c.batch_first else x

    return reference


# The Flax modules.


def _linen(cell: Callable[[Config], Any]) -> Callable[[Config], Any]:
    def build(c: Config) -> Any:
        def one() -> Any:
            if not c.bidirectional:
                return linen.RNN(cell(c))
            return linen.Bidirectional(linen.RNN(cell(c)), linen.RNN(cell(c)))

        layers = [one() for _ in range(c.num_layers)]
        return layers[0] if len(layers) == 1 else linen.Sequential(layers)

    return build


class NNXRecurrent(nnx.Module):
    """Stacked `nnx.RNN` or `nnx.Bidirectional`, each started from a carry of zeros."""

    def __init__(self, c: Config, cell: Callable[..., Any], carries: int, **kw: Any) -> None:
        def one(width: int) -> nnx.RNN:
            return nnx.RNN(cell(c, width, **kw), rngs=False)

        self.hidden_size, self.carries, self.both = c.hidden_size, carries, c.bidirectional
        self.layers = nnx.List(
            nnx.Bidirectional(one(_width(c, k)), one(_width(c, k)), rngs=False)
            if c.bidirectional
            else one(_width(c, k))
            for k in range(c.num_layers)
        )

    def __call__(self, x: Any) -> Any:
        zeros = jnp.zeros((*x.shape[:-2], self.hidden_size), x.dtype)
        carry: Any = zeros if self.carries == 1 else (zeros,) * self.carries
        for layer in self.layers:
            x = layer(x, initial_carry=(carry, carry) if self.both else carry)
        return x


def _nnx(cell: Callable[..., Any], carries: int) -> Callable[..., nnx.Module]:
    return lambda c, **kw: NNXRecurrent(c, cell, carries, **kw)


def _dtype(c: Config) -> Any:
    return jax.dtypes.canonicalize_dtype(c.dtype)


def _activation(c: Config) -> Callable[..., Any]:
    return jnp.tanh if c.nonlinearity == "tanh" else jax.nn.relu


# The rows.


def _sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
    rows, width = shapes["weight_ih_l0"]
    layers = {k.split("_l")[-1].split("_")[0] for k in shapes if k.startswith("weight_ih_l")}
    return {
        "input_size": width,
        "hidden_size": rows // c.gates,
        "num_layers": len(layers),
        "bidirectional": "weight_ih_l0_reverse" in shapes,
    }


def _sizes_back(first: str, hidden: str) -> Callable[[Shapes, Config], dict[str, Any]]:
    """`first` and `hidden`: the cell's first input kernel and hidden kernel."""

    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        layers = {path.split("/")[1] for path in shapes if path.startswith("params/layers_")}
        both = any("/backward_rnn/" in path for path in shapes)
        c.num_layers = max(len(layers), 1)
        c.bidirectional = both
        prefix = _linen_prefix(c, 0, False)
        return {
            "input_size": shapes[f"{prefix}{first}/kernel"][0],
            "hidden_size": shapes[f"{prefix}{hidden}/kernel"][0],
            "num_layers": c.num_layers,
            "bidirectional": both,
        }

    return sizes


def _accept(given: tuple[np.ndarray, ...], c: Config) -> tuple[np.ndarray, ...]:
    """PyTorch's call takes the initial state as a second input; only zeros are taken here."""
    if len(given) > 1 and any(np.any(state) for state in given[1:]):
        raise UnsupportedError(
            "Only an initial state of zeros is run here. Pass another one as `initial_carry` to "
            "Flax's RNN yourself: (c, h) where PyTorch has (h, c)."
        )
    return given[:1]


def _check(c: Config, state: State | None, api: str) -> None:
    if getattr(c, "proj_size", 0):
        raise UnsupportedError(
            "LSTM(proj_size) multiplies every hidden state by weight_hr, which no Flax cell "
            "does. Write a cell with a Dense behind nn.LSTMCell's hidden state."
        )
    if getattr(c, "nonlinearity", "tanh") not in ("tanh", "relu"):
        raise ArgumentError(f"nonlinearity = {c.nonlinearity!r}. Use 'tanh' or 'relu'.")


def _check_gru(c: Config, state: State | None, api: str) -> None:
    if api != "nnx" or state is None or not c.bias:
        return
    wrong = []
    for _, _, suffix in _suffixes(c):
        bias = state[f"bias_hh{suffix}"][2 * c.hidden_size :]
        if np.any(bias):
            wrong.append(
                f"bias_hh{suffix}[n] (largest {np.abs(bias.astype(np.float64)).max():.3g})"
            )
    if wrong:
        raise UnsupportedError(
            f"nnx.GRUCell has no bias on the hidden side, so it cannot hold {', '.join(wrong)}: "
            "r · (W h + b) is no sum. Port to Linen, whose GRUCell has hn/bias, or write an NNX "
            "cell with that bias."
        )


_OPTIONS: dict[str, Any] = {
    "input_size": None,
    "hidden_size": None,
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
}
_SHARED: dict[str, Any] = {
    "family": "recurrent",
    "example": {"input_size": 5, "hidden_size": 3, "batch_first": True},
    "keys": _keys,
    "into": batch_first,
    "out_of": batch_first,
    "accept": _accept,
    "loses": SUMMED,
}


def _inputs(c: Config) -> tuple[Input, ...]:
    outer = ("batch?", "time") if c.batch_first else ("time?", "batch")
    return (Input("input", (*outer, c.input_size)),)


LSTM = Layer(
    name="LSTM",
    facts={"gates": 4},
    title="Long short-term memory",
    options=_OPTIONS | {"proj_size": 0},
    sizes=_sizes,
    sizes_back=_sizes_back("ii", "hi"),
    leaves=lambda c: _table(c, _linen_prefix, _lstm_leaves("if")),
    nnx_leaves=lambda c: _table(c, _nnx_prefix, _lstm_leaves("if_")),
    linen=_linen(lambda c: linen.OptimizedLSTMCell(c.hidden_size, param_dtype=_dtype(c))),
    nnx=_nnx(lambda c, width, **kw: nnx.LSTMCell(width, c.hidden_size, **kw), 2),
    reference=_reference(_lstm_step),
    inputs=_inputs,
    check=_check,
    pitfalls=(
        "The rows are i, f, g, o; another order fits.",
        "PyTorch has two biases, Flax one: their sum. bias_hh alone drops half.",
        "Flax's carry is (c, h), PyTorch returns (h, c).",
    ),
    differs="NNX's LSTMCell spells the forget gate's input kernel if_; NNX's OptimizedLSTMCell "
    "holds dense_i and dense_h whole. Stacked layers: layers_0 in Linen, layers/0 in NNX.",
    sources=(TORCH + "LSTM.html", FLAX, "https://github.com/google/flax/issues/3746"),
    **_SHARED,
)

GRU = Layer(
    name="GRU",
    facts={"gates": 3},
    title="Gated recurrent unit",
    options=_OPTIONS,
    sizes=_sizes,
    sizes_back=_sizes_back("ir", "hr"),
    leaves=lambda c: _table(c, _linen_prefix, _gru_leaves),
    nnx_leaves=lambda c: _table(c, _nnx_prefix, _whole_leaves("dense_i", "dense_h")),
    linen=_linen(lambda c: linen.GRUCell(c.hidden_size, param_dtype=_dtype(c))),
    nnx=_nnx(lambda c, width, **kw: nnx.GRUCell(width, c.hidden_size, **kw), 1),
    reference=_reference(_gru_step),
    inputs=_inputs,
    check=_check_gru,
    pitfalls=(
        "The rows are r, z, n.",
        "The biases of r and z are summed; b_in and b_hn stay apart, for r multiplies b_hn.",
    ),
    differs="nnx.GRUCell (0.12.8) has no bias on the hidden side: it holds the layer only where "
    "bias_hh[n] is 0. It keeps dense_i and dense_h whole.",
    sources=(TORCH + "GRU.html", FLAX),
    **_SHARED,
)

RNN = Layer(
    name="RNN",
    facts={"gates": 1},
    title="Elman's recurrent layer, tanh or relu",
    options=_OPTIONS | {"nonlinearity": "tanh"},
    sizes=_sizes,
    sizes_back=_sizes_back("i", "h"),
    leaves=lambda c: _table(c, _linen_prefix, _whole_leaves("i", "h")),
    nnx_leaves=lambda c: _table(c, _nnx_prefix, _whole_leaves("dense_i", "dense_h")),
    linen=_linen(
        lambda c: linen.SimpleCell(
            c.hidden_size, activation_fn=_activation(c), param_dtype=_dtype(c)
        )
    ),
    nnx=_nnx(
        lambda c, width, **kw: nnx.SimpleCell(
            width, c.hidden_size, activation_fn=_activation(c), dtype=None, **kw
        ),
        1,
    ),
    reference=_reference(_rnn_step),
    inputs=_inputs,
    check=_check,
    pitfalls=("Two biases become one.",),
    differs="Linen names the kernels i and h, NNX dense_i and dense_h; nnx.SimpleCell computes "
    "in float32 unless dtype=None.",
    sources=(TORCH + "RNN.html", FLAX),
    **_SHARED,
)

ROWS = (LSTM, GRU, RNN)
