"""Tiny Flax models beside recorded PyTorch ones: clean, with one fault, with two."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from porting.trace import compare_traces, explain, load_trace, record_linen

GOLDEN = Path(__file__).parent / "golden" / "trace"


class ConvNet(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x):
        pad = "SAME" if "same padding" in self.faults else ((1, 1), (1, 1))
        x = nn.Conv(5, (3, 3), (2, 2), pad, name="conv1")(x)
        train = "train mode" in self.faults
        x = nn.relu(nn.BatchNorm(not train, epsilon=1e-5, name="bn")(x))
        x = nn.relu(nn.Conv(7, (2, 3), padding="VALID", name="conv2")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(11, name="head")(x.reshape(x.shape[0], -1))


class Attention(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x):
        heads = {n: nn.DenseGeneral((3, 5), name=n)(x) for n in ("query", "key", "value")}
        scale = 1 if "no scale" in self.faults else 5**-0.5
        scores = jnp.einsum("bthd,bshd->bhts", heads["query"], heads["key"]) * scale
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        if "mask polarity" in self.faults:
            seen = ~seen | jnp.eye(seen.shape[0], dtype=bool)
        probs = nn.softmax(
            scores if "no mask" in self.faults else jnp.where(seen, scores, -jnp.inf)
        )
        y = jnp.einsum("bhts,bshd->bthd", probs, heads["value"])
        return nn.DenseGeneral(15, axis=(-2, -1), name="out")(y)


class Mlp(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x):
        act = {"tanh": True, "erf": False}["tanh" if "tanh gelu" in self.faults else "erf"]
        return nn.Dense(15, name="fc2")(nn.gelu(nn.Dense(17, name="fc1")(x), approximate=act))


class Block(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x):
        eps = 1e-6 if "epsilon" in self.faults else 1e-5
        norm1, norm2 = nn.LayerNorm(eps, name="norm1"), nn.LayerNorm(1e-5, name="norm2")
        attn, mlp = Attention(self.faults, name="attn"), Mlp(self.faults, name="mlp")
        if "post-norm" in self.faults:
            x = norm1(x + attn(x))
            return norm2(x + mlp(x))
        y = attn(norm1(x))
        x = y if "no residual" in self.faults else x + y
        return x + mlp(norm2(x))


class Encoder(nn.Module):
    faults: tuple = ((), ())

    @nn.compact
    def __call__(self, ids):
        positions = jnp.arange(ids.shape[1])[None] + 2 * ("positions" in self.faults[0])
        x = nn.Embed(23, 15, name="tok")(ids) + nn.Embed(13, 15, name="pos")(positions)
        for i in range(2):
            x = Block(self.faults[i], name=f"layers_{i}")(x)
        return nn.Dense(19, name="head")(nn.LayerNorm(1e-5, name="norm")(x))


class Rotary(nn.Module):
    faults: tuple = ()

    def turn(self, x):
        base = 1e4 if "rope base" in self.faults else 5e5
        angle = jnp.arange(x.shape[1], dtype=x.dtype)[:, None, None] * base ** (-jnp.arange(3) / 3)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        if "interleaved" in self.faults:
            a, b = x[..., ::2], x[..., 1::2]
            return jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)
        a, b = x[..., :3], x[..., 3:]
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    @nn.compact
    def __call__(self, x):
        def dense(name, heads):
            y = nn.Dense(heads * 6, use_bias=False, name=name)(x)
            return y.reshape(*x.shape[:2], heads, 6)

        q, k, v = dense("q_proj", 4), dense("k_proj", 2), dense("v_proj", 2)
        q, k = self.turn(q), self.turn(k)
        k, v = (
            jnp.tile(a, (1, 1, 2, 1)) if "tile" in self.faults else jnp.repeat(a, 2, 2)
            for a in (k, v)
        )
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / 6**0.5
        seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        if "only itself" in self.faults:
            seen = jnp.eye(seen.shape[0], dtype=bool)
        probs = nn.softmax(jnp.where(seen, scores, -jnp.inf))
        y = jnp.einsum("bhts,bshd->bthd", probs, v).reshape(*x.shape[:2], -1)
        return nn.Dense(10, use_bias=False, name="o_proj")(y)


class Gated(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x):
        gate, up = (nn.Dense(13, use_bias=False, name=n)(x) for n in ("gate_proj", "up_proj"))
        if "gate and up" in self.faults:
            gate, up = up, gate
        return nn.Dense(10, use_bias=False, name="down_proj")(nn.silu(gate) * up)


class Decoder(nn.Module):
    faults: tuple = ()

    @nn.compact
    def __call__(self, x):
        eps = 1e-6 if "epsilon" in self.faults else 1e-5
        norms = [nn.RMSNorm(e, name=f"{n}_layernorm") for e, n in ((eps, "input"), (1e-5, "post"))]
        x = x + Rotary(self.faults, name="self_attn")(norms[0](x))
        return x + Gated(self.faults, name="mlp")(norms[1](x))


LEAF = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def ported(trace, module, x):
    """The trace's PyTorch leaves in the Linen module's tree."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)

    def leaf(path, spec):
        *where, name = [str(p.key) for p in path[1:]]
        torch = ".".join(LEAF.get(w, w) for part in where for w in part.replace("s_", "s.").split())
        torch = torch.replace("post_layernorm", "post_attention_layernorm")
        kinds = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
        kinds |= {"mean": "running_mean", "var": "running_var"}
        w = np.asarray(trace.leaves[f"{torch}.{kinds.get(name, name)}"])
        if torch == "head" and w.shape == (11, 28):
            w = w.reshape(11, 7, 2, 2).transpose(0, 2, 3, 1).reshape(11, 28)
        if name == "kernel":
            w = w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T
        return w.reshape(spec.shape)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@functools.cache
