"""What the layer table promises beside equality: errors, sizes from shapes, runs backwards."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from porting.errors import ArgumentError, CoverageError, PortingError, UnsupportedError
from porting.layers import (
    LAYERS,
    compare_layer,
    port_layer,
    port_layer_nnx,
    run_layer,
    unport_layer,
)
from porting.tree import flatten

ROWS = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
WEIGHTED = pytest.mark.parametrize(
    "layer", [row for row in LAYERS.values() if row.example_state(0)], ids=lambda row: row.name
)


def takes_any_shape(layer: Any) -> bool:
    return layer.inputs(layer.example_config())[0].axes in (("...",), ("...", "even"))


def config_without_sizes(layer: Any) -> dict[str, Any]:
    """The example's options that shapes do not tell."""
    shapes = {key: a.shape for key, a in layer.example_state(0).items()}
    told = layer.sizes(shapes, layer.example_config())
    return {key: value for key, value in layer.example.items() if key not in told}


@ROWS
def test_a_row_explains_itself(layer: Any) -> None:
    assert layer.title
    assert layer.sources
    assert all(text.endswith(".") for text in layer.pitfalls)
    assert set(layer.example) <= set(layer.options)
    inputs = layer.example_inputs(0)
    out = run_layer(layer.name, layer.example_state(0), inputs, api="reference", **layer.example)
    assert np.isfinite(out).all()


