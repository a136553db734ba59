"""What the neighbours say about a square weight, and about a weight behind a flatten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from porting.mapping.layouts import Layout, candidates
from porting.mapping.match import Pair
from porting.mapping.scores import keeps_layout
from porting.mapping.units import Part, Unit

SPACE_OF = {1: "l", 2: "h w", 3: "d h w"}
FLATTENED = "it follows a flattened convolution, and the order of that flatten is the model's"
#: names of the one layer whose PyTorch weight is (in, out) already
CONV1D = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})


class Relations:
    """Which weights of this port are transposed, learnt from those that are not square.

    A square weight fits as it is and transposed. Its siblings that are not square fit one
    way only; the nearest of them decide. Without any, the convention of the two names does:
    a model of GPT-2's `Conv1D` has a packed `c_attn`, and one that attends without has none.
    A Flax kernel is asked for siblings of its own rank: that a convolution was left as it is
    tells nothing of the linear layers.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._known: list[tuple[tuple[str, ...], str, int]] = []
        names = {name for pair in pairs for name in pair.source.path}
        attends = any(pair.source.role in ("q", "qkv") for pair in pairs)
        self._conv1d = CONV1D if "c_attn" in names or not attends else frozenset()
        for pair in pairs:
            source, target = pair.source.parts.get("w"), pair.target.parts.get("w")
            if source is None or target is None or pair.source.is_norm:
                continue
            if keeps_layout(source, target):
                continue
            found = {c.relation for c in candidates(source, target, pair.target.role)}
            relation = _packed_relation(source) or (found.pop() if len(found) == 1 else "")
            if relation in ("moved", "kept"):
                self._known.append((pair.source.path, relation, _rank(source)))

    def choose(self, pair: Pair, slot: str, fits: list[Layout]) -> tuple[Layout, list[Layout], str]:
        """The layout for one leaf, the other readings, and the doubt that is left."""
        relations = {layout.relation for layout in fits}
        if fits[0].relation in ("turned", "swapped") and {"turned", "swapped"} <= relations:
            doubt = "it is square, and nothing says whether the target uses `transpose_kernel`"
            return fits[0], [f for f in fits[1:] if f.relation in ("turned", "swapped")], doubt
        if fits[0].relation == "unflat":
            return fits[0], fits[1:], FLATTENED
        if slot not in ("w", "v") or not {"moved", "kept"} <= relations:
            return fits[0], [], ""
        packed = _packed_relation(pair.source.parts.get(slot))
        kernel = pair.target.parts["w"].name == "kernel"
        rank = _rank(_of_weight(pair.source)) if kernel else 0
        said, depth = ({packed}, 1) if packed else self._nearest(pair.source.path, rank)
        own = next((c for c in reversed(pair.source.path) if not c.isdigit()), "")
        chosen, doubt = fits[0].relation, ""
        if len(said) > 1:
            doubt = "its neighbours disagree about the transpose, and it is square"
        elif said and (depth or chosen in said or pair.target.parts["w"].name == "weight"):
            chosen = next(iter(said))
        elif said or own in self._conv1d or pair.target.parts["w"].name == "weight":
            doubt = "it is square, and nothing says whether it is stored (out, in) or (in, out)"
        first = next(layout for layout in fits if layout.relation == chosen)
        return first, [layout for layout in fits if layout is not first], doubt

    def _nearest(self, path: tuple[str, ...], rank: int) -> tuple[set[str], int]:
        """What the nearest modules with an answer say, and how deep they share the path.

        Only those of `rank` axes are asked; of any rank for 0.
        """
        best = -1
        said: set[str] = set()
        same: set[str] = set()
        for other, relation, own in self._known:
            if rank not in (0, own):
                continue
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


def _rank(part: Part) -> int:
    """How many axes a tensor has, but for those that a join added."""
    return len(part.shape) - bool(part.lead)


def _of_weight(unit: Unit) -> Part:
    return unit.parts["w"] if "w" in unit.parts else unit.parts["v"]


def _packed_relation(part: Part | None) -> str:
    """What a packed weight says of its parts: its outputs lie along the packed axis."""
    if part is None or part.pick is None or not (part.pick.count or part.pick.stop):
        return ""
    return "moved" if part.pick.axis == bool(part.lead) else "kept"


class Flattens:
    """Which linear layers may read a flattened image, and how their weights then go.

    PyTorch flattens (channels, height, width) and Flax (height, width, channels), unless
    the model says otherwise: nothing in the checkpoint tells. A linear layer is behind a
    flatten if its input is a multiple of a convolution's channels and nothing else in the
    source is that wide; or if no layer reads the channels alone.
    """

    def __init__(self, sources: Sequence[Unit]) -> None:
        weights = [unit.parts["w"] for unit in sources if "w" in unit.parts]
        convs = [part.shape for part in weights if _rank(part) > 2 and not part.lead]
        linears = [part.shape for part in weights if len(part.shape) == 2]
        read = {shape[1] for shape in convs}
        made = [shape[0] for shape in convs if shape[0] > 1]
        self._channels = sorted(made, key=lambda channels: channels not in read)
        self._space = max((len(shape) - 2 for shape in convs), default=0)
        bridged = any(into in self._channels for _, into in linears)
        known = Counter(out for out, _ in linears)
        fits = [w for w in linears if self._channel(w[1])]
        behind = [w for w in fits if known[w[1]] == (w[0] == w[1])]
        attends = any(unit.role in ("q", "k", "qkv") for unit in sources)
        if not convs or attends or self._space > 3:
            self._behind: set[tuple[int, ...]] = set()
        else:
            self._behind = set(behind or (() if bridged else fits))

    def _channel(self, width: int) -> int:
        """The last number of channels that `width` is a multiple of, 0 if there is none.

        One that no convolution reads is the last, wherever it stands.
        """
        fit = [c for c in self._channels if width % c == 0 and width > c]
        return fit[-1] if fit and width not in self._channels else 0

    def readings(self, pair: Pair, slot: str, layout: Layout) -> list[Layout]:
        """The readings of a weight behind a flatten, the likely one first; [] for any other."""
        part = pair.source.parts.get("w")
        if slot != "w" or part is None:
            return []
        if layout.relation != "moved" or len(pair.target.parts["w"].shape) != 2:
            return []
        return self.orders(part.shape, layout)

    def orders(self, shape: tuple[int, ...], plain: Layout) -> list[Layout]:
        """The readings of a weight of this shape, of which `plain` is the last; [] for none."""
        if shape not in self._behind:
            return []
        names, width = SPACE_OF[self._space], shape[1]
        channel = self._channel(width)
        side = round((width // channel) ** (1 / self._space))
        if side**self._space != width // channel:
            return [plain]
        sizes = (("c", channel), *((n, side) for n in names.split()[1:]))
        return [Layout(("o", f"c {names}"), f"({names} c) o", sizes), plain]
