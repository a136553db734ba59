"""Golden arrays of the layer table, made by real PyTorch (and transformers).

    python tests/golden/make_layers.py

Needs torch 2.13 and transformers 4.57. Writes one `.npz` a family to `tests/golden/layers/`,
with the versions in it. A case holds the configuration, the state_dict, the inputs, and the
outputs in float32 and float64. Every tensor is random, variances positive; sizes are
distinct primes, but for the square cases.
"""

import json
import math
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.models.cohere import modeling_cohere
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Config
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention, GPTNeoXConfig
from transformers.models.llama import modeling_llama
from transformers.pytorch_utils import Conv1D

OUT = Path(__file__).parent / "layers"
INF = float("inf")


def ids(high, *shape):
    return ("ids", high, shape)


def causal(n):
    return torch.triu(torch.ones(n, n, dtype=torch.bool), 1)


def rotary_tables(time, dim, base, double):
    """cos and sin (1, time, dim), both halves alike, made in float64."""
    angles = torch.outer(
        torch.arange(time, dtype=torch.float64),
        base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim),
    )
    dtype = torch.float64 if double else torch.float32
    return tuple(f(angles).to(dtype)[None] for f in (torch.cos, torch.sin))


# Modules that PyTorch has no class for.


class TiedHead(nn.Embedding):
    def forward(self, x):
        return F.linear(x, self.weight)


class FlattenLinear(nn.Linear):
    def __init__(self, feature_map, out_features, flatten_order="CHW", **kw):
        super().__init__(math.prod(feature_map), out_features, **kw)
        self.order = ["CHW".index(axis) + 1 for axis in flatten_order]

    def forward(self, x):
        return super().forward(x.permute(0, *self.order).reshape(x.shape[0], -1))


class GPT2(GPT2Attention):
    def __init__(self, num_heads, embed_dim):
        config = GPT2Config(n_embd=embed_dim, n_head=num_heads, n_positions=8, attn_pdrop=0.0)
        config._attn_implementation = "sdpa"
        super().__init__(config)

    def forward(self, x):
        return super().forward(x)[0]


class NeoX(GPTNeoXAttention):
    def __init__(self, num_heads, embed_dim, is_causal=False, rotary_pct=0.0):
        config = GPTNeoXConfig(
            hidden_size=embed_dim, num_attention_heads=num_heads, rotary_pct=rotary_pct or 0.25
        )
        config._attn_implementation = "sdpa"
        super().__init__(config, layer_idx=0)
        self.causal_here, self.turns = is_causal, bool(rotary_pct)

    def forward(self, x):
        time, width = x.shape[1], self.rotary_ndims
        tables = (torch.ones(1, time, width).to(x), torch.zeros(1, time, width).to(x))
        if self.turns:
            cos, sin = rotary_tables(time, width, 10000.0, x.dtype == torch.float64)
            tables = (torch.cat((cos, cos), -1), torch.cat((sin, sin), -1))
        mask = None if self.causal_here else torch.zeros(1, 1, time, time).to(x)
        return super().forward(x, attention_mask=mask, position_embeddings=tables)[0]


class Rotary(nn.Module):
    def __init__(self, dim, base=10000.0, interleaved=False, rotary_dim=None):
        super().__init__()
        self.options = rotary_dim or dim, base, interleaved

    def forward(self, x):
        width, base, interleaved = self.options
        cos, sin = rotary_tables(x.shape[-2], width, base, x.dtype == torch.float64)
        if interleaved:
            apply = modeling_cohere.apply_rotary_pos_emb
            cos, sin = (t.repeat_interleave(2, -1) for t in (cos, sin))
        else:
            apply = modeling_llama.apply_rotary_pos_emb
            cos, sin = (torch.cat((t, t), -1) for t in (cos, sin))
        if interleaved and x.dtype == torch.float64:  # Cohere rounds to float32 on the way
            turned = x[..., :width] * cos + modeling_cohere.rotate_half(x[..., :width]) * sin
        else:
            turned, _ = apply(x[..., :width], x[..., :width], cos, sin)
        return torch.cat((turned, x[..., width:]), -1)