@ROWS
def test_an_unknown_keyword_is_named(layer: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{layer.name} does not take device"):
        port_layer(layer.name, layer.example_state(0), device="cpu", **layer.example)


@WEIGHTED
def test_every_missing_key_is_named(layer: Any) -> None:
    state = layer.example_state(0)
    for key in state:
        without = {k: a for k, a in state.items() if k != key}
        with pytest.raises(CoverageError, match=key.replace(".", r"\.")):
            port_layer(layer.name, without, **layer.example)


@WEIGHTED
def test_an_unknown_key_and_a_wrong_shape_are_named_together(layer: Any) -> None:
    state = layer.example_state(0)
    key = next(iter(state))
    wrong = state | {key: state[key][..., :-1], "adapter": np.ones(2, np.float32)}
    with pytest.raises(CoverageError) as caught:
        port_layer(layer.name, wrong, **layer.example)
    assert "adapter is unknown" in str(caught.value)
    assert f"{key} has shape" in str(caught.value)


@WEIGHTED
def test_the_shapes_tell_the_sizes(layer: Any) -> None:
    state = layer.example_state(0)
    full = flatten(port_layer(layer.name, state, **layer.example))
    short = flatten(port_layer(layer.name, state, **config_without_sizes(layer)))
    assert all(np.array_equal(full[path], leaf) for path, leaf in short.items())
    assert full.keys() == short.keys()


@WEIGHTED
def test_the_leaves_tell_the_sizes_on_the_way_back(layer: Any) -> None:
    variables = port_layer(layer.name, layer.example_state(0), **layer.example)
    back = unport_layer(layer.name, variables, **config_without_sizes(layer))
    again = port_layer(layer.name, back, **config_without_sizes(layer))
    first = flatten(variables)
    assert all(np.array_equal(first[path], leaf) for path, leaf in flatten(again).items())


@WEIGHTED
def test_a_leaf_missing_on_the_way_back_is_named(layer: Any) -> None:
    variables = port_layer(layer.name, layer.example_state(0), **layer.example)
    leaves = flatten(variables)
    with pytest.raises(CoverageError):
        unport_layer(layer.name, leaves | {"params/adapter": np.ones(2)}, **layer.example)


@WEIGHTED
def test_the_caller_keeps_what_it_passed(layer: Any) -> None:
    state = layer.example_state(0)
    before = {key: a.copy() for key, a in state.items()}
    for leaf in flatten(port_layer(layer.name, state, **layer.example)).values():
        leaf[...] = 0
    assert all(np.array_equal(before[key], a) for key, a in state.items())


@ROWS
def test_other_values_of_a_keyword_are_explained(layer: Any) -> None:
    state, inputs = layer.example_state(0), layer.example_inputs(0)
    for option in layer.options:
        for value in (0, -1, 2.5, "x", True, (1, 2, 3, 4), 10**9, float("nan"), {}):
            try:
                run_layer(
                    layer.name,
                    state,
                    inputs,
                    api="reference",
                    **{**layer.example, option: value},
                )
            except PortingError as error:
                assert len(str(error)) > 10  # noqa: PT017


@pytest.mark.parametrize(
    "layer",
    [r for r in LAYERS.values() if not takes_any_shape(r)],
    ids=lambda row: row.name,
)
def test_an_input_of_other_axes_is_explained(layer: Any) -> None:
    specs = layer.inputs(layer.example_config())
    with pytest.raises(ArgumentError, match="expected"):
        run_layer(
            layer.name,
            layer.example_state(0),
            (np.ones((2,) * 7, np.float32)[..., :1],) * len(specs),
            **layer.example,
        )


UNSUPPORTED = [
    ("Upsample", {"scale_factor": 2, "mode": "bicubic"}, "a = −0.75"),
    ("MaxPool2d", {"kernel_size": 2, "dilation": 2}, "window_dilation"),
    ("SpectralNormLinear", {"fused": False}, "fused=True"),
    ("LSTM", {"proj_size": 2}, "weight_hr"),
    ("MultiheadAttention", {"num_heads": 3, "add_zero_attn": True}, "a zero key"),
    ("MultiheadAttention", {"num_heads": 3, "add_bias_kv": True}, "bias_k and bias_v"),
    ("BatchNorm2d", {"track_running_stats": False}, "use_running_average=False"),
]


@pytest.mark.parametrize(("name", "config", "way_round"), UNSUPPORTED)
def test_what_flax_cannot_express(name: str, config: dict[str, Any], way_round: str) -> None:
    layer = LAYERS[name]
    state = layer.example_state(0)
    if config.get("track_running_stats") is False:
        state = {k: a for k, a in state.items() if not k.startswith("running")}
    with pytest.raises(UnsupportedError, match=way_round):
        port_layer(name, state, **config)


def test_gru_in_nnx_names_the_bias_it_cannot_hold() -> None:
    layer = LAYERS["GRU"]
    state = layer.example_state(0)
    with pytest.raises(UnsupportedError, match=r"bias_hh_l0\[n\].*Port to Linen"):
        port_layer_nnx("GRU", state)
    state["bias_hh_l0"][-3:] = 0
    assert compare_layer("GRU", state, layer.example_inputs(0), api="nnx", batch_first=True).within


def test_a_row_that_ignores_every_key_is_refused() -> None:
    layer = LAYERS["MultiheadAttention"]
    state, inputs = layer.example_state(0), layer.example_inputs(0)
    mask = np.ones((inputs[0].shape[1], inputs[1].shape[1]), bool)
    config = {**layer.example, "attn_mask": mask}
    with pytest.raises(UnsupportedError, match="ignores every key"):
        run_layer("MultiheadAttention", state, inputs, **config)
    out = run_layer("MultiheadAttention", state, inputs, api="reference", **config)
    assert np.isnan(out).all()


def test_the_text_of_a_coverage_error() -> None:
    with pytest.raises(CoverageError) as caught:
        port_layer("Linear", {"weight": np.ones((5, 7), np.float32)})
    assert str(caught.value) == (
        "Linear: the state_dict does not fit:\n"
        "bias is missing (shape (5,)); pass bias=False if the layer has none"
    )


@pytest.mark.parametrize("ids", [[11], [-1], [0.5]])
@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_an_id_outside_the_table_is_refused(name: str, ids: list[Any]) -> None:
    with pytest.raises(ArgumentError, match=r"the table has rows 0 to 10|Pass whole numbers"):
        run_layer(name, LAYERS[name].example_state(0), np.array([ids]))


def test_an_empty_bag_is_zero() -> None:
    state = LAYERS["EmbeddingBag"].example_state(0)
    for mode in ("sum", "mean", "max"):
        out = run_layer("EmbeddingBag", state, (np.arange(3), np.array([0, 0, 2])), mode=mode)
        assert not out[0].any()
        assert out[1].any()


def test_a_causal_layer_stays_causal_under_another_mask() -> None:
    layer = LAYERS["GPT2Attention"]
    state, (x,) = layer.example_state(0), layer.example_inputs(0)
    padding = np.zeros((5, 5), bool)
    config = {"num_heads": 3}
    plain = run_layer("GPT2Attention", state, x, **config)
    masked = run_layer("GPT2Attention", state, x, attn_mask=padding, **config)
    assert np.array_equal(plain, masked)


@pytest.mark.parametrize("mask", [{"key_padding_mask": (2, 7)}, {"attn_mask": (4, 5, 7)}])
def test_a_mask_of_another_batch_is_refused(mask: dict[str, tuple[int, ...]]) -> None:
    layer = LAYERS["MultiheadAttention"]
    config = layer.example | {key: np.zeros(shape, bool) for key, shape in mask.items()}
    with pytest.raises(ArgumentError, match="has shape"):
        run_layer(layer.name, layer.example_state(0), layer.example_inputs(0), **config)


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(ArgumentError, match="weight is no array of numbers"):
        port_layer("Linear", {"weight": "many", "bias": np.ones(2)})
    with pytest.raises(ArgumentError, match="Pass a mapping"):
        port_layer("Linear", [np.ones(2)])


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ArgumentError, match="There is no layer 'Dense'"):
        port_layer("Dense", {})


