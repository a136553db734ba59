"""Forms of models that nobody tuned for: lifted layers, odd outputs, shared parts."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from porting.doctor import diagnose
from porting.errors import ArgumentError
from porting.trace import compare_traces, explain, load_trace, record_linen, record_nnx
from porting.trace.questions import Problem
from porting.trace.stages import Stage, Trace
from porting.trace.strangers import strangers
from porting.trace.tape import walk
from porting.trace.variants import fitting

X = np.random.default_rng(5).normal(size=(3, 6, 8)).astype(np.float32)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return x + nn.gelu(nn.Dense(8, name="fc")(nn.LayerNorm(name="ln")(x))), None


class Unrolled(nn.Module):
    lift: str = ""

    @nn.compact
    def __call__(self, x):
        if self.lift == "scan":
            axes, rngs = {"params": 0}, {"params": True}
            layers = nn.scan(Block, variable_axes=axes, split_rngs=rngs, length=3)
            x, _ = layers(name="layers")(x, None)
        else:
            kind = nn.remat(Block) if self.lift == "remat" else Block
            for i in range(3):
                x, _ = kind(name=f"layers_{i}")(x)
        return nn.Dense(2, name="head")(nn.LayerNorm(name="norm")(x))


def weights():
    """Random leaves, those at ones and zeros too."""
    tree = Unrolled().init(jax.random.key(0), X)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + rng.normal(size=a.shape).astype(a.dtype) / 4, tree)


def stacked(tree, spoil=lambda kernel: kernel):
    params = dict(tree["params"])
    layers = [params.pop(f"layers_{i}") for i in range(3)]
    params["layers"] = jax.tree.map(lambda *each: jnp.stack(each), *layers)
    params["layers"]["fc"]["kernel"] = spoil(params["layers"]["fc"]["kernel"])
    return {"params": params}


def test_what_runs_in_a_rematerialised_block_is_seen():
    remat = jax.remat
    plain = record_linen(Unrolled(), weights(), X)
    lifted = record_linen(Unrolled("remat"), weights(), X)
    assert list(lifted) == list(plain)
    assert compare_traces(plain, lifted).verdict in ("same", "noise")
    assert jax.remat is remat


def test_a_wrong_leaf_of_scanned_layers_is_no_code_fault():
    plain = record_linen(Unrolled(), weights(), X, double=True)
    right = record_linen(Unrolled("scan"), stacked(weights()), X, double=True)
    assert explain(compare_traces(plain, right)).verdict in ("same", "noise")
    turned = stacked(weights(), lambda kernel: kernel.swapaxes(1, 2))
    wrong = record_linen(Unrolled("scan"), turned, X, double=True)
    comparison = compare_traces(plain, wrong)
    assert explain(comparison).verdict == "undecided"
    leaves = {path: np.asarray(leaf) for path, leaf in wrong.leaves.items()}
    source = {path: np.asarray(leaf) for path, leaf in right.leaves.items()}
    found = explain(comparison, diagnose(source, leaves))
    assert found.verdict == "weight"
    assert "params/layers/fc/kernel" in found.causes[0].leaves


class Holder:
    """An output that shows nothing of what it holds."""

    def __init__(self, value):
        self.value = value


class Inner(nn.Module):
    slope: float = 0.0

    @nn.compact
    def __call__(self, x):
        return Holder(nn.leaky_relu(nn.Dense(8, name="fc")(x), self.slope))


class Outer(nn.Module):
    slope: float = 0.0

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(Inner(self.slope, name="inner")(x).value)


def test_parts_of_a_module_without_recorded_outputs_belong_to_the_one_around_it():
    tree = Outer().init(jax.random.key(0), X)
    right, wrong = (record_linen(Outer(s), tree, X, double=True) for s in (0.0, 0.1))
    assert list(right.ancestors("inner/fc")) == ["(model)"]
    found = explain(compare_traces(right, wrong))
    assert found.verdict == "code"
    assert found.causes[0].stage == "(model)"


def test_a_trace_whose_parent_is_missing_ends_there():
    stage = Stage("a/b", "Dense", "a", 1, 2, {"0": X}, {"": X + 1})
    assert list(Trace("linen", (stage,)).ancestors("a/b")) == []


class Attended(nn.Module):
    scaled: bool = True

    @nn.compact
    def __call__(self, x):
        q, k, v = (nn.Dense(8, name=name)(x) for name in "qkv")
        scores = jnp.einsum("bqd,bkd->bqk", q, k) * (8**-0.5 if self.scaled else 1)
        probs = nn.softmax(scores)
        return nn.Dense(8, name="out")(probs @ v), probs


class Attending(nn.Module):
    scaled: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="head")(Attended(self.scaled, name="attn")(x)[0])


def test_attention_weights_beside_a_named_fault_are_no_second_fault():
    tree = Attending().init(jax.random.key(0), X)
    right, wrong = (record_linen(Attending(s), tree, X, double=True) for s in (True, False))
    (cause,) = explain(compare_traces(right, wrong)).causes
    assert cause.verdict == "code"
    assert cause.faults == ("the scale of the scores",)


def test_a_pool_that_is_no_module_was_not_left_out():
    def kept(kind):
        stage = Stage("extra", kind, "m", 1, 2, {}, {"": X})
        return list(strangers(Trace("linen", (stage,)), "m", set(), 3, False, False))

    assert (kept("MaxPool2d"), kept("LayerNorm")) == ([], ["extra"])


def test_a_mask_turned_round_is_named_though_whole_rows_are_nan():
    q, k, v = np.random.default_rng(2).normal(size=(3, 3, 6, 8))
    hidden = np.zeros((3, 6), bool)
    hidden[1, 4:] = hidden[2, 2:] = True
    scores = np.einsum("bqd,bkd->bqk", q, k) / 8**0.5
    with np.errstate(invalid="ignore"):
        scores = np.where(hidden[:, None], scores, -np.inf)  # the first row sees nothing
        exps = np.exp(scores - scores.max(-1, keepdims=True))
        target = exps / exps.sum(-1, keepdims=True) @ v
    assert np.isnan(target[0]).all()
    assert not np.isnan(target[1:]).any()
    mask = np.broadcast_to(~hidden[:, None, None], (3, 1, 6, 6))
    operands = {"q": q, "k": k, "v": v, "as given": mask}
    found = fitting(Problem("attention", operands, {}, target.astype(np.float32), target))
    assert {choice["mask"] for choice in found} == {"as given, inverted"}


class Table(nnx.Module):
    def __init__(self):
        self.table = nnx.Embed(5, 8, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.table.attend(x)


def test_a_table_that_is_attended_is_a_stage_of_nnx_too():
    attend = nnx.Embed.attend
    assert list(record_nnx(Table(), X)) == ["table/attend", "(model)"]
    assert nnx.Embed.attend is attend


class Waves(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.fft.fft(nn.Dense(8)(x)), jnp.ones(3, jnp.int4), jax.ShapeDtypeStruct((2,), "f4")


def test_complex_numbers_and_small_integers_are_kept(tmp_path):
    trace = record_linen(Waves(), Waves().init(jax.random.key(0), X), X, double=True)
    wanted = np.fft.fft(trace["Dense_0"])
    assert trace["(model)"].shape == (*X.shape, 2)
    np.testing.assert_allclose(trace["(model)"][..., 1], wanted.imag, atol=1e-5)
    trace.save(tmp_path / "t.safetensors")
    read = load_trace(tmp_path / "t.safetensors")
    assert [a.dtype.name for a in read.stage("(model)").outputs.values()] == ["float32", "int8"]
    assert compare_traces(trace, trace).verdict == "same"


def test_a_dictionary_with_a_default_is_rebuilt_with_it():
    given = collections.defaultdict(list, {"y": X})
    made = walk(given, lambda name, array: array + 1)
    assert made["missing"] == []
    assert (made["y"] == X + 1).all()
    assert (given["y"] == X).all()


@pytest.mark.parametrize("variables", [[1], 3])
def test_variables_of_another_type_are_refused(variables):
    with pytest.raises(ArgumentError, match="variables is of the type"):
        record_linen(nn.Dense(2), variables, X)


def test_boxes_of_a_partitioned_model_are_opened():
    spread = nn.with_partitioning(nn.initializers.lecun_normal(), ("a", "b"))
    dense = nn.Dense(4, kernel_init=spread)
    trace = record_linen(dense, dense.init(jax.random.key(0), X), X)
    assert {path: leaf.shape for path, leaf in trace.leaves.items()}["params/kernel"] == (8, 4)
