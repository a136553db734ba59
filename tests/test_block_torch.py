"""The PyTorch encoder layer -> Linen -> NNX, against outputs of real PyTorch 2.13."""

from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from porting.block_modules import LinenEncoderBlock
from porting.block_stages import BlockConfig, run_linen, run_nnx
from porting.block_torch import TORCH_TO_LINEN, load_torch_encoder_layer, torch_shapes
from porting.compare import NetworkComparison
from porting.errors import ArgumentError, CoverageError, PortingError
from porting.leaves import unport_leaves
from porting.tree import flatten

GOLDEN = Path(__file__).parent / "golden" / "block"
CHECKPOINT = Path(__file__).parents[1] / "assets" / "checkpoints" / "m6aformer_layer0.safetensors"
CASES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


def golden(name: str) -> tuple[dict, dict, dict]:
    """The arrays, the state_dict and the metadata of one file."""
    path = GOLDEN / f"{name}.safetensors"
    arrays = load_file(path)
    state = {k.removeprefix("state/"): a for k, a in arrays.items() if k.startswith("state/")}
    with safe_open(path, "np") as file:
        return arrays, state or load_file(CHECKPOINT), file.metadata()


def compared(name: str, api: str, *, epsilon: float | None = None, change=None):
    """The port of one golden layer beside PyTorch's own float64."""
    arrays, state, meta = golden(name)
    variables = load_torch_encoder_layer(state, float(meta["num_heads"]))
    if change:
        change(variables["params"])
    hidden, width = state["linear1.weight"].shape
    epsilon = epsilon or float(meta["epsilon"])
    config = BlockConfig(int(meta["num_heads"]), width, hidden, meta["activation"], epsilon)
    run = {"linen": run_linen, "nnx": run_nnx}[api](config, flatten(variables), arrays["x"])
    single, double = run.single["output"], run.double["output"]
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    return NetworkComparison(arrays["out64"], single, double)


def test_the_public_block_computes_those_outputs():
    arrays, state, _ = golden("relu_5x3x15x17")
    variables = load_torch_encoder_layer(state, 3)
    block = LinenEncoderBlock(3, 15, 17, "relu", 1e-5)
    with jax.enable_x64(True):
        double = np.asarray(
            block.apply(jax.tree.map(np.float64, variables), np.float64(arrays["x"]))
        )
    single = np.asarray(block.apply(variables, arrays["x"]))
    assert NetworkComparison(arrays["out64"], single, double).within


def test_there_are_golden_cases_of_both_activations_and_a_real_layer():
    assert {name.split("_")[0] for name in CASES} == {"relu", "gelu", "m6aformer"}
    assert golden(CASES[0])[2]["torch"].startswith("2.13")


@pytest.mark.parametrize("api", ["linen", "nnx"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_real_pytorch(name, api):
    comparison = compared(name, api)
    assert comparison.within, (comparison.d32, comparison.d64)


def transposed(params):
    params["attn"]["q_proj"]["kernel"] = params["attn"]["q_proj"]["kernel"].T


def exchanged(params):
    attn = params["attn"]
    attn["k_proj"], attn["v_proj"] = attn["v_proj"], attn["k_proj"]


@pytest.mark.parametrize(
    "options", [{"change": transposed}, {"change": exchanged}, {"epsilon": 1e-6}]
)
def test_the_golden_check_can_fail(options):
    assert not compared("relu_square_8x4x16x16", "linen", **options).within
    assert not compared("m6aformer", "linen", **options).within


@pytest.mark.parametrize("name", CASES)
def test_the_table_runs_backwards_bit_for_bit(name):
    state = golden(name)[1]
    variables = load_torch_encoder_layer(state, 1)
    back = unport_leaves(TORCH_TO_LINEN, flatten(variables), state)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[key], state[key]) for key in state)


def random_state(d_model: int = 6, d_ff: int = 5, dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {k: rng.standard_normal(s).astype(dtype) for k, s in torch_shapes(d_model, d_ff).items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_the_dtype_of_the_source_is_kept(dtype):
    leaves = flatten(load_torch_encoder_layer(random_state(dtype=dtype), 2.0))
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(dtype)}
    assert all(leaf.flags.c_contiguous for leaf in leaves.values())


def test_the_source_is_not_shared():
    state = random_state()
    variables = load_torch_encoder_layer(state, 2)
    state["norm1.weight"][:] = 0
    assert variables["params"]["ln1"]["scale"].all()


HEAD = (
    "This is not the state_dict of one nn.TransformerEncoderLayer (d_model = 6, d_ff = 5). "
    "Pass its 12 tensors, without a prefix such as 'layers.0.':"
)


def test_everything_that_does_not_fit_is_told_at_once():
    state = random_state()
    state["linear1.bia"] = state.pop("self_attn.in_proj_bias")
    state["self_attn.in_proj_weight"] = state["self_attn.in_proj_weight"][:17]
    state["linear2.weight"] = state["linear2.weight"].T
    with pytest.raises(CoverageError) as caught:
        load_torch_encoder_layer(state, 2)
    assert str(caught.value).splitlines() == [
        HEAD,
        "self_attn.in_proj_weight has shape (17, 6), the layer needs (18, 6)",
        "self_attn.in_proj_bias is missing",
        "linear2.weight has shape (5, 6), the layer needs (6, 5)",
        "linear1.bia is not a key of this layer",
    ]


BAD = [
    ({}, 4, "d_model = 6 does not split into 4 heads: 6 / 4 is not whole. "
     "Pass a d_model that is a multiple of num_heads, such as 8."),
    ({}, 0, "num_heads = 0 is not a size. Pass a whole number from 1 to 8,192."),
    ({"norm1.bias": "zero"}, 2, "norm1.bias is not an array of floating numbers. "
     "Pass `tensor.detach().float().numpy()`."),
    ({"norm1.bias": np.zeros(6, int)}, 2, "norm1.bias is not an array of floating numbers. "
     "Pass `tensor.detach().float().numpy()`."),
]  # fmt: skip


@pytest.mark.parametrize(("change", "heads", "text"), BAD)
def test_bad_arguments_are_told_word_for_word(change, heads, text):
    with pytest.raises(ArgumentError) as caught:
        load_torch_encoder_layer(random_state() | change, heads)
    assert str(caught.value) == text


@pytest.mark.parametrize("state", [{}, {"": np.zeros(3)}, {"norm1.weight": np.zeros(())}])
def test_other_mappings_are_refused(state):
    with pytest.raises(PortingError, match="not the state_dict"):
        load_torch_encoder_layer(state, 2)


def test_empty_tensors_are_refused():
    state = {key: np.zeros(shape) for key, shape in torch_shapes(0, 3).items()}
    with pytest.raises(CoverageError, match="d_model = 0"):
        load_torch_encoder_layer(state, 2)
