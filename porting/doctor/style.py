"""What a leaf should be where the fault itself misled the mapping: what its likes are.

Names and shapes are all that a mapping sees. A kernel that was forgotten to transpose has
another shape, and the mapping takes it as it is; where a leaf is missing, its layer may look
like another. The other layers, and the other kernels of the same model, tell the odd one out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from porting.doctor.fronts import out_first, out_in_front
from porting.doctor.names import last, parent
from porting.doctor.renumbered import sure
from porting.layouts import Rule
from porting.leaves import ONLY, STACK, Leaf
from porting.mapping.evidence import CONV1D
from porting.mapping.names import components, role

Shapes = Mapping[str, Sequence[int]]
Holds = Callable[[Leaf], bool]

#: rank of the source -> the order of its axes in a Flax kernel
USUAL = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}

#: rank -> the port of a transposed convolution, written with the axes of a convolution
TURNED = {3: "o i k -> -k o i", 4: "o i h w -> -h -w o i", 5: "o i d h w -> -d -h -w o i"}


def order_of(rule: Rule) -> tuple[int, ...] | None:
    """The permutation that a rule is, or None if it is more than that.

    >>> order_of(Rule("o i -> i o")), order_of(Rule("(h d) e -> e h d", {"h": 2}))
    ((1, 0), None)
    """
    left, right = (side.split() for side in rule.pattern.split(" -> "))
    plain = all(name.isidentifier() for name in left + right)
    return tuple(left.index(name) for name in right) if plain else None


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
        plain = row.join in (ONLY, STACK) and not deconvolves(row.path)
        if plain and order_of(row.rule) is not None and len(shapes.get(row.sources[0], ())) > 1:
            groups.setdefault(_family(row, shapes), []).append(row)
    found = (_in_line(likes, family, shapes, holds) for family, likes in groups.items())
    return {**rows, **{row.path: row for made in found for row in made}}


def _in_line(
    likes: Sequence[Leaf], family: tuple[object, ...], shapes: Shapes, holds: Holds | None
) -> list[Leaf]:
    """The rows of one family that should be read in another order, in that order."""
    telling = [row for row in likes if _oblong(row, shapes)]
    order, touched = _usual_of(telling or likes, family), telling or likes
    if holds is not None:
        squares = [row for row in likes if row not in telling]
        usual = _flax_order(family)
        if (
            usual
            and _flax_kernels(likes, family)
            and out_first([row.sources[0] for row in telling], shapes)
        ):
            return [sure(_ordered(row, usual)) for row in likes]
        if len(telling) == 1 and _backed(telling[0], likes, holds):
            return []
        if order is None:
            order, touched = _held_by_most(likes, telling, holds, family), likes
        elif usual and telling and _as_in_pytorch(order, likes, family):
            return [_questioned(_ordered(row, usual), order) for row in likes]
        elif not telling and _outvoted(order, squares, family, holds):
            order = usual
        elif telling:
            touched = [*telling, *(row for row in squares if holds(_ordered(row, order)))]
    if order is None:
        return []
    return [_ordered(row, order) for row in touched if order_of(row.rule) != order]


def deconvolves(path: str) -> bool:
    """Whether the name of a leaf's module says that it is a transposed convolution.

    >>> deconvolves("gen/deconv1/kernel"), deconvolves("gen/conv1/kernel")
    (True, False)
    """
    return role(components(parent(path))) == "deconv"


def _oblong(row: Leaf, shapes: Shapes) -> bool:
    """Whether the shape of a leaf tells its layout: not all axes are of one size."""
    return len(set(shapes[row.sources[0]])) > 1


def _usual_of(rows: Sequence[Leaf], family: tuple[object, ...]) -> tuple[int, ...] | None:
    """The order of most rows; that of Flax for a single kernel; None where they are at odds."""
    name, _, front, led = family
    (first, most), *rest = Counter(order_of(row.rule) for row in rows).most_common(2)
    if len(rows) == 1 and name == "kernel" and not led:
        return (0, 1) if front is False else _flax_order(family)
    return first if not rest or most >= 2 * rest[0][1] else None


def _flax_order(family: tuple[object, ...]) -> tuple[int, ...] | None:
    """The order of the axes of a Flax kernel, behind that of the stacked tensors if there is one."""
    _, rank, _, led = family
    order = USUAL.get(int(str(rank)))
    return (0, *(axis + 1 for axis in order)) if led and order else order


def _backed(row: Leaf, likes: Sequence[Leaf], holds: Holds) -> bool:
    """Whether a lone kernel has the values of its row, and its square likes lie as it does."""
    others = (replace(other, rule=row.rule) for other in likes if other is not row)
    return holds(row) and any(map(holds, others))


def _as_in_pytorch(
    order: tuple[int, ...], likes: Sequence[Leaf], family: tuple[object, ...]
) -> bool:
    """Whether shapes speak for Flax kernels that were left as PyTorch has them.

    A source with `in` in front (GPT-2) is ported in both ways, so there the shapes have the
    last word.
    """
    named = {last(parent(row.sources[0]).replace(".", "/")) for row in likes}
    kept = order == tuple(range(len(order))) and not named & CONV1D
    return kept and _flax_kernels(likes, family)


def _outvoted(
    order: tuple[int, ...], squares: Sequence[Leaf], family: tuple[object, ...], holds: Holds
) -> bool:
    """Whether kernels that are all square were taken for another order than Flax's, and have it."""
    usual = _flax_order(family)
    if not _flax_kernels(squares, family) or usual is None or order == usual:
        return False
    right, left = (sum(holds(_ordered(row, o)) for row in squares) for o in (usual, order))
    return right > 0 and right >= 2 * left


