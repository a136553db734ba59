"""Where a tensor that no leaf holds would have gone: told by its likes, its module, its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from porting.doctor.analogy import Analogies
from porting.doctor.names import last, numbers, parent, renumber, template
from porting.layouts import Rule
from porting.leaves import Leaf

STEM = 3  #: letters that a tower and its head begin with in common ("vis" of vision, visual)


def predicted_path(
    key: str,
    rows: Mapping[str, Leaf],
    shapes: Mapping[str, Sequence[int]],
    known: bool = False,
) -> tuple[str, Leaf] | None:
    """Where `key` would go, judged by other layers, its own module, and the names themselves.

    Args:
        key: a source key.
        rows: path -> row, of the leaves that have one.
        shapes: of the source.
        known: whether the target is known to have a place for it. Else a module of which no
            leaf is there, and none near it, may be one that the target does not have at all.

    Returns:
        The path, and a row whose rule a tensor of this kind gets.

    >>> from porting.layouts import Rule
    >>> row = Leaf("h_0/ln/bias", ("h.0.ln.bias",), Rule("a -> a"))
    >>> predicted_path("h.1.ln.bias", {row.path: row}, {})[0]
    'h_1/ln/bias'
    """
    single = [row for row in rows.values() if len(row.sources) == 1]
    rank = len(shapes.get(key, ()))
    same = [r for r in single if len(shapes.get(r.sources[0], ())) == rank]
    found = _from_layers(key, single, same)
    if found is None:
        found = _from_module(key, single, same) or _beside_bias(key, single, rank)
        found = found or _literally(key, single, same, rank, known)
    return found


def layers_of(rows: Mapping[str, Leaf]) -> dict[tuple[str, ...], list[Leaf]]:
    """The rows of numbered tensors, those that differ in their numbers together.

    >>> from porting.layouts import Rule
    >>> rows = {f"h_{n}/b": Leaf(f"h_{n}/b", (f"h.{n}.b",), Rule("a -> a")) for n in range(3)}
    >>> [len(group) for group in layers_of(rows).values()]
    [3]
    """
    groups: dict[tuple[str, ...], list[Leaf]] = {}
    for row in rows.values():
        if numbers(row.sources[0]):
            form = (*map(template, row.sources), str(row.rule), row.join.name)
            groups.setdefault(form, []).append(row)
    return groups


def foretold(
    rows: Mapping[str, Leaf], shapes: Mapping[str, Sequence[int]], open_: Collection[str] = ()
) -> dict[str, Leaf]:
    """The leaves that a layer must have because its likes have them, and that no row fills.

    Args:
        rows: path -> row, of the leaves that have one.
        shapes: of the source.
        open_: paths that are there without a row; their tensors may have another shape than
            those of their likes.

    >>> from porting.layouts import Rule
    >>> row = Leaf("h_0/q/bias", ("h.0.qkv.bias",), Rule("(p=0 a) -> a", {"p": 3}))
    >>> shapes = {f"h.{n}.qkv.bias": (6,) for n in range(3)}
    >>> list(foretold({row.path: row}, shapes))
    ['h_1/q/bias', 'h_2/q/bias']
    """
    found: dict[str, Leaf] = {}
    known = Analogies(tuple(rows.values()))
    kinds: dict[str, list[str]] = {}
    for key in shapes:
        kinds.setdefault(template(key), []).append(key)
    for group in layers_of(rows).values():
        filled, like = {row.sources for row in group}, group[0]
        first = like.sources[0]
        for key in kinds.get(template(first), ()):
            sources = tuple(renumber(s, first, key) or "" for s in like.sources)
            path = known.path(like, key)
            if not path or path in rows or sources in filled:
                continue
            if _fits(sources, like.sources, shapes, path in open_):
                found[path] = Leaf(path, sources, like.rule, like.join)
    return found


def _fits(
    keys: Sequence[str], likes: Sequence[str], shapes: Mapping[str, Sequence[int]], open_: bool
) -> bool:
    """Whether tensors have the shapes of their likes; for an open leaf their rank is enough."""
    pairs = [(shapes.get(key), shapes[like]) for key, like in zip(keys, likes, strict=True)]
    return all(
        own is not None and (len(own) == len(like) if open_ else tuple(own) == tuple(like))
        for own, like in pairs
    )


def _from_layers(key: str, rows: Sequence[Leaf], same: Sequence[Leaf]) -> tuple[str, Leaf] | None:
    votes: Counter[str] = Counter()
    found: dict[str, Leaf] = {}
    known = Analogies(rows)
    for row in same:
        if template(row.sources[0]) == template(key) and row.sources[0] != key:
            path = known.path(row, key)
            if path:
                votes[path] += 1
                found[path] = row
    return (best := votes.most_common(1)[0][0], found[best]) if votes else None


def _from_module(key: str, rows: Sequence[Leaf], same: Sequence[Leaf]) -> tuple[str, Leaf] | None:
    """The path beside a sibling of the same module, named as such a tensor is elsewhere.

    Elsewhere is a module that has both a tensor like the sibling and one like `key`, of the
    same rank.
    """
    for sibling in (row for row in rows if parent(row.sources[0]) == parent(key)):
        for other in same:
            twin = f"{parent(other.sources[0])}.{last(sibling.sources[0])}"
            beside = next((r for r in rows if r.sources[0] == twin), None)
            kind = beside is not None and last(beside.path) == last(sibling.path)
            if beside is not None and kind and last(other.sources[0]) == last(key):
                return _moved(sibling.path, beside.path, other.path), other
    return None


def _beside_bias(key: str, rows: Sequence[Leaf], rank: int) -> tuple[str, Leaf] | None:
    """The path of a weight beside the bias of its layer: a layer that has one has both."""
    module, name = parent(key), _flax_name(key, rank)
    beside = next((row for row in rows if row.sources == (f"{module}.bias",)), None)
    if beside is None or last(key) != "weight" or last(beside.path) != "bias":
        return None
    path = f"{parent(beside.path)}/{name}" if "/" in beside.path else name
    return path, Leaf(path, (key,), _plain_rule(name, rank))


def _moved(path: str, twin: str, other: str) -> str:
    """`path` with its collection and last name as they go from `twin` to `other`."""
    start, here = path.split("/")[0], other.split("/")[0]
    end = f"{parent(path)}/{last(other)}"
    return here + end[len(start) :] if twin.split("/")[0] == start else end


def _literally(
    key: str, rows: Sequence[Leaf], same: Sequence[Leaf], rank: int, known: bool
) -> tuple[str, Leaf] | None:
    """The path that spells the key, if most leaves of this port are spelled so."""
    votes: Counter[tuple[str, int]] = Counter()
    for row in rows:
        words, steps = parent(row.sources[0]).split("."), parent(row.path).split("/")
        for cut in range(len(words)):
            if steps[-len(words) + cut :] == words[cut:]:
                votes["/".join(steps[: len(steps) - len(words) + cut]), cut] += 1
                break
    alike_ = [r for r in same if last(r.sources[0]) == last(key)]
    near = [r for r in alike_ if r.sources[0].split(".")[:-2] == key.split(".")[:-2]]
    names = Counter(last(r.path) for r in near or alike_)
    if not votes:
        return None
    (prefix, cut), count = votes.most_common(1)[0]
    if count * 2 < len(rows):
        return None
    name = names.most_common(1)[0][0] if names else _flax_name(key, rank)
    module = "/".join([*filter(None, [prefix]), *parent(key).split(".")[cut:]])
    if not known and not _has_place(module, name, rows):
        return None
    path = f"{module}/{name}" if module else name
    rule = next(
        (r.rule for r in same if last(r.path) == name and last(r.sources[0]) == last(key)),
        _plain_rule(name, rank),
    )
    return path, Leaf(path, (key,), rule)


def _has_place(module: str, name: str, rows: Sequence[Leaf]) -> bool:
    """Whether the target must have a module: its leaves are there, or those around it.

    A head may be left out of a port on purpose; a table or a norm, or a module of a small
    group that is there, is not; nor is the head of one tower where another has its own.
    """
    holder = parent(module) if "/" in module else ""
    inside = any(row.path.startswith(f"{module}/") for row in rows)
    around = sum(row.path.startswith(f"{holder}/" if holder else "") for row in rows)
    return (
        inside
        or 0 < 2 * around < len(rows)
        or (around > 0 and name in ("embedding", "scale", "weight"))
        or _of_tower(module, rows)
    )


def _of_tower(module: str, rows: Sequence[Leaf]) -> bool:
    """Whether a module is the head of a tower that is there, and another tower has such a head.

    `visual_projection` is to `vision_model` what `text_projection` is to `text_model`.
    """
    holder, (stem, _, kind) = module.split("/")[:-1], last(module).rpartition("_")
    inside = [parts for row in rows if (parts := row.path.split("/"))[: len(holder)] == holder]
    beside = {parts[len(holder)] for parts in inside if len(parts) > len(holder) + 1}
    heads = {name for name in beside if name.endswith(f"_{kind}")}
    towers = {name[:STEM] for name in beside - heads}
    return len(stem) >= STEM and stem[:STEM] in towers and any(h[:STEM] in towers for h in heads)


def _flax_name(key: str, rank: int) -> str:
    """What Flax calls a tensor like `key`; a bare parameter keeps its name."""
    name = last(key)
    if name == "weight":
        table = rank == 2 and "embed" in parent(key)
        return "scale" if rank == 1 else "embedding" if table else "kernel"
    return {"running_mean": "mean", "running_var": "var"}.get(name, name)


def _plain_rule(name: str, rank: int) -> Rule:
    """The usual rule of a leaf of this name: a kernel has its spatial axes first, then in, out."""
    axes = (
        "o i d h w"[: 2 * rank - 1].split() if rank < 6 else "a b c d e f g h"[: 2 * rank].split()
    )
    turned = [*axes[2:], axes[1], axes[0]] if name == "kernel" and rank > 1 else axes
    return Rule(f"{' '.join(axes)} -> {' '.join(turned)}")
