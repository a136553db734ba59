"""Leaves grouped into layers: a `Unit` is what moves together.

A linear layer's weight and bias, a batch norm's four vectors, or one bare parameter. Both
sides are brought into this form; what one side packs (q, k and v in one weight) or stacks
(layers on a scanned axis) is expressed by the `Part` of a unit.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from porting.leaves import ONLY, Join
from porting.mapping.names import WRAPPERS, components, counters, natural, role, words

#: leaf name -> slot of a layer
SLOTS = {
    "weight": "w", "kernel": "w", "scale": "w", "embedding": "w", "embeddings": "w", "w": "w",
    "bias": "b", "b": "b", "running_mean": "mean", "running_var": "var", "mean": "mean",
    "var": "var", "moving_mean": "mean", "moving_variance": "var", "weight_g": "g",
    "weight_v": "v",
}  # fmt: skip

#: names of source tensors that are no parameters, and why they are left out
BUFFERS = (
    (r"(^|[./])num_batches_tracked$", "a step counter that Flax does not keep"),
    (r"(^|[./])(position_ids|token_type_ids)$", "a buffer: a range that Flax makes itself"),
    (r"(^|[./])(inv_freq|original_inv_freq|cos_cached|sin_cached|freqs_cis|rope_freqs)$",
     "a buffer: rotary frequencies, computed from the configuration"),
    (r"(^|[./])(masked_bias|causal_mask|attn_mask|mask_bias|bias_mask)$", "a buffer: a causal mask"),
    (r"(^|[./])relative_position_index$", "a buffer: an index that Flax makes itself"),
    (r"(^|[./])embed_positions[./]weights?$|(^|[./])embed_positions$|sinusoid\w*$",
     "sinusoidal positions, computed by Flax"),
    (r"(^|[./])final_logits_bias$", "a buffer of zeros that Flax does not keep"),
    (r"(^|[./])rngs[./](\w+[./])?(count|key)$", "a random stream"),
    (r"(^|[./])embed_scale$", "a constant that the configuration gives"),
    (r"(^|[./])(_float_tensor|dummy|version|_extra_state)$", "a marker that holds no weights"),
)  # fmt: skip


@dataclass(frozen=True)
class Pick:
    """A part of one axis of a source tensor.

    Attributes:
        axis: which axis of the (joined) source.
        index: which of `count` equal blocks; with `count` 0 the axis itself is indexed.
        count: number of equal blocks.
        start, stop: a range instead, where `stop` is not 0.
        per_head: the blocks repeat inside every head (`(h qkv d)`), as in GPT-NeoX.
    """

    axis: int
    index: int = 0
    count: int = 0
    start: int = 0
    stop: int = 0
    per_head: bool = False


@dataclass(frozen=True)
class Part:
    """One leaf of a unit.

    Attributes:
        sources: keys (of a source) or the one path (of a target).
        shape: its shape; for a picked part, the shape of what is picked.
        name: the name of the leaf (`weight`, `kernel`), which tells the convention.
        join: how several sources become one array.
        pick: what is taken of it.
        lead: "l" or "p" where a join added a leading axis of layers or of parts.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    name: str
    join: Join = ONLY
    pick: Pick | None = None
    lead: str = ""

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Unit:
    """One layer: where it sits and what it holds.

    Attributes:
        path: components of its path, without wrappers, numbers standing alone.
        parts: slot -> leaf.
        order: its place in the source's definition, -1 where that is unknown.
        bare: one parameter that belongs to no layer of its own (`cls_token`).
        note: why the reading is doubtful, "" where it is not.
    """

    path: tuple[str, ...]
    parts: Mapping[str, Part] = field(hash=False)
    order: float = -1
    bare: bool = False
    note: str = ""
    chain: frozenset[int] = field(default=frozenset(), hash=False)

    @property
    def inner(self) -> int:
        """Size of the smallest module that holds more than this layer."""
        return min((n for n in self.chain if n > self.count), default=self.count)

    @property
    def auto(self) -> bool:
        """Whether Flax counted its name (`Dense_0`), so that the name says nothing."""
        return len(self.path) > 1 and self.path[-1].isdigit() and self.path[-2][:1].isupper()

    @property
    def auto_within(self) -> bool:
        """Whether Flax counted its name or that of a module around it."""
        pairs = zip(self.path, self.path[1:], strict=False)
        return any(number.isdigit() and name[:1].isupper() for name, number in pairs)

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(part.count for part in self.parts.values())

    @property
    def size(self) -> int:
        """Elements of the leaf that identifies it: the weight, else the first."""
        return (self.parts.get("w") or self.parts.get("v") or next(iter(self.parts.values()))).count

    @property
    def role(self) -> str:
        """The role that its name gives it, where its leaves allow that."""
        named, weight = role(self.path), self.parts.get("w")
        if (
            named == "tok"
            and weight is not None
            and (weight.name == "kernel" or len(weight.shape) > 3)
        ):
            return ""
        return named

    @property
    def words(self) -> frozenset[str]:
        return frozenset(w for c in self.path for w in words(c) if not w.isdigit())

    @property
    def own_words(self) -> tuple[str, ...]:
        return words(next((c for c in reversed(self.path) if not c.isdigit()), ""))

    @property
    def is_norm(self) -> bool:
        weight = self.parts.get("w")
        return not self.bare and weight is not None and len(weight.shape) - bool(weight.lead) == 1

    def __str__(self) -> str:
        return ".".join(self.path)


