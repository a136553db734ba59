"""The options that a layer's matrix is run with: those in which faults are silent.

Square kernels, stride 2, a causal mask: where sizes differ, Flax raises and no check is
needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SQUARE = {"in_features": 7, "out_features": 7}
_TABLE = {"num_embeddings": 7, "embedding_dim": 7}
_RANKS = (1, 2, 3)


def _cubic(rank: int) -> dict[str, Any]:
    return {
        "in_channels": 3,
        "out_channels": 3,
        "kernel_size": (3,) * rank,
        "stride": 2,
        "padding": 1,
    }


_PLAIN: dict[str, dict[str, Any]] = {
    "Linear": _SQUARE,
    **{f"Conv{rank}d": _cubic(rank) for rank in _RANKS},
    **{f"ConvTranspose{rank}d": _cubic(rank) for rank in _RANKS},
}

#: layer -> options on top of its example.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    **{f"{kind}{name}": own for name, own in _PLAIN.items()
       for kind in ("", "WeightNorm", "SpectralNorm")},
    "Conv1D": {"nf": 7, "nx": 7},
    "Embedding": _TABLE,
    "EmbeddingBag": _TABLE,
    "TiedHead": _TABLE,
    "MultiheadAttention": {"embed_dim": 9, "num_heads": 3, "is_causal": True},
    "GPT2Attention": {"embed_dim": 9, "num_heads": 3},
    "GPTNeoXAttention": {"embed_dim": 24, "num_heads": 3, "rotary_pct": 0.5, "is_causal": True},
    "TransformerEncoderLayer": {
        "d_model": 9, "nhead": 3, "dim_feedforward": 9, "activation": "gelu", "is_causal": True,
    },
    **{name: {"input_size": 5, "hidden_size": 5, "bidirectional": True} for name in ("LSTM", "GRU", "RNN")},
    "Upsample": {"scale_factor": 0.5, "mode": "bilinear"},
}  # fmt: skip
