"""Recording, storing, aligning and pairing stages."""

import sys

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from safetensors.numpy import save_file

from porting.errors import ArgumentError, CheckpointError, PortingError
from porting.trace import (
    Stage,
    Trace,
    compare_traces,
    load_trace,
    record_linen,
    record_nnx,
    record_torch,
)
from porting.trace.align import align, align_inputs, options
from porting.trace.measure import Pair, measure
from porting.trace.pair import pair

X = np.random.default_rng(3).normal(size=(2, 3)).astype(np.float32)


class Twice(nn.Module):
    """One layer called twice, its table read and attended, a class that calls its base."""

    @nn.compact
    def __call__(self, x):
        square = nn.Dense(3, name="square")
        table = nn.Embed(5, 3, name="table")
        return table.attend(square(nn.relu(square(x)))) + table(np.zeros(2, int)).sum()


class Derived(Twice):
    def __call__(self, x):
        return super().__call__(x)


class Block(nnx.Module):
    def __init__(self, rngs, fail=False, slope=0.0):
        self.layers = nnx.List([nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)])
        self.norm, self.fail, self.slope = nnx.BatchNorm(3, rngs=rngs), fail, slope

    def __call__(self, x):
        y = self.layers[1](nnx.leaky_relu(self.layers[0](x), self.slope))
        if self.fail:
            raise RuntimeError("the user's own error")
        return self.norm(self.norm(y))


def test_linen_stages_stand_in_call_order_with_their_inputs():
    variables = Twice().init(jax.random.key(0), X)
    trace = record_linen(Twice(), variables, X, double=True)
    assert list(trace) == ["square", "square#2", "table/attend", "table", "(model)"]
    assert [s.kind for s in trace.stages] == ["Dense", "Dense", "Embed", "Embed", "Twice"]
    np.testing.assert_array_equal(trace.stage("square").inputs["0"], X)
    expected = np.maximum(trace["square"], 0)
    np.testing.assert_array_equal(trace.stage("square#2").inputs["0"], expected)
    assert trace["(model)"].dtype == np.float32
    wide = trace.stage("(model)").outputs64[""]
    assert wide.dtype == np.float64
    assert 0 < np.max(np.abs(wide - trace["(model)"])) < 1e-5


def test_a_base_class_call_is_one_stage():
    variables = Derived().init(jax.random.key(0), X)
    assert list(record_linen(Derived(), variables, X)).count("(model)") == 1
    assert "(model)#2" not in record_linen(Derived(), variables, X)


def test_a_function_that_applies_linen_modules_is_recorded():
    dense = nn.Dense(5)
    variables = dense.init(jax.random.key(0), X)
    trace = record_linen(lambda x: dense.apply(variables, x), None, X)
    np.testing.assert_allclose(trace["(model)"], dense.apply(variables, X), rtol=1e-6)


def test_what_runs_inside_jit_leaves_no_stage():
    dense = nn.Dense(5)
    variables = dense.init(jax.random.key(0), X)
    trace = record_linen(lambda x: jax.jit(dense.apply)(variables, x), None, X)
    assert len(trace) == 0


def test_nnx_modules_are_recorded_unchanged_and_left_as_they_were():
    calls = {c: c.__dict__.get("__call__") for c in (Block, nnx.Linear, nnx.BatchNorm)}
    block = Block(nnx.Rngs(0))
    before = np.array(block.norm.mean[...])
    trace = record_nnx(block, X, double=True)
    assert list(trace) == ["layers/0", "layers/1", "norm", "norm#2", "(model)"]
    assert trace.stage("layers/1").parent == "(model)"
    assert trace.stage("layers/0").outputs64[""].dtype == np.float64
    np.testing.assert_array_equal(block.norm.mean[...], before)
    assert calls == {c: c.__dict__.get("__call__") for c in calls}


def test_nnx_classes_are_restored_when_the_model_raises():
    calls = {c: c.__dict__.get("__call__") for c in (Block, nnx.Linear)}
    with pytest.raises(ArgumentError, match="RuntimeError: the user's own error"):
        record_nnx(Block(nnx.Rngs(0), fail=True), X)
    assert calls == {c: c.__dict__.get("__call__") for c in calls}
    record_nnx(Block(nnx.Rngs(0)), X)  # the lock is free again


def test_linen_recording_ends_when_the_model_raises():
    with pytest.raises(ArgumentError, match=r"ScopeParamShapeError.*must run there"):
        record_linen(nn.Dense(5), nn.Dense(5).init(jax.random.key(0), X), X[:, :2])
    assert len(record_linen(nn.Dense(5), nn.Dense(5).init(jax.random.key(0), X), X)) == 1


def test_nnx_against_nnx_finds_the_changed_slope():
    right, wrong = Block(nnx.Rngs(0)), Block(nnx.Rngs(0), slope=0.1)
    for block in (right, wrong):
        block.eval()
    traces = [record_nnx(block, X, double=True) for block in (right, wrong)]
    assert compare_traces(traces[0], traces[0]).verdict == "same"
    assert [row.stage for row in compare_traces(*traces).parting] == ["(model)"]