def buffer_reason(key: str, strict: bool = False) -> str:
    """Why the tensor `key` is no parameter, "" if it may be one.

    Args:
        strict: only those that no target ever holds.

    >>> buffer_reason("bn1.num_batches_tracked")
    'a step counter that Flax does not keep'
    """
    table = BUFFERS[:1] if strict else BUFFERS
    return next((why for pattern, why in table if re.search(pattern, key)), "")


def unused_reason(key: str, spec: Any) -> str:
    """Why a tensor is no parameter, from its name and shape; "" if it may be one."""
    shape = tuple(spec.shape)
    if key.endswith("bias") and len(shape) >= 3 and set(shape[:-2]) == {1}:
        return "a buffer: a causal mask"
    return buffer_reason(key)


def units(leaves: Mapping[str, Any], ordered: bool, target: bool = False) -> list[Unit]:
    """Group leaves (path -> anything with `.shape`) into layers.

    Args:
        ordered: whether the order of the leaves is that of their definition.
        target: whether modules may be counted as haiku does (`linear`, `linear_1`).

    >>> import numpy as np
    >>> found = units({"ln.weight": np.ones(3), "ln.bias": np.ones(3)}, ordered=True)
    >>> [(str(u), sorted(u.parts)) for u in found]
    [('ln', ['b', 'w'])]
    """
    grouped: dict[tuple[tuple[str, ...], bool], dict[str, Part]] = {}
    keys = list(leaves)
    present = set(keys)
    counted = counters(tuple(re.split(r"[./]", key)) for key in keys) if target else {}
    for key in keys:
        path, slot, name = _place(key, present, counted)
        shape = tuple(int(n) for n in leaves[key].shape)
        bare = slot == "raw"
        if ("w" if bare else slot) in grouped.get((path, bare), {}):
            path = components(key)[:-1]  # two paths that only a wrapper tells apart
        grouped.setdefault((path, bare), {})["w" if bare else slot] = Part((key,), shape, name)
    _adopt_biases(grouped)
    ranked = {key: i for i, key in enumerate(keys)}
    made = [
        Unit(path, parts, ranked[next(iter(parts.values())).sources[0]] if ordered else -1, bare)
        for (path, bare), parts in grouped.items()
    ]
    return with_chains(made)


