"""PortLens, the engine: move weights from PyTorch to Flax, from Linen to NNX, and prove it.

Public names are loaded when they are first used, so that reading a checkpoint does not
import JAX.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "PortingError": "errors",
    "Rule": "layouts",
    "load_hf_dense": "dense",
    "LinenEncoderBlock": "block_modules",
    "LinenMHA": "block_modules",
    "NNXEncoderBlock": "block_modules",
    "NNXMHA": "block_modules",
    "port_transformer_block": "block",
    "port_linen_to_nnx": "block",
    "load_torch_encoder_layer": "block_torch",
    "LAYERS": "layers",
    "port_layer": "layers",
    "port_layer_nnx": "layers",
    "run_layer": "layers",
    "unport_layer": "layers",
    "open_checkpoint": "checkpoint",
    "save_params": "checkpoint",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'porting' has no attribute {name!r}")
    return getattr(import_module(f"porting.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
