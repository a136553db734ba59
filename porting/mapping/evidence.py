"""What the neighbours say about a square weight, and about a weight behind a flatten."""

from __future__ import annotations

import math
from collections.abc import Sequence

from porting.mapping.layouts import Layout, candidates
from porting.mapping.match import Pair
from porting.mapping.units import Part, Unit

#: names of the one layer whose PyTorch weight is (in, out) already
CONV1D = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})


class Relations:
    """Which weights of this port are transposed, learnt from those that are not square.

    A square weight fits as it is and transposed. Its siblings that are not square fit one
    way only; the nearest of them decide. Without any, the convention of the two names does.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._known: list[tuple[tuple[str, ...], str]] = []
        for pair in pairs:
            source, target = pair.source.parts.get("w"), pair.target.parts.get("w")
            if source is None or target is None or pair.source.is_norm:
                continue
            found = {c.relation for c in candidates(source, target, pair.target.role)}
            relation = _packed_relation(source) or (found.pop() if len(found) == 1 else "")
            if relation:
                self._known.append((pair.source.path, relation))

    def choose(self, pair: Pair, slot: str, fits: list[Layout]) -> tuple[Layout, list[Layout], str]:
        """The layout for one leaf, the other readings, and the doubt that is left."""
        relations = {layout.relation for layout in fits}
        if slot not in ("w", "v") or not {"moved", "kept"} <= relations:
            return fits[0], [], ""
        packed = _packed_relation(pair.source.parts.get(slot))
        said, depth = ({packed}, 1) if packed else self._nearest(pair.source.path)
        own = next((c for c in reversed(pair.source.path) if not c.isdigit()), "")
        chosen, doubt = fits[0].relation, ""
        if len(said) > 1:
            doubt = "its neighbours disagree about the transpose, and it is square"
        elif said and (depth or chosen in said):
            chosen = next(iter(said))
        elif said or own in CONV1D or pair.target.parts["w"].name == "weight":
            doubt = "it is square, and nothing says whether it is stored (out, in) or (in, out)"
        first = next(layout for layout in fits if layout.relation == chosen)
        return first, [layout for layout in fits if layout is not first], doubt

    def _nearest(self, path: tuple[str, ...]) -> tuple[set[str], int]:
        """What the nearest modules with an answer say, and how deep they share the path."""
        best = -1
        said: set[str] = set()
        same: set[str] = set()
        for other, relation in self._known:
            depth = next(
                (i for i, (a, b) in enumerate(zip(path, other, strict=False)) if a != b), 0
            )
            if depth > best:
                best, said = depth, set()
            if depth == best:
                said.add(relation)
            if other[-1:] == path[-1:]:
                same.add(relation)
        if len(said) > 1 and len(same) == 1:
            return same, max(best, 0)
        return said, max(best, 0)


def _packed_relation(part: Part | None) -> str:
    """What a packed weight says of its parts: its outputs lie along the packed axis."""
    if part is None or part.pick is None or not (part.pick.count or part.pick.stop):
        return ""
    return "moved" if part.pick.axis == 0 else "kept"


def flatten_readings(
    pair: Pair, slot: str, layout: Layout, sources: Sequence[Unit]
) -> list[Layout]:
    """The readings of a linear weight whose input is a flattened image, [] for any other.

    PyTorch flattens (channels, height, width) and Flax (height, width, channels), unless
    the model says otherwise: nothing in the checkpoint tells.
    """
    part = pair.source.parts.get("w")
    if slot != "w" or part is None or len(part.shape) != 2 or layout.relation != "moved":
        return []
    convs = [u.parts["w"].shape for u in sources if "w" in u.parts and len(u.parts["w"].shape) > 2]
    space = max((len(shape) - 2 for shape in convs if not pair.source.bare), default=0)
    width = part.shape[1]
    widths = {n for u in sources if u is not pair.source for p in u.parts.values() for n in p.shape}
    if any(u.role in ("q", "k", "qkv") for u in sources):
        return []
    if not convs or width in widths or len(pair.target.parts["w"].shape) != 2:
        return []
    channels = [s[0] for s in convs if width % s[0] == 0 and s[0] > 1 and width != s[0]]
    if not channels:
        return []
    channel, names = channels[-1], {1: "l", 2: "h w", 3: "d h w"}[space]
    side = round((width // channel) ** (1 / space))
    if side**space != width // channel:
        return [layout]
    sizes = (("c", channel), *((n, side) for n in names.split()[1:]))
    moved = Layout(("o", f"c {names}"), f"({names} c) o", sizes)
    return [moved, layout] if math.prod(part.shape) else [layout]