def record(name, *faults, change=None, double=True):
    """The golden trace and the trace of a Linen twin with these faults."""
    trace = load_trace(GOLDEN / f"{name}.safetensors")
    x = next(iter(trace.stage("(model)").inputs.values()))
    model = {"convnet": ConvNet, "encoder": Encoder, "decoder": Decoder}[name]
    if name == "convnet":
        x = x.transpose(0, 2, 3, 1)
    variables = ported(trace, model(), x)
    if change:
        variables = change(variables)
    return trace, record_linen(model(faults or model.faults), variables, x, double=double)


@functools.cache
def compared(name, *faults, change=None):
    """The comparison of such a recording, replayed."""
    return compare_traces(*record(name, *faults, change=change))


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", ["convnet", "encoder", "decoder"])
def test_a_clean_port_has_no_parting_stage(name, double):
    result = compare_traces(*record(name, double=double))
    assert result.verdict == "noise" if not double else result.verdict in ("same", "noise")
    assert result.first is None, result.report()
    assert len(result.pairs) == len(result.candidate), result.report()


FAULTS = [
    ("convnet", ("same padding",), "conv1", "output"),
    ("convnet", ("train mode",), "bn", "output"),
    ("encoder", (("no scale",), ()), "layers_0/attn", "input"),
    ("encoder", ((), ("no scale",)), "layers_1/attn", "input"),
    ("encoder", (("mask polarity",), ()), "layers_0/attn", "input"),
    ("encoder", (("no mask",), ()), "layers_0/attn", "input"),
    ("encoder", (("tanh gelu",), ()), "layers_0/mlp", "input"),
    ("encoder", ((), ("tanh gelu",)), "layers_1/mlp", "input"),
    ("encoder", (("epsilon",), ()), "layers_0/norm1", "output"),
    ("encoder", (("no residual",), ()), "layers_0", "input"),
    ("encoder", ((), ("post-norm",)), "layers_1", "input"),
    ("encoder", (("positions",), ()), "(model)", "input"),
    ("decoder", ("rope base",), "self_attn", "input"),
    ("decoder", ("interleaved",), "self_attn", "input"),
    ("decoder", ("tile",), "self_attn", "input"),
    ("decoder", ("only itself",), "self_attn", "input"),
    ("decoder", ("gate and up",), "mlp", "input"),
    ("decoder", ("epsilon",), "input_layernorm", "output"),
]


@pytest.mark.parametrize(("name", "faults", "stage", "slot"), FAULTS)
def test_one_fault_is_found_where_it_is(name, faults, stage, slot):
    result = compared(name, *faults)
    assert [row.stage for row in result.parting] == [stage], result.report()
    assert result.first.sites[0].slot == slot
    assert result.row("(model)").status in ("inherited", "parts")


TWO = [
    ("encoder", (("tanh gelu",), ("no scale",)), {"layers_0/mlp", "layers_1/attn"}),
    ("encoder", (("epsilon", "no scale"), ()), {"layers_0/norm1", "layers_0/attn"}),
    ("encoder", (("no residual",), ("tanh gelu",)), {"layers_0", "layers_1/mlp"}),
    ("decoder", ("rope base", "gate and up"), {"self_attn", "mlp"}),
    ("convnet", ("same padding", "train mode"), {"conv1", "bn"}),
]


@pytest.mark.parametrize(("name", "faults", "stages"), TWO)
def test_two_faults_are_both_found(name, faults, stages):
    result = compared(name, *faults)
    assert {row.stage for row in result.parting} == stages, result.report()


@pytest.mark.parametrize(("name", "faults", "stage", "slot"), FAULTS)
def test_files_alone_show_the_first_fault(name, faults, stage, slot):
    reference, candidate = record(name, *faults)
    result = compare_traces(reference, dataclasses.replace(candidate, replay=None))
    assert not result.replayed
    assert result.first.stage == stage, result.report()
    assert {row.stage for row in result.parting} == {stage}, result.report()