class GQA(nn.Module):
    """As LlamaAttention, from its own functions; the interleaved rotation after Cohere."""

    def __init__(
        self,
        embed_dim,
        num_heads,
        num_kv_heads,
        head_dim,
        bias=False,
        out_bias=False,
        rotary=None,
        base=10000.0,
        is_causal=False,
    ):
        super().__init__()
        self.q_proj = nn.Linear(embed_dim, num_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(embed_dim, num_kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(embed_dim, num_kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, embed_dim, bias=out_bias)
        self.options = head_dim, rotary, base, is_causal
        self.groups = num_heads // num_kv_heads

    def forward(self, x):
        head_dim, rotary, base, is_causal = self.options
        q, k, v = (
            p(x).unflatten(-1, (-1, head_dim)).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        if rotary:
            turn = Rotary(head_dim, base, rotary == "interleaved")
            q, k = turn(q), turn(k)
        k, v = (modeling_llama.repeat_kv(t, self.groups) for t in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Gemma(GemmaRMSNorm):
    def forward(self, x):
        if x.dtype == torch.float64:  # the original works in float32
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)
        return super().forward(x)


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def normed(name, config):
    """Weight norm or spectral norm around a layer, in either style of keys."""
    kind, inner = ("weight_norm", name[10:]) if name[0] == "W" else ("spectral_norm", name[12:])
    own = {k: config.pop(k) for k in ("dim", "n_power_iterations") if k in config}
    module = getattr(nn, inner)(**config)
    if config_style == "old":
        return getattr(nn.utils, kind)(module, **own)
    return getattr(nn.utils.parametrizations, kind)(module, **own)


config_style = None
BUILDERS = {
    "Conv1D": Conv1D,
    "TiedHead": TiedHead,
    "FlattenLinear": FlattenLinear,
    "GPT2Attention": GPT2,
    "GPTNeoXAttention": NeoX,
    "RotaryEmbedding": Rotary,
    "GroupedQueryAttention": GQA,
    "GemmaRMSNorm": Gemma,
    "QuickGELU": QuickGELU,
}

# (name, configuration, inputs, arguments of the call)
DENSE = [
    ("Linear", dict(in_features=7, out_features=5), [(3, 7)]),
    ("Linear", dict(in_features=7, out_features=7, bias=False), [(2, 3, 7)]),
    ("Linear", dict(in_features=11, out_features=2), [(11,)]),
    ("Conv1D", dict(nf=5, nx=7), [(2, 3, 7)]),
    ("Conv1D", dict(nf=7, nx=7), [(3, 7)]),
    ("Embedding", dict(num_embeddings=11, embedding_dim=5), [ids(11, 2, 3)]),
    ("Embedding", dict(num_embeddings=7, embedding_dim=7, padding_idx=2), [ids(7, 5)]),
    ("EmbeddingBag", dict(num_embeddings=11, embedding_dim=5), [ids(11, 3, 7)]),
    (
        "EmbeddingBag",
        dict(num_embeddings=11, embedding_dim=5, mode="sum"),
        [ids(11, 7)],
        dict(offsets=[0, 2, 2, 5]),
    ),
    (
        "EmbeddingBag",
        dict(num_embeddings=11, embedding_dim=5, mode="max"),
        [ids(11, 7)],
        dict(offsets=[0, 2, 2, 5]),
    ),
    (
        "EmbeddingBag",
        dict(num_embeddings=5, embedding_dim=3, padding_idx=2),
        [ids(5, 7)],
        dict(offsets=[0, 3, 7]),
    ),
    ("TiedHead", dict(num_embeddings=11, embedding_dim=5), [(2, 3, 5)]),
    ("TiedHead", dict(num_embeddings=7, embedding_dim=7), [(3, 7)]),
    ("FlattenLinear", dict(feature_map=(3, 5, 2), out_features=7), [(2, 3, 5, 2)]),
    (
        "FlattenLinear",
        dict(feature_map=(3, 5, 2), out_features=7, flatten_order="WHC"),
        [(2, 3, 5, 2)],
    ),
    (
        "FlattenLinear",
        dict(feature_map=(3, 3, 3), out_features=27, flatten_order="HWC", bias=False),
        [(2, 3, 3, 3)],
    ),
]

CONV = [
    ("Conv1d", dict(in_channels=3, out_channels=5, kernel_size=2), [(2, 3, 11)]),
    (
        "Conv1d",
        dict(
            in_channels=6,
            out_channels=4,
            kernel_size=3,
            stride=2,
            padding=1,
            dilation=2,
            groups=2,
            bias=False,
        ),
        [(2, 6, 13)],
    ),
    (
        "Conv1d",
        dict(in_channels=3, out_channels=3, kernel_size=3, padding=2, padding_mode="replicate"),
        [(3, 11)],
    ),
    ("Conv2d", dict(in_channels=3, out_channels=5, kernel_size=(2, 3)), [(2, 3, 7, 11)]),
    (
        "Conv2d",
        dict(in_channels=3, out_channels=3, kernel_size=3, stride=2, padding=1),
        [(2, 3, 8, 8)],
    ),
    (
        "Conv2d",
        dict(
            in_channels=4,
            out_channels=6,
            kernel_size=(3, 2),
            stride=(2, 1),
            padding=(2, 1),
            dilation=(1, 2),
            groups=2,
        ),
        [(2, 4, 7, 11)],
    ),
    (
        "Conv2d",
        dict(in_channels=3, out_channels=5, kernel_size=(2, 4), padding="same"),
        [(2, 3, 7, 5)],
    ),
    (
        "Conv2d",
        dict(
            in_channels=3,
            out_channels=5,
            kernel_size=3,
            padding="same",
            dilation=2,
            padding_mode="reflect",
        ),
        [(1, 3, 7, 5)],
    ),
    (
        "Conv2d",
        dict(
            in_channels=3,
            out_channels=5,
            kernel_size=3,
            padding=(2, 1),
            stride=2,
            padding_mode="circular",
        ),
        [(1, 3, 7, 5)],
    ),
    (
        "Conv2d",
        dict(in_channels=6, out_channels=6, kernel_size=3, groups=6, padding="valid"),
        [(6, 7, 5)],
    ),
    ("Conv3d", dict(in_channels=3, out_channels=5, kernel_size=(2, 3, 2)), [(1, 3, 5, 4, 3)]),
    (
        "Conv3d",
        dict(in_channels=2, out_channels=4, kernel_size=3, stride=2, padding=1, groups=2),
        [(1, 2, 5, 4, 7)],
    ),
    ("ConvTranspose1d", dict(in_channels=3, out_channels=5, kernel_size=4, stride=2), [(2, 3, 7)]),
    (
        "ConvTranspose1d",
        dict(
            in_channels=6,
            out_channels=4,
            kernel_size=3,
            stride=3,
            padding=1,
            output_padding=2,
            dilation=2,
            groups=2,
        ),
        [(2, 6, 7)],
    ),
    ("ConvTranspose2d", dict(in_channels=3, out_channels=5, kernel_size=(2, 3)), [(2, 3, 5, 7)]),
    (
        "ConvTranspose2d",
        dict(
            in_channels=3,
            out_channels=3,
            kernel_size=3,
            stride=2,
            padding=1,
            output_padding=1,
            bias=False,
        ),
        [(2, 3, 5, 4)],
    ),
    (
        "ConvTranspose2d",
        dict(
            in_channels=4,
            out_channels=6,
            kernel_size=(3, 2),
            stride=(1, 2),
            padding=(4, 1),
            dilation=(2, 1),
            groups=2,
        ),
        [(1, 4, 7, 5)],
    ),
    ("ConvTranspose2d", dict(in_channels=3, out_channels=2, kernel_size=2, stride=3), [(3, 5, 4)]),
    (
        "ConvTranspose3d",
        dict(in_channels=3, out_channels=2, kernel_size=(2, 3, 1)),
        [(1, 3, 2, 3, 5)],
    ),
    (
        "ConvTranspose3d",
        dict(
            in_channels=2,
            out_channels=2,
            kernel_size=2,
            stride=2,
            padding=1,
            groups=2,
            output_padding=1,
        ),
        [(1, 2, 3, 4, 5)],
    ),
]

NORM = [
    ("BatchNorm1d", dict(num_features=5), [(3, 5, 7)]),
    ("BatchNorm1d", dict(num_features=5, affine=False, eps=1e-3), [(3, 5)]),
    ("BatchNorm2d", dict(num_features=5), [(3, 5, 7, 2)]),
    ("BatchNorm2d", dict(num_features=3, momentum=0.3, eps=1e-2), [(3, 3, 3, 3)]),
    ("BatchNorm3d", dict(num_features=5), [(2, 5, 3, 2, 4)]),
    ("LayerNorm", dict(normalized_shape=7), [(2, 3, 7)]),
    ("LayerNorm", dict(normalized_shape=(3, 5)), [(2, 3, 5)]),
    ("LayerNorm", dict(normalized_shape=[2, 3, 5], bias=False, eps=1e-3), [(2, 2, 3, 5)]),
    ("LayerNorm", dict(normalized_shape=(5, 5), elementwise_affine=False), [(3, 5, 5)]),
    ("GroupNorm", dict(num_groups=2, num_channels=6), [(3, 6, 7, 5)]),
    ("GroupNorm", dict(num_groups=3, num_channels=6, affine=False, eps=1e-3), [(3, 6, 7)]),
    ("GroupNorm", dict(num_groups=5, num_channels=5), [(3, 5)]),
    ("InstanceNorm1d", dict(num_features=5), [(3, 5, 7)]),
    ("InstanceNorm2d", dict(num_features=5, affine=True), [(3, 5, 7, 2)]),
    ("InstanceNorm2d", dict(num_features=5, affine=True, track_running_stats=True), [(3, 5, 7, 2)]),
    ("InstanceNorm3d", dict(num_features=3, affine=True, eps=1e-2), [(2, 3, 3, 2, 4)]),
    ("RMSNorm", dict(normalized_shape=7), [(2, 3, 7)]),
    ("RMSNorm", dict(normalized_shape=(3, 5), eps=1e-5), [(2, 3, 5)]),
    ("RMSNorm", dict(normalized_shape=5, elementwise_affine=False, eps=1e-2), [(5, 5)]),
    ("GemmaRMSNorm", dict(dim=7), [(2, 3, 7)]),
]

ATTENTION = [
    ("MultiheadAttention", dict(embed_dim=15, num_heads=3), [(5, 2, 15), (7, 2, 15), (7, 2, 15)]),
    (
        "MultiheadAttention",
        dict(embed_dim=9, num_heads=3, batch_first=True, bias=False),
        [(2, 5, 9)] * 3,
    ),
    (
        "MultiheadAttention",
        dict(embed_dim=10, num_heads=2, batch_first=True, kdim=7, vdim=3),
        [(2, 5, 10), (2, 7, 7), (2, 7, 3)],
    ),
    (
        "MultiheadAttention",
        dict(embed_dim=10, num_heads=2, kdim=3, vdim=3, bias=False),
        [(5, 2, 10), (7, 2, 3), (7, 2, 3)],
    ),
    (
        "MultiheadAttention",
        dict(embed_dim=10, num_heads=2, batch_first=True),
        [(2, 5, 10)] * 3,
        dict(attn_mask=causal(5)),
    ),
    (
        "MultiheadAttention",
        dict(embed_dim=10, num_heads=2),
        [(5, 3, 10), (7, 3, 10), (7, 3, 10)],
        dict(key_padding_mask=[[False] * (7 - n) + [True] * n for n in (0, 2, 5)]),
    ),
    (
        "MultiheadAttention",
        dict(embed_dim=10, num_heads=2, batch_first=True),
        [(3, 5, 10)] * 3,
        dict(
            attn_mask="random", key_padding_mask=[[0.0] * (5 - n) + [-INF] * n for n in (0, 1, 3)]
        ),
    ),
    ("MultiheadAttention", dict(embed_dim=10, num_heads=5), [(5, 10)] * 3),
    ("GPT2Attention", dict(num_heads=3, embed_dim=15), [(2, 5, 15)]),
    ("GPT2Attention", dict(num_heads=3, embed_dim=9), [(1, 7, 9)]),
    ("GPTNeoXAttention", dict(num_heads=3, embed_dim=24), [(2, 5, 24)]),
    ("GPTNeoXAttention", dict(num_heads=4, embed_dim=16, is_causal=True), [(2, 5, 16)]),
    (
        "GPTNeoXAttention",
        dict(num_heads=3, embed_dim=24, is_causal=True, rotary_pct=0.25),
        [(2, 5, 24)],
    ),
    (
        "GroupedQueryAttention",
        dict(embed_dim=11, num_heads=6, num_kv_heads=2, head_dim=4),
        [(2, 5, 11)],
    ),
    (
        "GroupedQueryAttention",
        dict(
            embed_dim=11,
            num_heads=6,
            num_kv_heads=3,
            head_dim=4,
            bias=True,
            rotary="half-split",
            is_causal=True,
        ),
        [(2, 5, 11)],
    ),
    (
        "GroupedQueryAttention",
        dict(
            embed_dim=12,
            num_heads=3,
            num_kv_heads=1,
            head_dim=4,
            bias=True,
            out_bias=True,
            rotary="interleaved",
            base=500.0,
            is_causal=True,
        ),
        [(2, 7, 12)],
    ),
    ("RotaryEmbedding", dict(dim=10), [(2, 3, 5, 10)]),
    ("RotaryEmbedding", dict(dim=10, base=500.0, interleaved=True), [(2, 3, 5, 10)]),
    ("RotaryEmbedding", dict(dim=14, rotary_dim=6), [(1, 2, 5, 14)]),
]

ENCODER = [
    (
        "TransformerEncoderLayer",
        dict(d_model=15, nhead=3, dim_feedforward=7, norm_first=True),
        [(5, 2, 15)],
    ),
    (
        "TransformerEncoderLayer",
        dict(d_model=15, nhead=3, dim_feedforward=7, activation="gelu"),
        [(5, 2, 15)],
    ),
    (
        "TransformerEncoderLayer",
        dict(
            d_model=10,
            nhead=2,
            dim_feedforward=10,
            activation="gelu",
            norm_first=True,
            batch_first=True,
            layer_norm_eps=1e-3,
        ),
        [(2, 7, 10)],
        dict(src_mask=causal(7)),
    ),
    (
        "TransformerEncoderLayer",
        dict(d_model=10, nhead=5, dim_feedforward=7, bias=False, batch_first=True),
        [(2, 5, 10)],
        dict(src_key_padding_mask=[[False] * 5, [False] * 3 + [True] * 2]),
    ),
]

RECURRENT = [
    ("LSTM", dict(input_size=5, hidden_size=3), [(7, 2, 5)]),
    (
        "LSTM",
        dict(input_size=3, hidden_size=5, num_layers=2, bidirectional=True, batch_first=True),
        [(2, 7, 3)],
    ),
    ("LSTM", dict(input_size=3, hidden_size=3, bias=False), [(5, 3)]),
    ("GRU", dict(input_size=5, hidden_size=3), [(7, 2, 5)]),
    (
        "GRU",
        dict(input_size=3, hidden_size=5, num_layers=2, bidirectional=True, batch_first=True),
        [(2, 7, 3)],
    ),
    ("GRU", dict(input_size=3, hidden_size=3, bias=False), [(5, 2, 3)]),
    ("RNN", dict(input_size=5, hidden_size=3), [(7, 2, 5)]),
    (
        "RNN",
        dict(input_size=3, hidden_size=5, num_layers=2, nonlinearity="relu", batch_first=True),
        [(2, 7, 3)],
    ),
    ("RNN", dict(input_size=3, hidden_size=3, bias=False, bidirectional=True), [(5, 2, 3)]),
]

_IN = {
    "Linear": (dict(in_features=7, out_features=5), (3, 7)),
    "Conv1d": (dict(in_channels=3, out_channels=5, kernel_size=2), (2, 3, 11)),
    "Conv2d": (dict(in_channels=3, out_channels=5, kernel_size=(2, 3), stride=2), (2, 3, 7, 5)),
    "Conv3d": (dict(in_channels=3, out_channels=5, kernel_size=2), (1, 3, 3, 4, 5)),
    "ConvTranspose1d": (dict(in_channels=3, out_channels=5, kernel_size=2, stride=2), (2, 3, 7)),
    "ConvTranspose2d": (dict(in_channels=3, out_channels=5, kernel_size=(2, 3)), (2, 3, 5, 7)),
    "ConvTranspose3d": (dict(in_channels=3, out_channels=2, kernel_size=2), (1, 3, 2, 3, 5)),
}
PARAMETRISED = [
    *(
        (f"{kind}{inner}", config | ({"style": "old"} if i % 2 else {}), [shape])
        for kind in ("WeightNorm", "SpectralNorm")
        for i, (inner, (config, shape)) in enumerate(_IN.items())
    ),
    ("WeightNormLinear", dict(in_features=7, out_features=7, dim=1, style="old"), [(3, 7)]),
    (
        "WeightNormConv1d",
        dict(in_channels=4, out_channels=4, kernel_size=4, groups=2, dim=2, padding=2),
        [(2, 4, 11)],
    ),
    ("WeightNormLinear", dict(in_features=7, out_features=5, dim=None, bias=False), [(3, 7)]),
    (
        "WeightNormConv2d",
        dict(in_channels=3, out_channels=5, kernel_size=3, dim=None, style="old"),
        [(1, 3, 5, 4)],
    ),
    ("SpectralNormLinear", dict(in_features=7, out_features=7, style="old", bias=False), [(3, 7)]),
]

_WIDE = [(3, 8)]
ACTIVATION = [
    *(
        (name, {}, _WIDE)
        for name in [
            "ReLU",
            "ReLU6",
            "LeakyReLU",
            "ELU",
            "CELU",
            "SELU",
            "GELU",
            "QuickGELU",
            "SiLU",
            "Mish",
            "Sigmoid",
            "LogSigmoid",
            "Tanh",
            "Tanhshrink",
            "Softplus",
            "Softsign",
            "Hardtanh",
            "Hardsigmoid",
            "Hardswish",
            "Hardshrink",
            "Softshrink",
            "GLU",
            "Identity",
            "Dropout",
        ]
    ),
    ("LeakyReLU", dict(negative_slope=0.2), _WIDE),
    ("ELU", dict(alpha=0.7), _WIDE),
    ("CELU", dict(alpha=0.7), _WIDE),
    ("GELU", dict(approximate="tanh"), _WIDE),
    ("Softplus", dict(beta=3.0, threshold=5.0), _WIDE),
    ("Hardtanh", dict(min_val=-0.3, max_val=2.0), _WIDE),
    ("Threshold", dict(threshold=0.1, value=-0.7), _WIDE),
    ("Softmax", dict(dim=1), [(3, 5, 2)]),
    ("LogSoftmax", dict(dim=-1), [(3, 5, 2)]),
    ("GLU", dict(dim=1), [(3, 4, 5)]),
    ("PReLU", {}, [(2, 3, 5)]),
    ("PReLU", dict(num_parameters=5), [(2, 5, 3, 7)]),
    ("PReLU", dict(num_parameters=3), [(2, 3)]),
]

_IMAGE = [(2, 3, 7, 10)]
SHAPING = [
    ("MaxPool1d", dict(kernel_size=3), [(2, 3, 11)]),
    ("MaxPool2d", dict(kernel_size=3, stride=2, padding=1), _IMAGE),
    ("MaxPool2d", dict(kernel_size=(2, 3), ceil_mode=True), _IMAGE),
    ("MaxPool3d", dict(kernel_size=2, stride=1), [(3, 3, 4, 5)]),
    ("AvgPool1d", dict(kernel_size=3, padding=1), [(2, 3, 11)]),
    ("AvgPool2d", dict(kernel_size=3, stride=2, padding=1), _IMAGE),
    ("AvgPool2d", dict(kernel_size=(3, 4), stride=2, padding=1, ceil_mode=True), _IMAGE),
    (
        "AvgPool2d",
        dict(kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        _IMAGE,
    ),
    ("AvgPool2d", dict(kernel_size=2, divisor_override=3), _IMAGE),
    ("AvgPool3d", dict(kernel_size=(1, 2, 3), stride=2), [(1, 3, 4, 5, 7)]),
    ("AdaptiveAvgPool1d", dict(output_size=5), [(2, 3, 11)]),
    ("AdaptiveAvgPool2d", dict(output_size=(3, None)), _IMAGE),
    ("AdaptiveAvgPool3d", dict(output_size=2), [(1, 2, 3, 4, 5)]),
    ("AdaptiveMaxPool1d", dict(output_size=3), [(2, 3, 11)]),
    ("AdaptiveMaxPool2d", dict(output_size=(3, 4)), _IMAGE),
    ("AdaptiveMaxPool3d", dict(output_size=(2, 3, 1)), [(1, 2, 3, 4, 5)]),
    ("Upsample", dict(scale_factor=2), _IMAGE),
    ("Upsample", dict(size=(5, 13)), _IMAGE),
    ("Upsample", dict(scale_factor=1.7), [(2, 3, 7)]),
    ("Upsample", dict(scale_factor=2, mode="bilinear"), _IMAGE),
    ("Upsample", dict(size=(5, 3), mode="bilinear"), _IMAGE),
    ("Upsample", dict(scale_factor=1.7, mode="bilinear"), _IMAGE),
    (
        "Upsample",
        dict(scale_factor=(1.7, 0.6), mode="bilinear", recompute_scale_factor=True),
        _IMAGE,
    ),
    ("Upsample", dict(size=(5, 13), mode="bilinear", align_corners=True), _IMAGE),
    ("Upsample", dict(scale_factor=2, mode="linear"), [(2, 3, 7)]),
    ("Upsample", dict(size=(3, 5, 4), mode="trilinear"), [(1, 2, 2, 3, 5)]),
    ("PixelShuffle", dict(upscale_factor=3), [(2, 18, 5, 2)]),
    ("PixelUnshuffle", dict(downscale_factor=2), [(2, 3, 4, 10)]),
]

FAMILIES = {
    "dense": DENSE,
    "conv": CONV,
    "norm": NORM,
    "attention": ATTENTION,
    "encoder": ENCODER,
    "recurrent": RECURRENT,
    "parametrised": PARAMETRISED,
    "activation": ACTIVATION,
    "shaping": SHAPING,
}


def build(name, config):
    global config_style
    config = dict(config)
    config_style = config.pop("style", None)
    if name.startswith(("WeightNorm", "SpectralNorm")):
        return normed(name, config)
    return BUILDERS.get(name, getattr(nn, name, None))(**config)


def randomise(module, generator):
    """Every floating tensor random, variances positive, none zero or one."""
    with torch.no_grad():
        for key, tensor in module.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point() or (
                key.endswith(("_u", "_v")) and "weight_v" not in key
            ):
                continue
            if key.endswith(("running_var", "weight_g", "original0")):
                value = torch.rand(tensor.shape, generator=generator) + 0.5
            else:
                fan = max(math.prod(tensor.shape[1:]), 1)
                value = torch.randn(tensor.shape, generator=generator) / math.sqrt(fan)
            tensor.copy_(value)


def make_inputs(specs, wide, generator):
    made = []
    for spec in specs:
        if spec[0] == "ids":
            made.append(torch.randint(0, spec[1], spec[2], generator=generator))
        else:
            made.append(torch.randn(spec, generator=generator) * (4 if wide else 1))
    return made


def call_arguments(call, inputs, config, generator):
    made = {}
    for key, value in call.items():
        if isinstance(value, str):
            heads, time = config["num_heads"], inputs[0].shape[1]
            value = torch.randn(inputs[0].shape[0] * heads, time, time, generator=generator)
        made[key] = torch.as_tensor(value)
    return made


def first(out):
    return out[0] if isinstance(out, tuple) else out


def run(module, name, inputs, call, double):
    to = (lambda t: t.double() if t.is_floating_point() else t) if double else (lambda t: t)
    module = module.double() if double else module
    inputs = [to(x) for x in inputs]
    call = {k: to(v) for k, v in call.items()}
    if name == "RMSNorm" and module.eps is None:
        module.eps = torch.finfo(torch.float32).eps  # what the float32 layer uses
    with torch.no_grad():
        return first(module(*inputs, **call)).numpy()


def make_case(index, name, config, specs, call=None):
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name}/{index}".encode()))
    torch.manual_seed(index)
    module = build(name, config)
    randomise(module, generator)
    inputs = make_inputs(specs, specs is _WIDE, generator)
    arguments = call_arguments(call or {}, inputs, config, generator)
    if name.startswith("SpectralNorm"):
        module.train()
        with torch.no_grad():
            for _ in range(3):
                module(*inputs)
    module.eval()
    arrays = {f"state/{k}": v.numpy().copy() for k, v in module.state_dict().items()}
    arrays |= {f"in/{i}": x.numpy() for i, x in enumerate(inputs)}
    arrays |= {f"call/{k}": v.numpy() for k, v in arguments.items()}
    if name == "GPT2Attention":  # the newer class has no such buffer; older files do
        arrays["state/bias"] = np.tril(np.ones((1, 1, 8, 8), bool))
    arrays["out32"] = run(module, name, inputs, arguments, False)
    arrays["out64"] = run(module, name, inputs, arguments, True)
    return arrays


def main():
    warnings.simplefilter("ignore")
    OUT.mkdir(exist_ok=True)
    for family, cases in FAMILIES.items():
        store, listed = {}, []
        for index, case in enumerate(cases):
            for key, array in make_case(index, *case).items():
                store[f"{index}/{key}"] = array
            listed.append({"name": case[0], "config": case[1]})
        about = {"torch": torch.__version__, "transformers": transformers.__version__}
        store["about"] = np.frombuffer(json.dumps(about | {"cases": listed}).encode(), np.uint8)
        np.savez_compressed(OUT / f"{family}.npz", **store)
        print(family, len(cases), (OUT / f"{family}.npz").stat().st_size)


if __name__ == "__main__":
    main()
