"""The Flax models of the shipped checkpoints, against what real PyTorch answers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from porting.checkpoint import open_checkpoint
from porting.compare import NetworkComparison
from porting.examples import EXAMPLES
from porting.mapping import infer_mapping, port_checkpoint
from porting.models import MODELS, LinenRNet, NNXRNet, decided_mapping

GOLDEN = Path(__file__).parent / "golden" / "models" / "rnet.npz"
KERNELS = {"rnet-linen": "params/dense4/kernel", "rnet-nnx": "dense4/kernel"}


def source(name: str):
    return open_checkpoint(EXAMPLES[MODELS[name].checkpoint].path)


def linen(variables, images):
    return LinenRNet().apply(variables, images)


def in_nnx(variables, images):
    module = nnx.eval_shape(lambda: NNXRNet(rngs=nnx.Rngs(0)))
    nnx.update(module, variables)
    return module(images)


RUNS = {"rnet-linen": linen, "rnet-nnx": in_nnx}


def judged(name: str, mapping) -> dict[str, NetworkComparison]:
    """Both outputs of a port in both precisions, beside PyTorch's in float64."""
    golden = np.load(GOLDEN)
    variables, _ = port_checkpoint(source(name), MODELS[name].target(), mapping)
    runs = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            cast = jax.tree.map(lambda a, to=dtype: jnp.asarray(np.asarray(a, to)), variables)
            made = RUNS[name](cast, jnp.asarray(golden["images"].astype(dtype)))
            runs.append([np.asarray(output) for output in made])
    return {
        key: NetworkComparison(golden[key], single, double)
        for key, single, double in zip(("box", "face"), *runs, strict=True)
    }


@pytest.mark.parametrize("name", RUNS)
def test_the_decided_port_answers_as_pytorch_does(name):
    for key, comparison in judged(name, decided_mapping(name, source(name))).items():
        assert comparison.single.dtype == np.float32
        assert comparison.double.dtype == np.float64
        assert comparison.within, (key, comparison.d32, comparison.d64)


@pytest.mark.parametrize("name", RUNS)
def test_the_other_order_of_the_flatten_is_wrong(name):
    """Shapes agree in both; only the outputs tell."""
    mapping = infer_mapping(source(name), MODELS[name].target())
    assert list(mapping.unsure) == [KERNELS[name]]
    for key, comparison in judged(name, mapping).items():
        assert not comparison.within, key
        assert comparison.d64 > 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_every_shipped_model_takes_its_checkpoint_whole(name):
    checkpoint = source(name)
    mapping = decided_mapping(name, checkpoint)
    assert not mapping.unsure
    _, report = port_checkpoint(checkpoint, MODELS[name].target(), mapping)
    assert report.keys == len(checkpoint)
    assert report.nbytes == checkpoint.nbytes


@pytest.mark.parametrize("side", [24, 25, 26])
def test_the_pool_is_pytorchs_with_ceil_mode(side):
    """Sides that a window of 3 at stride 2 does not fill: one more, over what is there."""
    from porting.models import _pool

    x = np.random.default_rng(0).standard_normal((2, side, side + 1, 3)).astype(np.float32)
    pooled = np.asarray(_pool(jnp.asarray(x)))
    counts = [-(-(n - 3) // 2) + 1 for n in x.shape[1:3]]
    expected = [
        [x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(counts[1])]
        for i in range(counts[0])
    ]
    np.testing.assert_array_equal(pooled, np.array(expected).transpose(2, 0, 1, 3))


def test_one_rule_leaves_its_neighbours_as_sure_as_they_were():
    row = '[[leaf]]\nsource = "dense4\\\\.weight"\npath = "params/dense4/kernel"\npattern = "o i -> i o"\n'
    with open_checkpoint(EXAMPLES["mtcnn_rnet"].path) as source:
        mapping = infer_mapping(source, MODELS["rnet-linen"].target(), rules=row)
    assert not mapping.unsure
    assert not mapping.unmapped
    assert str(mapping.leaves["params/dense4/kernel"].rule) == "o i -> i o"
