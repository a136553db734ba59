"""`Mapping`: which source tensor becomes which target leaf, how, and how surely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.errors import number_of
from porting.leaves import Leaf
from porting.tree import fold, leaves

if TYPE_CHECKING:
    from pathlib import Path

#: the reason of a source key that is left over without an excuse
NO_PLACE = "no place in the target"


def arrays_of(source: Any) -> AnyMapping[str, Any]:
    """`source` by key: as it is if its values are leaves, else its flattened leaves."""
    if hasattr(source, "specs"):
        return source
    if isinstance(source, AnyMapping) and all(hasattr(v, "shape") for v in source.values()):
        return source
    return leaves(source)


def specs_of(side: Any) -> dict[str, Any]:
    """path or key -> shape and dtype; a checkpoint is not read for it."""
    return dict(side.specs) if hasattr(side, "specs") else leaves(side)


@dataclass(frozen=True)
class MappedLeaf(Leaf):
    """One target leaf: where it comes from, by which rule, and how surely.

    Attributes:
        confident: whether names and structure leave no second reading.
        reason: one sentence for the person who reviews it.
        alternatives: the other readings, each a `Leaf`; empty where there is none.
    """

    confident: bool = True
    reason: str = ""
    alternatives: tuple[Leaf, ...] = field(default=(), compare=False)

    def apply(self, source: Any) -> np.ndarray:
        """The leaf's array, a view of the source where the rule allows it."""
        flat = isinstance(source, AnyMapping) and all(
            hasattr(source.get(key), "shape") for key in self.sources
        )
        return super().apply(source if flat else arrays_of(source))

    def chosen(self, leaf: Leaf) -> MappedLeaf:
        """This leaf, read as a person chose."""
        return MappedLeaf(self.path, leaf.sources, leaf.rule, leaf.join, True, "chosen by a person")


@dataclass(frozen=True)
class Mapping:
    """The table of a port.

    Attributes:
        leaves: target path -> where it comes from.
        unmapped: target path -> why it is open.
        unused: source key -> why it is not read. `NO_PLACE` is no excuse; all else is.

    >>> from porting.mapping import infer_mapping
    >>> found = infer_mapping({"fc.weight": np.zeros((5, 3))}, {"fc": {"kernel": np.zeros((3, 5))}})
    >>> print(found.leaves["fc/kernel"])
    fc/kernel <- fc.weight by o i -> i o
    """

    leaves: dict[str, MappedLeaf]
    unmapped: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return (
            _essence(self) == _essence(other)
            and self.unmapped.keys() == other.unmapped.keys()
            and self.unused.keys() == other.unused.keys()
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def unsure(self) -> dict[str, MappedLeaf]:
        """The leaves that are a question to the person."""
        return {path: leaf for path, leaf in self.leaves.items() if not leaf.confident}

    @property
    def left_over(self) -> list[str]:
        """Source keys that have no place in the target and no excuse."""
        return [key for key, why in self.unused.items() if why == NO_PLACE]

    def choose(self, path: str, leaf: Leaf) -> Mapping:
        """The mapping with one leaf decided by a person."""
        return Mapping(
            {**self.leaves, path: self.leaves[path].chosen(leaf)}, self.unmapped, self.unused
        )

    def to_rules(self) -> str:
        """The mapping as a TOML table to review; `Mapping.from_rules` reads it back."""
        from porting.mapping.rows import write_rules

        return write_rules(self)

    @classmethod
    def from_rules(cls, rules: str | Path, source: Any, target: Any) -> Mapping:
        """The mapping that a rules file (its text or its path) describes.

        Raises:
            RuleError: the file cannot be read, or a row fits nothing.
        """
        from porting.mapping.rules import read_rules

        return read_rules(rules, source, target)

    def __str__(self) -> str:
        total = len(self.leaves) + len(self.unmapped)
        lines = [
            f"{len(self.leaves) - len(self.unsure)} of {number_of(total, 'leaf')} sure, "
            f"{len(self.unsure)} unsure, {len(self.unmapped)} open; "
            f"{number_of(len(self.left_over), 'source key')} without a place"
        ]
        lines += fold(f"unsure: {leaf}: {leaf.reason}" for leaf in self.unsure.values())
        lines += fold(f"open: {path}: {why}" for path, why in self.unmapped.items())
        reasons = Counter(self.unused.values())
        lines += [f"unused: {number_of(n, 'key')}: {why}" for why, n in reasons.items()]
        return "\n".join(lines)


def _essence(mapping: Mapping) -> dict[str, tuple[Any, ...]]:
    return {
        path: (leaf.sources, leaf.rule, leaf.join.name, leaf.confident)
        for path, leaf in mapping.leaves.items()
    }