def _adopt_biases(grouped: dict[tuple[tuple[str, ...], bool], dict[str, Part]]) -> None:
    """Give a bare `q_bias` to the layer beside it that plays the role of `q`."""
    lone = [path for path, bare in grouped if bare and path and path[-1].endswith("_bias")]
    for path in lone:
        named = role((*path[:-1], path[-1].removesuffix("_bias")))
        owners = [
            parts for (other, bare), parts in grouped.items()
            if named and not bare and other[:-1] == path[:-1] and role(other) == named
        ]  # fmt: skip
        if len(owners) == 1 and "b" not in owners[0]:
            owners[0]["b"] = replace(grouped.pop((path, True))["w"], name="bias")


def with_chains(made: Iterable[Unit]) -> list[Unit]:
    """The units, each knowing the sizes of the modules that it sits in.

    A module is known by its number of parameters, which no renaming, rearranging, packing
    or splitting changes.
    """
    made = list(made)
    totals: dict[tuple[str, ...], int] = defaultdict(int)
    for unit in made:
        count = unit.count
        for depth in range(len(unit.path) + 1):
            totals[unit.path[:depth]] += count
    return [
        replace(u, chain=frozenset(totals[u.path[:d]] for d in range(len(u.path) + 1)))
        for u in made
    ]


def _place(
    key: str, present: set[str], counted: Mapping[tuple[str, ...], str]
) -> tuple[tuple[str, ...], str, str]:
    """Components of the layer, slot and leaf name of one key."""
    given = re.split(r"[./]", key)
    parts = [counted.get(tuple(given[: i + 1]), name) for i, name in enumerate(given)]
    while len(parts) > 1 and parts[0] in ("params", "batch_stats"):
        parts = parts[1:]
    if len(parts) > 3 and parts[-3] == "parametrizations":
        slot = {"original0": "g", "original1": "v", "original": "w"}.get(parts[-1], "raw")
        return _clean(parts[:-3]), slot, parts[-2] + "_" + slot
    *parents, name = parts
    lower = name.lower()
    if lower in ("gamma", "beta"):
        other = key[: -len(name)] + ("beta" if lower == "gamma" else "gamma")
        if other in present:
            return _clean(parents), "w" if lower == "gamma" else "b", "scale"
    if lower == "offset" and key[: -len(name)] + "scale" in present:
        return _clean(parents), "b", "bias"
    if lower in SLOTS:
        return _clean(parents), SLOTS[lower], lower.replace("embeddings", "embedding")
    split = re.match(r"(.+)_(weight|bias|kernel)$", name)
    if split and any(f"{key[: -len(name)]}{split[1]}_{w}" in present for w in ("weight", "kernel")):
        return _clean([*parents, split[1]]), SLOTS[split[2]], split[2]
    return _clean(parts), "raw", name


def _clean(parts: list[str]) -> tuple[str, ...]:
    found = components(".".join(parts)) if parts else ()
    return tuple(c for i, c in enumerate(found) if c not in WRAPPERS)


def looks_sorted(keys: list[str], dtypes: list[str]) -> bool:
    """Whether the order of the keys may be that of a file, which says nothing.

    safetensors sorts by dtype, then by name; a tree of JAX sorts its keys. A definition
    order keeps a module's keys together and its layers ascending.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key, dtype in zip(keys, dtypes, strict=True):
        groups[dtype].append(key)
    if all(g == sorted(g) or g == sorted(g, key=natural) for g in groups.values()):
        return True
    return not _in_blocks([components(key) for key in keys])


def _in_blocks(paths: list[tuple[str, ...]]) -> bool:
    """Whether every module's keys are contiguous and numbered children ascend."""
    closed: set[tuple[str, ...]] = set()
    last: dict[tuple[str, ...], int] = {}
    previous: tuple[str, ...] = ()
    for path in paths:
        for depth in range(1, len(path)):
            prefix = path[:depth]
            if prefix in closed:
                return False
            if prefix[-1].isdigit():
                if last.get(prefix[:-1], -1) > int(prefix[-1]):
                    return False
                last[prefix[:-1]] = int(prefix[-1])
        shared = next(
            (i for i, (a, b) in enumerate(zip(previous, path, strict=False)) if a != b),
            min(len(previous), len(path)),
        )
        closed |= {previous[:depth] for depth in range(shared + 1, len(previous))}
        previous = path
    return True
