"""Auto-numbered targets whose numbers may follow the source's order, its names, or nothing."""

from types import SimpleNamespace

import numpy as np
import pytest

from porting.mapping import infer_mapping, unport_checkpoint

LAYERS = 12
LINEAR = {"query": (6, 6), "key": (6, 6), "value": (6, 6), "dense": (13, 6)}


class Spec:
    def __init__(self, shape):
        self.shape, self.dtype = tuple(shape), np.dtype(np.float32)


def model(tables=True):
    """key -> shape in the order of definition, and path -> the key that it holds."""
    source, holds = {}, {}
    if tables:
        for name, rows in (("word", 11), ("position", 9)):
            source[f"embeddings.{name}.weight"] = (rows, 6)
            holds[f"embeddings/{name}/embedding"] = f"embeddings.{name}.weight"
    for layer in range(LAYERS):
        for name, shape in LINEAR.items():
            source[f"layer.{layer}.{name}.weight"] = shape
            holds[f"layer/{layer}/{name}/kernel"] = f"layer.{layer}.{name}.weight"
    return source, holds


def numbered(holds, order):
    """path -> key, every module named by its class and counted inside its parent."""
    names, counts, made = {"": "params"}, {}, {}
    for path in order(holds):
        *parents, leaf = path.split("/")
        for depth in range(1, len(parents) + 1):
            module, parent = "/".join(parents[:depth]), "/".join(parents[: depth - 1])
            if module not in names:
                kind = "Module" if depth < len(parents) else {"kernel": "Dense"}.get(leaf, "Embed")
                number = counts.get((parent, kind), 0)
                counts[parent, kind] = number + 1
                names[module] = f"{names[parent]}/{kind}_{number}"
        made[f"{names['/'.join(parents)]}/{leaf}"] = holds[path]
    return made


def mapped(source, target, ordered=True):
    keys = list(source) if ordered else sorted(source)
    specs = SimpleNamespace(specs={k: Spec(source[k]) for k in keys}, ordered=ordered)
    turned = {p: source[k][::-1] if p.endswith("kernel") else source[k] for p, k in target.items()}
    return infer_mapping(specs, {path: Spec(shape) for path, shape in turned.items()})


def readings(leaf):
    return [leaf.sources, *(other.sources for other in leaf.alternatives)]


def test_the_order_of_definition_is_believed_where_shapes_confirm_it():
    source, holds = model()
    target = numbered(holds, list)
    mapping = mapped(source, target)
    assert {path: leaf.sources for path, leaf in mapping.leaves.items()} == {
        path: (key,) for path, key in target.items()
    }
    assert not mapping.unsure


@pytest.mark.parametrize("ordered", [True, False], ids=["pt", "safetensors"])
def test_numbers_along_sorted_names_are_questions_with_the_truth_among_them(ordered):
    source, holds = model()
    target = numbered(holds, sorted)  # layer 10 is Module_2, key is Dense_1
    mapping = mapped(source, target, ordered)
    for path, key in target.items():
        leaf = mapping.leaves[path]
        assert (key,) in readings(leaf), (path, str(leaf))
        assert leaf.sources == (key,) or not leaf.confident
    assert mapping.leaves["params/Module_0/Embed_0/embedding"].confident
    if ordered:
        assert all(mapping.leaves[path].sources == (key,) for path, key in target.items())


def test_an_order_that_nothing_confirms_is_a_question():
    source, holds = model(tables=False)
    source = {k: s for k, s in source.items() if "dense" not in k} | {"zhead.weight": (5, 6)}
    holds = {p: k for p, k in holds.items() if k in source} | {"zhead/kernel": "zhead.weight"}
    leaf = mapped(source, numbered(holds, list)).leaves["params/Module_0/Module_0/Dense_1/kernel"]
    assert leaf.sources == ("layer.0.key.weight",)
    assert not leaf.confident
    assert ("layer.0.query.weight",) in readings(leaf)


def test_modules_that_haiku_counts():
    source = {f"mlp.{n}.{leaf}": s for n, size in (("up", 13), ("down", 6), ("out", 9))
              for leaf, s in (("weight", (size, 6)), ("bias", (size,)))}  # fmt: skip
    source |= {"mlp.norm.weight": (6,), "mlp.norm.bias": (6,)}
    names = {"up": "linear", "down": "linear_1", "out": "linear_2"}
    target = {f"mlp/{names[n]}/{leaf}": Spec(s) for n, size in (("up", 13), ("down", 6), ("out", 9))
              for leaf, s in (("w", (6, size)), ("b", (size,)))}  # fmt: skip
    target |= {"mlp/layer_norm/scale": Spec((6,)), "mlp/layer_norm/offset": Spec((6,))}
    mapping = infer_mapping({k: Spec(s) for k, s in source.items()}, target)
    assert mapping.leaves["mlp/linear_1/w"].sources == ("mlp.down.weight",)
    assert mapping.leaves["mlp/layer_norm/offset"].sources == ("mlp.norm.bias",)
    assert not mapping.unsure
    assert not mapping.unmapped


def test_numbers_inside_a_flat_name():
    source = {f"encoder.layer.{i}.{n}.weight": (7, 7) for i in range(11) for n in ("query", "key")}
    target = {f"params/encoder_layer_{i}_{n}/kernel": Spec((7, 7))
              for i in range(11) for n in ("query", "key")}  # fmt: skip
    mapping = infer_mapping({k: Spec(s) for k, s in sorted(source.items())}, target)
    leaf = mapping.leaves["params/encoder_layer_10_key/kernel"]
    assert leaf.sources == ("encoder.layer.10.key.weight",)
    assert not mapping.unsure


