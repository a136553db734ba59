"""Faults of recurrent layers: the order of the gates, two biases, two directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from porting.faults.paths import RECURRENT, called, is_layer
from porting.faults.row import Fault, Port, Transform, change, configure, exchange

_RECURRENT = is_layer(*RECURRENT)


def _kernels(side: str) -> Transform:
    """Transpose the kernels on the input side ("i") or on the hidden side ("h")."""

    def paths(port: Port) -> list[str]:
        return [path for path in called("kernel")(port) if path.split("/")[-2].startswith(side)]

    return change(paths, np.transpose)


def _regate(taken: Mapping[str, str]) -> Transform:
    """Give each gate the leaves of another one: gate -> the gate whose leaves it gets."""

    def transform(port: Port) -> Port:
        changed = {}
        for path in port.leaves:
            *modules, cell, own = path.split("/")
            source = "/".join([*modules, cell[0] + taken.get(cell[1:], cell[1:]), own])
            changed[path] = port.leaves[source]
        return port.with_leaves(changed)

    return transform


def _merge_biases(port: Port) -> Port:
    """b_hn added to b_in, and left out behind the reset gate."""
    changed = {}
    for hidden in (path for path in port.leaves if path.endswith("/hn/bias")):
        inner = hidden.removesuffix("hn/bias") + "in/bias"
        changed[inner] = port.leaves[inner] + port.leaves[hidden]
        changed[hidden] = np.zeros_like(port.leaves[hidden])
    return port.with_leaves(changed)


def _exchange_directions(port: Port) -> Port:
    prefixes = {path.split("forward_rnn")[0] for path in port.leaves if "forward_rnn" in path}
    for prefix in sorted(prefixes):
        port = exchange(f"{prefix}forward_rnn", f"{prefix}backward_rnn")(port)
    return port


def _has_two_layers(port: Port) -> bool:
    return bool(port.under("params/layers_0")) and bool(port.under("params/layers_1"))


def _other_activation(port: Port) -> Port:
    other = "relu" if port.config["nonlinearity"] == "tanh" else "tanh"
    return configure(nonlinearity=other)(port)


ROWS = (
    Fault(
        "hidden_untransposed",
        "Hidden kernels not transposed",
        "They are square, so every shape fits; wrong from the second step on. "
        "One step hides it: the first hidden state is zero.",
        "PyTorch keeps (out, in), Flax (in, out).",
        'cell["hi"]["kernel"] = weight_hh[:hidden].T',
        "fault catalogue: square kernels",
        _kernels("h"),
        fits=_RECURRENT,
    ),
    Fault(
        "input_untransposed",
        "Input kernels not transposed",
        "Flax raises, unless the input is as wide as the hidden state.",
        "PyTorch keeps (out, in), Flax (in, out).",
        'cell["ii"]["kernel"] = weight_ih[:hidden].T',
        "the first mistake of every port",
        _kernels("i"),
        fits=_RECURRENT,
    ),
    Fault(
        "gates_reordered",
        "Gates read as i, o, f, g",
        "Every shape fits; every output is wrong.",
        "PyTorch stacks i, f, g, o; ONNX i, o, f, c.",
        "i, f, g, o = np.split(weight_ih, 4)",
        "flax 3746; ONNX LSTM",
        _regate({"o": "f", "f": "g", "g": "o"}),
        fits=is_layer("LSTM"),
    ),
    Fault(
        "fg_exchanged",
        "Forget gate and cell candidate exchanged",
        "Every shape fits; every output is wrong.",
        "The letters differ between papers: c, g and j are one gate.",
        "i, f, g, o = np.split(weight_ih, 4)",
        "flax 3746; TensorFlow stacks i, c, f, o in its oldest cell",
        _regate({"f": "g", "g": "f"}),
        fits=is_layer("LSTM"),
    ),
    Fault(
        "rz_exchanged",
        "Reset and update gate exchanged",
        "Every shape fits; every output is wrong.",
        "PyTorch stacks r, z, n; Keras z, r, h.",
        "r, z, n = np.split(weight_ih, 3)",
        "keras.layers.GRU: z, r, h",
        _regate({"r": "z", "z": "r"}),
        fits=is_layer("GRU"),
    ),
    Fault(
        "one_bias_dropped",
        "One of the two biases dropped",
        "Every gate is shifted.",
        "PyTorch has bias_ih and bias_hh, Flax one bias: their sum. Injected as half of the sum, "
        "for the leaves do not tell its parts.",
        "bias = bias_ih + bias_hh",
        "flax 3746",
        change(called("bias"), lambda bias: bias / bias.dtype.type(2)),
        "values",
        fits=lambda port: _RECURRENT(port) and bool(port.config["bias"]),
    ),
    Fault(
        "candidate_bias_merged",
        "b_in and b_hn merged",
        "Small errors at every step.",
        "All other biases are summed; this one stands behind the reset gate: r · (W h + b_hn).",
        'cell["in"]["bias"], cell["hn"]["bias"] = b_in, b_hn',
        "torch.nn.GRU; nnx.GRUCell has no such bias",
        _merge_biases,
        "values",
        fits=lambda port: is_layer("GRU")(port) and bool(port.config["bias"]),
    ),
    Fault(
        "directions_exchanged",
        "Forward and backward exchanged",
        "Every shape fits; every output is wrong.",
        "The _reverse tensors were given to the forward cell.",
        'params["backward_rnn"] = cell of the keys that end in _reverse',
        "torch.nn.LSTM: weight_ih_l0_reverse",
        _exchange_directions,
        fits=lambda port: _RECURRENT(port) and bool(port.config["bidirectional"]),
    ),
    Fault(
        "layers_exchanged",
        "Two layers exchanged",
        "Flax raises where their widths differ; a stack of equal layers fits.",
        "Names sorted as text put layer 10 before layer 2.",
        "sort by the number in the name",
        "JAX sorts the keys of dictionaries",
        exchange("params/layers_0", "params/layers_1"),
        fits=_has_two_layers,
    ),
    Fault(
        "other_nonlinearity",
        "tanh and relu exchanged",
        "No leaf differs; every output is wrong.",
        "nonlinearity is an option, and no leaf holds it.",
        "linen.SimpleCell(hidden_size, activation_fn=jnp.tanh)",
        "torch.nn.RNN: nonlinearity",
        _other_activation,
        "values",
        "forward",
        is_layer("RNN"),
    ),
    Fault(
        "batch_first_lost",
        "Batch and time exchanged",
        "Every shape fits; the layer runs along the batch.",
        "PyTorch's default is (time, batch, features), Flax's (batch, time, features).",
        "x = x.swapaxes(0, 1) where batch_first is False",
        "torch.nn.LSTM, torch.nn.MultiheadAttention: batch_first=False",
        lambda port: replace(
            port, config={**port.config, "batch_first": not port.config["batch_first"]}
        ),
        "values",
        "forward",
        lambda port: "batch_first" in port.config,
    ),
)
