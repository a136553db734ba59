"""A linear layer behind a flatten: its order is asked for where the values cannot tell it."""

import re

import numpy as np
import pytest
from ml_dtypes import bfloat16

from porting.doctor import diagnose

#: how the paths of a port are made of the names: Linen with names, Linen without, NNX
STYLES = {
    "linen": "params/{}",
    "auto": "params/{}",
    "nnx": "{}",
}
AUTO = {"conv1": "Conv_0", "conv2": "Conv_1", "fc1": "Dense_0", "fc2": "Dense_1"}
LINE = re.compile(r'source\["[\w.]+"\](?:\.T|\.\w+\([^()]*\))*')


def draw(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def whole(array):
    return np.asarray(array, order="C")


def lenet(style="linen", channels_last=True, space=(3, 3), out=30):
    """A source, its port (rows of `fc1` in either order), and the path of its kernel."""
    sizes = {"conv1": (6, 1, 3, 3), "conv2": (8, 6, 3, 3), "fc1": (out, 8 * np.prod(space)), "fc2": (10, out)}  # fmt: skip
    source, right = {}, {}
    for name, shape in sizes.items():
        weight = source[f"{name}.weight"] = draw(*shape)
        path = STYLES[style].format(AUTO[name] if style == "auto" else name)
        source[f"{name}.bias"] = right[f"{path}/bias"] = draw(shape[0])
        right[f"{path}/kernel"] = whole(weight.transpose(2, 3, 1, 0) if "conv" in name else weight.T)  # fmt: skip
    kernel = STYLES[style].format("Dense_0" if style == "auto" else "fc1") + "/kernel"
    if channels_last:
        image = source["fc1.weight"].reshape(out, 8, *space)
        right[kernel] = whole(image.transpose(2, 3, 1, 0).reshape(-1, out))
    return source, right, kernel


def is_right(line, source, right):
    made = eval(line, {"source": source, "np": np})
    return made.shape == right.shape and np.array_equal(made, right)


def lines_of(verdict):
    return [line.rstrip(".") for line in LINE.findall(verdict.note)]


def noise(array):
    return np.random.default_rng(1).standard_normal(array.shape).astype(np.float32)


#: (fault, what the leaf is then, of the source and the right kernel)
OPEN = [
    ("left out", lambda weight, right: None),
    ("left as it is", lambda weight, right: weight),
    ("left as it is and narrowed", lambda weight, right: weight.astype(bfloat16).astype("f4")),
    ("reshaped", lambda weight, right: weight.reshape(right.shape)),
    ("random", lambda weight, right: noise(right)),
    ("zeros", lambda weight, right: np.zeros_like(right)),
]
TOLD = [
    ("narrowed", lambda right: right.astype(bfloat16).astype("f4")),
    ("scaled", lambda right: right / 2),
    ("sign", lambda right: -right),
    ("misread", lambda right: right.astype("f2").view(bfloat16).astype("f4")),
    ("stale", lambda right: right + noise(right) * np.float32(0.01)),
    ("one value", lambda right: np.where(np.arange(right.size).reshape(right.shape) == 5, np.float32(99), right)),
    ("cut", lambda right: right[:-1]),
]  # fmt: skip


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("fault", [f[1] for f in OPEN], ids=[f[0] for f in OPEN])
def test_where_nothing_tells_the_order_both_lines_are_named_and_neither_is_the_fix(
    fault, style, channels_last
):
    source, right, path = lenet(style, channels_last)
    leaf = fault(source["fc1.weight"], right[path])
    broken = {p: a for p, a in right.items() if p != path}
    if leaf is not None:
        broken[path] = whole(leaf)
    verdict = diagnose(source, broken).leaves[path]
    assert verdict.wrong
    assert not verdict.fix
    found = [is_right(line, source, right[path]) for line in lines_of(verdict)]
    assert sorted(found) == [False, True]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("fault", [f[1] for f in TOLD], ids=[f[0] for f in TOLD])
def test_a_leaf_that_lies_in_one_order_is_put_right_in_it(fault, style, channels_last):
    source, right, path = lenet(style, channels_last)
    verdict = diagnose(source, {**right, path: whole(fault(right[path]))}).leaves[path]
    assert verdict.wrong
    assert is_right(verdict.fix, source, right[path])
    assert channels_last or "allow" in verdict.note


def test_a_kernel_in_the_order_of_flax_that_was_turned_lies_in_one_order():
    source, right, path = lenet()
    verdict = diagnose(source, {**right, path: whole(right[path].T)}).leaves[path]
    assert verdict.status == "wrong_layout"
    assert is_right(verdict.fix, source, right[path])


@pytest.mark.parametrize("space", [(3, 3), (3, 5)])
@pytest.mark.parametrize("out", [30, 72])
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_clean_port_is_not_accused_whatever_its_order(channels_last, out, space):
    source, right, path = lenet("linen", channels_last, space, out)
    diagnosis = diagnose(source, right)
    assert diagnosis.ok
    assert {p for p, v in diagnosis.leaves.items() if v.status != "ok"} <= {path}


def test_an_image_that_is_not_square_has_one_line_and_it_is_conditional():
    source, right, path = lenet(space=(3, 5))
    verdict = diagnose(source, {p: a for p, a in right.items() if p != path}).leaves[path]
    assert verdict.wrong
    assert not verdict.fix
    assert lines_of(verdict) == ['source["fc1.weight"].T']
    assert " if " in verdict.note


def test_the_last_convolution_is_told_by_what_none_reads_not_by_its_name():
    source, right, _path = lenet()
    renamed = {"conv2": "body", "conv1": "stem", "fc1": "top", "fc2": "top_out"}

    def named(tree):
        return {re.sub("|".join(renamed), lambda m: renamed[m[0]], k): a for k, a in tree.items()}

    source = dict(sorted(named(source).items()))
    diagnosis = diagnose(source, named(right))
    assert {v.status for v in diagnosis.leaves.values()} == {"ok"}


def test_the_layer_after_the_one_behind_the_flatten_is_none():
    source, right, path = lenet(out=72)
    second = path.replace("fc1", "fc2")
    verdict = diagnose(source, {p: a for p, a in right.items() if p != second}).leaves[second]
    assert is_right(verdict.fix, source, right[second])
