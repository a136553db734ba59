"""The doctor where the fault itself misled the mapping: a leaf's likes tell what it should be."""

import numpy as np
import pytest

from porting.doctor import diagnose, repair


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def whole(array):
    return np.asarray(array, order="C")


def accused(diagnosis, broken):
    return [p for p, v in diagnosis.leaves.items() if v.status != "ok" and p not in broken]


def repaired(source, leaves, diagnosis, right):
    fixed = repair(source, leaves, diagnosis)
    return all(np.array_equal(fixed[path], right[path]) for path in right)


def patches(layers=2):
    """A patch convolution and square linear layers."""
    source = {"vit.stem.weight": draw(8, 3, 4, 4), "vit.stem.bias": draw(8)}
    right = {"vit/stem/kernel": whole(source["vit.stem.weight"].transpose(2, 3, 1, 0))}
    right["vit/stem/bias"] = source["vit.stem.bias"]
    for n in range(layers):
        for j, name in enumerate(("q", "k", "fc1")):
            source[f"vit.layers.{n}.{name}.weight"] = draw(8, 8, seed=10 * n + j)
            right[f"vit/layers/{n}/{name}/kernel"] = whole(
                source[f"vit.layers.{n}.{name}.weight"].T
            )
    return source, right


def test_a_convolution_left_as_it_is_accuses_no_square_kernel():
    source, right = patches()
    broken = {**right, "vit/stem/kernel": source["vit.stem.weight"]}
    diagnosis = diagnose(source, broken)
    assert diagnosis.leaves["vit/stem/kernel"].status == "wrong_layout"
    assert not accused(diagnosis, {"vit/stem/kernel"})
    assert repaired(source, broken, diagnosis, right)


def experts(layers=2, count=4, width=16):
    """A router that is not square, and square experts that are stacked."""
    source, right = {}, {}
    for n in range(layers):
        gate = f"layers.{n}.moe.gate.weight"
        source[gate] = draw(count, width, seed=n)
        right[f"layers/{n}/moe/gate/kernel"] = whole(source[gate].T)
        for j, name in enumerate(("w1", "w2")):
            keys = [f"layers.{n}.moe.experts.{e}.{name}.weight" for e in range(count)]
            for e, key in enumerate(keys):
                source[key] = draw(width, width, seed=100 * n + 10 * j + e)
            made = np.stack([source[key].T for key in keys])
            right[f"layers/{n}/moe/experts/{name}/kernel"] = made
    return source, right


def test_a_router_beside_stacked_experts_follows_no_flatten():
    source, right = experts()
    assert not accused(diagnose(source, right), ())


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_router_left_as_it_is_accuses_no_stacked_expert(layers):
    source, right = experts(layers)
    path = f"layers/{layers - 1}/moe/gate/kernel"
    broken = {**right, path: whole(right[path].T)}
    diagnosis = diagnose(source, broken)
    assert diagnosis.leaves[path].kind == "untransposed"
    assert not accused(diagnosis, {path})
    assert repaired(source, broken, diagnosis, right)


def kernels(sizes, bias):
    """Linear layers of these sizes, `(out, in)` each."""
    source, right = {}, {}
    for name, (out, into) in sizes.items():
        source[f"{name}.weight"] = draw(out, into, seed=ord(name[-1]))
        right[f"{name}/kernel"] = whole(source[f"{name}.weight"].T)
        if bias:
            source[f"{name}.bias"] = right[f"{name}/bias"] = draw(out, seed=ord(name[-1]))
    return source, right


@pytest.mark.parametrize("bias", [True, False])
def test_kernels_that_all_lie_as_in_pytorch_are_told(bias):
    sizes = {"net.a": (6, 6), "net.b": (9, 6), "net.c": (6, 9), "net.d": (4, 6)}
    source, right = kernels(sizes, bias)
    as_they_are = {p: whole(a.T) if a.ndim == 2 else a for p, a in right.items()}
    diagnosis = diagnose(source, as_they_are)
    found = {v.status for p, v in diagnosis.leaves.items() if p.endswith("kernel")}
    assert found == {"wrong_layout" if bias else "ambiguous"}  # a Flax bias is as long as `out`
    assert not bias or repaired(source, as_they_are, diagnosis, right)


def test_the_width_of_the_model_tells_which_side_of_a_layer_is_its_input():
    sizes = {"attn.q_proj": (6, 6), "attn.k_proj": (3, 6), "mlp.up_proj": (9, 6), "mlp.down_proj": (6, 9)}  # fmt: skip
    source, right = kernels(sizes, bias=False)
    source["norm.weight"] = right["norm/scale"] = draw(6)
    as_they_are = {p: whole(a.T) if a.ndim == 2 else a for p, a in right.items()}
    diagnosis = diagnose(source, as_they_are)
    (finding,) = diagnosis.findings
    assert finding.title == "Every two-dimensional kernel: not transposed."
    assert repaired(source, as_they_are, diagnosis, right)
    assert not accused(diagnose(source, right), ())


