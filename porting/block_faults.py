"""The mistakes that the encoder block shows in its menu: rows of `FAULTS`, in their order."""

from __future__ import annotations

from porting.faults import FAULTS, Fault

_NAMES = (
    "bias_skipped",
    "kernel_skipped",
    "key_bias_skipped",
    "attn_skipped",
    "scale_at_one",
    "qk_exchanged",
    "square_transposed",
    "qkv_order",
    "qkv_per_head",
    "heads_exchanged",
    "norms_exchanged",
    "shards_exchanged",
    "ff1_untransposed",
    "default_epsilon",
    "tanh_gelu",
    "residual_dropped",
)

#: name -> fault, in the order of a menu.
BLOCK_FAULTS: dict[str, Fault] = {name: FAULTS[name] for name in _NAMES}
