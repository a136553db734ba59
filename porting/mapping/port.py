"""`port_checkpoint`: a mapping carried out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from porting.errors import CoverageError, PortingError, checked, number_of
from porting.mapping.casts import cast
from porting.mapping.infer import NO_BIAS, infer_mapping, source_specs
from porting.mapping.names import natural
from porting.mapping.result import NO_PLACE, Mapping, arrays_of, specs_of
from porting.mapping.unport import same_bits
from porting.tensors import array_of
from porting.tree import fold, unflatten


@dataclass(frozen=True)
class PortReport:
    """What a port did.

    Attributes:
        leaves: number of target leaves, all of them filled.
        keys: number of source tensors that were read.
        nbytes: bytes of the ported leaves.
        rules: pattern -> how many leaves went through it.
        unused: source key -> why it was not read.
        unsure: one line for every leaf that is used and still a question.
        casts: one line for every pair of dtypes that was converted.
        notes: what else a reader should know (joins that cannot be undone).
        seconds: time of the port, the mapping included where it was inferred.
        mapping: the table that was carried out.
        shapes: source key -> shape.
        types: the dtypes of all source tensors.
        cast_to: path -> dtype, of the leaves that were cast.
    """

    leaves: int
    keys: int
    nbytes: int
    rules: dict[str, int]
    unused: dict[str, str]
    unsure: tuple[str, ...]
    casts: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    mapping: Mapping = field(repr=False)
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    types: frozenset[str] = field(repr=False)
    cast_to: dict[str, str] = field(repr=False)

    def code(
        self, kind: str = "linen", checkpoint: str | Sequence[str] = "model.safetensors"
    ) -> str:
        """The port as a script that needs only NumPy, safetensors and Flax.

        Formats and types that the library of safetensors does not read, it reads with
        PortLens.

        Args:
            kind: "linen" or "nnx".
            checkpoint: the file that the script reads, or its shards.
        """
        from porting.mapping.script import Source, script

        files = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
        return script(self.mapping, Source(files, self.types, self.shapes, self.cast_to), kind)

    def __str__(self) -> str:
        lines = [
            f"{number_of(self.leaves, 'leaf')} from {number_of(self.keys, 'tensor')}, "
            f"{self.nbytes:,} bytes, in {self.seconds * 1000:.0f} ms"
        ]
        lines += [f"UNSURE {line}" for line in self.unsure]
        lines += [*self.casts, *self.notes]
        lines += [f"{number_of(n, 'leaf')} by {rule}" for rule, n in self.rules.items()]
        reasons = Counter(self.unused.values())
        lines += [f"{number_of(n, 'key')} not read: {why}" for why, n in reasons.items()]
        return "\n".join(lines)


def port_checkpoint(
    source: Any,
    target: Any,
    mapping: Mapping | None = None,
    *,
    dtype: Any = None,
    allow_unused: bool = False,
) -> tuple[dict[str, Any], PortReport]:
    """Fill every leaf of `target` from `source`.

    Leaves are NumPy views of the source where their rules allow it, so a memory-mapped
    checkpoint is not read until its values are. A leaf that is a question is filled with
    the likeliest reading, and stands in `report.unsure`.

    Args:
        source: a checkpoint, a state_dict, or a Flax tree.
        target: what `infer_mapping` takes.
        mapping: the table to carry out; inferred where it is not given.
        dtype: `None` keeps each tensor's dtype, "target" takes the target leaf's, any
            other value is the dtype of all floating leaves.
        allow_unused: do not object to source tensors without a place in the target.

    Returns:
        A nested dictionary in the shape of the target (an NNX target: by attribute, list
        positions as integers, as `nnx.update` takes it), and the report.

    Raises:
        CoverageError: a leaf is open or cannot be made, a tensor has no place, or a tensor
            taken for tied differs from its twin. All of it in one text.

    >>> variables, report = port_checkpoint(
    ...     {"fc.weight": np.zeros((5, 3))}, {"params": {"fc": {"kernel": np.zeros((3, 5))}}}
    ... )
    >>> variables["params"]["fc"]["kernel"].shape, report.leaves
    ((3, 5), 1)
    """
    start = time.perf_counter()
    if mapping is not None:
        checked("mapping", mapping, Mapping, "Pass what infer_mapping returns, or leave it out.")
    goal = specs_of(target)
    specs, _ = source_specs(source)
    mapping = infer_mapping(source, goal) if mapping is None else mapping
    arrays = arrays_of(source)
    flat, wrong = _fill(mapping, arrays, goal)
    wrong += [f"{path} is open: {why}" for path, why in mapping.unmapped.items()]
    wrong += [f"{path} is open" for path in goal if path not in flat and path not in mapping.unmapped
              and path not in mapping.leaves]  # fmt: skip
    wrong += _left_over(mapping, specs, allow_unused)
    wrong += _false_ties(mapping, arrays)
    if wrong:
        raise CoverageError(
            "\n".join([f"The checkpoint does not fill the target, in {number_of(len(wrong), 'place')}:",
                       *fold(sorted(wrong, key=natural)), *_hints(mapping)])
        )  # fmt: skip
    ported, lines = cast(flat, goal, dtype)
    cast_to = {path: str(a.dtype) for path, a in ported.items() if a.dtype != flat[path].dtype}
    report = PortReport(
        **_counts(mapping, specs, ported),
        casts=lines,
        cast_to=cast_to,
        mapping=mapping,
        seconds=time.perf_counter() - start,
    )
    return _nested(ported, target), report


def _fill(
    mapping: Mapping, arrays: AnyMapping[str, Any], goal: AnyMapping[str, Any]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every leaf that can be made, and a line for every one that cannot."""
    flat: dict[str, np.ndarray] = {}
    wrong: list[str] = []
    cache = {key: array_of(arrays[key]) for leaf in mapping.leaves.values()
             for key in leaf.sources if key in arrays}  # fmt: skip
    for path, leaf in mapping.leaves.items():
        if path not in goal:
            wrong.append(f"{path} has no place in the target")
            continue
        try:
            made = leaf.apply(cache)
        except PortingError as error:
            wrong.append(str(error))
            continue
        if made.shape != tuple(goal[path].shape):
            wrong.append(f"{path} has shape {made.shape}, the target {tuple(goal[path].shape)}")
        flat[path] = made
    return flat, wrong


