"""`infer_mapping` on the forms that models have: packed, split, stacked, counted, renamed.

Every case is a source of distinct numbers and the target as it should come out, so that a
wrong leaf, a wrong layout and a wrong part of a tensor all show.
"""

import numpy as np
import pytest

from porting.mapping import infer_mapping, port_checkpoint, unport_checkpoint
from porting.tree import flatten

E, H, D, F, V, P = 35, 5, 7, 22, 29, 13


class Source(dict):
    """A state_dict whose every number is its own."""

    ordered = True

    def __init__(self, shapes, ordered=True):
        keys = list(shapes) if ordered else sorted(shapes)
        start = 0
        for key in keys:
            size = int(np.prod(shapes[key], dtype=int))
            self[key] = np.arange(start, start + size, dtype=np.float64).reshape(shapes[key])
            start += size
        self.ordered = ordered

    @property
    def specs(self):
        return dict(self)


def linear(name, out, into, bias=True):
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name, n=E):
    return {f"{name}.weight": (n,), f"{name}.bias": (n,)}


def batch_norm(name, n):
    return norm(name, n) | {
        f"{name}.running_mean": (n,), f"{name}.running_var": (n,), f"{name}.num_batches_tracked": (),
    }  # fmt: skip


def outcome(source, expected, **options):
    """(wrong paths, unsure paths, mapping); a wrong and sure leaf fails at once."""
    mapping = infer_mapping(source, expected, **options)
    assert not mapping.unmapped, mapping
    wrong = []
    for path, array in expected.items():
        leaf = mapping.leaves[path]
        if not np.array_equal(leaf.apply(source), array):
            assert not leaf.confident, f"wrong and sure: {leaf}: {leaf.reason}"
            wrong.append(path)
    return wrong, set(mapping.unsure), mapping


def all_right(source, expected, backwards=True):
    wrong, unsure, mapping = outcome(source, expected)
    assert not wrong, mapping
    assert not unsure, mapping
    variables, _report = port_checkpoint(source, expected, mapping)
    assert all(np.array_equal(a, expected[p]) for p, a in flatten(variables).items())
    if backwards:
        back = unport_checkpoint(variables, source, mapping)
        for key, array in source.items():
            if not key.endswith("num_batches_tracked"):
                assert np.array_equal(back[key], array), key
    return mapping


def heads(weight):
    return weight.T.reshape(weight.shape[1], -1, D)


def test_torch_attention_to_the_multi_axis_kernels_of_flax():
    source = Source({
        "attn.in_proj_weight": (3 * E, E), "attn.in_proj_bias": (3 * E,), **linear("attn.out_proj", E, E),
    })  # fmt: skip
    weight, bias = source["attn.in_proj_weight"], source["attn.in_proj_bias"]
    expected = {
        "params/attn/out/kernel": source["attn.out_proj.weight"].T.reshape(H, D, E),
        "params/attn/out/bias": source["attn.out_proj.bias"],
    }
    for i, name in enumerate(("query", "key", "value")):
        expected[f"params/attn/{name}/kernel"] = heads(weight[i * E : (i + 1) * E])
        expected[f"params/attn/{name}/bias"] = bias[i * E : (i + 1) * E].reshape(H, D)
    mapping = all_right(source, expected)
    assert str(mapping.leaves["params/attn/key/kernel"].rule) == "(p=1 h d) i -> i h d; p=3, h=5"


def gpt2_block(conv1d):
    def weight(name, out, into):
        return {f"{name}.weight": (into, out) if conv1d else (out, into), f"{name}.bias": (out,)}

    return Source({
        "transformer.wte.weight": (V, E), "transformer.wpe.weight": (P, E),
        **{k: v for i in range(3) for k, v in {
            **norm(f"transformer.h.{i}.ln_1"), **weight(f"transformer.h.{i}.attn.c_attn", 3 * E, E),
            **weight(f"transformer.h.{i}.attn.c_proj", E, E), **norm(f"transformer.h.{i}.ln_2"),
            **weight(f"transformer.h.{i}.mlp.c_fc", E, E), **weight(f"transformer.h.{i}.mlp.c_proj", E, E),
        }.items()},
        **norm("transformer.ln_f"),
    })  # fmt: skip


