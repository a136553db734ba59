"""Write `block/*.safetensors`: real `torch.nn.TransformerEncoderLayer` inputs and outputs.

    python tests/golden/make_block.py

Needs PyTorch and the checkpoints in `assets/`. Every leaf is random (no zeros, no ones), so
that each is identifiable by its values. Outputs are kept in float32 and in float64 of the
same weights; the metadata holds sizes, seed and versions.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent / "block"
ASSETS = Path(__file__).parents[2] / "assets" / "checkpoints"

#: name -> T, num_heads, d_model, d_ff, activation, seed
CASES = {
    "relu_7x2x22x13": (7, 2, 22, 13, "relu", 1),
    "relu_5x3x15x17": (5, 3, 15, 17, "relu", 2),
    "relu_square_8x4x16x16": (8, 4, 16, 16, "relu", 3),
    "gelu_11x3x21x19": (11, 3, 21, 19, "gelu", 4),
    "gelu_3x5x35x29": (3, 5, 35, 29, "gelu", 5),
    "gelu_one_token_1x7x14x23": (1, 7, 14, 23, "gelu", 6),
}


def layer_of(num_heads: int, d_model: int, d_ff: int, activation: str) -> torch.nn.Module:
    return torch.nn.TransformerEncoderLayer(
        d_model, num_heads, d_ff, dropout=0.0, activation=activation, batch_first=True,
        norm_first=True, layer_norm_eps=1e-5,
    ).eval()  # fmt: skip


def write(name: str, layer: torch.nn.Module, x: torch.Tensor, metadata: dict, keep: bool) -> None:
    """Save the weights (if `keep`), the input and both outputs of `layer` on `x`."""
    with torch.no_grad():
        single = layer(x[None])[0]
        double = layer.double()(x.double()[None])[0]
    arrays = {"x": x, "out32": single, "out64": double}
    if keep:
        arrays |= {f"state/{key}": leaf.float() for key, leaf in layer.state_dict().items()}
    arrays = {key: np.asarray(a.detach().numpy(), order="C") for key, a in arrays.items()}
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    metadata = {key: str(value) for key, value in (metadata | versions).items()}
    save_file(arrays, HERE / f"{name}.safetensors", metadata=metadata)


def write_random(name: str) -> None:
    length, num_heads, d_model, d_ff, activation, seed = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    layer = layer_of(num_heads, d_model, d_ff, activation)
    with torch.no_grad():
        for leaf in layer.parameters():
            leaf.copy_(torch.randn(leaf.shape, generator=generator) * 0.5)
    x = torch.randn(length, d_model, generator=generator)
    metadata = {"num_heads": num_heads, "activation": activation, "epsilon": 1e-5, "seed": seed}
    write(name, layer, x, metadata, keep=True)


def write_real() -> None:
    """The shipped layer of m6aformer; its weights stay in `assets/`."""
    state = load_file(ASSETS / "m6aformer_layer0.safetensors")
    layer = layer_of(4, 128, 512, "gelu")
    layer.load_state_dict({key: torch.from_numpy(leaf) for key, leaf in state.items()})
    x = torch.randn(13, 128, generator=torch.Generator().manual_seed(7))
    metadata = {"num_heads": 4, "activation": "gelu", "epsilon": 1e-5, "seed": 7}
    write("m6aformer", layer, x, metadata, keep=False)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for case in CASES:
        write_random(case)
    write_real()
