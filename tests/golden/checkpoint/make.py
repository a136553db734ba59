"""Make the checkpoint files of this folder with real PyTorch, NumPy and Flax.

Run where PyTorch is installed: `python tests/golden/checkpoint/make.py`. The versions that
made the files stand in `versions.json`; `expected.npz` holds every array as NumPy sees it
(bfloat16 and the 8-bit floats widened to float32, which is exact).
"""

import argparse
import collections
import json
import pathlib
import pickle
from collections import OrderedDict

import flax
import flax.serialization
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

HERE = pathlib.Path(__file__).parent
LEGACY = {"_use_new_zipfile_serialization": False}
PROTOCOL = 4


class Net(nn.Module):
    """A layer of each usual kind; the head shares its weight with the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.conv = nn.Conv2d(3, 5, (2, 3))
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight


def tensors() -> dict[str, torch.Tensor]:
    """Plain tensors of every type that NumPy or ml_dtypes has."""
    grid = torch.arange(15).reshape(3, 5)
    table = {f"t.{str(d)[6:]}": grid.to(d) for d in PLAIN}
    table |= {f"t.{str(d)[6:]}": (grid.to(torch.float32) / 4).to(d) for d in NARROW}
    table["t.bool"] = grid % 2 == 0
    table["t.complex64"] = torch.complex(grid.float(), -grid.float())
    table["t.complex128"] = torch.complex(grid.double(), -grid.double())
    table["scalar"] = torch.tensor(2.5)
    table["empty"] = torch.zeros(0, 3)
    return table


PLAIN = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
NARROW = (
    *(torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
)


def strided() -> dict[str, torch.Tensor]:
    """Views: transposed, sliced, stepped, expanded, and two that are the same tensor."""
    base = torch.arange(35.0).reshape(5, 7)
    tied = torch.arange(6.0).reshape(2, 3)
    return {
        "base": base,
        "transposed": base.T,
        "rows": base[2:4],
        "columns": base[:, 1:6:2],
        "expanded": base[0:1].expand(3, 7),
        "moved": torch.arange(30.0).reshape(2, 3, 5).permute(2, 0, 1),
        "channels_last": torch.arange(120.0)
        .reshape(2, 3, 4, 5)
        .contiguous(memory_format=torch.channels_last),
        "tied.a": tied,
        "tied.b": tied,
    }


def nested(model: Net) -> dict[str, object]:
    """What a training script saves."""
    optimizer = torch.optim.Adam(model.parameters())
    model.conv(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 7,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "best_loss": np.float64(0.25),
        "args": argparse.Namespace(lr=1e-3, path=pathlib.PurePosixPath("runs/1")),
        "history": collections.defaultdict(list, loss=[1.0, 0.5]),
    }


def files(model: Net) -> dict[str, tuple[object, dict[str, object]]]:
    """File name -> what `torch.save` gets."""
    state = model.state_dict()
    parameter = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    tables = {
        "types": tensors(),
        "strided": strided(),
        "state": state,
        "nested": nested(model),
        "parameter": OrderedDict(weight=parameter, dtype=torch.float32, size=torch.Size([2])),
        "two": {"encoder": {"weight": torch.ones(3)}, "decoder": {"weight": torch.zeros(2)}},
        "wrapped": {"state_dict": {"module.weight": torch.arange(3.0)}, "rank": 0},
        "single": torch.arange(6.0).reshape(2, 3),
        "module": model,
        "quantized": {"weight": quantized},
        "sparse": {"weight": torch.eye(3).to_sparse()},
        "conjugated": {"weight": torch.complex(torch.ones(2), torch.ones(2)).conj()},
        "nothing": {"epoch": 7},
    }
    zipped = {f"{name}.pt": (value, {}) for name, value in tables.items()}
    legacy = {
        f"{name}_legacy.pt": (tables[name], LEGACY)
        for name in ("types", "strided", "state", "nested", "module", "quantized", "single")
    }
    legacy["types_legacy.pt"] = ({k: v for k, v in tensors().items() if "8_" not in k}, LEGACY)
    newer = {"state_protocol4.pt": (state, {"pickle_protocol": PROTOCOL})}
    return zipped | legacy | newer


def plain(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as NumPy can save it."""
    narrow = tensor.dtype == torch.bfloat16 or "float8" in str(tensor.dtype)
    return (tensor.float() if narrow else tensor).detach().numpy()


def main() -> None:
    torch.manual_seed(0)
    model = Net()
    for name, (value, options) in files(model).items():
        torch.save(value, HERE / name, **options)
    (HERE / "plain.pickle").write_bytes(pickle.dumps({"weight": np.ones(3)}, protocol=2))
    expected = {f"types/{k}": plain(v) for k, v in tensors().items()}
    expected |= {f"strided/{k}": plain(v) for k, v in strided().items()}
    expected |= {f"state/{k}": plain(v) for k, v in model.state_dict().items()}
    np.savez(HERE / "expected.npz", **expected)
    keep = {k: v.contiguous() for k, v in tensors().items() if k != "t.complex128"}
    safetensors.torch.save_file(keep, HERE / "types.safetensors", {"format": "pt"})
    write_flax()
    versions = {m.__name__: m.__version__ for m in (torch, np, flax, safetensors)}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


def write_flax() -> None:
    """Flax's msgpack, with an array in chunks and what is no array."""
    flax.serialization.MAX_CHUNK_SIZE = 32
    tree = {
        "params": {
            "dense": {"kernel": np.arange(15, dtype=np.float32).reshape(3, 5)},
            "bias": jnp.arange(3, dtype=jnp.bfloat16),
        },
        "scale": np.float32(2.5),
        "step": 7,
        "list": [np.arange(2), np.arange(3)],
        "name": "net",
    }
    (HERE / "flax.msgpack").write_bytes(flax.serialization.to_bytes(tree))


if __name__ == "__main__":
    main()