@pytest.mark.parametrize("conv1d", [True, False])
def test_square_weights_of_gpt2_follow_their_siblings(conv1d):
    source = gpt2_block(conv1d)
    turn = (lambda w: w) if conv1d else (lambda w: w.T)
    expected = {"tok/embedding": source["transformer.wte.weight"],
                "pos/embedding": source["transformer.wpe.weight"],
                "ln_f/scale": source["transformer.ln_f.weight"],
                "ln_f/bias": source["transformer.ln_f.bias"]}  # fmt: skip
    for i in range(3):
        for ours, theirs in (("attn/qkv", "attn.c_attn"), ("attn/proj", "attn.c_proj"),
                             ("mlp/fc1", "mlp.c_fc"), ("mlp/fc2", "mlp.c_proj")):  # fmt: skip
            key = f"transformer.h.{i}.{theirs}"
            expected[f"blocks/{i}/{ours}/kernel"] = turn(source[f"{key}.weight"])
            expected[f"blocks/{i}/{ours}/bias"] = source[f"{key}.bias"]
        for n in (1, 2):
            for leaf, theirs in (("scale", "weight"), ("bias", "bias")):
                expected[f"blocks/{i}/norm{n}/{leaf}"] = source[
                    f"transformer.h.{i}.ln_{n}.{theirs}"
                ]
    all_right(source, expected)


@pytest.mark.parametrize("conv1d", [True, False])
def test_packed_c_attn_to_separate_heads(conv1d):
    source = gpt2_block(conv1d)
    turn = (lambda w: w) if conv1d else (lambda w: w.T)
    expected = {"tok/embedding": source["transformer.wte.weight"],
                "pos/embedding": source["transformer.wpe.weight"],
                "ln_f/scale": source["transformer.ln_f.weight"],
                "ln_f/bias": source["transformer.ln_f.bias"]}  # fmt: skip
    for i in range(3):
        packed = turn(source[f"transformer.h.{i}.attn.c_attn.weight"])
        for j, name in enumerate(("query", "key", "value")):
            part = slice(j * E, (j + 1) * E)
            expected[f"blocks_{i}/attn/{name}/kernel"] = packed[:, part].reshape(E, H, D)
            bias = source[f"transformer.h.{i}.attn.c_attn.bias"][part]
            expected[f"blocks_{i}/attn/{name}/bias"] = bias.reshape(H, D)
        out = turn(source[f"transformer.h.{i}.attn.c_proj.weight"])
        expected[f"blocks_{i}/attn/out/kernel"] = out.reshape(H, D, E)
        expected[f"blocks_{i}/attn/out/bias"] = source[f"transformer.h.{i}.attn.c_proj.bias"]
        for ours, theirs in (("mlp/fc1", "mlp.c_fc"), ("mlp/fc2", "mlp.c_proj")):
            expected[f"blocks_{i}/{ours}/kernel"] = turn(
                source[f"transformer.h.{i}.{theirs}.weight"]
            )
            expected[f"blocks_{i}/{ours}/bias"] = source[f"transformer.h.{i}.{theirs}.bias"]
        for n in (1, 2):
            for leaf, theirs in (("scale", "weight"), ("bias", "bias")):
                expected[f"blocks_{i}/ln_{n}/{leaf}"] = source[f"transformer.h.{i}.ln_{n}.{theirs}"]
    all_right(source, expected)


def test_separate_projections_into_a_packed_one():
    source = Source({k: v for n in "qkv" for k, v in linear(f"attn.{n}_proj", E, E).items()})
    stack = np.stack([source[f"attn.{n}_proj.weight"].T for n in "qkv"], 1)
    bias = np.stack([source[f"attn.{n}_proj.bias"] for n in "qkv"])
    all_right(
        source, {"attn/qkv/kernel": stack.reshape(E, 3 * E), "attn/qkv/bias": bias.reshape(-1)}
    )
    all_right(source, {
        "attn/qkv/kernel": stack.reshape(E, 3, H, D), "attn/qkv/bias": bias.reshape(3, H, D),
    })  # fmt: skip


