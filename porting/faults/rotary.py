"""Faults of rotary position embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from porting.faults.paths import KEY, QUERY, is_layer, of
from porting.faults.row import Fault, Port, change

_ROTARY = is_layer("RotaryEmbedding")
_BASES = ("base", "rotary_emb_base")


def _turns(port: Port) -> bool:
    """Whether an attention rotates its queries and keys."""
    return bool(port.config.get("rotary") or port.config.get("rotary_pct"))


def _set(port: Port, **options: Any) -> Port:
    return replace(port, config={**port.config, **options})


def _interleave(leaf: np.ndarray) -> np.ndarray:
    """The features of each head, (two, d), taken as (d, two)."""
    split = leaf.reshape(*leaf.shape[:-1], 2, -1)
    return np.swapaxes(split, -1, -2).reshape(leaf.shape)


def _other_base(port: Port) -> Port:
    name = next(name for name in _BASES if name in port.config)
    return _set(port, **{name: 10000.0 if port.config[name] != 10000.0 else 500000.0})


def _turned(port: Port) -> int:
    """How many features of a head turn."""
    if _ROTARY(port):
        return int(port.config["rotary_dim"] or port.config["dim"])
    head_dim = port.leaves["params/query/kernel"].shape[-1]
    return int(head_dim * port.config.get("rotary_pct", 1.0))


def _base_is_hidden(port: Port) -> str:
    if _turned(port) > 2:
        return ""
    return "Only one pair of features turns, by one radian a position whatever the base."


def _lost(port: Port) -> Port:
    return _set(port, **({"rotary": None} if "rotary" in port.config else {"rotary_pct": 0.0}))


def _narrower(port: Port) -> Port:
    return _set(port, rotary_dim=2 * max(port.config["dim"] // 4, 1))


def _has_wide_heads(port: Port) -> bool:
    width = port.config["dim"] or 0
    return (port.config["rotary_dim"] or width) == width > 2


ROWS = (
    Fault(
        "rotary_pairs",
        "Rows of q and k permuted once too often, or not at all",
        "Wrong from the second token on; position 0 is not turned, so one token hides it.",
        "Meta's Llama and GPT-J turn neighbours, transformers the two halves; the conversion "
        "permutes the rows of q and k, and was done once too often or not at all.",
        "permute the rows of q and k, or turn neighbours: never both",
        "transformers 25199, 31859",
        change(lambda port: [*of(QUERY)(port), *of(KEY)(port)], _interleave),
        fits=lambda port: bool(port.config.get("rotary")),
    ),
    Fault(
        "rotary_style",
        "Neighbours turned instead of halves, or the other way round",
        "Wrong from the second token on; position 0 is not turned, so one token hides it.",
        "Meta's Llama and GPT-J turn neighbours, transformers the two halves.",
        "a, b = jnp.split(x, 2, axis=-1) for half-split; x[..., ::2], x[..., 1::2] for neighbours",
        "transformers 25199, 31859",
        lambda port: _set(port, interleaved=not port.config["interleaved"]),
        "values",
        "forward",
        lambda port: _ROTARY(port) and (port.config["rotary_dim"] or port.config["dim"]) > 2,
    ),
    Fault(
        "rotary_base",
        "Another base: 500000 for 10000",
        "Small errors that grow with the position; one token hides it.",
        "rope_theta is an option, and no leaf holds it.",
        "base=config.rope_theta",
        "Llama 3, Qwen, Olmo 3",
        _other_base,
        "values",
        "forward",
        lambda port: _ROTARY(port) or _turns(port),
        _base_is_hidden,
    ),
    Fault(
        "rotary_width",
        "Only half of the features turned",
        "Half of every head is wrong from the second token on.",
        "partial_rotary_factor of another model was used.",
        "rotary_dim=int(head_dim * config.partial_rotary_factor)",
        "GPT-NeoX and Phi turn a part of each head, Llama the whole",
        _narrower,
        "values",
        "forward",
        lambda port: _ROTARY(port) and _has_wide_heads(port),
    ),
    Fault(
        "rotary_lost",
        "Rotary embedding left out",
        "Every token is treated as if it stood first; one token hides it.",
        "Positions have no leaf in these models, so nothing is left over after the port.",
        "turn q and k before the scores",
        "Llama, Mistral, GPT-NeoX",
        _lost,
        "values",
        "forward",
        _turns,
    ),
)
