"""Which stage of the candidate stands for which stage of the reference.

Names that say the same speak first (`self_attn.q_proj` and `attention/query`): content must
not pair a query with a key because somebody exchanged them. Then content (equal numbers,
whatever their order), likeness of names, kinds and the order of the calls. Stages that
pass their input through (dropout in evaluation) pair with nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from difflib import SequenceMatcher

import numpy as np

from porting.errors import ArgumentError
from porting.trace.outputs import comparable
from porting.trace.stages import ROOT, Stage, Trace

#: Words of module names that mean the same.
SYNONYMS = {
    "query": "q",
    "key": "k",
    "value": "v",
    "self": "",
    "attention": "attn",
    "selfattention": "attn",
    "mha": "attn",
    "attend": "head",
    "h": "layer",
    "layers": "layer",
    "blocks": "layer",
    "block": "layer",
    "encoderblock": "layer",
    "resblock": "layer",
    "ln": "norm",
    "layernorm": "norm",
    "rmsnorm": "norm",
    "batchnorm": "bn",
    "dense": "fc",
    "linear": "fc",
    "lin": "fc",
    "proj": "",
    "wq": "q",
    "wk": "k",
    "wv": "v",
    "wo": "out",
    "projection": "",
    "o": "out",
    "ffn": "mlp",
    "feedforward": "mlp",
    "ff": "mlp",
    "embeddings": "emb",
    "embedding": "emb",
    "embed": "emb",
    "embedder": "emb",
    "conv2d": "conv",
    "downsample": "shortcut",
    "classifier": "head",
    "module": "",
    "model": "",
}
#: Kinds of layers: the words in a class name, and the family.
FAMILIES = (
    (r"dropout|identity|passthrough", "pass"),
    (r"batchnorm", "batch norm"),
    (r"groupnorm|instancenorm", "group norm"),
    (r"norm|^ln$", "norm"),
    (r"conv", "conv"),
    (r"linear|^dense|lineargeneral|densegeneral|^einsum", "dense"),
    (r"^embed(ding)?$", "embed"),
    (r"pool", "pool"),
    (r"lstm|gru|^rnn|simplecell|bidirectional", "recurrent"),
    (r"^(new)?gelu|relu|^silu|^tanh$|^sigmoid$|activation", "activation"),
    (r"flatten|unflatten", "flatten"),
)
PAIRS_AT = 0.8  #: the least score of a pair
ALIKE = 1.2  #: what names alone must score, where neither content nor kind speaks


def family(kind: str) -> str:
    """The family of a class name; "" for a class of somebody's own.

    >>> family("DenseGeneral"), family("Linear"), family("Conv2d"), family("Mlp")
    ('dense', 'dense', 'conv', '')
    """
    if kind.endswith("Conv1D"):  # GPT-2's linear layer
        return "dense"
    return next((name for words, name in FAMILIES if re.search(words, kind, re.I)), "")


def words(path: str) -> list[str]:
    """The words of a stage's path, numbers apart, synonyms as one.

    >>> words("encoder.layers.0.self_attn.q_proj"), words("encoder/block_0/attention/query")
    (['encoder', 'layer', '0', 'attn', 'q'], ['encoder', 'layer', '0', 'attn', 'q'])
    """
    if path == ROOT:
        return []
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", path)
    parts = re.findall(r"[a-z]+\d[dD](?![a-z])|[a-z]+|\d+", split.lower())
    return [word for part in parts if (word := SYNONYMS.get(part, part))]


def likeness(a: str, b: str) -> float:
    """How much two paths say the same, from 0 to 1; the last word counts most.

    >>> likeness("layer.0.fc", "layers_0/dense"), likeness("layer.0.fc", "layers_1/dense") < 0.8
    (1.0, True)
    """
    mine, theirs = words(a), words(b)
    if not mine or not theirs:
        return float(mine == theirs)
    whole = SequenceMatcher(None, mine, theirs, autojunk=False).ratio()
    last = float(mine[-1] == theirs[-1])
    return 0.65 * whole + 0.35 * last


def role(path: str) -> str:
    """What a part is for by its own name: `q`, `k` or `v` where it says so, else its last word.

    >>> role("attn/q_norm"), role("self_attn.k_proj"), role("attn/out")
    ('q', 'k', 'out')
    """
    own = words(re.split(r"[./]", path)[-1])
    return next((word for word in own if word in ("q", "k", "v")), own[-1] if own else "")


def signature(array: np.ndarray) -> np.ndarray:
    """Numbers about an array that do not depend on the order of its elements."""
    flat = np.asarray(array, np.float64).ravel()
    if not flat.size:
        return np.zeros(4)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.array([flat.min(), flat.max(), flat.mean(), np.sqrt(np.mean(flat**2))])


def passes(stage: Stage) -> bool:
    """Whether the stage gives back its input (dropout in evaluation, an identity)."""
    if family(stage.kind) == "pass":
        return True
    first = next(iter(stage.inputs.values()), None)
    return (
        first is not None
        and bool(stage.parent)
        and first.shape == stage.output.shape
        and np.array_equal(first, stage.output)
        and stage.output.size > 1
    )


def pair(
    reference: Trace, candidate: Trace, mapping: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Candidate stage -> reference stage.

    Args:
        reference: a trace.
        candidate: a trace.
        mapping: reference stage -> candidate stage, for those that are known; the rest is
            found. Modules pair with modules.

    Raises:
        ArgumentError: the mapping names a stage that is not there, or one twice.
    """
    fixed = _fixed(reference, candidate, mapping or {})
    if ROOT in reference and ROOT in candidate and ROOT not in fixed:
        fixed.setdefault(ROOT, ROOT)
    mine = [s for s in reference.stages if s.path not in fixed.values() and not passes(s)]
    theirs = [s for s in candidate.stages if s.path not in fixed and not passes(s)]
    if not mine or not theirs:
        return fixed
    from scipy.optimize import linear_sum_assignment

    around = {s.parent for trace in (reference, candidate) for s in trace.stages}
    scores = _scores(mine, theirs, around)
    rows, columns = linear_sum_assignment(-scores)
    found = {
        theirs[c].path: mine[r].path
        for r, c in zip(rows, columns, strict=True)
        if scores[r, c] >= PAIRS_AT
    }
    return fixed | found