def test_grouped_query_packed_projection():
    kv = 2 * D
    source = Source({**linear("self_attn.qkv_proj", E + 2 * kv, E, bias=False),
                     **linear("self_attn.o_proj", E, E, bias=False)})  # fmt: skip
    packed = source["self_attn.qkv_proj.weight"]
    all_right(source, {
        "attn/q_proj/kernel": heads(packed[:E]), "attn/k_proj/kernel": heads(packed[E : E + kv]),
        "attn/v_proj/kernel": heads(packed[E + kv :]),
        "attn/o_proj/kernel": source["self_attn.o_proj.weight"].T.reshape(H, D, E),
    })  # fmt: skip


def test_per_head_packing_is_a_question_with_both_readings():
    source = Source(linear("attention.query_key_value", 3 * E, E))
    weight = source["attention.query_key_value.weight"].reshape(H, 3, D, E)
    bias = source["attention.query_key_value.bias"].reshape(H, 3, D)
    expected = {}
    for i, name in enumerate("qkv"):
        expected[f"attn/{name}/kernel"] = weight[:, i].transpose(2, 0, 1)
        expected[f"attn/{name}/bias"] = bias[:, i]
    wrong, unsure, mapping = outcome(source, expected)
    assert not wrong
    assert unsure == set(expected)
    blocks = mapping.leaves["attn/k/kernel"].alternatives[-1]
    assert np.array_equal(
        blocks.apply(source), heads(source["attention.query_key_value.weight"][E : 2 * E])
    )


def llama(layers=4, ordered=True, prefix="model."):
    shapes = {f"{prefix}embed_tokens.weight": (V, E)}
    for i in range(layers):
        at = f"{prefix}layers.{i}."
        shapes |= linear(f"{at}self_attn.q_proj", E, E, False)
        shapes |= linear(f"{at}self_attn.k_proj", 2 * D, E, False)
        shapes |= linear(f"{at}self_attn.v_proj", 2 * D, E, False)
        shapes |= linear(f"{at}self_attn.o_proj", E, E, False)
        shapes |= linear(f"{at}mlp.gate_proj", F, E, False) | linear(
            f"{at}mlp.up_proj", F, E, False
        )
        shapes |= linear(f"{at}mlp.down_proj", E, F, False)
        shapes |= {
            f"{at}input_layernorm.weight": (E,),
            f"{at}post_attention_layernorm.weight": (E,),
        }
    shapes |= {f"{prefix}norm.weight": (E,), "lm_head.weight": (V, E)}
    return Source(shapes, ordered)


LLAMA = {
    "attn/q_proj/kernel": "self_attn.q_proj.weight", "attn/k_proj/kernel": "self_attn.k_proj.weight",
    "attn/v_proj/kernel": "self_attn.v_proj.weight", "attn/o_proj/kernel": "self_attn.o_proj.weight",
    "mlp/gate_proj/kernel": "mlp.gate_proj.weight", "mlp/up_proj/kernel": "mlp.up_proj.weight",
    "mlp/down_proj/kernel": "mlp.down_proj.weight", "input_layernorm/scale": "input_layernorm.weight",
    "post_attention_layernorm/scale": "post_attention_layernorm.weight",
}  # fmt: skip


def llama_ends(source):
    return {"params/embed/embedding": source["model.embed_tokens.weight"],
            "params/norm/scale": source["model.norm.weight"],
            "params/lm_head/kernel": source["lm_head.weight"].T}  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1])
def test_layers_stacked_by_a_scan(axis):
    source = llama()
    expected = llama_ends(source)
    for ours, theirs in LLAMA.items():
        each = [source[f"model.layers.{i}.{theirs}"].T for i in range(4)]
        expected[f"params/layers/{ours}"] = np.stack(each, axis)
    all_right(source, expected)


