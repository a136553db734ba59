"""The catalogue of faults: its texts, injection, and what single faults do."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from porting.block_faults import BLOCK_FAULTS
from porting.checks import run_variables
from porting.checks.block_bench import block_bench
from porting.checks.layer_bench import layer_bench
from porting.errors import ArgumentError, CoverageError
from porting.faults import FAULTS, Fault, Port, fault_named, faults_for, fitting, inject
from porting.layers import LAYERS, port_layer, run_layer
from porting.tree import flatten, unflatten

#: Options in which a fault fits that fits no layer of the matrix as it is.
RARE: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"num_layers": 2, "input_size": 10}),
    ("Conv2d", {"padding_mode": "reflect", "stride": 1}),
    ("Conv2d", {"in_channels": 4, "out_channels": 4, "groups": 2}),
    ("GPT2Attention", {"is_causal": False}),
    ("RMSNorm", {"eps": 1e-5}),
]


@cache
def ports() -> dict[str, Port]:
    """A right port of every layer, of the block, and of the rare options."""
    made = {name: layer_bench(name, (), 0, {}).ports["random"] for name in LAYERS}
    made |= {
        f"{name}-{i}": layer_bench(name, (), 0, options).ports["random"]
        for i, (name, options) in enumerate(RARE)
    }
    return made | {"EncoderBlock": block_bench((), 0, {}).ports["random"]}


def pairs() -> list[tuple[str, Fault]]:
    return [(label, fault) for label, port in ports().items() for fault in fitting(port)]


def test_every_row_tells_everything():
    for name, fault in FAULTS.items():
        assert fault.name == name
        for text in (fault.title, fault.symptom, fault.why, fault.fix, fault.source):
            assert text == text.strip() != ""
        assert fault.symptom.endswith(".")
        assert fault.why.endswith(".")
        assert not fault.title.endswith(".")
        assert fault.where in ("leaves", "forward")
        assert fault.kind in ("silent", "values")


def test_titles_are_told_apart():
    titles = [fault.title for fault in FAULTS.values()]
    assert len(set(titles)) == len(titles)


def test_every_fault_fits_somewhere():
    assert {fault.name for _, fault in pairs()} == set(FAULTS)


def test_every_layer_with_leaves_can_go_wrong():
    assert not [label for label, port in ports().items() if port.leaves and not fitting(port)]


def test_the_block_has_its_faults_from_the_table():
    fits = [fault.name for fault in fitting(ports()["EncoderBlock"])]
    assert not set(BLOCK_FAULTS) - set(fits)
    assert all(BLOCK_FAULTS[name] is FAULTS[name] for name in BLOCK_FAULTS)


def test_a_fault_changes_nothing_in_place_and_does_the_same_twice():
    for label, fault in pairs():
        right = ports()[label]
        before = {path: leaf.copy() for path, leaf in right.leaves.items()}
        config = dict(right.config)
        first, second = fault.inject(right), fault.inject(right)
        assert all(np.array_equal(before[path], leaf) for path, leaf in right.leaves.items())
        assert dict(right.config) == config
        assert first.config == second.config
        for path, leaf in first.leaves.items():
            assert leaf.tobytes() == second.leaves[path].tobytes(), (label, fault.name)


def test_a_fault_is_where_its_row_says():
    for label, fault in pairs():
        right = ports()[label]
        wrong = fault.inject(right)
        same = all(
            leaf.tobytes() == right.leaves[path].tobytes() for path, leaf in wrong.leaves.items()
        )
        told = wrong.forward is not None or wrong.config != right.config
        assert (same, told) == (fault.where == "forward", fault.where == "forward"), (
            label,
            fault.name,
        )


def test_a_fault_keeps_the_paths_and_dtypes():
    for label, fault in pairs():
        right, wrong = ports()[label], fault.inject(ports()[label])
        assert list(wrong.leaves) == list(right.leaves)
        assert all(wrong.leaves[path].dtype == leaf.dtype for path, leaf in right.leaves.items())


def linear(out: int = 5) -> dict[str, Any]:
    return port_layer("Linear", LAYERS["Linear"].example_state(0, out_features=out))


def test_inject_returns_new_variables_and_options():
    right = linear(out=7)
    wrong, options = inject("kernel_untransposed", right, layer="Linear", config={"bias": True})
    assert np.array_equal(wrong["params"]["kernel"], right["params"]["kernel"].T)
    assert wrong["params"]["kernel"].flags.c_contiguous
    assert options == {"bias": True}
    assert not np.shares_memory(wrong["params"]["bias"], right["params"]["bias"])


def test_inject_changes_an_option_for_a_constant():
    state = LAYERS["LayerNorm"].example_state(0)
    right = port_layer("LayerNorm", state)
    wrong, options = inject(FAULTS["default_epsilon"], right, layer="LayerNorm")
    assert options == {"eps": 1e-6}
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32) / 100
    told = run_layer("LayerNorm", state, x, eps=1e-6)
    assert np.allclose(run_variables("LayerNorm", wrong, x, config=options), told, atol=1e-6)
    assert not np.allclose(told, run_layer("LayerNorm", state, x), atol=1e-3)


def test_inject_gives_a_forward_pass_where_no_option_says_it():
    state = LAYERS["BatchNorm2d"].example_state(0)
    wrong, options = inject("train_mode", port_layer("BatchNorm2d", state), layer="BatchNorm2d")
    assert list(options) == ["forward"]
    x = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    out = run_variables("BatchNorm2d", wrong, x, config=options)
    batch = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    weight, bias = (state[key].reshape(1, 5, 1, 1) for key in ("weight", "bias"))
    assert np.allclose(out, batch * weight + bias, atol=1e-4)


def test_what_a_skipped_leaf_keeps_comes_from_the_seed():
    right = linear()
    kernels = [
        inject("kernel_at_init", right, layer="Linear", seed=seed)[0]["params"]["kernel"]
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_faults_for_lists_what_inject_takes():
    names = [fault.name for fault in faults_for(linear(), layer="Linear")]
    assert "kernel_untransposed" in names
    assert "table_transposed" not in names
    assert all(inject(name, linear(), layer="Linear") for name in names)


def test_the_block_can_be_injected_by_its_leaves():
    leaves = unflatten(ports()["EncoderBlock"].leaves)
    wrong, options = inject("qk_exchanged", leaves, layer="EncoderBlock", config={"num_heads": 2})
    assert options == {"num_heads": 2}
    swapped = flatten(wrong)["params/attn/q_proj/kernel"]
    assert np.array_equal(swapped, flatten(leaves)["params/attn/k_proj/kernel"])
    with pytest.raises(ArgumentError) as caught:
        inject("qk_exchanged", leaves, layer="EncoderBlock")
    assert str(caught.value) == (
        "EncoderBlock: pass the leaves of LinenEncoderBlock, and config with num_heads."
    )


def test_what_inject_refuses():
    with pytest.raises(ArgumentError, match="There is no fault 'typo'"):
        fault_named("typo")
    with pytest.raises(ArgumentError) as caught:
        inject("qk_exchanged", linear(), layer="Linear")
    assert str(caught.value) == (
        "The fault 'qk_exchanged' (q and k exchanged) cannot happen to Linear with these "
        "options. Choose another fault or other options."
    )
    with pytest.raises(CoverageError, match="params/bias is not filled"):
        inject("kernel_reshaped", {"params": {"kernel": np.ones((2, 3))}}, layer="Linear")
    with pytest.raises(ArgumentError, match="There is no layer 'Dense'"):
        inject("kernel_reshaped", linear(), layer="Dense")


def test_a_tree_without_a_layer_takes_faults_of_any_leaf():
    wrong, options = inject("narrowed_bfloat16", {"params": {"w": np.float32([1.003])}})
    assert (wrong["params"]["w"].tolist(), options) == ([1.0], {})


# What single faults do, in the words of the source.


def injected(name: str, layer: str, **options: Any) -> tuple[dict, dict, dict]:
    """The state_dict, the right leaves and the faulty ones."""
    given = {**LAYERS[layer].example, **options}
    state = LAYERS[layer].example_state(3, **given)
    right = port_layer(layer, state, **given)
    wrong, _ = inject(name, right, layer=layer, config=given)
    return state, flatten(right), flatten(wrong)


def test_a_reshaped_kernel_keeps_the_order_of_the_file():
    state, right, wrong = injected("kernel_reshaped", "Linear")
    assert wrong["params/kernel"].ravel().tolist() == state["weight"].ravel().tolist()
    assert wrong["params/kernel"].shape == right["params/kernel"].shape


def test_a_column_major_kernel_is_numpys():
    state, _, wrong = injected("kernel_column_major", "Linear")
    expected = state["weight"].reshape((7, 5), order="F")
    assert np.array_equal(wrong["params/kernel"], expected)


def test_a_flattened_kernel_is_the_plain_transpose():
    state, _, wrong = injected("flatten_order", "FlattenLinear")
    assert np.array_equal(wrong["params/kernel"], state["weight"].T)


def test_a_reshaped_convolution_keeps_the_order_of_the_file():
    state, _, wrong = injected("conv_reshaped", "Conv2d")
    assert wrong["params/kernel"].ravel().tolist() == state["weight"].ravel().tolist()


def test_reversed_axes_are_those_of_t():
    state, _, wrong = injected("conv_axes_reversed", "Conv3d")
    assert np.array_equal(wrong["params/kernel"], state["weight"].T)


def test_an_unflipped_kernel_is_only_transposed():
    state, _, wrong = injected("transpose_unflipped", "ConvTranspose2d")
    assert np.array_equal(wrong["params/kernel"], state["weight"].transpose(2, 3, 0, 1))


def test_packed_projections_read_per_head_are_those_of_neox():
    state, _, wrong = injected("qkv_per_head", "MultiheadAttention")
    renamed = {
        "query_key_value.weight": state["in_proj_weight"],
        "query_key_value.bias": state["in_proj_bias"],
        "dense.weight": state["out_proj.weight"],
        "dense.bias": state["out_proj.bias"],
    }
    neox = flatten(port_layer("GPTNeoXAttention", renamed, num_heads=3))
    assert all(np.array_equal(wrong[path], leaf) for path, leaf in neox.items())


def test_packed_projections_read_in_blocks_are_those_of_torch():
    state, _, wrong = injected("qkv_in_blocks", "GPTNeoXAttention")
    renamed = {
        "in_proj_weight": state["query_key_value.weight"],
        "in_proj_bias": state["query_key_value.bias"],
        "out_proj.weight": state["dense.weight"],
        "out_proj.bias": state["dense.bias"],
    }
    torch = flatten(port_layer("MultiheadAttention", renamed, num_heads=3))
    assert all(np.array_equal(wrong[path], leaf) for path, leaf in torch.items())


def test_untransposed_projections_are_a_reshape_of_the_weight():
    state, right, wrong = injected("projections_untransposed", "MultiheadAttention")
    for j, name in enumerate(("query", "key", "value")):
        path = f"params/{name}/kernel"
        weight = state["in_proj_weight"][15 * j : 15 * (j + 1)]
        assert np.array_equal(wrong[path], weight.reshape(right[path].shape))


def test_an_untransposed_output_is_a_reshape_of_the_weight():
    state, right, wrong = injected("square_transposed", "GroupedQueryAttention")
    path = "params/out/kernel"
    assert np.array_equal(wrong[path], state["o_proj.weight"].reshape(right[path].shape))


def test_an_interleaved_rotation_is_the_rule_of_interleaved_checkpoints():
    state, right, wrong = injected("rotary_pairs", "GroupedQueryAttention", rotary="interleaved")
    again = LAYERS["GroupedQueryAttention"].example | {"rotary": "half-split"}
    half = flatten(port_layer("GroupedQueryAttention", state, **again))
    assert all(np.array_equal(wrong[path], leaf) for path, leaf in half.items())
    assert not np.array_equal(wrong["params/query/kernel"], right["params/query/kernel"])


def test_a_merged_candidate_bias_is_their_sum():
    state, _, wrong = injected("candidate_bias_merged", "GRU")
    both = state["bias_ih_l0"][6:] + state["bias_hh_l0"][6:]
    assert np.array_equal(wrong["params/cell/in/bias"], both)
    assert not wrong["params/cell/hn/bias"].any()


def test_gates_in_the_order_of_onnx():
    state, _, wrong = injected("gates_reordered", "LSTM")
    blocks = np.split(state["weight_hh_l0"], 4)
    for gate, block in zip("iofg", blocks, strict=True):
        assert np.array_equal(wrong[f"params/cell/h{gate}/kernel"], block.T)


def test_directions_are_exchanged_whole():
    _, right, wrong = injected("directions_exchanged", "RNN", bidirectional=True)
    for path, leaf in right.items():
        other = path.replace("forward_", "x_").replace("backward_", "forward_")
        assert np.array_equal(wrong[other.replace("x_", "backward_")], leaf)


def test_one_plus_weight_missed_is_the_weight():
    state, _, wrong = injected("one_plus_missed", "GemmaRMSNorm")
    assert np.allclose(wrong["params/scale"], state["weight"], atol=1e-6)


def test_the_byte_fault_of_the_catalogue():
    wrong, _ = inject("float16_as_bfloat16", {"params": {"w": np.float32([1.0])}})
    assert wrong["params"]["w"].tolist() == [0.0078125]


def test_weight_norm_without_its_length_has_length_one():
    _, _, wrong = injected("weight_norm_length_lost", "WeightNormConv2d")
    assert np.allclose((wrong["params/kernel"] ** 2).sum((0, 1, 2)), 1, atol=1e-5)


def test_weight_norm_over_everything_keeps_the_whole_length_ratio():
    _, right, wrong = injected("weight_norm_axes", "WeightNormLinear")
    ratio = wrong["params/kernel"] / right["params/kernel"]
    lengths = np.linalg.norm(right["params/kernel"], axis=0)
    assert np.allclose(ratio, lengths / np.linalg.norm(right["params/kernel"]), rtol=1e-5)
