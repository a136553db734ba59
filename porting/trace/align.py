"""The axes of a reference's array brought into the candidate's order, with a label.

An alignment only undoes a difference of convention: channels first or last, heads split or
merged, batch or sequence first, the order of a flatten. Exchanged heights and widths, heads
and their width, or gates are not in the table: those are faults, and no alignment hides
them. It is chosen by the kind of the layer where that tells (a PyTorch convolution is
channels first), then by the shape, and by content only where both leave a choice; `by` says
which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from porting.layouts import Rule, identity

AS_IS = "as is"
CHANNELS_LAST = "channels last"
#: (rule from the reference to the candidate, what it is called)
CONVENTIONS = (
    ("n c l -> n l c", CHANNELS_LAST),
    ("n c h w -> n h w c", CHANNELS_LAST),
    ("n c d h w -> n d h w c", CHANNELS_LAST),
    ("c h w -> h w c", CHANNELS_LAST),
    ("n c h w -> n (h w) c", "channels last, positions flattened"),
    ("b t (h d) -> b t h d", "heads split"),
    ("b t (h d) -> b h t d", "heads split and moved forward"),
    ("b h t d -> b t h d", "heads moved behind positions"),
    ("b t h d -> b t (h d)", "heads merged"),
    ("b h t d -> b t (h d)", "heads moved behind positions and merged"),
    ("b h t d -> (b h) t d", "heads joined with the batch"),
    ("t b e -> b t e", "batch first"),
    ("b t e -> (b t) e", "positions joined with the batch"),
    ("b t -> (b t)", "positions joined with the batch"),
    ("n c 1 1 -> n c", "unit axes dropped"),
    ("n 1 c -> n c", "unit axes dropped"),
    ("1 n c -> n c", "unit axes dropped"),
    ("n c 1 -> n c", "unit axes dropped"),
)
_INVERSES = tuple(
    (Rule(pattern).inverse().pattern, f"{label}, undone") for pattern, label in CONVENTIONS
)
_SPATIAL = re.compile(
    r"conv|pool|batchnorm|norm\dd|instancenorm|groupnorm|upsample|pixelshuffle", re.I
)
#: Largest difference of two arrays that agree in content, of their largest value.
AGREES = 1e-4


@dataclass(frozen=True)
class Alignment:
    """How a reference's array is turned to lie on the candidate's.

    Attributes:
        rule: the rearrangement.
        label: what it is called.
        by: what chose it: `kind`, `shape` or `content`.
        shape: the shape of the reference's array.
    """

    rule: Rule
    label: str
    by: str
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.label if self.label == AS_IS else f"{self.label} (by {self.by}): {self.rule}"

    @property
    def note(self) -> str:
        """What to know where the shapes alone would have left the axes as they are."""
        chosen = self.by == "content" and self.rule.shape(self.shape) == self.shape
        return f"agrees only with {self.label}; as it is, it would part" if chosen else ""

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The reference's array in the candidate's order."""
        return np.asarray(self.rule.apply(array))


def is_spatial(kind: str) -> bool:
    """Whether PyTorch keeps the channels of this kind of layer before its positions.

    >>> is_spatial("Conv2d"), is_spatial("LayerNorm")
    (True, False)
    """
    return bool(_SPATIAL.search(kind)) and "Conv1D" not in kind


def fit(pattern: str, given: Sequence[int], wanted: Sequence[int]) -> Rule | None:
    """The rule of `pattern` that takes one shape to the other, its sizes worked out.

    >>> str(fit("b t (h d) -> b t h d", (2, 3, 20), (2, 3, 4, 5)))
    'b t (h d) -> b t h d; h=4, d=5'
    >>> fit("n c l -> n l c", (2, 3, 5), (2, 3, 5)) is None
    True
    """
    sides = [re.findall(r"\([^)]*\)|\S+", side) for side in pattern.split("->")]
    sizes: dict[str, int] = {"1": 1}
    pairs = list(zip(sides[0] + sides[1], [*given, *wanted], strict=False))
    if [len(side) for side in sides] != [len(given), len(wanted)]:
        return None
    for axis, length in sorted(pairs, key=lambda pair: "(" in pair[0]):
        names = axis.strip("()").split()
        unknown = [name for name in names if name not in sizes]
        known = math.prod(sizes[name] for name in names if name in sizes)
        if len(unknown) > 1 or (length % known if unknown and known else length != known):
            return None
        for name in unknown:
            sizes[name] = length // known if known else 0
    grouped = re.findall(r"\w+", " ".join(re.findall(r"\([^)]*\)", pattern)))
    return Rule(pattern, {name: sizes[name] for name in grouped})


