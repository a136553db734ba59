"""`unport_checkpoint`: a mapping run backwards, from Flax leaves to the source's tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as AnyMapping
from typing import Any

import numpy as np

from porting.errors import CoverageError, checked
from porting.leaves import unport_leaves
from porting.mapping.result import Mapping, specs_of
from porting.tree import fold, leaves


def unport_checkpoint(
    variables: Any, source_specs: AnyMapping[str, Any], mapping: Mapping
) -> dict[str, np.ndarray]:
    """The source tensors that `variables` came from: the mapping run backwards.

    There and back is bit-equal wherever the mapping's joins lose nothing (`Join.loses`).
    A tied key gets its twin's values, `num_batches_tracked` zero, `position_ids` a range.
    Other buffers are left out: PyTorch computes them when the module is made.

    Args:
        variables: the tree that `port_checkpoint` returned, trained or not.
        source_specs: source key -> anything with `.shape` and `.dtype`.
        mapping: the mapping of the port.

    Returns:
        key -> C-contiguous array in the source's dtype, in the order of `source_specs`.

    Raises:
        CoverageError: a leaf is missing, or two leaves that share a tensor have come apart.

    >>> from porting.mapping import port_checkpoint
    >>> specs = {"fc.weight": np.zeros((5, 3))}
    >>> variables, report = port_checkpoint(specs, {"fc": {"kernel": np.zeros((3, 5))}})
    >>> unport_checkpoint(variables, specs, report.mapping)["fc.weight"].shape
    (5, 3)
    """
    checked("mapping", mapping, Mapping, "Pass the mapping of the port, report.mapping.")
    flat = leaves(variables)
    specs = specs_of(source_specs)
    _all_there("variables", flat, mapping.leaves)
    _all_there("source specs", specs, [k for leaf in mapping.leaves.values() for k in leaf.sources])
    table = list(mapping.leaves.values())
    made = unport_leaves(table, flat, specs)
    _check_shared(mapping, flat, made)
    for key, why in mapping.unused.items():
        twin = why.removeprefix("tied to ")
        if twin in made and twin != why and tuple(specs[twin].shape) == tuple(specs[key].shape):
            made[key] = made[twin]
        elif re.search(r"(^|[./])num_batches_tracked$", key):
            made[key] = np.zeros(tuple(specs[key].shape), specs[key].dtype)
        elif re.search(r"(^|[./])position_ids$", key):
            row = np.arange(specs[key].shape[-1], dtype=specs[key].dtype)
            made[key] = np.broadcast_to(row, specs[key].shape).copy()
    return {
        key: np.asarray(made[key], dtype=specs[key].dtype, order="C")
        for key in specs
        if key in made
    }


def _all_there(what: str, given: AnyMapping[str, Any], names: Iterable[str]) -> None:
    missing = [f"{name} is missing" for name in names if name not in given]
    if missing:
        raise CoverageError("\n".join([f"The {what} are not complete:", *fold(missing)]))


def _check_shared(
    mapping: Mapping, flat: AnyMapping[str, Any], made: AnyMapping[str, np.ndarray]
) -> None:
    """Leaves that read one tensor must agree on it (a tied head that was trained apart)."""
    readers = Counter(key for leaf in mapping.leaves.values() for key in set(leaf.sources))
    apart = []
    for path, leaf in mapping.leaves.items():
        if leaf.join.loses or all(readers[key] == 1 for key in leaf.sources):
            continue
        again = leaf.apply(made).astype(flat[path].dtype, copy=False)
        if not same_bits(np.asarray(flat[path]), again):
            apart.append(f"{path} differs from another leaf of {', '.join(leaf.sources)}")
    if apart:
        raise CoverageError(
            "\n".join(["Leaves that share one tensor have come apart (were they trained untied?):",
                       *fold(apart)])
        )  # fmt: skip


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree in shape, dtype and every bit (NaN included)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    mine, other = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return bool(np.array_equal(mine, other))