def test_an_unknown_api_is_named() -> None:
    with pytest.raises(ArgumentError, match="There is no API 'torch'"):
        run_layer("ReLU", {}, np.ones(2), api="torch")


def test_a_bias_trained_where_torch_has_none_is_refused() -> None:
    layer = LAYERS["LSTM"]
    variables = port_layer("LSTM", layer.example_state(0, bias=False), bias=False)
    variables["params"]["cell"]["hi"]["bias"][0] = 1
    with pytest.raises(CoverageError, match="must be zero"):
        unport_layer("LSTM", variables, bias=False)


def test_num_batches_tracked_is_excused_with_its_reason() -> None:
    layer = LAYERS["BatchNorm2d"]
    state = layer.example_state(0) | {"num_batches_tracked": np.int64(3)}
    variables = port_layer("BatchNorm2d", state)
    assert sorted(variables) == ["batch_stats", "params"]
    assert "num_batches_tracked" in layer.ignored


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_dtype_is_kept(dtype: Any) -> None:
    state = {k: a.astype(dtype) for k, a in LAYERS["Linear"].example_state(0).items()}
    variables = port_layer("Linear", state)
    assert variables["params"]["kernel"].dtype == dtype
    back = unport_layer("Linear", variables)
    assert all(np.array_equal(back[key], a) for key, a in state.items())


def test_a_module_is_in_eval_mode() -> None:
    module = port_layer_nnx("BatchNorm1d", LAYERS["BatchNorm1d"].example_state(0))
    assert module.use_running_average


WRONG = [
    ("Linear", {"in_features": 7, "out_features": 7}, "weight", lambda w: w.T),
    ("Conv2d", {"in_channels": 3, "out_channels": 3, "kernel_size": 3}, "weight", lambda w: w.T),
    ("LSTM", {"batch_first": True}, "weight_ih_l0", lambda w: np.roll(w, 3, 0)),
    (
        "MultiheadAttention",
        {"embed_dim": 15, "num_heads": 3, "batch_first": True},
        "in_proj_weight",
        lambda w: np.roll(w, 15, 0),
    ),
    ("BatchNorm2d", {}, "running_var", np.sqrt),
]


@pytest.mark.parametrize(("name", "config", "key", "fault"), WRONG, ids=lambda x: str(x)[:12])
def test_the_verdict_sees_a_fault(name: str, config: dict[str, Any], key: str, fault: Any) -> None:
    layer = LAYERS[name]
    config = {**layer.example, **config}
    state, inputs = layer.example_state(0, **config), layer.example_inputs(0, **config)
    right = run_layer(name, state, inputs, api="reference", **config)
    broken = state | {key: np.ascontiguousarray(fault(state[key]))}
    verdict = compare_layer(name, broken, inputs, **config)
    replaced = type(verdict)(right, *list(vars(verdict).values())[1:])
    assert verdict.within
    assert not replaced.within
