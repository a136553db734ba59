"""A PyTorch layer as it starts: what a tutorial checks its port with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from porting.layers import Config, Layer


def fresh_state(
    layer: Layer, c: Config, seed: int, given: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The layer's state_dict at its start: norms at one and zero, attention's biases at zero.

    Weights keep the random numbers of `example_state`: that they are random is all that
    matters here.
    """
    state = layer.example_state(seed, **given)
    return {key: _start(layer, key, value) for key, value in state.items()}


def _start(layer: Layer, key: str, value: np.ndarray) -> np.ndarray:
    own = key.rpartition(".")[2]
    norm = layer.family == "norm" or key.startswith("norm")
    if own == "running_mean" or (own.endswith("bias") and (norm or _starts_at_zero(layer, key))):
        return np.zeros_like(value)
    if own == "running_var" or (own == "weight" and norm and layer.name != "GemmaRMSNorm"):
        return np.ones_like(value)
    if own == "weight" and layer.name == "GemmaRMSNorm":
        return np.zeros_like(value)
    return np.full_like(value, 0.25) if layer.name == "PReLU" else value


def _starts_at_zero(layer: Layer, key: str) -> bool:
    return layer.family == "attention" or key.startswith("self_attn.") or layer.name == "Conv1D"
