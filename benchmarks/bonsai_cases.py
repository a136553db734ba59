"""Small random twins of three jax-ml/bonsai models; `known_cases.py` runs them.

Their code is read from a checkout that the caller names; none of it stands here. PortLens
itself ports the weights of the transformers model, so that only the code can part.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import transformers
from flax import nnx

from porting.mapping import port_checkpoint
from porting.trace import Trace, record_nnx, record_torch

SEED = 20261123
PIXELS = np.random.default_rng(SEED).normal(size=(2, 3, 32, 32)).astype(np.float32)
SOUND = np.random.default_rng(SEED).normal(size=(2, 13, 38)).astype(np.float32)
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "image_size": 32,
    "patch_size": 8,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A known case, as in `known_cases`; `model` is the folder under `bonsai/models`."""

    name: str
    model: str
    known: tuple[str, ...]
    verdict: str = "code"


CASES = (
    Case("bonsai's ViT", "vit", ("the activation", "restored by GELU (erf)", "computes GELU (tanh)")),
    Case("bonsai's Whisper encoder", "whisper", ("the activation", "restored by GELU (erf)", "computes GELU (tanh)")),
    Case("bonsai's DINOv3", "dinov3", ("a rotation in bfloat16", "the precision of the rotation: float32")),
)  # fmt: skip


def record(case: Case, checkout: Path, randomised: Any) -> tuple[Trace, Trace]:
    """Both traces of a case.

    Args:
        case: the case.
        checkout: the folder of the bonsai repository.
        randomised: fills a PyTorch model with random values.
    """
    theirs = _module(checkout / "bonsai" / "models" / case.model / "modeling.py")
    return {"vit": _vit, "whisper": _whisper, "dinov3": _dinov3}[case.model](theirs, randomised)


def _module(path: Path) -> ModuleType:
    """One file of the checkout, without the package around it (which imports every model)."""
    name = f"bonsai_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _ported(model: torch.nn.Module, twin: nnx.Module) -> nnx.Module:
    source = {key: value.numpy() for key, value in model.state_dict().items()}
    for key, value in model.state_dict().items():  # Whisper's keys have no bias, the twin's do
        if key.endswith("self_attn.q_proj.bias"):
            source.setdefault(key.replace("q_proj", "k_proj"), np.zeros_like(value))
    variables, _ = port_checkpoint(source, twin, allow_unused=True)
    nnx.update(twin, variables)
    twin.eval()
    return twin


def _vit(theirs: ModuleType, randomised: Any) -> tuple[Trace, Trace]:
    config = transformers.ViTConfig(**SIZES, num_labels=5)
    model = randomised(transformers.ViTForImageClassification(config))
    sizes = dataclasses.replace(
        theirs.ModelConfig.vit_p16_224(),
        image_size=(32, 32),
        patch_size=(8, 8),
        hidden_dim=24,
        num_heads=3,
        mlp_dim=37,
        num_layers=2,
        num_labels=5,
    )
    twin = _ported(model, theirs.ViTClassificationModel(sizes, rngs=nnx.Rngs(0)))
    wanted = record_torch(model, pixel_values=PIXELS, double=True)
    return wanted, record_nnx(twin, PIXELS.transpose(0, 2, 3, 1), rngs=None, double=True)


def _whisper(theirs: ModuleType, randomised: Any) -> tuple[Trace, Trace]:
    names = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 3}
    names |= {"encoder_ffn_dim": 37, "num_mel_bins": 13, "max_source_positions": 19}
    config = transformers.WhisperConfig(**names)
    model = randomised(transformers.models.whisper.modeling_whisper.WhisperEncoder(config))
    sizes = dataclasses.replace(theirs.ModelConfig.whisper_tiny(), **names)
    twin = _ported(model, theirs.WhisperEncoder(sizes, rngs=nnx.Rngs(0)))
    wanted = record_torch(model, input_features=SOUND, double=True)
    return wanted, record_nnx(twin, SOUND.transpose(0, 2, 1), double=True)


def _dinov3(theirs: ModuleType, randomised: Any) -> tuple[Trace, Trace]:
    config = transformers.DINOv3ViTConfig(**SIZES, num_register_tokens=4)
    model = randomised(transformers.DINOv3ViTModel(config))
    sizes = theirs.ModelConfig(**SIZES | {"patch_size": (8, 8)})
    twin = _ported(model, theirs.Dinov3ViTModel(sizes, rngs=nnx.Rngs(0)))
    wanted = record_torch(model, pixel_values=PIXELS, double=True)
    return wanted, record_nnx(twin, PIXELS, double=True)
