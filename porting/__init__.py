"""PortLens, the engine: move weights from PyTorch to Flax, from Linen to NNX, and prove it.

Public names are loaded when they are first used, so that reading a checkpoint does not
import JAX.
"""

from importlib import import_module
from typing import Any

#: module -> the public names that live in it
_MODULES = {
    "block": ("port_linen_to_nnx", "port_transformer_block"),
    "block_modules": ("LinenEncoderBlock", "LinenMHA", "NNXEncoderBlock", "NNXMHA"),
    "block_torch": ("load_torch_encoder_layer",),
    "checkpoint": ("Checkpoint", "SaveReport", "Spec", "open_checkpoint", "save_params", "to_jax"),
    "checks": ("CHECKS", "PROBES", "CheckMatrix", "check_matrix", "run_variables"),
    "dense": ("load_hf_dense",),
    "doctor": ("Diagnosis", "diagnose", "repair"),
    "errors": ("PortingError",),
    "faults": ("FAULTS", "Fault", "faults_for", "inject"),
    "layers": (
        "LAYERS",
        "compare_layer",
        "port_layer",
        "port_layer_nnx",
        "run_layer",
        "unport_layer",
    ),
    "layouts": ("Rule",),
    "leaves": ("Leaf",),
    "mapping": (
        "Mapping",
        "PortReport",
        "infer_mapping",
        "port_checkpoint",
        "unport_checkpoint",
    ),
    "trace": (
        "Trace",
        "compare_traces",
        "explain",
        "load_trace",
        "record_linen",
        "record_nnx",
        "record_torch",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'porting' has no attribute {name!r}")
    return getattr(import_module(f"porting.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
