"""Leaves that hold the right values under a name that is not theirs: the other layers tell it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from porting.doctor.foretell import layers_of
from porting.doctor.names import last, parent, renumber, template
from porting.doctor.verdict import LeafVerdict
from porting.leaves import Leaf

TELLING = 3  #: weights of one name that tell how weights are called


def renamed(
    verdicts: Mapping[str, LeafVerdict], rows: Mapping[str, Leaf]
) -> tuple[dict[str, LeafVerdict], dict[str, Leaf]]:
    """The verdicts with leaves under an odd name told so, and the rows of the leaves they are.

    A module that only one layer has, where several others agree, or an odd name within the
    usual module, is a mistake: the model looks for the leaf elsewhere. Where a whole module is
    named unlike one other, both may be right.

    Returns:
        The verdicts, by path; and rows of the leaves that are not there under their own name.
    """
    out, lost = dict(verdicts), {}
    modules = {parent(path) for path in verdicts}
    odd = odd_paths(rows) | odd_weights(rows)
    likes = Counter(template(better) for better in odd.values())
    for path, better in odd.items():
        if better in out or out[path].status != "ok":
            continue
        note = f"It holds {out[path].source}; named as its likes are, it would be {better}."
        group = sum(template(p) == template(better) for p in rows)
        sure = parent(better) in modules or (likes[template(better)] == 1 and group > 1)
        out[path] = replace(out[path], kind="renamed", note=note, holds=better if sure else "")
        if sure:
            lost[better] = replace(rows[path], path=better)
    return out, lost


def odd_paths(rows: Mapping[str, Leaf]) -> dict[str, str]:
    """Paths that do not spell their key where the same leaf of other layers does -> how they would.

    A name that other layers have too, for another leaf, is not odd.

    >>> from porting.layouts import Rule
    >>> pairs = {"p/h/0/q/w": "h.0.q.w", "p/h/1/q/w": "h.1.q.w", "p/h/2/qq/w": "h.2.q.w"}
    >>> odd_paths({p: Leaf(p, (k,), Rule("a -> a")) for p, k in pairs.items()})
    {'p/h/2/qq/w': 'p/h/2/q/w'}
    """
    odd, names = {}, Counter(last(path) for path in rows)
    forms = Counter(map(template, rows))
    for group in layers_of(rows).values():
        usual, here = _usual(group, names), Counter(template(row.path) for row in group)
        if usual is None:
            continue
        for row in group:
            form = template(row.path)
            spelled = _spells(row.path, row.sources[0]) and last(row.path) == last(usual.path)
            if spelled or form == template(usual.path) or forms[form] > here[form]:
                continue
            better = renumber(usual.path, usual.sources[0], row.sources[0]) or ""
            if _spells(usual.path, usual.sources[0]) or _same_layer(row.path, better):
                odd[row.path] = better
    return {path: better for path, better in odd.items() if better}


def odd_weights(rows: Mapping[str, Leaf]) -> dict[str, str]:
    """The one kernel beside a bias that is not called as all others are -> how it would be.

    The name must be no other leaf's, and not the source's own.

    >>> from porting.layouts import Rule
    >>> names = {f"{n}/kernel": f"{n}.weight" for n in "abcd"} | {f"{n}/bias": f"{n}.bias" for n in "abcd"}
    >>> names["d/matrix"] = names.pop("d/kernel")
    >>> odd_weights({p: Leaf(p, (k,), Rule("a b -> b a")) for p, k in names.items()})
    {'d/matrix': 'd/kernel'}
    """
    biases = {(parent(p), row.sources[0]) for p, row in rows.items() if last(p) == "bias"}
    weights = {p: r for p, r in rows.items() if len(r.sources) == 1 and _is_weight(r)}
    names, here = Counter(map(last, rows)), Counter(map(last, weights))
    (usual, most), *others = here.most_common(2) or [("", 0)]
    if most < TELLING or len(weights) > most + 1 or not others or names[others[0][0]] > 1:
        return {}
    path = next(p for p in weights if last(p) != usual)
    beside = (parent(path), f"{parent(weights[path].sources[0])}.bias") in biases
    return {path: f"{parent(path)}/{usual}"} if beside and last(path) != "weight" else {}


def _is_weight(row: Leaf) -> bool:
    """Whether a leaf is a weight of a layer, its axes moved: a kernel, and no table."""
    left, right = row.rule.pattern.split(" -> ")
    return last(row.sources[0]) == "weight" and left != right and " " in left


def _usual(group: Sequence[Leaf], names: Mapping[str, int]) -> Leaf | None:
    """A row whose path is written as the key is, or as most of the group are.

    Among several that spell the key, the leaf's own name is the one that most leaves have.
    """
    spelled = [r for r in group if len(r.sources) == 1 and _spells(r.path, r.sources[0])]
    if spelled:
        return max(spelled, key=lambda row: names[last(row.path)])
    (most, count), *rest = Counter(template(r.path) for r in group).most_common(2)
    return (
        next(r for r in group if template(r.path) == most)
        if rest and count >= 2 * rest[0][1]
        else None
    )


def _same_layer(path: str, better: str) -> bool:
    """Whether two paths begin alike, up to the last number of the second."""
    begin = re.match(r".*\d(?=\D*$)", better)
    return begin is not None and path.startswith(f"{begin.group()}/")


def _spells(path: str, key: str) -> bool:
    """Whether the module of a path ends with all words of the module of a key but the first."""
    words = parent(key).split(".")
    return parent(path).split("/")[-max(len(words) - 1, 1) :] == words[-max(len(words) - 1, 1) :]
