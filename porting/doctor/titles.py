"""The sentence that a group of verdicts is told in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

from porting.doctor.kinds import LAYOUTS
from porting.doctor.names import numbers, template
from porting.doctor.relations import homes
from porting.doctor.rings import ring_title, rings
from porting.doctor.verdict import LeafVerdict
from porting.doctor.wording import apart, difference, few, places, spans
from porting.mapping.names import natural
from porting.tree import fold

_COLLECTION = re.compile(r"^(params|batch_stats)/")

#: kind of change -> what happened
CHANGES = {
    "cast": "narrowed to a type with fewer bits",
    "finer": "finer than the source, which is a narrowed copy",
    "misread": "read as another type",
    "one_plus": "1 added",
    "minus_one": "1 subtracted",
    "sign": "sign reversed",
    "one_minus": "subtracted from 1",
    "root": "square root taken (standard deviation in place of variance)",
    "square": "squared",
    "inverse": "inverted",
    "exp": "exponential taken",
    "negative_exp": "-exp taken",
    "log": "logarithm taken",
    "magnitude": "sign dropped",
    "rsqrt": "inverse square root taken",
    "scaled": "scaled",
    "partial_sum": "only one of the tensors to be summed",
    "summed": "another tensor added",
    "partly": "partly replaced",
}


#: kind of an unported leaf -> what it holds
UNPORTED = {
    "zeros": "all zeros: never filled",
    "ones": "all ones: never filled",
    "constant": "one constant value: never filled",
    "stale": "close to the source and not it: an older or further trained copy",
    "foreign": "not from this source: left at its random init, or from elsewhere",
}


#: kind of a wrong source -> what was done to the layers
ORDERED = {
    "shifted": "shifted by one",
    "sorted": "taken in the order of their names as text (0, 1, 10, 11, 2, …)",
    "reversed": "in reverse order",
}


def done(kind: str) -> str:
    """What was done, in words.

    >>> done("untransposed"), done("cast")
    ('not transposed', 'narrowed to a type with fewer bits')
    """
    return LAYOUTS.get(kind) or CHANGES.get(kind, kind)


def _layout_title(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    if group[0].kind == "exchanged":
        return _exchange_title(group, verdicts)
    if group[0].kind == "rotated":
        return ring_title(rings(verdicts)[group[0].path], group)
    return f"{_subject(group, verdicts, shapes)}: {done(group[0].kind)}."


def _subject(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    """The leaves of a group in a few words."""
    paths = {v.path for v in group}
    square = {p for p in verdicts if p in shapes and _square_kernel(p, shapes[p])}
    kernels = {p for p in verdicts if p in shapes and len(shapes[p]) == 2 and p.endswith("kernel")}
    if len(paths) > 1 and paths == kernels:
        return "Every two-dimensional kernel"
    if len(paths) > 1 and paths == square:
        return "Every square kernel"
    return places(v.path for v in group)


def _square_kernel(path: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and shape[0] == shape[1] and path.endswith("kernel")


def _source_title(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    first = group[0]
    if first.kind == "exchanged":
        return _exchange_title(group, verdicts)
    if first.kind == "rotated":
        return ring_title(rings(verdicts)[first.path], group)
    where = places(v.path for v in group)
    if first.kind in ORDERED:
        return f"Layers {ORDERED[first.kind]}: {where}."
    if first.kind == "layer":
        return _layer_title(group, verdicts)
    return f"{where}: another tensor ({_held(group)})."


def _layer_title(group: list[LeafVerdict], verdicts: Mapping[str, LeafVerdict]) -> str:
    """ "h/2/fc/kernel: from another layer (h.9.fc.weight)", or the layers of many leaves."""
    where, held = places(v.path for v in group), _held(group)
    pairs = _layers_of(group, verdicts)
    if pairs and len({template(v.path) for v in group}) > 3:
        held = few(f"{a} holds {b}" for a, b in sorted(pairs))
    return f"{where}: from another layer ({held})."


def _held(group: list[LeafVerdict]) -> str:
    return places(v.source or "" for v in group)


def _exchange_title(group: list[LeafVerdict], verdicts: Mapping[str, LeafVerdict]) -> str:
    """ "query and key exchanged in layers 0…11"."""
    first = group[0]
    a, b = first.expected_source or "", first.source or ""
    if first.holds:
        a, b = first.path.replace("/", "."), first.holds.replace("/", ".")
    names = difference(a, b)
    layers = {n for v in group for n in numbers(v.path)[:1]}
    if template(a) == template(b):
        return _layers_exchanged(group, verdicts)
    modules = _common_modules(group)
    where = f": {places(v.path for v in group)}"
    if len(layers) > 1:
        where = f" in layers {spans(layers)}"
    elif len(group) > 2 and all(modules):
        where = f" in {places(modules)}"
    return f"{names[0]} and {names[1]} exchanged{where}."


def _common_modules(group: list[LeafVerdict]) -> list[str]:
    """The modules that hold both leaves of each pair that was exchanged, "" for none."""
    of_key = {v.expected_source: v.path for v in group}
    found: dict[str, None] = {}
    for v in group:
        pair = v.path.split("/"), (v.holds or of_key.get(v.source, v.path)).split("/")
        same = takewhile(lambda both: both[0] == both[1], zip(*pair, strict=False))
        found["/".join(part for part, _ in same)] = None
    return list(found)


def _layers_exchanged(group: list[LeafVerdict], verdicts: Mapping[str, LeafVerdict]) -> str:
    """ "Exchanged between layers: h/2 and h/9 (12 leaves)."."""
    pairs = {tuple(sorted(pair, key=natural)) for pair in _layers_of(group, verdicts)}
    text = few(f"{a} and {b}" for a, b in sorted(pairs))
    return f"Exchanged between layers: {text} ({places(v.path for v in group)})."


def _layers_of(
    group: list[LeafVerdict], verdicts: Mapping[str, LeafVerdict]
) -> set[tuple[str, str]]:
    """(layer, layer that it holds) of the leaves whose source another leaf should hold."""
    belongs = homes(verdicts)
    moved = ((v.path, belongs[v.path]) for v in group if v.path in belongs)
    return {apart(*(_COLLECTION.sub("", path) for path in pair)) for pair in moved}


def _changed_title(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    floats = [v for v in verdicts.values() if v.status != "missing"]
    what = "Every leaf" if len(group) == len(floats) > 1 else places(v.path for v in group)
    return f"{what}: {done(group[0].kind)}. {fold([group[0].note])[0]}"


def _unported_title(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    return f"{places(v.path for v in group)}: {UNPORTED.get(group[0].kind, 'not ported')}."


def _missing_title(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    where = places(v.path for v in group)
    if group[0].kind == "renamed":
        return f"{where}: under another name ({places(a for v in group for a in v.alternatives)})."
    return f"{where}: not in the ported parameters."


def _ambiguous_title(
    group: list[LeafVerdict],
    verdicts: Mapping[str, LeafVerdict],
    shapes: Mapping[str, Sequence[int]],
) -> str:
    return f"{places(v.path for v in group)}: the data cannot tell whether this is right."


TITLES = {
    "wrong_layout": _layout_title,
    "wrong_source": _source_title,
    "changed": _changed_title,
    "unported": _unported_title,
    "missing": _missing_title,
    "ambiguous": _ambiguous_title,
}