def test_stacked_flax_layers_to_a_list():
    torch_side = llama()
    stacked = {f"params/layers/{ours}": np.stack([torch_side[f"model.layers.{i}.{k}"].T for i in range(4)])
               for ours, k in LLAMA.items()} | llama_ends(torch_side)  # fmt: skip
    expected = {path.removeprefix("params/"): a for path, a in llama_ends(torch_side).items()}
    for ours, theirs in LLAMA.items():
        for i in range(4):
            expected[f"layers/{i}/{ours}"] = torch_side[f"model.layers.{i}.{theirs}"].T
    all_right(stacked, expected)


def test_meta_names_to_those_of_hugging_face():
    renamed = {"embed_tokens": "tok_embeddings", "self_attn.q_proj": "attention.wq",
               "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
               "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
               "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3",
               "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
               "lm_head": "output"}  # fmt: skip
    hub = llama(layers=12)
    shapes = {}
    for key, array in hub.items():
        new = key.removeprefix("model.")
        for old, name in renamed.items():
            new = new.replace(old, name)
        shapes[new] = array.shape
    source = Source(shapes, ordered=False)
    for key in hub:
        new = key.removeprefix("model.")
        for old, name in renamed.items():
            new = new.replace(old, name)
        hub[key] = source[new]
    expected = llama_ends(hub)
    for ours, theirs in LLAMA.items():
        for i in range(12):
            expected[f"params/layers_{i}/{ours}"] = hub[f"model.layers.{i}.{theirs}"].T
    all_right(source, expected)


def counted(source, layers=4):
    """The Llama above, as Flax counts modules: classes tell, names do not."""
    order = {"attn/q_proj": "Attention_0/Dense_0", "attn/k_proj": "Attention_0/Dense_1",
             "attn/v_proj": "Attention_0/Dense_2", "attn/o_proj": "Attention_0/Dense_3",
             "mlp/gate_proj": "Mlp_0/Dense_0", "mlp/up_proj": "Mlp_0/Dense_1",
             "mlp/down_proj": "Mlp_0/Dense_2", "input_layernorm": "RMSNorm_0",
             "post_attention_layernorm": "RMSNorm_1"}  # fmt: skip
    expected = {"params/Embed_0/embedding": source["model.embed_tokens.weight"],
                "params/RMSNorm_0/scale": source["model.norm.weight"],
                "params/Dense_0/kernel": source["lm_head.weight"].T}  # fmt: skip
    for i in range(layers):
        for ours, theirs in LLAMA.items():
            module, leaf = ours.rsplit("/", 1)
            expected[f"params/Block_{i}/{order[module]}/{leaf}"] = source[
                f"model.layers.{i}.{theirs}"
            ].T
    return expected


def test_counted_modules_from_a_source_in_order():
    source = llama()
    all_right(source, counted(source))


def test_counted_modules_from_a_sorted_source_are_a_question_where_shapes_are_equal():
    source = llama(ordered=False)
    _, unsure, mapping = outcome(source, counted(source))
    assert {p for p in unsure if "Block_2" in p} == {
        "params/Block_2/Attention_0/Dense_1/kernel", "params/Block_2/Attention_0/Dense_2/kernel",
        "params/Block_2/Mlp_0/Dense_0/kernel", "params/Block_2/Mlp_0/Dense_1/kernel",
        "params/Block_2/RMSNorm_0/scale", "params/Block_2/RMSNorm_1/scale",
        "params/Block_2/Attention_0/Dense_0/kernel", "params/Block_2/Attention_0/Dense_3/kernel",
    }  # fmt: skip
    leaf = mapping.leaves["params/Block_2/Mlp_0/Dense_0/kernel"]
    assert leaf.alternatives
    assert not leaf.confident


