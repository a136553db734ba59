"""The known faults of transformers 4.57.6's Flax models, found from recorded forward passes.

Also those of jax-ml/bonsai's ViT, Whisper and DINOv3, where a checkout of it is named.

    pip install torch==2.13.0 transformers==4.57.6 flax==0.12.8 jax==0.10.2
    python benchmarks/known_cases.py [WORD IN A NAME] [--bonsai PATH] [-v]

Each case makes a small random PyTorch model, saves it, loads it into the Flax twin as a user
would, records both, and prints what the comparison says beside what is known. Nothing is
downloaded. Exit code 1 if a case is not named for what it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import bonsai_cases
import numpy as np
import torch
import transformers

from porting.doctor import diagnose
from porting.trace import Explanation, Trace, compare_traces, explain, record_linen, record_torch

SEED = 20261123
IDS = np.random.default_rng(SEED).integers(2, 90, (2, 11))
PIXELS = np.random.default_rng(SEED).normal(size=(2, 3, 32, 32)).astype(np.float32)
TEXT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 44,
    "max_position_embeddings": 64,
}
GROUPED = TEXT | {"num_key_value_heads": 2, "tie_word_embeddings": False}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "num_labels": 5}


@dataclass(frozen=True)
class Case:
    """A known case.

    Attributes:
        name: what it is.
        model: the class name of the PyTorch model; its twin is `Flax` + that name.
        config: of the configuration class.
        known: words that the explanation must hold.
        verdict: the verdict that is due.
    """

    name: str
    model: str
    config: dict[str, Any]
    known: tuple[str, ...]
    verdict: str


CASES = (
    Case("clean Llama", "LlamaForCausalLM", GROUPED, (), "noise"),
    Case("clean BERT", "BertForSequenceClassification", TEXT, (), "noise"),
    Case("clean GPT-2", "GPT2LMHeadModel", {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, (), "noise"),
    Case("clean ResNet, bottlenecks", "ResNetForImageClassification", RESNET | {"layer_type": "bottleneck"}, (), "noise"),
    Case("Mistral without a window", "MistralForCausalLM", GROUPED | {"sliding_window": None}, ("the mask", "only itself"), "code"),
    Case("Mistral with a window of 4", "MistralForCausalLM", GROUPED | {"sliding_window": 4}, ("the mask", "window"), "code"),
    Case("Llama with a rotary base of 500000", "LlamaForCausalLM", GROUPED | {"rope_theta": 500000.0}, ("the rotary base",), "code"),
    Case("Llama with a tied head", "LlamaForCausalLM", GROUPED | {"tie_word_embeddings": True}, ("lm_head",), "weight"),
    Case("ResNet with basic blocks", "ResNetForImageClassification", RESNET | {"layer_type": "basic"}, ("layer",), "weight"),
    Case("ELECTRA's token types", "ElectraForPreTraining", TEXT | {"embedding_size": 32}, ("the ids", "all 0", "all 1"), "code"),
)  # fmt: skip


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and statistic at random: a fresh one hides faults."""
    torch.manual_seed(SEED)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or "inv_freq" in name:
            continue
        fan = tensor[0].numel() if tensor.ndim > 1 else 16
        values = torch.randn_like(tensor) / fan**0.5
        if "var" in name or ("norm" in name.lower() and name.endswith("weight")):
            values = 0.6 + torch.rand_like(tensor)
        tensor.data.copy_(values)
    return model.eval()


def record(case: Case) -> tuple[Trace, Trace]:
    """Both traces of a case."""
    torch_class = getattr(transformers, case.model)
    model = randomised(torch_class(torch_class.config_class(**case.config)))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        twin = getattr(transformers, f"Flax{case.model}").from_pretrained(folder, from_pt=True)
    runs: dict[bool, Callable[[], tuple[Trace, Trace]]] = {
        True: lambda: _images(model, twin),
        False: lambda: _words(model, twin, case),
    }
    return runs["ResNet" in case.model]()


def _images(model: torch.nn.Module, twin: Any) -> tuple[Trace, Trace]:
    wanted = record_torch(model, pixel_values=PIXELS, double=True)
    given = record_linen(
        twin.module, twin.params, PIXELS.transpose(0, 2, 3, 1), deterministic=True, double=True
    )
    return wanted, given


def _words(model: torch.nn.Module, twin: Any, case: Case) -> tuple[Trace, Trace]:
    options = {} if "Bert" in case.model or "Electra" in case.model else {"use_cache": False}
    wanted = record_torch(model, input_ids=IDS, double=True, **options)
    ones, positions = np.ones_like(IDS), np.broadcast_to(np.arange(IDS.shape[1]), IDS.shape)
    if "Electra" in case.model:  # the default is made by the wrapper around the module
        return wanted, record_linen(lambda: twin(IDS), None)
    middle = (np.zeros_like(IDS), positions, None) if "Bert" in case.model else (positions,)
    return wanted, record_linen(
        twin.module, {"params": twin.params}, IDS, ones, *middle, double=True
    )


def due(case: Case | bonsai_cases.Case, said: Explanation) -> bool:
    """Whether the explanation names the case for what it is."""
    text = said.report()
    verdict = (
        said.verdict in ("same", "noise")
        if case.verdict == "noise"
        else (said.verdict == case.verdict)
    )
    return verdict and all(word in text for word in case.known)


def recordings(wanted: str, checkout: Path | None) -> Iterator[tuple[Any, Trace, Trace]]:
    """The cases whose name holds `wanted`, with their traces."""
    for case in CASES:
        if wanted in case.name:
            yield case, *record(case)
    for case in bonsai_cases.CASES if checkout else ():
        if wanted in case.name:
            yield case, *bonsai_cases.record(case, checkout, randomised)


def main() -> int:
    """Run all cases (or those whose name holds the first argument)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", default="", help="a word in the name of a case")
    parser.add_argument("--bonsai", type=Path, help="a checkout of jax-ml/bonsai")
    parser.add_argument("-v", action="store_true", help="print every stage")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    missed = 0
    for case, wanted, given in recordings(asked.name, asked.bonsai):
        result = compare_traces(wanted, given)
        leaves = {path: np.asarray(leaf) for path, leaf in given.leaves.items()}
        said = explain(result, diagnose(wanted.leaves, leaves) if leaves else None)
        named = due(case, said)
        missed += not named
        print(f"\n== {case.name}: {'named' if named else 'NOT NAMED'} (verdict {said.verdict})")
        print(said.report())
        if asked.v:
            print(result.report())
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
