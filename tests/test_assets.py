"""The shipped checkpoints are what their provenance file says."""

import hashlib
from pathlib import Path

import pytest
from safetensors import safe_open

from porting.block_torch import load_torch_encoder_layer, torch_shapes
from porting.checkpoint import open_checkpoint
from porting.examples import EXAMPLES

FOLDER = Path(__file__).parents[1] / "assets" / "checkpoints"
PROVENANCE = (FOLDER / "PROVENANCE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda p: p.name)
def test_the_file_is_the_one_that_was_extracted(path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{digest}  {path.name}" in PROVENANCE
    with safe_open(path, "np") as file:
        assert file.metadata()["license"] == "MIT"
        assert file.metadata()["source"]
    assert path in {example.path for example in EXAMPLES.values()}


def test_the_licences_are_there():
    assert PROVENANCE.count("MIT License") == 2
    assert PROVENANCE.count("THE SOFTWARE IS PROVIDED") == 2


def test_the_dense_layers_of_rnet():
    with open_checkpoint(EXAMPLES["mtcnn_rnet"].path) as checkpoint:
        shapes = {key: checkpoint[key].shape for key in checkpoint if "dense" in key}
    assert shapes["dense4.weight"] == (128, 576)
    assert shapes["dense5_1.weight"] == (2, 128)
    assert shapes["dense5_2.weight"] == (4, 128)


def test_the_encoder_layer_has_the_keys_of_pytorch():
    path = EXAMPLES["m6aformer"].path
    with open_checkpoint(path) as checkpoint:
        assert {key: checkpoint[key].shape for key in checkpoint} == torch_shapes(128, 512)
        with safe_open(path, "np") as file:
            heads = float(file.metadata()["num_heads"])
        assert heads == 4
        assert sorted(load_torch_encoder_layer(checkpoint, heads)["params"]) == [
            "attn", "ff1", "ff2", "ln1", "ln2",
        ]  # fmt: skip
