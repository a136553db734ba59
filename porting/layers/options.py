"""What a keyword may hold. PyTorch's keywords mean the same in every layer, so do these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from porting.errors import ArgumentError
from porting.limits import LAYERS as MOST_LAYERS
from porting.limits import RANK, dimension

FLAGS = frozenset(
    [
        "bias",
        "affine",
        "elementwise_affine",
        "track_running_stats",
        "batch_first",
        "bidirectional",
        "norm_first",
        "ceil_mode",
        "count_include_pad",
        "align_corners",
        "recompute_scale_factor",
        "is_causal",
        "add_bias_kv",
        "add_zero_attn",
        "inplace",
        "interleaved",
        "fused",
        "out_bias",
    ]
)
#: Whole numbers from 1.
SIZES = frozenset(
    [
        "in_features",
        "out_features",
        "nf",
        "nx",
        "num_embeddings",
        "embedding_dim",
        "in_channels",
        "out_channels",
        "groups",
        "num_features",
        "num_groups",
        "num_channels",
        "embed_dim",
        "num_heads",
        "num_kv_heads",
        "head_dim",
        "kdim",
        "vdim",
        "dim_feedforward",
        "d_model",
        "nhead",
        "input_size",
        "hidden_size",
        "num_layers",
        "num_parameters",
        "upscale_factor",
        "downscale_factor",
        "rotary_dim",
        "n_power_iterations",
        "divisor_override",
    ]
)
#: A whole number, or several; the smallest that is allowed.
LISTS = {
    "kernel_size": 1,
    "stride": 1,
    "dilation": 1,
    "padding": 0,
    "output_padding": 0,
    "normalized_shape": 1,
    "feature_map": 1,
    "output_size": 1,
    "size": 1,
}
#: Finite numbers; those in POSITIVE not below 0.
NUMBERS = frozenset(
    [
        "eps",
        "momentum",
        "dropout",
        "p",
        "layer_norm_eps",
        "base",
        "rotary_emb_base",
        "rotary_pct",
        "negative_slope",
        "alpha",
        "beta",
        "threshold",
        "value",
        "lambd",
        "min_val",
        "max_val",
        "init",
    ]
)
TEXTS = frozenset(
    ["mode", "style", "padding_mode", "approximate", "activation", "nonlinearity", "rotary"]
)
#: Keywords where None is a choice although PyTorch's default is another.
NONE_TOO = frozenset({"momentum", "dim", "output_size"})
POSITIVE = frozenset(["eps", "layer_norm_eps", "dropout", "p", "base"])


def check_options(layer: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise `ArgumentError` for a value that its keyword cannot hold.

    >>> check_options("Conv2d", {"stride": (2, 1), "bias": False}, {"stride": 1, "bias": True})
    >>> check_options("Conv2d", {"stride": 0}, {"stride": 1})
    Traceback (most recent call last):
    porting.errors.ArgumentError: Conv2d: stride = 0; pass whole numbers from 1.
    """
    for name, value in given.items():
        if value is None and defaults.get(name) is not None and name not in NONE_TOO:
            raise ArgumentError(f"{layer}: {name} = None; leave it out for {defaults[name]!r}.")
        if value is not None:
            needs = _needs(name, value)
            if name == "num_layers" and not needs:
                dimension("num_layers", value, MOST_LAYERS)
            if needs:
                raise ArgumentError(f"{layer}: {name} = {value!r:.60}; pass {needs}.")


def _needs(name: str, value: Any) -> str:
    """What `value` should have been, or "" where it will do."""
    if name in TEXTS:
        return "" if isinstance(value, str) else "a name"
    if name.endswith("_mask"):
        return "" if np.asarray(value).dtype.kind in "bifu" else "an array of booleans or numbers"
    if name == "padding_idx":
        return "" if _is_whole(value, -(2**31)) else "a whole number"
    if name == "proj_size":
        return "" if _is_whole(value, 0) else "a whole number from 0"
    if name == "dim":
        return "" if _is_whole(value, -RANK) and value < 2**31 else "a whole number"
    if name in FLAGS:
        return "" if isinstance(value, (bool, np.bool_)) else "True or False"
    if name in SIZES:
        return "" if _is_whole(value, 1) else "a whole number from 1"
    if name in LISTS:
        if name == "padding" and isinstance(value, str):
            return ""
        several = value if isinstance(value, (tuple, list)) and value else (value,)
        least = LISTS[name]
        optional = name == "output_size"
        fits = all((optional and v is None) or _is_whole(v, least) for v in several)
        return "" if fits else f"whole numbers from {least}"
    if name in NUMBERS:
        if not _is_finite(value):
            return "a finite number"
        if name in ("base", "rotary_emb_base") and value <= 0:
            return "a number above 0"
        return "a number from 0" if name in POSITIVE and value < 0 else ""
    return ""


def _is_whole(value: Any, least: int) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and value >= least


def _is_finite(value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and math.isfinite(value)
