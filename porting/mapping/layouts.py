"""Which rearrangements could make a target leaf from a source leaf, the likely one first.

PyTorch's linear weight is `(out, in)` and its convolution `(out, in, *space)`; Flax keeps
`(in, out)` and `(*space, in, out)`, and splits either side of an attention kernel into
heads. A shape can rule a candidate out; it never rules one in: where several fit, the
first is what the convention says and the rest are the alternatives.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from porting.errors import PortingError
from porting.layouts import Rule
from porting.mapping.units import Part, Pick

SPACE = {1: "k", 2: "h w", 3: "d h w"}


@dataclass(frozen=True)
class Layout:
    """A rearrangement before it is spelled for one source.

    Attributes:
        left: the atoms of every source axis.
        right: the target's axes, as a pattern writes them.
        sizes: sizes of atoms that the source's shape does not tell.
        relation: "moved" (the convention's transpose), "kept" (as it is), "turned" and
            "swapped" (a transposed convolution without and with `transpose_kernel`), "unflat"
            (a linear layer behind a flatten as a convolution), or "" where there is no such
            choice.
    """

    left: tuple[str, ...]
    right: str
    sizes: tuple[tuple[str, int], ...] = ()
    relation: str = ""

    def __str__(self) -> str:
        return str(rule_of(self, None))


def candidates(source: Part, target: Part, role: str, embeds: bool = False) -> list[Layout]:
    """All layouts that lead from `source` to the shape of `target`, the likely one first.

    >>> query = Part(("query.weight",), (32, 32), "weight")
    >>> [str(c) for c in candidates(query, Part(("query/kernel",), (32, 4, 8), "kernel"), "q")]
    ['(h d) i -> i h d; h=4', 'o (h d) -> o h d; h=4']
    """
    return list(_fitting(_blank(source), _blank(target), role, embeds))


def _blank(part: Part) -> Part:
    """What of a leaf its layouts depend on: layers that repeat share it."""
    return Part((), part.shape, part.name, lead=part.lead)


@lru_cache(maxsize=4096)
def _fitting(source: Part, target: Part, role: str, embeds: bool) -> tuple[Layout, ...]:
    found: dict[tuple[tuple[str, ...], str], Layout] = {}
    for layout in _proposals(source, target, role, embeds):
        if _shape(layout, source.shape) == target.shape:
            found.setdefault((layout.left, layout.right), layout)
    return tuple(found.values())


def _proposals(source: Part, target: Part, role: str, embeds: bool) -> Iterator[Layout]:
    shape = source.shape[1:] if source.lead else source.shape
    rank = len(shape)
    if source.name in ("weight", "weight_w") and target.name != "embedding" and rank >= 2:
        made = _linear(shape, target, role) if rank == 2 else _conv(shape, target, role)
        yield from _led(made, source.lead, len(target.shape))
    if embeds or rank < 2 or source.name != "weight" or target.name == "embedding":
        yield from _led(_regroup(shape, target, bool(source.lead)), source.lead, len(target.shape))
    if rank == 2 and source.name != "weight" and target.name in ("kernel", "weight", "w"):
        yield from _led(_linear_flax(), source.lead, len(target.shape))


def _led(made: Iterator[Layout], lead: str, rank: int) -> Iterator[Layout]:
    """The layouts for a source with a leading axis of layers (or parts), at every place."""
    for layout in made:
        if not lead:
            yield layout
            continue
        axes = _axes(layout.right)
        for place in range(len(axes) + 1):
            right = " ".join([*axes[:place], lead, *axes[place:]])
            yield Layout((lead, *layout.left), right, layout.sizes, layout.relation)
        if lead == "p":
            inner = axes[-1].strip("()")
            right = " ".join([*axes[:-1], f"(p {inner})"])
            yield Layout((lead, *layout.left), right, layout.sizes, layout.relation)


def _linear(shape: Sequence[int], target: Part, role: str) -> Iterator[Layout]:
    """(out, in) to (in, out), to heads, and what else fits."""
    out, into = shape
    yield Layout(("o", "i"), "i o", relation="moved")
    yield Layout(("o", "i"), "o i", relation="kept")
    sizes = target.shape
    if len(sizes) > 2 and tuple(n for n in sizes if n != 1) == (into, out):
        yield Layout(("o", "i"), " ".join(["1"] * (len(sizes) - 2) + ["i", "o"]))
    of_out = [(("h", heads),) for heads in _heads(sizes, out)]
    of_into = [(("h", heads),) for heads in _heads(sizes, into)]
    made = [Layout(("h d", "i"), right, h, "moved") for h in of_out for right in ("i h d", "h i d")]
    backed = [Layout(("o", "h d"), "h d o", h, "moved") for h in of_into]
    yield from (backed + made if role == "o" else made + backed)
    yield from (Layout(("o", "h d"), "o h d", h, "kept") for h in of_into)
    yield from (Layout(("h d", "i"), "h d i", h, "kept") for h in of_out)
    if target.name == "kernel" and len(sizes) in (4, 5):
        space = SPACE[len(sizes) - 2]
        known = (("i", sizes[-2]), *zip(space.split(), sizes[:-3], strict=False))
        for read in (f"i {space}", f"{space} i"):
            yield Layout(("o", read), f"{space} i o", known, "unflat")


def _linear_flax() -> Iterator[Layout]:
    yield Layout(("i", "o"), "i o", relation="kept")
    yield Layout(("i", "o"), "o i", relation="moved")


def _heads(sizes: Sequence[int], width: int) -> list[int]:
    """Numbers of heads that two axes of a target could mean."""
    pairs = itertools.combinations(sizes, 2)
    return list(dict.fromkeys(heads for heads, each in pairs if heads * each == width))


def _conv(shape: Sequence[int], target: Part, role: str) -> Iterator[Layout]:
    """(out, in, *space) to (*space, in, out), or a transposed convolution."""
    space = SPACE.get(len(shape) - 2)
    if space is None:
        return
    names = tuple(space.split())
    left = ("o", "i", *names)
    moved = Layout(left, f"{space} i o", relation="moved")
    kept = Layout(left, " ".join(left), relation="kept")
    turned = Layout(
        ("i", "o", *names), f"{' '.join('-' + n for n in names)} i o", relation="turned"
    )
    swapped = Layout(("i", "o", *names), f"{space} o i", relation="swapped")
    if target.name == "weight":
        yield from (kept, moved)
    elif role == "deconv":
        yield from (turned, swapped)
    else:
        yield from (moved, turned, kept)
    if math.prod(shape[2:]) == 1:
        yield Layout(("o", "i", *("1" for _ in names)), "i o", relation="moved")
    if len(target.shape) == 2:
        yield Layout(left, f"({space} i) o")
        yield Layout(left, f"(i {space}) o")


def _regroup(shape: Sequence[int], target: Part, led: bool) -> Iterator[Layout]:
    """The same elements in the same order, axes split, merged, or of size 1."""
    goal = list(target.shape)
    if led:
        tries = [goal[:i] + goal[i + 1 :] for i in range(len(goal))]
        tries.append(list(shape))
    else:
        tries = [goal]
    seen = set()
    for want in tries:
        if tuple(want) in seen:
            continue
        seen.add(tuple(want))
        layout = _two_pointers(list(shape), want)
        if layout:
            yield layout


def _two_pointers(have: list[int], want: list[int]) -> Layout | None:
    if math.prod(have) != math.prod(want):
        return None
    if have == want:
        names = "abcdefgh"[: len(have)]
        return Layout(tuple(names), " ".join(names))
    left: list[str] = []
    right: list[str] = []
    sizes: list[tuple[str, int]] = []
    letters = iter("hd" if len(have) == 1 and len(want) == 2 else "abcdefghijklmn")
    have, want = have[:], want[:]
    while have or want:
        if have and have[0] == 1:
            have.pop(0)
            left.append("1")
        elif want and want[0] == 1:
            want.pop(0)
            right.append("1")
        elif not have or not want:
            return None
        elif have[0] == want[0]:
            name = next(letters)
            have.pop(0)
            want.pop(0)
            left.append(name)
            right.append(name)
        elif not _split(have, want, left, right, sizes, letters):
            return None
    return Layout(tuple(left), " ".join(right), tuple(sizes))


def _split(
    have: list[int], want: list[int], left: list[str], right: list[str],
    sizes: list[tuple[str, int]], letters: Iterator[str],
) -> bool:  # fmt: skip
    """One axis of one side against several of the other."""
    big, small, one, many = (
        (have, want, left, right) if have[0] > want[0] else (want, have, right, left)
    )
    total = big.pop(0)
    taken: list[int] = []
    while math.prod(taken) < total and small:
        taken.append(small.pop(0))
    if math.prod(taken) != total:
        return False
    named = [next(letters) for _ in taken]
    if one is right:
        one.append("(" + " ".join(named) + ")")
        many.extend(named)
    else:
        one.append(" ".join(named))
        many.extend(named)
        sizes.extend(list(zip(named, taken, strict=True))[:-1])
    return True


def _axes(right: str) -> list[str]:
    axes, rest = [], right
    while rest:
        if rest.startswith("("):
            axis, rest = rest[: rest.index(")") + 1], rest[rest.index(")") + 1 :]
        else:
            axis, _, rest = rest.partition(" ")
        axes.append(axis)
        rest = rest.strip()
    return axes


def _shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return _plain_rule(layout).shape(shape)
    except PortingError:
        return None


def _plain_rule(layout: Layout) -> Rule:
    left = [f"({axis})" if " " in axis else axis for axis in layout.left]
    return Rule(f"{' '.join(left)} -> {layout.right}", layout.sizes)


def rule_of(layout: Layout, pick: Pick | None) -> Rule:
    """The layout as a rule on the whole source, with what is picked written into it.

    >>> str(rule_of(Layout(("h d", "i"), "i h d", (("h", 4),)), Pick(0, index=1, count=3)))
    '(p=1 h d) i -> i h d; p=3, h=4'
    """
    if pick is None:
        return _plain_rule(layout)
    left = list(layout.left)
    sizes = dict(layout.sizes)
    axis = pick.axis
    if pick.stop:
        atoms = left[axis]
        left[axis] = (
            f"({atoms})={pick.start}:{pick.stop}"
            if " " in atoms
            else f"{atoms}={pick.start}:{pick.stop}"
        )
        grouped = [f"({a})" if " " in a and "=" not in a else a for a in left]
        return Rule(f"{' '.join(grouped)} -> {layout.right}", sizes)
    if not pick.count:
        left.insert(axis, f"p={pick.index}")
    elif pick.per_head and " " in left[axis]:
        first, *rest = left[axis].split()
        left[axis] = " ".join([first, f"p={pick.index}", *rest])
        sizes = {"p": pick.count, **sizes}
    else:
        left[axis] = f"p={pick.index} {left[axis]}"
        sizes = {"p": pick.count, **sizes}
    grouped = [f"({a})" if " " in a else a for a in left]
    return Rule(f"{' '.join(grouped)} -> {layout.right}", sizes)
