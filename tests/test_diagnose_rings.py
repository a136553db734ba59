"""q, k and v that took each other's place in a ring: one thing done wrong, told in one sentence."""

import numpy as np
import pytest

from porting.doctor import diagnose, repair

PARTS = ("query", "key", "value")


def draw(*shape, seed):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def attention(layers=3, packed=False, width=6):
    """Layers of attention, their tensors apart or in one, and the port."""
    source, right = {}, {}
    for n in range(layers):
        for j, part in enumerate(PARTS):
            weight, bias = draw(width, width, seed=10 * n + j), draw(width, seed=10 * n + j)
            module = f"params/layer/{n}/attn"
            right[f"{module}/{part}/kernel"] = np.asarray(weight.T, order="C")
            right[f"{module}/{part}/bias"] = bias
            for name, value in (("weight", weight), ("bias", bias)):
                if packed:
                    source.setdefault(f"layer.{n}.attn.in_proj_{name}", []).append(value)
                else:
                    source[f"layer.{n}.attn.{part}.{name}"] = value
    return {k: np.concatenate(v) if packed else v for k, v in source.items()}, right


def rotated(right, layers, step=1):
    """The port with q, k and v of some layers taken from the part that is `step` further on."""
    broken = dict(right)
    for path in right:
        layer, part = path.split("/")[2], path.split("/")[4]
        if int(layer) in layers:
            other = PARTS[(PARTS.index(part) + step) % 3]
            broken[path] = right[path.replace(part, other)]
    return broken


@pytest.mark.parametrize("packed", [False, True])
def test_a_rotation_through_all_layers_is_one_finding(packed):
    source, right = attention(packed=packed)
    broken = rotated(right, (0, 1, 2))
    diagnosis = diagnose(source, broken)
    (finding,) = diagnosis.findings
    assert finding.title == "key, value and query rotated in layers 0…2: each holds what the next should hold."  # fmt: skip
    assert set(finding.leaves) == set(right)
    fixed = repair(source, broken, diagnosis)
    assert all(np.array_equal(fixed[path], right[path]) for path in right)


def test_rotations_both_ways_are_two_findings():
    source, right = attention()
    broken = rotated(rotated(right, (0,)), (1,), step=2)
    titles = {finding.title.split(" rotated")[0] for finding in diagnose(source, broken).findings}
    assert titles == {"key, value and query", "key, query and value"}


def test_two_that_are_exchanged_and_layers_that_moved_on_are_no_ring():
    source, right = attention()
    a, b = (f"params/layer/0/attn/{part}/kernel" for part in ("query", "key"))
    kinds = {f.kind for f in diagnose(source, {**right, a: right[b], b: right[a]}).findings}
    assert kinds == {"exchanged"}
    moved = {p: right[p.replace(f"r/{p[13]}", f"r/{(int(p[13]) + 1) % 3}")] for p in right}
    assert {f.kind for f in diagnose(source, moved).findings} == {"shifted"}