@pytest.mark.parametrize("ordered", [True, False])
def test_several_dense_of_one_shape(ordered):
    names = ("alpha", "omega", "beta")
    source = Source({k: v for n in names for k, v in linear(n, E, E).items()}, ordered)
    expected = {}
    for i, name in enumerate(names):
        expected[f"params/Dense_{i}/kernel"] = source[f"{name}.weight"].T
        expected[f"params/Dense_{i}/bias"] = source[f"{name}.bias"]
    wrong, unsure, _ = outcome(source, expected)
    assert (not wrong and not unsure) if ordered else unsure == set(expected)


@pytest.mark.parametrize("names", [("fc1", "fc2", "fc3"), ("net.0", "net.2", "net.10")])
def test_numbers_order_layers_even_in_a_sorted_file(names):
    source = Source({k: v for n in names for k, v in linear(n, E, E).items()}, ordered=False)
    expected = {}
    for i, name in enumerate(names):
        expected[f"params/Dense_{i}/kernel"] = source[f"{name}.weight"].T
        expected[f"params/Dense_{i}/bias"] = source[f"{name}.bias"]
    all_right(source, expected)


def resnet():
    shapes = {"conv1.weight": (7, 3, 5, 5), **batch_norm("bn1", 7)}
    for stage, (width, before) in enumerate(((7, 7), (11, 7)), 1):
        for block in range(2):
            at = f"layer{stage}.{block}."
            into = before if block == 0 else width
            shapes |= {f"{at}conv1.weight": (width, into, 3, 3), **batch_norm(f"{at}bn1", width)}
            shapes |= {f"{at}conv2.weight": (width, width, 3, 3), **batch_norm(f"{at}bn2", width)}
            if into != width:
                shapes |= {f"{at}downsample.0.weight": (width, into, 1, 1)}
                shapes |= batch_norm(f"{at}downsample.1", width)
    return Source(shapes | linear("fc", 13, 11), ordered=False)


def put_norm(expected, path, source, key):
    expected[f"params/{path}/scale"] = source[f"{key}.weight"]
    expected[f"params/{path}/bias"] = source[f"{key}.bias"]
    expected[f"batch_stats/{path}/mean"] = source[f"{key}.running_mean"]
    expected[f"batch_stats/{path}/var"] = source[f"{key}.running_var"]


def test_torchvision_resnet_to_the_example_of_flax():
    source, expected = resnet(), {}
    expected["params/conv_init/kernel"] = source["conv1.weight"].transpose(2, 3, 1, 0)
    put_norm(expected, "bn_init", source, "bn1")
    count = 0
    for stage in (1, 2):
        for block in range(2):
            ours, theirs = f"ResNetBlock_{count}", f"layer{stage}.{block}"
            count += 1
            for n in (1, 2):
                kernel = source[f"{theirs}.conv{n}.weight"].transpose(2, 3, 1, 0)
                expected[f"params/{ours}/Conv_{n - 1}/kernel"] = kernel
                put_norm(expected, f"{ours}/BatchNorm_{n - 1}", source, f"{theirs}.bn{n}")
            if f"{theirs}.downsample.0.weight" in source:
                kernel = source[f"{theirs}.downsample.0.weight"].transpose(2, 3, 1, 0)
                expected[f"params/{ours}/conv_proj/kernel"] = kernel
                put_norm(expected, f"{ours}/norm_proj", source, f"{theirs}.downsample.1")
    expected["params/Dense_0/kernel"] = source["fc.weight"].T
    expected["params/Dense_0/bias"] = source["fc.bias"]
    all_right(source, expected)