def _hints(mapping: Mapping) -> list[str]:
    """What to do about a leaf that needs no tensor."""
    if not any(why.startswith(NO_BIAS) for why in mapping.unmapped.values()):
        return []
    return [
        "A bias that the source lacks is zeros: give it a row in a rules file, with the weight "
        "beside it as `source` and join = 'zeros'."
    ]


def _left_over(mapping: Mapping, specs: AnyMapping[str, Any], allowed: bool) -> list[str]:
    if allowed:
        return []
    read = {key for leaf in mapping.leaves.values() for key in leaf.sources}
    lines = []
    for key in specs:
        if key not in read and mapping.unused.get(key, NO_PLACE) == NO_PLACE:
            lines.append(
                f"{key} has {NO_PLACE}; leave it out with an [[ignore]] row, or allow_unused"
            )
    return lines


def _false_ties(mapping: Mapping, arrays: AnyMapping[str, Any]) -> list[str]:
    """Tensors that were taken for a second name of another and hold other values."""
    lines = []
    for key, why in mapping.unused.items():
        twin = why.removeprefix("tied to ")
        if twin == why or twin not in arrays or key not in arrays:
            continue
        mine, other = array_of(arrays[key]), array_of(arrays[twin])
        if not same_bits(mine, other):
            lines.append(f"{key} was taken for another name of {twin}, and their values differ")
    return lines


def _counts(
    mapping: Mapping, specs: AnyMapping[str, Any], flat: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The attributes of a `PortReport` that are read off the mapping and its leaves."""
    used = {key for leaf in mapping.leaves.values() for key in leaf.sources}
    losses = Counter(leaf.join.loses for leaf in mapping.leaves.values() if leaf.join.loses)
    return {
        "leaves": len(flat),
        "keys": len(used),
        "nbytes": sum(array.nbytes for array in flat.values()),
        "rules": dict(Counter(leaf.rule.pattern for leaf in mapping.leaves.values()).most_common()),
        "unused": dict(mapping.unused),
        "unsure": tuple(fold(f"{leaf}: {leaf.reason}" for leaf in mapping.unsure.values())),
        "notes": tuple(
            f"{number_of(n, 'leaf')} cannot be undone: {why}" for why, n in losses.items()
        ),
        "shapes": {key: tuple(specs[key].shape) for key in used},
        "types": frozenset(str(np.dtype(spec.dtype)) for spec in specs.values()),
    }


def _nested(flat: dict[str, np.ndarray], target: Any) -> dict[Any, Any]:
    tree = unflatten(flat)
    is_nnx = not isinstance(target, tuple) and any(
        c.__module__.startswith("flax.nnx") for c in type(target).__mro__
    )
    return _with_positions(tree) if is_nnx else tree


def _with_positions(tree: Any) -> Any:
    """Names that are numbers become integers, as NNX spells positions of a list."""
    if not isinstance(tree, dict):
        return tree
    return {int(k) if k.isdigit() else k: _with_positions(v) for k, v in tree.items()}
