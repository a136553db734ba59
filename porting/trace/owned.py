"""The leaves of a stage, by the names that the functions of the layers know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from porting.trace.pair import family, role
from porting.trace.stages import Trace

QKV = {"q", "k", "v"}
PACKED = {"qkv"}
#: What the leaves of a norm are called that somebody wrote.
NORM_LEAVES = {"weight": "scale", "gamma": "scale", "beta": "bias"}


def leaves_of(trace: Trace, stage: str, inner: bool = False) -> dict[str, str]:
    """Name -> path of the leaves that lie directly in a stage's module, or anywhere inside.

    >>> trace = Trace("linen", (), {"params/fc/kernel": 0, "params/fc/sub/bias": 0})
    >>> leaves_of(trace, "fc")
    {'kernel': 'params/fc/kernel'}
    >>> leaves_of(trace, "fc", inner=True)
    {'kernel': 'params/fc/kernel', 'sub/bias': 'params/fc/sub/bias'}
    """
    mark = "." if trace.framework == "torch" else "/"
    module = stage.partition("#")[0].removesuffix("/attend")
    module = "" if module == "(model)" else f"{module}{mark}"
    found = {}
    for path in trace.leaves:
        within = path.partition("/")[2] if trace.framework == "linen" else path
        name = within.removeprefix(module)
        if within.startswith(module) and (inner or mark not in name):
            found[name] = path
    return found


def unseen(trace: Trace, stage: str, judged: Iterable[str]) -> list[str]:
    """Paths of the leaves inside a stage's module that no `judged` stage inside it answers for.

    >>> from porting.trace.stages import Stage
    >>> stages = (Stage("fc", "Dense", "(model)", 1, 2, {}, {"": np.ones(1)}),
    ...           Stage("(model)", "M", "", 0, 3, {}, {"": np.ones(1)}))
    >>> trace = Trace("linen", stages, {"params/fc/kernel": 0, "params/scanned/fc/kernel": 0})
    >>> unseen(trace, "(model)", ["fc"]), unseen(trace, "fc", ["fc"])
    (['params/scanned/fc/kernel'], ['params/fc/kernel'])
    """
    inside = [path for path in judged if stage in trace.ancestors(path)]
    seen = {leaf for path in inside for leaf in leaves_of(trace, path, inner=True).values()}
    return [leaf for leaf in leaves_of(trace, stage, inner=True).values() if leaf not in seen]


def layer_of(kind: str, names: set[str]) -> str | None:
    """The row of the table for a class and the names of its leaves; None for another layer.

    >>> layer_of("Conv", {"kernel"}), layer_of("LlamaRMSNorm", {"weight"}), layer_of("M", {"a"})
    ('conv', 'norm', None)
    """
    if "kernel" in names:
        turned = "transpose" in kind.lower()
        return ("transposed conv" if turned else "conv") if family(kind) == "conv" else "dense"
    if {"mean", "var"} <= names:
        return "batch norm"
    if "embedding" in names:
        return "embed"
    if {NORM_LEAVES.get(name, name) for name in names} <= {"scale", "bias"}:
        return "group norm" if family(kind) == "group norm" else "norm"
    return None


def multi_head(trace: Trace, stage: str) -> dict[str, str]:
    """`q/kernel` -> path, … of a module that holds the projections of one attention."""
    inside = leaves_of(trace, stage, inner=True)
    found = {}
    for name, path in inside.items():
        part, _, leaf = name.rpartition("/")
        wide = np.shape(trace.leaves.get(inside.get(f"{part}/kernel", path), 0))
        packed = len(wide) == 2 and wide[-1] == 3 * wide[0]
        found[f"{'qkv' if packed else role(part)}/{leaf}"] = path
    parts = {name.partition("/")[0] for name in found}
    is_whole = len(found) == len(inside) and parts in (QKV | {"out"}, PACKED | {"out"})
    return found if is_whole and trace.framework != "torch" else {}


def values(
    trace: Trace, stage: str, layer: str, known: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The leaves of a stage for one layer's functions: name -> float64 array out of `known`.

    >>> trace = Trace("linen", (), {"params/n/weight": np.ones(1)})
    >>> values(trace, "n", "norm", trace.leaves)
    {'scale': array([1.])}
    """
    found = multi_head(trace, stage) if layer == "multi-head" else leaves_of(trace, stage)
    if layer in ("norm", "group norm"):
        found = {NORM_LEAVES.get(name, name): path for name, path in found.items()}
    return {name: np.asarray(known[path], np.float64) for name, path in found.items()}