def test_kernels_of_conv1d_may_lie_either_way():
    sizes = {"h.0.c_attn": (6, 18), "h.0.c_fc": (6, 24), "h.0.c_proj": (24, 6)}
    source = {f"{name}.weight": draw(*size) for name, size in sizes.items()}
    kept = {f"{name.replace('.', '/')}/kernel": source[f"{name}.weight"] for name in sizes}
    assert not accused(diagnose(source, kept), ())
    moved = {path: whole(kernel.T) for path, kernel in kept.items()}
    assert not accused(diagnose(source, moved), ())


def heads(packed, layers):
    """Attention kernels `(in, heads, head_dim)`, q, k and v in one tensor or in three."""
    source, right = {}, {}
    for n in range(layers):
        whole_ = draw(36, 12, seed=n)
        names = ("query", "key", "value")
        if packed:
            source[f"blocks.{n}.attn.in_proj_weight"] = whole_
        for name, part in zip(names, np.split(whole_, 3), strict=True):
            if not packed:
                source[f"blocks.{n}.attn.{name}.weight"] = part
            right[f"blocks/{n}/attn/{name}/kernel"] = whole(part.T).reshape(12, 3, 4)
    return source, right


@pytest.mark.parametrize(("packed", "layers"), [(True, 1), (True, 3), (False, 3)])
def test_axes_of_one_attention_kernel_in_another_order(packed, layers):
    source, right = heads(packed, layers)
    path = f"blocks/{layers - 1}/attn/key/kernel"
    broken = {**right, path: whole(right[path].transpose(1, 2, 0))}
    diagnosis = diagnose(source, broken)
    assert diagnosis.leaves[path].status == "wrong_layout"
    assert not accused(diagnosis, {path})
    assert repaired(source, broken, diagnosis, right)


def test_ones_beside_values_near_one_are_no_cast_of_them():
    source = {"norm.weight": np.float32([1.02, 0.97, 1.01, 0.99]), "fc.weight": draw(5, 4)}
    leaves = {"norm/scale": np.ones(4, np.float32), "fc/kernel": whole(source["fc.weight"].T)}
    verdict = diagnose(source, leaves).leaves["norm/scale"]
    assert (verdict.status, verdict.kind) == ("unported", "ones")


def test_a_constant_tensor_may_still_be_cast():
    source = {"norm.weight": np.full(4, 0.3, np.float32), "fc.weight": draw(5, 4)}
    narrow = source["norm.weight"].astype(np.float16).astype(np.float32)
    leaves = {"norm/scale": narrow, "fc/kernel": whole(source["fc.weight"].T)}
    verdict = diagnose(source, leaves).leaves["norm/scale"]
    assert (verdict.status, verdict.kind) == ("changed", "cast")


@pytest.mark.parametrize("size", [8, 12])
def test_a_few_numbers_of_a_small_row_replaced(size):
    source = {"fc.weight": draw(size, 3), "fc.bias": draw(size)}
    right = {"fc/kernel": whole(source["fc.weight"].T), "fc/bias": source["fc.bias"]}
    bias = right["fc/bias"].copy()
    bias[3] = 9
    verdict = diagnose(source, {**right, "fc/bias": bias}).leaves["fc/bias"]
    assert (verdict.status, verdict.kind) == ("changed", "partly")


def tables():
    """Two tables of one width, and a linear layer as long as one of them is once padded."""
    source = {"embed.weight": draw(9, 6), "positions.weight": draw(20, 6), "out.weight": draw(32, 6)}  # fmt: skip
    right = {f"{name}/embedding": source[f"{name}.weight"] for name in ("embed", "positions")}
    return source, right | {"out/kernel": whole(source["out.weight"].T)}


@pytest.mark.parametrize("fill", [0, 1])
@pytest.mark.parametrize(("name", "length"), [("embed", 32), ("positions", 32), ("positions", 64)])
def test_a_table_padded_far_beyond_its_length(name, length, fill):
    source, right = tables()
    path, table = f"{name}/embedding", source[f"{name}.weight"]
    rest = fill * draw(length - len(table), 6, seed=5)
    broken = {**right, path: np.concatenate([table, rest])}
    diagnosis = diagnose(source, broken)
    verdict = diagnosis.leaves[path]
    assert (verdict.kind, verdict.expected_source) == ("padded", f"{name}.weight")
    assert not accused(diagnosis, {path})
    assert repaired(source, broken, diagnosis, right)


def grouped(layers=2):
    """Attention with fewer key heads than query heads, all in one tensor."""
    source, right = {}, {}
    for n in range(layers):
        key = f"layers.{n}.self_attn.qkv_proj.weight"
        source[key] = draw(32, 16, seed=n)
        for name, part in zip("qkv", np.split(source[key], [16, 24]), strict=True):
            kernel = whole(part.T).reshape(16, -1, 4)
            right[f"layers/{n}/self_attn/{name}_proj/kernel"] = kernel
    return source, right


