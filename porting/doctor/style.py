"""What a leaf should be where the fault itself misled the mapping: what its likes are.

Names and shapes are all that a mapping sees. A kernel that was forgotten to transpose has
another shape, and the mapping takes it as it is; where a leaf is missing, its layer may look
like another. The other layers, and the other kernels of the same model, tell the odd one out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from porting.doctor.names import in_place, last, numbers, parent, template
from porting.layouts import Rule
from porting.leaves import ONLY, Leaf

Shapes = Mapping[str, Sequence[int]]
Holds = Callable[[Leaf], bool]

#: rank of the source -> the order of its axes in a Flax kernel
USUAL = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}


def order_of(rule: Rule) -> tuple[int, ...] | None:
    """The permutation that a rule is, or None if it is more than that.

    >>> order_of(Rule("o i -> i o")), order_of(Rule("(h d) e -> e h d", {"h": 2}))
    ((1, 0), None)
    """
    left, right = (side.split() for side in rule.pattern.split(" -> "))
    plain = all(name.isidentifier() for name in left + right)
    return tuple(left.index(name) for name in right) if plain else None


def renumbered(
    rows: Mapping[str, Leaf], shapes: Shapes, holds: Holds | None = None
) -> dict[str, Leaf]:
    """The rows, each that leaves its layer brought back, if layers keep their number here.

    That most do, its likes among them, tells it, or else the values of those that do not: where a layer is missing,
    all others may have been taken for the one before. A leaf that has the values of its row
    stays: layers in another order are told by `in_order`, from all leaves of a list.

    Args:
        rows: path -> row.
        shapes: of the source.
        holds: whether the leaf of a row has the values that the row makes.

    >>> names = [("h/0/w", "h.1.w"), *((f"h/{n}/w", f"h.{n}.w") for n in (2, 3, 4, 5))]
    >>> rows = {path: Leaf(path, (key,), Rule("a -> a")) for path, key in names}
    >>> shapes = {f"h.{n}.w": (3,) for n in range(6)}
    >>> renumbered(rows, shapes)["h/0/w"].sources
    ('h.0.w',)
    """
    told = {p: r for p, r in rows.items() if numbers(r.sources[0])}
    odd = [p for p, r in told.items() if not in_place(p, r.sources[0])]
    better = {path: row for path in odd if (row := _in_layer(rows[path], shapes))}
    held = {path for path in better if holds is not None and holds(rows[path])}
    if 5 * len(odd) > len(told):
        moved = sum(map(holds, better.values())) if holds is not None else 0
        better = better if moved > len(held) else {}
    else:
        kept = {template(path) for path in told.keys() - set(odd)}
        better = {path: row for path, row in better.items() if template(path) in kept}
    return {**rows, **{path: row for path, row in better.items() if path not in held}}


def _in_layer(row: Leaf, shapes: Shapes) -> Leaf | None:
    """The row with the source that has the numbers of its path, or None if there is none."""
    keys = tuple(key for source in row.sources if (key := _numbered(source, row.path, shapes)))
    if len(keys) < len(row.sources):
        return None
    sure = {"confident": True, "alternatives": ()} if hasattr(row, "confident") else {}
    return replace(row, sources=keys, **sure)  # type: ignore[arg-type]


def _numbered(source: str, path: str, shapes: Shapes) -> str | None:
    """The key like `source` that has the numbers of `path`, if there is one of its shape."""
    shape = tuple(shapes[source])
    alike = [k for k in shapes if template(k) == template(source) and tuple(shapes[k]) == shape]
    there = [k for k in alike if in_place(path, k)]
    return max(there, key=lambda k: _shared(numbers(k), numbers(source)), default=None)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """In how many places two keys of one form have the same number."""
    return sum(x == y for x, y in zip(a, b, strict=True))


def restyled(
    rows: Mapping[str, Leaf], shapes: Shapes, holds: Holds | None = None
) -> dict[str, Leaf]:
    """The rows, each plain permutation that stands alone against its likes put in line.

    Args:
        rows: what an inferred mapping says.
        shapes: of the source tensors.
        holds: whether a leaf has the values that another row would give it; asked only
            where as many shapes speak for one layout as for another.

    >>> rows = [Leaf(f"h_{n}/kernel", (f"h.{n}.weight",), Rule("o i -> i o")) for n in range(3)]
    >>> rows.append(Leaf("h_3/kernel", ("h.3.weight",), Rule("o i -> o i")))
    >>> shapes = {f"h.{n}.weight": (5, 3) for n in range(4)}
    >>> str(restyled({r.path: r for r in rows}, shapes)["h_3/kernel"].rule)
    'o i -> i o'
    """
    rows = {path: _as_convolution(row, shapes) for path, row in rows.items()}
    groups: dict[tuple[object, ...], list[Leaf]] = {}
    for row in rows.values():
        plain = row.join is ONLY and len(row.sources) == 1 and order_of(row.rule) is not None
        if plain and len(shapes.get(row.sources[0], ())) > 1:
            groups.setdefault(_family(row, shapes), []).append(row)
    out = dict(rows)
    for family, likes in groups.items():
        telling = [row for row in likes if _oblong(row, shapes)]
        if len(telling) == 1 and holds is not None and _backed(telling[0], likes, holds):
            continue
        order, touched = _usual_of(telling or likes, family), telling or likes
        if telling and holds is not None:
            squares = [row for row in likes if row not in telling]
            if order is None:
                order, touched = _held_by_most(likes, telling, holds), likes
            elif _outvoted(order, squares, family, holds):
                usual = USUAL[len(order)]
                if not any(_out_first(row, shapes) for row in telling):
                    out |= {row.path: _questioned(row, usual) for row in squares}
                    continue
                order, touched = usual, likes
            else:
                touched = [*telling, *(row for row in squares if holds(_ordered(row, order)))]
        for row in touched:
            if order is not None and order_of(row.rule) != order:
                out[row.path] = _ordered(row, order)
    return out


def _oblong(row: Leaf, shapes: Shapes) -> bool:
    """Whether the shape of a leaf tells its layout: not all axes are of one size."""
    return len(set(shapes[row.sources[0]])) > 1


def _usual_of(rows: Sequence[Leaf], family: tuple[object, ...]) -> tuple[int, ...] | None:
    """The order of most rows; that of Flax for a single kernel; None where they are at odds."""
    name, rank, front = family
    (first, most), *rest = Counter(order_of(row.rule) for row in rows).most_common(2)
    if len(rows) == 1 and name == "kernel":
        return (0, 1) if front is False else USUAL.get(int(str(rank)))
    return first if not rest or most >= 2 * rest[0][1] else None


def _backed(row: Leaf, likes: Sequence[Leaf], holds: Holds) -> bool:
    """Whether a lone kernel has the values of its row, and its square likes lie as it does."""
    others = (replace(other, rule=row.rule) for other in likes if other is not row)
    return holds(row) and any(map(holds, others))


def _outvoted(
    order: tuple[int, ...], squares: Sequence[Leaf], family: tuple[object, ...], holds: Holds
) -> bool:
    """Whether shapes speak for an order that is not Flax's, and the values of squares for Flax's.

    Then the oblong kernels were left as they are, and the squares are right. A source with
    `in` in front (GPT-2) is ported in both ways, so there the shapes have the last word.
    """
    name, rank, front = family
    usual = USUAL.get(int(str(rank)))
    if name != "kernel" or usual is None or front is False or order == usual:
        return False
    right, left = (sum(holds(_ordered(row, o)) for row in squares) for o in (usual, order))
    return right > 0 and right >= 2 * left


def _held_by_most(
    likes: Sequence[Leaf], telling: Sequence[Leaf], holds: Holds
) -> tuple[int, ...] | None:
    """Of the orders that shapes speak for, the one that more leaves have by their values."""
    orders = {order for row in telling if (order := order_of(row.rule))}
    votes = {o: sum(holds(_ordered(row, o)) for row in likes) for o in orders}
    best, *others = sorted(orders, key=lambda o: -votes[o])
    return best if not others or votes[best] > votes[others[0]] else None


def _as_convolution(row: Leaf, shapes: Shapes) -> Leaf:
    """A kernel that was read as a transposed convolution, if its bias tells that it is none."""
    shape = tuple(shapes.get(row.sources[0], ()))
    bias = tuple(shapes.get(f"{parent(row.sources[0])}.bias", ()))
    turned = "-" in row.rule.pattern.split("->")[1] and len(row.sources) == 1
    if turned and len(shape) > 2 and bias == shape[:1] and bias != shape[1:2]:
        return replace(row, rule=_rule(USUAL[len(shape)]))
    return row


def _family(row: Leaf, shapes: Shapes) -> tuple[object, ...]:
    """What rows must share to be laid out alike: name, rank, and whether `out` is in front."""
    key = row.sources[0]
    shape = tuple(shapes[key])
    bias = shapes.get(f"{parent(key)}.bias")
    front = None
    if bias is not None and len(shape) == 2 and shape[0] != shape[1] and len(bias) == 1:
        front = shape[0] == bias[0]
    if front is None and len(shape) == 2:
        front = _front_of_likes(key, shapes)
    return (last(row.path), len(shape), front)


def _front_of_likes(key: str, shapes: Shapes) -> bool:
    """Whether `out` comes first in the source: so in PyTorch, but for GPT-2's Conv1D."""
    stem, numbered, _ = template(key).partition("#")
    oblong = (k for k, s in shapes.items() if numbered and len(s) == 2 and s[0] != s[1])
    for other in oblong:
        bias = shapes.get(f"{parent(other)}.bias")
        if bias is not None and template(other).partition("#")[0] == stem:
            return tuple(bias) == (shapes[other][0],)
    return True


def _out_first(row: Leaf, shapes: Shapes) -> bool:
    """Whether the bias beside an oblong kernel proves that `out` comes first in the source."""
    bias = shapes.get(f"{parent(row.sources[0])}.bias")
    return bias is not None and tuple(bias) == tuple(shapes[row.sources[0]])[:1]


def _questioned(row: Leaf, order: Sequence[int]) -> Leaf:
    """The row as one of two readings, its axes in `order` being the other."""
    if not hasattr(row, "confident"):
        return row
    reason = "the oblong kernels lie in one order, and the square ones in another"
    doubt = {"confident": False, "reason": reason, "alternatives": (_ordered(row, order),)}
    return replace(row, **doubt)  # type: ignore[arg-type]


def _ordered(row: Leaf, order: Sequence[int]) -> Leaf:
    """The row with its axes in another order."""
    return replace(row, rule=_rule(order))


def _rule(order: Sequence[int]) -> Rule:
    names = {2: "o i", 3: "o i k", 4: "o i h w", 5: "o i d h w"}[len(order)].split()
    return Rule(f"{' '.join(names)} -> {' '.join(names[a] for a in order)}")
