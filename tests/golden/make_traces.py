"""Record the PyTorch traces under `tests/golden/trace/`. Needs torch; run from the repository.

    python tests/golden/make_traces.py

Four tiny models with random weights and statistics, each run in float32 and float64. The
image has even sides: an odd one hides a padding of `SAME` at stride 2.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from porting.trace import record_torch

HERE = Path(__file__).parent / "trace"
SEED = 20261123


class ConvNet(nn.Module):
    """Two convolutions, a batch norm, a pool, a flatten in channels-first order."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(5)
        self.conv2 = nn.Conv2d(5, 7, (2, 3))
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(7 * 2 * 2, 11)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))
        x = F.relu(self.conv2(x))
        return self.head(self.flatten(self.pool(x)))


class Attention(nn.Module):
    """Causal self-attention with separate projections."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, x):
        b, t, e = x.shape
        q, k, v = (
            p(x).view(b, t, self.heads, -1).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = q @ k.transpose(-1, -2) / (e // self.heads) ** 0.5
        hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
        probs = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return self.out_proj((probs @ v).transpose(1, 2).reshape(b, t, e))


class Mlp(nn.Module):
    """Two linear layers around an erf GELU."""

    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm encoder block."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, hidden)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class Encoder(nn.Module):
    """Embeddings, two blocks, a norm and a head."""

    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(23, 15), nn.Embedding(13, 15)
        self.layers = nn.ModuleList([Block(15, 3, 17), Block(15, 3, 17)])
        self.norm, self.head = nn.LayerNorm(15), nn.Linear(15, 19)

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.shape[1])[None])
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class RotaryAttention(nn.Module):
    """Grouped-query attention with half-split rotary positions."""

    def __init__(self, width, heads, groups, head_dim):
        super().__init__()
        self.heads, self.groups, self.dim = heads, groups, head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, groups * head_dim, bias=False)
        self.v_proj = nn.Linear(width, groups * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def turn(self, x):
        half = self.dim // 2
        freq = 500000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * freq
        cos, sin = (f(torch.cat([angle, angle], -1)) for f in (torch.cos, torch.sin))
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (
            p(x).view(b, t, -1, self.dim).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.turn(q), self.turn(k)
        k, v = (a.repeat_interleave(self.heads // self.groups, 1) for a in (k, v))
        scores = q @ k.transpose(-1, -2) / self.dim**0.5
        hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
        probs = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return self.o_proj((probs @ v).transpose(1, 2).reshape(b, t, -1))


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Decoder(nn.Module):
    """One rotary block between RMS norms."""

    def __init__(self):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(10, eps=1e-5)
        self.self_attn = RotaryAttention(10, 4, 2, 6)
        self.post_attention_layernorm = nn.RMSNorm(10, eps=1e-5)
        self.mlp = GatedMlp(10, 13)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Modules(nn.Module):
    """PyTorch's own attention, with a mask, before its own LSTM: modules without parts."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(12, 3, batch_first=True)
        self.rnn = nn.LSTM(12, 5, batch_first=True)

    def forward(self, x, ignored):
        y, _ = self.attn(x, x, x, key_padding_mask=ignored, need_weights=False)
        return self.rnn(y)


def randomise(model):
    """Every parameter and statistic at random, so that no leaf is constant."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        fan = tensor[0].numel() if tensor.ndim > 1 else 4
        values = torch.randn_like(tensor) / fan**0.5
        norm = "norm" in name or name.startswith("bn")
        if name.endswith("running_var") or (norm and name.endswith("weight")):
            values = 0.6 + torch.rand_like(tensor)
        tensor.data.copy_(values)
    return model.eval()


def main():
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    inputs = {
        ConvNet: rng.normal(size=(2, 3, 12, 14)).astype(np.float32),
        Encoder: rng.integers(0, 23, (2, 7)),
        Decoder: rng.normal(size=(2, 7, 10)).astype(np.float32) * 0.1,
        Modules: rng.normal(size=(2, 7, 12)).astype(np.float32),
    }
    ignored = np.arange(7) >= np.array([[7], [5]])
    for model, x in inputs.items():
        given = (x, ignored) if model is Modules else (x,)
        trace = record_torch(randomise(model()), *given, double=True)
        trace.save(HERE / f"{model.__name__.lower()}.safetensors", leaves=True)
    versions = f"torch {torch.__version__}, numpy {np.__version__}, seed {SEED}\n"
    (HERE / "versions.txt").write_text(versions)


if __name__ == "__main__":
    main()