def test_a_linear_behind_a_flatten_is_a_question():
    shapes = {}
    for n, (out, into) in enumerate(((5, 3), (7, 5))):
        shapes |= {f"features.{3 * n}.weight": (out, into, 3, 3), f"features.{3 * n}.bias": (out,)}
    source = Source(shapes | linear("classifier.0", 17, 7 * 4 * 4) | linear("classifier.3", 11, 17))
    weight = source["classifier.0.weight"].reshape(17, 7, 4, 4).transpose(2, 3, 1, 0)
    expected = {"params/Dense_0/kernel": weight.reshape(-1, 17),
                "params/Dense_0/bias": source["classifier.0.bias"],
                "params/Dense_1/kernel": source["classifier.3.weight"].T,
                "params/Dense_1/bias": source["classifier.3.bias"]}  # fmt: skip
    for n in range(2):
        kernel = source[f"features.{3 * n}.weight"].transpose(2, 3, 1, 0)
        expected |= {
            f"params/Conv_{n}/kernel": kernel,
            f"params/Conv_{n}/bias": source[f"features.{3 * n}.bias"],
        }
    wrong, unsure, mapping = outcome(source, expected)
    assert not wrong
    assert unsure == {"params/Dense_0/kernel"}
    other = mapping.leaves["params/Dense_0/kernel"].alternatives[0]
    assert np.array_equal(other.apply(source), source["classifier.0.weight"].T)


def test_lstm_and_gru_to_the_cells_of_linen():
    n, into = 7, 5
    source = Source({"rnn.weight_ih_l0": (4 * n, into), "rnn.weight_hh_l0": (4 * n, n),
                     "rnn.bias_ih_l0": (4 * n,), "rnn.bias_hh_l0": (4 * n,)})  # fmt: skip
    expected = {}
    for i, gate in enumerate("ifgo"):
        rows = slice(i * n, (i + 1) * n)
        expected[f"params/cell/i{gate}/kernel"] = source["rnn.weight_ih_l0"][rows].T
        expected[f"params/cell/h{gate}/kernel"] = source["rnn.weight_hh_l0"][rows].T
        bias = source["rnn.bias_ih_l0"] + source["rnn.bias_hh_l0"]
        expected[f"params/cell/h{gate}/bias"] = bias[rows]
    all_right(source, expected, backwards=False)
    source = Source({"gru.weight_ih_l0": (3 * n, into), "gru.weight_hh_l0": (3 * n, n),
                     "gru.bias_ih_l0": (3 * n,), "gru.bias_hh_l0": (3 * n,)})  # fmt: skip
    expected = {}
    for i, gate in enumerate("rzn"):
        rows = slice(i * n, (i + 1) * n)
        expected[f"params/cell/i{gate}/kernel"] = source["gru.weight_ih_l0"][rows].T
        expected[f"params/cell/h{gate}/kernel"] = source["gru.weight_hh_l0"][rows].T
        both = (source["gru.bias_ih_l0"] + source["gru.bias_hh_l0"])[rows]
        expected[f"params/cell/i{gate}/bias"] = (
            both if gate != "n" else source["gru.bias_ih_l0"][rows]
        )
    expected["params/cell/hn/bias"] = source["gru.bias_hh_l0"][2 * n :]
    all_right(source, expected, backwards=False)


def test_weight_norm_is_fused_where_the_target_has_one_kernel():
    source = Source({"conv.weight_g": (7, 1, 1), "conv.weight_v": (7, 5, 3), "conv.bias": (7,)})
    direction = source["conv.weight_v"]
    fused = direction * (
        source["conv.weight_g"] / np.sqrt((direction**2).sum((1, 2), keepdims=True))
    )
    mapping = infer_mapping(source, {"conv/kernel": np.zeros((3, 5, 7)), "conv/bias": np.zeros(7)})
    assert np.allclose(mapping.leaves["conv/kernel"].apply(source), fused.transpose(2, 1, 0))
    assert mapping.leaves["conv/kernel"].sources == ("conv.weight_g", "conv.weight_v")


def test_old_norm_names_and_a_prefix_on_one_side():
    source = Source({"bert.encoder.layer.0.output.LayerNorm.gamma": (E,),
                     "bert.encoder.layer.0.output.LayerNorm.beta": (E,),
                     **linear("bert.encoder.layer.0.output.dense", E, F)})  # fmt: skip
    at = "bert.encoder.layer.0.output."
    all_right(source, {
        "params/encoder/layer_0/output/LayerNorm/scale": source[f"{at}LayerNorm.gamma"],
        "params/encoder/layer_0/output/LayerNorm/bias": source[f"{at}LayerNorm.beta"],
        "params/encoder/layer_0/output/dense/kernel": source[f"{at}dense.weight"].T,
        "params/encoder/layer_0/output/dense/bias": source[f"{at}dense.bias"],
    })  # fmt: skip