def test_packed_weights_beside_a_table_of_their_size():
    source = {"embed_tokens.weight": (18, 6)} | {f"attn.{n}_proj.weight": (6, 6) for n in "qkv"}
    target = {"embed_tokens/embedding": Spec((18, 6)), "attn/qkv/kernel": Spec((6, 18))}
    mapping = infer_mapping({k: Spec(s) for k, s in source.items()}, target)
    assert mapping.leaves["attn/qkv/kernel"].sources == tuple(
        f"attn.{n}_proj.weight" for n in "qkv"
    )
    assert not mapping.left_over


def test_a_decoder_layer_is_not_tied_to_the_table():
    target = {
        "decoder/embed_tokens/embedding": Spec((18, 6)),
        "decoder/attn/qkv/kernel": Spec((6, 18)),
    }
    mapping = infer_mapping({"decoder.embed_tokens.weight": Spec((18, 6))}, target)
    assert mapping.unmapped.keys() == {"decoder/attn/qkv/kernel"}


def test_a_lone_bias_stays_in_its_layer():
    source, target = {}, {}
    for i in range(2):
        source |= {f"layer.{i}.attn.qkv.weight": (18, 6), f"layer.{i}.attn.query.bias": (6,)}
        target |= {f"layer/{i}/attn/{n}/kernel": Spec((6, 6)) for n in ("query", "key", "value")}
        target[f"layer/{i}/attn/query/bias"] = Spec((6,))
    mapping = infer_mapping({k: Spec(s) for k, s in source.items()}, target)
    for i in range(2):
        assert mapping.leaves[f"layer/{i}/attn/query/bias"].sources == (
            f"layer.{i}.attn.query.bias",
        )


def test_the_outer_list_is_stacked():
    source, target = {}, {}
    for i in range(2):
        for j in range(2):
            source |= {
                f"layers.{i}.layer.{j}.conv.weight": (4, 4, 3, 3),
                f"layers.{i}.layer.{j}.norm.weight": (4,),
            }
            target |= {f"params/layers/layer/layer_{j}/conv/kernel": Spec((2, 3, 3, 4, 4)),
                       f"params/layers/layer/layer_{j}/norm/scale": Spec((2, 4))}  # fmt: skip
    mapping = infer_mapping({k: Spec(s) for k, s in source.items()}, target)
    leaf = mapping.leaves["params/layers/layer/layer_1/norm/scale"]
    assert leaf.sources == ("layers.0.layer.1.norm.weight", "layers.1.layer.1.norm.weight")
    assert not mapping.unsure


def test_separate_attention_is_not_a_conv1d():
    names = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.c_fc", "mlp.c_proj")
    source = {f"h.0.{n}.weight": Spec((7, 7)) for n in names}
    target = {f"h/0/{n.replace('.', '/')}/kernel": Spec((7, 7)) for n in names}
    mapping = infer_mapping(source, target)
    assert str(mapping.leaves["h/0/mlp/c_fc/kernel"].rule) == "o i -> i o"
    assert not mapping.unsure


def test_two_layers_that_only_a_wrapper_tells_apart():
    source = {"fc.weight": Spec((5, 3)), "model.fc.weight": Spec((7, 5))}
    target = {"fc": {"kernel": Spec((3, 5))}, "model": {"fc": {"kernel": Spec((5, 7))}}}
    mapping = infer_mapping(source, target)
    assert mapping.leaves["fc/kernel"].sources == ("fc.weight",)
    assert mapping.leaves["model/fc/kernel"].sources == ("model.fc.weight",)


def test_a_position_table_beside_second_names_of_the_token_table():
    source = {"shared.weight": (8, 8)} | {
        f"{side}.{name}.weight": (8, 8)
        for side in ("encoder", "decoder") for name in ("embed_tokens", "embed_positions")
    }  # fmt: skip
    target = {"shared/embedding": Spec((8, 8))} | {
        f"{side}/Embed_0/embedding": Spec((8, 8)) for side in ("encoder", "decoder")
    }
    mapping = infer_mapping({k: Spec(s) for k, s in source.items()}, target)
    for side in ("encoder", "decoder"):
        leaf = mapping.leaves[f"{side}/Embed_0/embedding"]
        assert leaf.sources == (f"{side}.embed_positions.weight",)


def test_a_question_about_the_order_survives_the_rules_and_the_way_back():
    source, holds = model()
    target = numbered(holds, sorted)
    mapping = mapped(source, target)
    arrays = {
        key: np.random.default_rng(i).random(shape) for i, (key, shape) in enumerate(source.items())
    }
    goal = {path: Spec(leaf.apply(arrays).shape) for path, leaf in mapping.leaves.items()}
    specs = SimpleNamespace(specs={k: Spec(s) for k, s in source.items()}, ordered=True)
    assert infer_mapping(specs, goal, rules=mapping.to_rules()) == mapping
    made = {path: leaf.apply(arrays) for path, leaf in mapping.leaves.items()}
    back = unport_checkpoint(made, arrays, mapping)
    assert all(back[key].tobytes() == array.tobytes() for key, array in arrays.items())