def test_a_part_that_was_reshaped_after_it_was_cut():
    source, right = grouped()
    path = "layers/1/self_attn/k_proj/kernel"
    part = source["layers.1.self_attn.qkv_proj.weight"][16:24]
    broken = {**right, path: part.reshape(16, 2, 4)}
    diagnosis = diagnose(source, broken)
    verdict = diagnosis.leaves[path]
    assert (verdict.status, verdict.kind) == ("wrong_layout", "reshaped")
    assert verdict.rule == "[16:24, 0:16].reshape(16, 2, 4)"
    assert repaired(source, broken, diagnosis, right)


def test_parts_that_were_cut_by_columns():
    source, right = heads(packed=True, layers=2)
    columns = np.split(source["blocks.0.attn.in_proj_weight"], 3, axis=1)
    names = ("query", "key", "value")
    paths = [f"blocks/0/attn/{name}/kernel" for name in names]
    cut = {p: whole(c).reshape(12, 3, 4) for p, c in zip(paths, columns, strict=True)}
    diagnosis = diagnose(source, {**right, **cut})
    found = [diagnosis.leaves[p] for p in paths]
    assert {v.status for v in found} == {"wrong_layout"}
    assert all("split" in (v.kind, *v.also) for v in found)
    assert repaired(source, {**right, **cut}, diagnosis, right)


def test_a_constant_that_no_name_tells_is_a_question():
    values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    source = {
        f"layers.{n}.bn.{k}": np.full(5, v, np.float32) for n in "012" for k, v in values.items()
    }
    source |= {f"layers.{n}.conv.weight": draw(5, 5, 3, 3, seed=ord(n)) for n in "012"}
    leaves = {f"params/layers_{n}/bn/scale": np.ones(5, np.float32) for n in "012"}
    leaves |= {f"params/layers_{n}/bn/bias": np.zeros(5, np.float32) for n in "012"}
    for n in "012":
        kernel = source[f"layers.{n}.conv.weight"].transpose(2, 3, 1, 0)
        leaves[f"params/layers_{n}/conv/kernel"] = whole(kernel)
    leaves |= {f"batch_stats/layers_{n}/bn/mean": np.zeros(5, np.float32) for n in "02"}
    leaves |= {f"batch_stats/layers_{n}/bn/var": np.ones(5, np.float32) for n in "02"}
    diagnosis = diagnose(source, leaves)
    assert not [
        v for v in diagnosis.leaves.values() if v.status not in ("ok", "ambiguous", "missing")
    ]


def test_a_transposed_convolution_left_as_it_is_gets_no_fix_of_a_convolution():
    source = {"gen.deconv.weight": draw(6, 5, 4, 4), "gen.conv.weight": draw(7, 5, 3, 3)}
    leaves = {"gen/deconv/kernel": source["gen.deconv.weight"]}
    leaves["gen/conv/kernel"] = whole(source["gen.conv.weight"].transpose(2, 3, 1, 0))
    diagnosis = diagnose(source, leaves)
    verdict = diagnosis.leaves["gen/deconv/kernel"]
    assert not accused(diagnosis, {"gen/deconv/kernel"})
    assert verdict.status == "wrong_layout"
    due = whole(source["gen.deconv.weight"][:, :, ::-1, ::-1].transpose(2, 3, 0, 1))
    assert np.array_equal(repair(source, leaves, diagnosis)["gen/deconv/kernel"], due)


def test_whole_layers_of_packed_parts_exchanged_are_one_finding():
    source, right = heads(packed=True, layers=3)
    both = {p: p.replace("/0/", "/2/") for p in right if "/0/" in p}
    both |= {there: here for here, there in both.items()}
    broken = {p: right[both.get(p, p)] for p in right}
    (finding,) = diagnose(source, broken).findings
    assert finding.title.startswith("Exchanged between layers: blocks/0 and blocks/2 (")


def test_query_and_key_of_one_module_exchanged_are_one_finding():
    source, right = heads(packed=True, layers=3)
    for n in range(3):
        source[f"blocks.{n}.attn.in_proj_bias"] = draw(36, seed=n)
        parts = np.split(source[f"blocks.{n}.attn.in_proj_bias"], 3)
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            right[f"blocks/{n}/attn/{name}/bias"] = part.reshape(3, 4)

    def other(path, number):
        """The leaf of one module that is exchanged with the leaf at `path`."""
        swapped = {"query": "key", "key": "query"}
        stem, name, leaf = path.rsplit("/", 2)
        return f"{stem}/{swapped.get(name, name)}/{leaf}" if number in path else path

    (one,) = diagnose(source, {p: right[other(p, "/1/")] for p in right}).findings
    assert one.title == "query and key exchanged in blocks/1/attn."
    (every,) = diagnose(source, {p: right[other(p, "/")] for p in right}).findings
    assert every.title == "query and key exchanged in layers 0…2."