def test_another_layer_of_the_right_shape_is_no_answer():
    source = Source({**linear("encoder.dense", E, E), **linear("cls.predictions.transform.dense", E, E),
                     **norm("cls.predictions.transform.LayerNorm")})  # fmt: skip
    target = {"params/encoder/dense/kernel": source["encoder.dense.weight"].T,
              "params/encoder/dense/bias": source["encoder.dense.bias"],
              "params/pooler/dense/kernel": np.zeros((E, E)), "params/pooler/dense/bias": np.zeros(E)}  # fmt: skip
    mapping = infer_mapping(source, target)
    assert mapping.leaves["params/encoder/dense/kernel"].confident
    assert not getattr(mapping.leaves.get("params/pooler/dense/kernel"), "confident", False)


def test_linen_parameters_into_nnx():
    linen = Source({
        "params/Embed_0/embedding": (V, E), "params/block_0/attn/query/kernel": (E, H, D),
        "params/block_0/attn/query/bias": (H, D), "params/block_0/attn/out/kernel": (H, D, E),
        "params/block_0/attn/out/bias": (E,), "params/block_0/mlp/kernel": (E, E),
        "params/block_0/mlp/bias": (E,), "params/conv/kernel": (3, 3, 5, 5), "params/conv/bias": (5,),
        "params/bn/scale": (5,), "params/bn/bias": (5,),
        "batch_stats/bn/mean": (5,), "batch_stats/bn/var": (5,),
    }, ordered=False)  # fmt: skip
    expected = {}
    for key, array in linen.items():
        path = key.split("/", 1)[1].replace("block_0", "blocks/0").replace("Embed_0", "embed")
        expected[path] = array
    all_right(linen, expected)


def test_a_flatten_as_wide_as_another_layer_is_still_a_question():
    source = Source(
        {"conv.weight": (8, 3, 3, 3), **linear("fc1", 128, 8 * 4 * 4), **linear("fc2", 10, 128)}
    )
    expected = {"conv/kernel": source["conv.weight"].transpose(2, 3, 1, 0)}
    for name in ("fc1", "fc2"):
        expected[f"{name}/kernel"] = source[f"{name}.weight"].T
        expected[f"{name}/bias"] = source[f"{name}.bias"]
    mapping = infer_mapping(source, expected)
    assert "flattened" in mapping.leaves["fc1/kernel"].reason
    pooled = Source(
        {"conv.weight": (8, 3, 3, 3), **linear("fc1", 128, 8), **linear("fc2", 10, 128)}
    )
    expected = {"conv/kernel": pooled["conv.weight"].transpose(2, 3, 1, 0)}
    for name in ("fc1", "fc2"):
        expected[f"{name}/kernel"] = pooled[f"{name}.weight"].T
        expected[f"{name}/bias"] = pooled[f"{name}.bias"]
    all_right(pooled, expected)


def test_packed_layers_stacked_by_a_scan():
    shapes = {}
    for i in range(3):
        at = f"encoder.layers.{i}.self_attn"
        shapes |= {f"{at}.in_proj_weight": (3 * E, E), f"{at}.in_proj_bias": (3 * E,)}
        shapes |= linear(f"{at}.out_proj", E, E) | norm(f"encoder.layers.{i}.norm1")
    source = Source(shapes)
    layers = [f"encoder.layers.{i}." for i in range(3)]
    expected = {
        "layers/attn/out/kernel": np.stack(
            [source[f"{at}self_attn.out_proj.weight"].T.reshape(H, D, E) for at in layers]
        ),
        "layers/attn/out/bias": np.stack([source[f"{at}self_attn.out_proj.bias"] for at in layers]),
        "layers/norm1/scale": np.stack([source[f"{at}norm1.weight"] for at in layers]),
        "layers/norm1/bias": np.stack([source[f"{at}norm1.bias"] for at in layers]),
    }
    for j, name in enumerate(("query", "key", "value")):
        rows = slice(j * E, (j + 1) * E)
        kernels = [heads(source[f"{at}self_attn.in_proj_weight"][rows]) for at in layers]
        biases = [source[f"{at}self_attn.in_proj_bias"][rows].reshape(H, D) for at in layers]
        expected[f"layers/attn/{name}/kernel"] = np.stack(kernels)
        expected[f"layers/attn/{name}/bias"] = np.stack(biases)
    all_right(source, expected)


