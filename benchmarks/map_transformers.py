"""The names and shapes of small random transformers models, with the mapping that is true.

transformers 4.57 is the last release with Flax classes, and it converts PyTorch weights
itself. Every tensor is random, so a converted leaf names its source by its values: that is
the truth that `infer_mapping` is measured against. Only names, shapes and the truth are
written, as one JSON file a model:

    python -m venv venv && venv/bin/pip install torch==2.13.0 transformers==4.57.6 \
        flax==0.12.8 jax==0.10.2 && venv/bin/python benchmarks/map_transformers.py OUT

`benchmarks/map_score.py OUT` then counts right, unsure and wrong leaves; it needs only
this package.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers_models import FLAX_NAMES, MODELS, RENAMED


def randomise(model, seed: int) -> dict[str, np.ndarray]:
    """Give every floating tensor its own random values; the state_dict, in its own order."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator) + 0.1
    model.tie_weights()
    return {key: tensor.detach().numpy() for key, tensor in model.state_dict().items()}


def origin(leaf: np.ndarray, source: dict[str, np.ndarray]) -> dict | None:
    """Which source keys hold this leaf, and which permutation of their axes makes it."""
    for order in itertools.permutations(range(leaf.ndim)):
        keys = [
            key
            for key, array in source.items()
            if array.ndim == leaf.ndim
            and array.transpose(order).shape == leaf.shape
            and np.array_equal(array.transpose(order), leaf)
        ]
        if keys:
            return {"from": keys, "order": list(order)}
    return None


def harvest(name: str, arch: str, settings: dict | Callable, seed: int) -> dict:
    """Names, shapes and truth of one model."""
    import jax.numpy as jnp
    import transformers
    from flax.traverse_util import flatten_dict
    from transformers.modeling_flax_pytorch_utils import convert_pytorch_state_dict_to_flax

    torch_class = getattr(transformers, arch)
    flax_class = getattr(transformers, f"Flax{FLAX_NAMES.get(arch, arch)}")
    config = settings() if callable(settings) else torch_class.config_class(**settings)
    state = randomise(torch_class(config).eval(), seed)
    flax_model = flax_class(config, seed=0, dtype=jnp.float32)
    shapes = flatten_dict(flax_model.params, sep="/")
    pattern, spelled = RENAMED.get(name, ("$^", ""))
    given = {
        re.sub(pattern, spelled, k): v
        for k, v in state.items() if v.dtype.kind == "f" or v.ndim == 0
    }  # fmt: skip
    import torch

    made = convert_pytorch_state_dict_to_flax(
        {k: torch.from_numpy(np.array(v)) for k, v in given.items()}, flax_model
    )
    made = {k: np.asarray(v) for k, v in flatten_dict(made, sep="/").items()}
    prefix = "" if any(k.startswith("params/") for k in shapes) else "params/"
    floats = {k: v for k, v in state.items() if v.dtype.kind == "f"}
    truth = {prefix + k: origin(made[k], floats) for k in shapes if k in made}
    return {
        "name": name,
        "source": {k: [list(v.shape), str(v.dtype)] for k, v in state.items()},
        "target": {prefix + k: [list(v.shape), str(v.dtype)] for k, v in shapes.items()},
        "map": {k: v for k, v in truth.items() if v},
    }


def spell_clip_as_before() -> None:
    """transformers 4.57 calls `jnp.clip(x, a_min=, a_max=)`, which jax has renamed since."""
    import jax.numpy as jnp

    clip = jnp.clip
    jnp.clip = lambda x, a_min=None, a_max=None, **rest: clip(x, a_min, a_max, **rest)


def main(folder: str, *only: str) -> None:
    warnings.simplefilter("ignore")
    spell_clip_as_before()
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, arch, settings) in enumerate(MODELS):
        if (only and name not in only) or (out / f"{name}.json").exists():
            continue
        try:
            table = harvest(name, arch, settings, seed)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        (out / f"{name}.json").write_text(json.dumps(table))
        missing = len(table["target"]) - len(table["map"])
        print(f"{name}: {len(table['target'])} leaves, {missing} without a truth", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
