"""Extract the shipped checkpoints from the packages that publish them.

    pip download --no-deps facenet-pytorch==2.6.0 m6aformer==0.1.2   # then unpack both wheels
    python assets/checkpoints/extract.py FOLDER

FOLDER holds the unpacked `facenet_pytorch` and `m6aformer`. Needs PyTorch and downloads
nothing; files are read as data (`weights_only=True`). Values are copied bit for bit.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
RNET = "facenet_pytorch/data/rnet.pt"
M6A = "m6aformer/weights_data/all_201"
LAYER = "transformer.layers.0."


def arrays_of(path: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The tensors under `prefix`, which is cut off, as C-contiguous arrays."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    return {
        key.removeprefix(prefix): np.asarray(tensor.numpy(), order="C")
        for key, tensor in state.items()
        if key.startswith(prefix)
    }


def write(name: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Save, read back, and compare bit for bit."""
    path = HERE / f"{name}.safetensors"
    save_file(arrays, path, metadata={**metadata, "format": "pt", "license": "MIT"})
    back = load_file(path)
    assert back.keys() == arrays.keys()
    assert all(back[key].tobytes() == array.tobytes() for key, array in arrays.items())
    print(f"{path.name}: {len(arrays)} tensors, {path.stat().st_size:,} bytes")


def extract(folder: Path) -> None:
    """Write both checkpoints beside this script."""
    write(
        "mtcnn_rnet",
        arrays_of(folder / RNET),
        {"source": f"facenet-pytorch 2.6.0, {RNET}", "flatten": "N, W, H, C before dense4"},
    )
    config = json.loads((folder / M6A / "model_config.json").read_text())["model"]
    write(
        "m6aformer_layer0",
        arrays_of(folder / M6A / "best_model_state_dict.pt", LAYER),
        {
            "source": f"m6aformer 0.1.2, {M6A}/best_model_state_dict.pt, {LAYER}*",
            "num_heads": str(config["nhead"]),
            "d_model": str(config["d_model"]),
            "activation": "gelu",
            "epsilon": "1e-05",
            "norm_first": "True",
        },
    )


if __name__ == "__main__":
    extract(Path(sys.argv[1]))