def _flax_kernels(rows: Sequence[Leaf], family: tuple[object, ...]) -> bool:
    """Whether rows are Flax kernels of weights that PyTorch keeps with `out` in front."""
    name, _, front, _ = family
    return name == "kernel" and front is not False and all(
        last(row.sources[0]) == "weight" for row in rows
    )  # fmt: skip


def _held_by_most(
    likes: Sequence[Leaf], telling: Sequence[Leaf], holds: Holds, family: tuple[object, ...]
) -> tuple[int, ...] | None:
    """Of the orders that shapes speak for, the one that more leaves have by their values.

    Where as many have one as the other, it is that of Flax.
    """
    orders = {order for row in telling or likes if (order := order_of(row.rule))}
    votes = {o: sum(holds(_ordered(row, o)) for row in likes) for o in orders}
    usual = _flax_order(family) if _flax_kernels(likes, family) else None
    best, *others = sorted(orders, key=lambda o: (-votes[o], o != usual))
    alone = not others or votes[best] > votes[others[0]] or best == usual
    return best if alone else None


def _as_convolution(row: Leaf, shapes: Shapes) -> Leaf:
    """A kernel that was read as a transposed convolution, if its bias tells that it is none."""
    shape = tuple(shapes.get(row.sources[0], ()))
    bias = tuple(shapes.get(f"{parent(row.sources[0])}.bias", ()))
    turned = "-" in row.rule.pattern.split("->")[1] and len(row.sources) == 1
    if turned and len(shape) > 2 and bias == shape[:1] and bias != shape[1:2]:
        return replace(row, rule=_rule(USUAL[len(shape)]))
    return row


def _family(row: Leaf, shapes: Shapes) -> tuple[object, ...]:
    """What rows must share: name, rank, whether `out` is in front, whether they are stacked."""
    key = row.sources[0]
    rank = len(shapes[key])
    front = out_in_front(key, shapes) if rank == 2 else None
    return (last(row.path), rank, front, row.join is not ONLY)


def _questioned(row: Leaf, order: Sequence[int]) -> Leaf:
    """The row as one of two readings, its axes in `order` being the other."""
    if not hasattr(row, "confident"):
        return row
    reason = "its kernels lie as PyTorch has them, and those of Flax are transposed"
    doubt = {"confident": False, "reason": reason, "alternatives": (_ordered(row, order),)}
    return replace(row, **doubt)  # type: ignore[arg-type]


def _ordered(row: Leaf, order: Sequence[int]) -> Leaf:
    """The row with its axes in another order."""
    return replace(row, rule=_rule(order, row.join is not ONLY))


def _rule(order: Sequence[int], led: bool = False) -> Rule:
    plain = {2: "o i", 3: "o i k", 4: "o i h w", 5: "o i d h w"}[len(order) - led].split()
    names = ["p", *plain] if led else plain
    return Rule(f"{' '.join(names)} -> {' '.join(names[a] for a in order)}")