def options(
    reference: Sequence[int], candidate: Sequence[int], flattened: Iterable[Sequence[int]] = ()
) -> list[tuple[Rule, str]]:
    """Every convention that takes one shape to the other; "as is" first.

    Args:
        reference: a shape.
        candidate: a shape.
        flattened: (channels, height, …) of the stages before, that a flatten may have joined.
    """
    found = []
    if tuple(reference) == tuple(candidate):
        found.append((identity(len(reference)), AS_IS))
        found += [
            (
                Rule("n (c p) -> n (p c)", {"c": channels, "p": math.prod(positions)}),
                "flatten order",
            )
            for channels, *positions in flattened
            if len(reference) == 2 and channels * math.prod(positions) == reference[1]
        ]
    known: set[str] = set()
    for pattern, label in CONVENTIONS + _INVERSES:
        rule = fit(pattern, reference, candidate)
        if rule is not None and _plain(pattern) not in known:
            known.add(_plain(pattern))
            found.append((rule, label))
    return found


def _plain(pattern: str) -> str:
    """The pattern with its axes named in order, so that equal rules look equal."""
    names: dict[str, str] = {}
    return re.sub(r"[a-z]+", lambda m: names.setdefault(m[0], f"x{len(names)}"), pattern)


def align(
    reference: np.ndarray,
    candidate: np.ndarray,
    channels_first: bool = False,
    flattened: Iterable[Sequence[int]] = (),
    spatial: bool = False,
) -> Alignment | None:
    """The alignment of a reference's array with a candidate's, or None if no convention fits.

    Args:
        reference: an array.
        candidate: an array of the same number of elements.
        channels_first: whether the layer's kind says that the reference is channels first
            and the candidate channels last.
        flattened: see `options`.
        spatial: whether the layer works on images: then its axes can only be as they are, or
            turned between channels first and last; an exchange of height and width shows.

    >>> x = np.arange(210.0).reshape(2, 3, 5, 7)
    >>> str(align(x, x.transpose(0, 2, 3, 1)))
    'channels last (by shape): n c h w -> n h w c'
    """
    if reference.size != candidate.size:
        return None
    found = options(reference.shape, candidate.shape, flattened)
    if spatial:
        found = [(rule, label) for rule, label in found if label.startswith((AS_IS, CHANNELS_LAST))]
    if not found:
        return None
    if channels_first:
        for rule, label in found:
            if label == CHANNELS_LAST:
                return Alignment(rule, label, "kind", reference.shape)
    if len(found) == 1:
        return Alignment(*found[0], "shape", reference.shape)
    for rule, label in found:
        if agrees(rule.apply(reference), candidate):
            by = "shape" if label == AS_IS else "content"
            return Alignment(rule, label, by, reference.shape)
    return Alignment(*found[0], "shape", reference.shape)


def agrees(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one shape hold the same numbers, but for rounding."""
    if a.dtype.kind in "biu" or b.dtype.kind in "biu":
        return bool(np.array_equal(a, b))
    with np.errstate(invalid="ignore", over="ignore"):
        scale = float(np.max(np.abs(a), initial=0.0))
        return bool(np.max(np.abs(a - b), initial=0.0) <= AGREES * scale)


def align_inputs(
    reference: Mapping[str, np.ndarray],
    candidate: Mapping[str, np.ndarray],
    channels_first: bool = False,
    flattened: Iterable[Sequence[int]] = (),
    spatial: bool = False,
) -> dict[str, tuple[str, Alignment]]:
    """Candidate input -> (reference input, alignment): by equal name, then in order.

    Only arrays of one sort pair (floating with floating, integer with integer), each once. A
    boolean mask and its negation do not: which of them hides is for their readers to say.
    """
    pairs: dict[str, tuple[str, Alignment]] = {}
    left = dict(reference)
    flattened = tuple(flattened)
    for name, array in candidate.items():
        for other in sorted(left, key=lambda o: o != name):
            both = left[other], array
            if _sort(both[0]) != _sort(both[1]):
                continue
            alignment = align(*both, channels_first, flattened, spatial)
            if alignment is not None and not _negated(alignment.apply(both[0]), array):
                pairs[name] = (other, alignment)
                del left[other]
                break
    return pairs


def _negated(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype == bool and np.array_equal(a, ~b)


def _sort(array: np.ndarray) -> str:
    return {"i": "integer", "u": "integer", "b": "boolean"}.get(array.dtype.kind, "floating")