def test_a_trace_survives_its_file(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    stage = Stage("a.b#2", "Odd", "(model)", 1, 2, {"0": np.array([True])}, {"": turned})
    scalar = Stage("(model)", "M", "", 0, 3, {"ids": np.arange(3)}, {"x.y": np.float32(7)[None]})
    trace = Trace("torch", (stage, scalar), {"w": turned})
    trace.save(tmp_path / "t.safetensors", leaves=True)
    read = load_trace(tmp_path / "t.safetensors")
    assert (read.framework, list(read)) == ("torch", ["a.b#2", "(model)"])
    np.testing.assert_array_equal(read["a.b#2"], turned)
    np.testing.assert_array_equal(read.leaves["w"], turned)
    assert read.stage("a.b#2").inputs["0"].dtype == bool
    assert read.replay is None
    trace.save(tmp_path / "t.safetensors")
    assert not load_trace(tmp_path / "t.safetensors").leaves


def test_other_files_are_refused(tmp_path):
    save_file({"w": X}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_trace(tmp_path / "w.safetensors")
    assert str(caught.value) == (
        "w.safetensors is no trace (KeyError: 'portlens.trace'). "
        "Pass a file that `Trace.save` wrote."
    )
    (tmp_path / "x").write_bytes(b"<html>")
    with pytest.raises(PortingError):
        load_trace(tmp_path / "x")
    for table in ("[]", "{}", '{"framework": "torch", "leaves": [], "stages": [{}]}'):
        save_file({"w": X}, tmp_path / "w.safetensors", {"portlens.trace": table})
        with pytest.raises(CheckpointError, match="is no trace"):
            load_trace(tmp_path / "w.safetensors")


def test_wrong_arguments_are_explained(monkeypatch):
    with pytest.raises(ArgumentError, match=r"^A dict has no apply\. Pass the Linen module"):
        record_linen({}, {}, X)
    with pytest.raises(ArgumentError, match="calls a function as it is and cannot widen it"):
        record_linen(lambda x: x, None, X, double=True)
    with pytest.raises(ArgumentError, match=r"^A Dense is not an nnx\.Module"):
        record_nnx(nn.Dense(3), X)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ArgumentError, match="needs PyTorch, which is not installed here"):
        record_torch(object(), X)


A = np.random.default_rng(5).normal(size=(2, 3, 5, 7))
ALIGNED = [
    (A, A, False, "as is", "shape"),
    (A, A.transpose(0, 2, 3, 1), True, "channels last", "kind"),
    (A[..., :5], A[..., :5].transpose(0, 2, 3, 1), False, "channels last", "shape"),
    (A[:, :, 0, :3], A[:, :, 0, :3].transpose(0, 2, 1), False, "channels last", "content"),
    (A.reshape(2, 3, 35), A, False, "heads split", "shape"),
    (A.transpose(0, 2, 1, 3), A, False, "heads moved behind positions", "shape"),
    (A[0], A[0].transpose(1, 2, 0), False, "channels last", "shape"),
]


@pytest.mark.parametrize(("reference", "candidate", "first", "label", "by"), ALIGNED)
def test_alignments_are_labelled(reference, candidate, first, label, by):
    found = align(reference, candidate, first)
    assert (found.label, found.by) == (label, by)
    np.testing.assert_array_equal(found.apply(reference), candidate)


def test_no_alignment_exchanges_height_and_width_or_heads_and_their_width():
    image = np.random.default_rng(0).normal(size=(2, 5, 5, 5))
    exchanged = image.transpose(0, 3, 2, 1)  # n c h w -> n w h c
    for rule, _ in options(image.shape, exchanged.shape):
        assert not np.allclose(rule.apply(image), exchanged)
    last = image.transpose(0, 2, 3, 1)
    assert align(last, last.swapaxes(1, 2), spatial=True).label == "as is"  # so it parts
    assert "it would part" in align(last, last.swapaxes(1, 2)).note  # so it is said
    heads = np.random.default_rng(0).normal(size=(2, 7, 9))
    crossed = heads.reshape(2, 7, 3, 3).swapaxes(2, 3)
    for rule, _ in options(heads.shape, crossed.shape):
        assert not np.allclose(rule.apply(heads), crossed)


def test_a_flatten_is_aligned_only_after_its_own_image():
    image = A[:, :, :2, :5]
    flat, turned = image.reshape(2, -1), image.transpose(0, 2, 3, 1).reshape(2, -1)
    assert align(flat, turned).label == "as is"
    assert align(flat, turned, flattened=[(3, 2, 5)]).label == "flatten order"


def test_inputs_pair_by_name_then_order_and_kind():
    mask, ids = np.ones((2, 7), bool), np.zeros((2, 7), int)
    found = align_inputs({"0": X, "mask": mask, "1": ids}, {"x": X, "1": ids, "mask": mask})
    assert {name: other for name, (other, _) in found.items()} == {
        "x": "0",
        "1": "1",
        "mask": "mask",
    }


def test_a_mapping_overrides_and_is_checked():
    def trace(*paths):
        values = {path: X + i for i, path in enumerate(paths)}
        stages = (
            Stage(p, "Dense", "", i, i, {"0": X}, {"": v})
            for i, (p, v) in enumerate(values.items())
        )
        return Trace("linen", tuple(stages))

    a, b = trace("one", "two"), trace("one", "two")
    assert pair(a, b) == {"one": "one", "two": "two"}
    assert pair(a, b, {"one": "two", "two": "one"}) == {"two": "one", "one": "two"}
    with pytest.raises(ArgumentError, match=r"The trace has no stage 'three'\. It has one, two"):
        pair(a, b, {"three": "one"})
    with pytest.raises(ArgumentError, match="The mapping gives 'one' to two stages"):
        pair(a, b, {"one": "one", "two": "one"})


def test_a_nan_on_one_side_parts_and_on_both_does_not():
    holed = np.where(X > 0, X, np.float32(np.nan))
    assert measure(Pair(X, holed)).parts
    assert measure(Pair(holed, holed)).same
