"""Wrong layouts: each is found, named, written in named axes, and repaired."""

from types import SimpleNamespace

import numpy as np
import pytest

from porting.doctor import diagnose
from porting.doctor.arrange import find
from porting.doctor.bits import canonical, fingerprint, slice_sums
from porting.doctor.orders import name_order
from porting.doctor.patterns import block_order, pattern
from porting.doctor.pieces import assemble
from porting.layouts import Rule
from porting.leaves import Leaf

E, H, D = 12, 3, 4


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def verdict_of(weight, rule, leaf):
    """The verdict on one leaf, once with its own control."""
    row = Leaf("layer/kernel", ("layer.weight",), rule)
    mapping = SimpleNamespace(leaves={row.path: row}, unmapped={}, unused={})
    source = {"layer.weight": weight}
    right = np.asarray(row.apply(source), order="C")
    assert diagnose(source, {row.path: right}, mapping).ok
    verdict = diagnose(source, {row.path: np.asarray(leaf, order="C")}, mapping).leaves[row.path]
    made = eval(verdict.fix, {"np": np, "source": source})
    assert np.array_equal(made, right)
    if verdict.source and "->" in (verdict.rule or ""):
        assert np.array_equal(Rule.parse(verdict.rule).apply(weight), leaf)
    return verdict


LINEAR = Rule("o i -> i o")
QUERY = Rule("(h d) i -> i h d", {"h": H})
OUT = Rule("o (h d) -> h d o", {"h": H})
CONV = Rule("o i h w -> h w i o")
CONV3 = Rule("o i d h w -> d h w i o")
DECONV = Rule("i o h w -> -h -w i o")
PACKED = Rule("(qkv=1 h d) e -> e (h d)", {"qkv": 3, "h": H})
HEADED = Rule("(h qkv=1 d) e -> e (h d)", {"qkv": 3, "h": H})
GATE = Rule("(g=1 h) e -> e h", {"g": 4})
FLATTEN = Rule("o (c h w) -> (h w c) o", {"h": 2, "w": 3})

W5, W57, WE = draw(5, 5), draw(5, 7), draw(E, E)
K, K3, W3E = draw(3, 3, 3, 3), draw(3, 3, 3, 3, 3), draw(3 * E, E)
WG, WF = draw(20, 7), draw(11, 30)


def rotary(array, first, second):
    """Rows of every head, two factors of head_dim exchanged."""
    return array.reshape(H, first, second, -1).swapaxes(1, 2).reshape(array.shape)


CASES = [
    ("square", W5, LINEAR, W5, "untransposed"),
    ("reshaped", W57, LINEAR, W57.reshape(7, 5), "reshaped"),
    ("fortran", W57, LINEAR, W57.reshape(7, 5, order="F"), "fortran"),
    ("twice", W57, LINEAR, W57, "untransposed"),
    ("flipped", W57, LINEAR, W57.T[::-1], "flipped"),
    ("heads: untransposed", WE, QUERY, WE.reshape(E, H, D), "untransposed"),
    ("heads exchanged", WE, QUERY, WE.T.reshape(E, D, H).swapaxes(1, 2), "heads"),
    ("out untransposed", WE, OUT, WE.reshape(H, D, E), "untransposed"),
    ("H and W", K, CONV, K.transpose(3, 2, 1, 0), "hw"),
    ("in and out", K, CONV, K.transpose(2, 3, 0, 1), "axes"),
    ("as is", K, CONV, K, "axes"),
    ("conv flipped", K, CONV, K.transpose(2, 3, 1, 0)[::-1, ::-1], "flipped"),
    ("video", K3, CONV3, K3.T, "hw"),
    ("deconv not flipped", K, DECONV, K.transpose(2, 3, 0, 1), "unflipped"),
    ("packed per head", W3E, PACKED, W3E.reshape(H, 3, D, E)[:, 1].reshape(E, E).T, "split"),
    ("headed in blocks", W3E, HEADED, W3E[E : 2 * E].T, "split"),
    ("another gate", WG, GATE, WG[10:15].T, "split"),
    ("half to pairs", WE, LINEAR, rotary(WE, 2, 2).T, "rotary"),
    ("gates reordered", WG, LINEAR, WG[[*range(5), *range(10, 15), *range(5, 10), *range(15, 20)]].T, "blocks"),
    ("flatten", WF, FLATTEN, WF.T, "flatten"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "rule", "leaf", "kind"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_wrong_layout_is_named_and_repaired(weight, rule, leaf, kind):
    verdict = verdict_of(weight, rule, leaf)
    assert (verdict.status, verdict.source) == ("wrong_layout", "layer.weight")
    assert verdict.kind == kind


def test_rows_in_no_order_that_the_notation_has():
    order = np.random.default_rng(0).permutation(5)
    verdict = verdict_of(W57, LINEAR, W57[order].T)
    assert (verdict.status, verdict.kind) == ("wrong_layout", "permuted")


def test_a_part_that_is_right_for_a_sibling():
    rows = {
        f"attn/{part}/kernel": Leaf(
            f"attn/{part}/kernel", ("in_proj",), Rule(f"(p={j} o) i -> i o", {"p": 3})
        )
        for j, part in enumerate(("query", "key", "value"))
    }
    source = {"in_proj": W3E}
    leaves = {path: np.asarray(row.apply(source), order="C") for path, row in rows.items()}
    a, b = "attn/query/kernel", "attn/key/kernel"
    leaves[a], leaves[b] = leaves[b], leaves[a]
    diagnosis = diagnose(source, leaves, SimpleNamespace(leaves=rows, unmapped={}, unused={}))
    assert diagnosis.leaves[a].status == "wrong_layout"
    assert diagnosis.leaves[a].holds == b
    assert diagnosis.leaves["attn/value/kernel"].status == "ok"
    assert diagnosis.findings[0].title.startswith("query and key exchanged")


def test_a_fingerprint_adds_up_over_slices():
    bits = canonical(WE)
    total = int(slice_sums(bits, (0,)).sum())
    assert (
        total
        == fingerprint(bits)
        == fingerprint(canonical(np.asarray(WE.T.reshape(3, -1), order="C")))
    )
    assert fingerprint(bits) != fingerprint(canonical(-WE))


def test_arrangements_are_written_so_that_they_can_be_read_back():
    for leaf in (K.transpose(1, 3, 0, 2), K.reshape(9, 9), K.transpose(2, 3, 1, 0).reshape(27, 3)):
        found = find(canonical(K), canonical(np.asarray(leaf, order="C")))
        assert np.array_equal(Rule.parse(str(found)).apply(K), leaf)


def test_pieces_of_another_tensor_are_none():
    assert assemble(canonical(W3E), canonical(draw(E, E, seed=9))) is None


def test_an_index_is_counted_or_not():
    assert pattern(np.array([0, 4, 1, 5]), 8).loops == ((1, 2), (4, 2))
    assert pattern(np.array([3, 2, 1, 0]), 4).loops == ((-1, 4),)
    assert block_order(np.arange(6)) is None
    assert name_order(np.arange(6)[::-1]).kind == "flipped"
    assert name_order(np.array([0, 3, 1, 4, 2, 5])).kind == "rotary"
    assert name_order(np.array([0, 3, 6, 1, 4, 7, 2, 5, 8])).kind == "heads"