@functools.cache
def broken(path, change):
    """A change of one leaf of the variables."""

    def apply(variables):
        def leaf(at, value):
            here = "/".join(str(p.key) for p in at[1:])
            return np.ascontiguousarray(change(value)) if here == path else value

        return jax.tree_util.tree_map_with_path(leaf, variables)

    return apply


WEIGHTS = [
    ("encoder", "layers_0/norm1/scale", lambda a: a[::-1], "layers_0/norm1"),
    ("encoder", "layers_1/attn/key/bias", lambda a: a[::-1], "layers_1/attn/key"),
    ("encoder", "pos/embedding", lambda a: a[::-1], "pos"),
    ("convnet", "conv2/kernel", lambda a: a[::-1], "conv2"),
    ("convnet", "head/kernel", lambda a: a[::-1], "head"),
    ("decoder", "mlp/up_proj/kernel", lambda a: a[:, ::-1], "mlp/up_proj"),
]


@dataclasses.dataclass(frozen=True)
class LeafVerdict:
    status: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Stands for a diagnosis of leaves: all right but those given."""

    leaves: dict


def diagnosed(result, **wrong):
    paths = dict.fromkeys(result.candidate.leaves, LeafVerdict("ok"))
    return Diagnosis(paths | {path: LeafVerdict(status) for path, status in wrong.items()})


NAMED = {
    "same padding": (("the padding",), "1 on each side"),
    "train mode": (("training mode",), "the statistics: the running ones"),
    "no scale": (
        ("the scale of the scores",),
        "the scale of the scores: 1/√d, d the width of a head",
    ),
    "mask polarity": (("the mask",), "the mask: causal"),
    "no mask": (("the mask",), "the mask: causal"),
    "tanh gelu": (("the activation",), "GELU (erf)"),
    "epsilon": (("epsilon",), "epsilon = 1e-05"),
    "no residual": (("a missing residual",), "its own input + layers_0/attn"),
    "post-norm": (("the place of the norms",), "each norm before its part (pre-norm)"),
    "positions": (("the ids",), "positions from 0"),
    "rope base": (("the rotary base",), "the rotary base = 500000"),
    "interleaved": (("the rotary layout",), "the rotary layout: half-split"),
    "tile": (
        ("the spread of the key heads",),
        "the spread of the key heads: each key head repeated",
    ),
    "only itself": (("the mask",), "the mask: causal"),
    "gate and up": (
        ("the gate, exchanged with what it is multiplied by",),
        "SiLU of mlp/gate_proj × mlp/up_proj",
    ),
}


@pytest.mark.parametrize(("name", "faults", "stage", "slot"), FAULTS)
def test_a_code_fault_is_named_and_what_restores_parity(name, faults, stage, slot):
    result = compared(name, *faults)
    fault = next(f for part in faults for f in ([part] if isinstance(part, str) else part))
    titles, restores = NAMED[fault]
    for said in (explain(result), explain(result, diagnosed(result))):
        assert said.verdict == "code", said.report()
        assert said.causes[0].faults == titles, said.report()
        assert any(restores in text for text in said.causes[0].restores), said.report()
        assert stage in said.report()


@pytest.mark.parametrize(("name", "path", "change", "stage"), WEIGHTS)
def test_a_wrong_leaf_is_no_code_fault(name, path, change, stage):
    result = compared(name, change=broken(path, change))
    assert explain(result).verdict == "weight"
    said = explain(result, diagnosed(result, **{f"params/{path}": "wrong_layout"}))
    assert said.verdict == "weight"
    assert f"params/{path} has the wrong layout" in said.report()


def test_a_leaf_and_a_line_of_code_are_told_apart():
    change = broken("layers_1/attn/key/bias", WEIGHTS[1][2])
    result = compared("encoder", ("tanh gelu",), (), change=change)
    said = explain(result, diagnosed(result, **{"params/layers_1/attn/key/bias": "wrong_layout"}))
    assert said.verdict == "weight and code"
    assert [(c.stage, c.verdict) for c in said.causes] == [
        ("layers_0/mlp", "code"),
        ("layers_1/attn/key", "weight"),
    ]


def test_a_clean_port_needs_no_explanation():
    result = compared("encoder", (), ())
    said = explain(result, diagnosed(result))
    assert (said.verdict, said.causes) == ("same", ())
    assert said.report() == "The port computes what its reference computes."


@pytest.mark.parametrize(("name", "path", "change", "stage"), WEIGHTS)
def test_a_wrong_leaf_parts_at_its_own_layer(name, path, change, stage):
    result = compared(name, change=broken(path, change))
    assert [row.stage for row in result.parting] == [stage], result.report()