def _fixed(reference: Trace, candidate: Trace, mapping: Mapping[str, str]) -> dict[str, str]:
    for path, other in mapping.items():
        reference.stage(path), candidate.stage(other)
    twice = [path for path, n in Counter(mapping.values()).items() if n > 1]
    if twice:
        raise ArgumentError(f"The mapping gives {twice[0]!r} to two stages. Give it to one.")
    return {other: path for path, other in mapping.items()}


def _scores(mine: list[Stage], theirs: list[Stage], around: set[str]) -> np.ndarray:
    """One score for each two stages: content 2, name 2, family 0.5, order 0.5, own name 3.

    A stage of a known family never pairs with one that is made of others (`around`).
    """
    signs = [
        [{n: signature(o) for n, o in s.outputs.items()} for s in side] for side in (mine, theirs)
    ]
    scores = np.full((len(mine), len(theirs)), -1.0)
    fits: dict[tuple, tuple[str, str] | None] = {}
    own = [_own_names(side) for side in (mine, theirs)]
    for i, a in enumerate(mine):
        for j, b in enumerate(theirs):
            shapes = _shapes(a), _shapes(b)
            if shapes not in fits:
                fits[shapes] = comparable(a, b)
            both = fits[shapes]
            if both is None or not _may_pair(a, b, around):
                continue
            name = 2 * likeness(a.path, b.path)
            kind = 0.5 * (bool(family(a.kind)) and family(a.kind) == family(b.kind))
            order = 0.5 * (1 - abs(i / len(mine) - j / len(theirs)))
            content = 2.0 * _alike(signs[0][i][both[1]], signs[1][j][both[0]])
            known = content or (kind and name >= 0.3) or name >= ALIKE
            called = 3.0 * (own[0][i] is not None and own[0][i] == own[1][j])
            scores[i, j] = name + kind + order + content + called if known else -1
    return scores


def _shapes(stage: Stage) -> tuple:
    return (stage.kind, *((name, array.shape) for name, array in stage.outputs.items()))


def _own_names(stages: list[Stage]) -> list[tuple[str, ...] | None]:
    """The words of each stage that no other stage shares."""
    named = [tuple(words(stage.path)) for stage in stages]
    counts = Counter(named)
    return [name if name and counts[name] == 1 else None for name in named]


def _may_pair(a: Stage, b: Stage, around: set[str]) -> bool:
    kinds = family(a.kind), family(b.kind)
    if all(kinds):
        return kinds[0] == kinds[1] or all("norm" in kind for kind in kinds)
    return not any(kind and other.path in around for kind, other in zip(kinds, (b, a), strict=True))


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    scale = max(float(np.max(np.abs(a))), 1e-30)
    return bool(np.all(np.abs(a - b) <= 1e-4 * scale))