def test_siblings_counted_from_another_number():
    source = Source(
        {k: v for n in (1, 2, 3) for k, v in batch_norm(f"blocks.0.bn{n}", E).items()}
        | {k: v for n in (1, 2, 3) for k, v in batch_norm(f"blocks.1.bn{n}", E).items()}
    )
    slots = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    expected = {
        f"blocks/{i}/bn{n}/{slot}": source[f"blocks.{i}.bn{n + 1}.{name}"]
        for i in range(2) for n in range(3) for slot, name in slots.items()
    }  # fmt: skip
    all_right(source, expected)


def test_a_bare_bias_belongs_to_the_layer_of_its_role():
    source = Source({k: v for n in "qkv" for k, v in linear(f"l.attn.{n}_proj", E, E).items()})
    expected = {}
    for name in "qkv":
        expected[f"l/attn/{name}_proj/w"] = heads(source[f"l.attn.{name}_proj.weight"])
        expected[f"l/attn/{name}_bias"] = source[f"l.attn.{name}_proj.bias"]
    all_right(source, expected)


def test_a_square_table_or_a_parameter_of_one_name_is_not_turned():
    source = Source({"embed_tokens.weight": (E, E), "mm.in_projection_weight": (E, E)})
    expected = {"embedder/input_embedding": source["embed_tokens.weight"],
                "mm/in_projection_weight": source["mm.in_projection_weight"]}  # fmt: skip
    all_right(source, expected)


def test_a_linear_layer_behind_a_flatten_as_a_convolution_is_a_question():
    source = Source({"conv.weight": (8, 3, 3, 3), **linear("fc", F, 8 * 7 * 7)})
    expected = {"conv/kernel": source["conv.weight"].transpose(2, 3, 1, 0), "fc/bias": source["fc.bias"],
                "fc/kernel": source["fc.weight"].reshape(F, 8, 7, 7).transpose(2, 3, 1, 0)}  # fmt: skip
    wrong, unsure, mapping = outcome(source, expected)
    assert not wrong
    assert unsure == {"fc/kernel"}
    (other,) = mapping.leaves["fc/kernel"].alternatives
    assert str(other.rule).startswith("o (h w i) -> h w i o")


def test_an_open_buffer_says_what_it_is():
    source = Source(linear("fc", F, E))
    target = {"fc/kernel": source["fc.weight"].T, "fc/bias": source["fc.bias"],
              "position_ids": np.arange(P)[None], "drop/rngs/count": np.zeros(())}  # fmt: skip
    assert infer_mapping(source, target).unmapped == {
        "position_ids": "a buffer: a range that Flax makes itself",
        "drop/rngs/count": "a random stream",
    }


def test_the_same_words_in_another_order_are_another_layer():
    ways = ("image_to_token", "token_to_image")
    source = Source(
        {k: v for i in range(2) for way in ways for n in "qkv"
         for k, v in linear(f"sam.mask_decoder.transformer.layers.{i}.cross_attn_{way}.{n}_proj", F, E).items()}
    )  # fmt: skip
    expected = {}
    for key, array in source.items():
        path = key.replace(".layers.", ".blocks.").replace(".weight", ".kernel").replace(".", "/")
        expected[path] = array.T
    all_right(source, expected)
