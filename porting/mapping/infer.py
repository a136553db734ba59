"""`infer_mapping`: which source tensor becomes which target leaf, from names and shapes."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from dataclasses import replace
from typing import Any

from porting.leaves import ONLY, Leaf, weight_norm
from porting.mapping.counting import by_name, follows, order_of, reread
from porting.mapping.doubts import all_placed, doubts_of
from porting.mapping.evidence import FLATTENED, Flattens, Relations
from porting.mapping.expand import expand
from porting.mapping.layouts import Layout, rule_of
from porting.mapping.match import Pair, assign
from porting.mapping.numbering import agree
from porting.mapping.parameters import parameters
from porting.mapping.result import NO_PLACE, MappedLeaf, Mapping, specs_of
from porting.mapping.scores import layouts_of, literal
from porting.mapping.ties import tie_leaves, unused_keys
from porting.mapping.units import Part, Unit, buffer_reason, looks_sorted, units
from porting.tree import leaves

NO_BIAS = "the source has no bias beside"


def infer_mapping(source: Any, target: Any, rules: Any = None) -> Mapping:
    """Map the leaves of `target` to the tensors of `source`, from names and shapes alone.

    Values are never looked at. A layer is recognised by its leaves and its neighbours;
    whether shapes happen to agree decides nothing. What cannot be told is marked
    `confident=False`, with the alternatives.

    Args:
        source: a checkpoint (only its `.specs` are used), a state_dict or any mapping to
            things with `.shape` and `.dtype`, or a Flax tree or module.
        target: a Linen variables tree, an NNX module or (abstract) state, a flat mapping,
            or the pair (linen_module, sample_input).
        rules: a rules file (text or path) that overrules what it names.

    Returns:
        A `Mapping`: every target path is in `leaves` or in `unmapped`, every source key is
        read by a leaf or in `unused`.

    Raises:
        ArgumentError: one side is nothing that holds parameters.
        RuleError: the rules cannot be read.

    >>> import numpy as np
    >>> torch_side = {"q.weight": np.zeros((6, 6)), "q.bias": np.zeros(6)}
    >>> flax_side = {"params": {"q": {"kernel": np.zeros((6, 6)), "bias": np.zeros(6)}}}
    >>> mapping = infer_mapping(torch_side, flax_side)
    >>> {path: str(leaf.rule) for path, leaf in mapping.leaves.items()}
    {'params/q/kernel': 'o i -> i o', 'params/q/bias': 'a -> a'}
    """
    specs, ordered = source_specs(source)
    goal = specs_of(target)
    aliases = getattr(source, "aliases", {})
    if rules is not None:
        from porting.mapping.rules import overrule

        return _with_aliases(overrule(rules, specs, goal, ordered, _infer), aliases)
    return _with_aliases(_infer(specs, goal, ordered), aliases)


def _with_aliases(mapping: Mapping, aliases: AnyMapping[str, str]) -> Mapping:
    """The mapping, where keys that are one tensor in the file excuse each other."""
    if not aliases:
        return mapping
    read = {key for leaf in mapping.leaves.values() for key in leaf.sources}
    unused = dict(mapping.unused)
    for key in unused:
        first = aliases.get(key, key)
        twins = {first, *(k for k, f in aliases.items() if f == first)} & read
        if twins:
            unused[key] = f"tied to {min(twins)}"
    return Mapping(mapping.leaves, mapping.unmapped, unused)


def source_specs(source: Any) -> tuple[dict[str, Any], bool]:
    """key -> shape and dtype of a source, and whether the order of its keys is telling."""
    if hasattr(source, "specs"):
        return dict(source.specs), bool(getattr(source, "ordered", False))
    specs = leaves(source)
    plain = isinstance(source, AnyMapping)
    dtypes = [str(spec.dtype) for spec in specs.values()]
    return specs, plain and not looks_sorted(list(specs), dtypes)


def _infer(specs: AnyMapping[str, Any], goal: AnyMapping[str, Any], ordered: bool) -> Mapping:
    targets = units(goal, ordered=False, target=True)
    sources = units(parameters(specs, targets), ordered)
    sources, targets = agree(sources, targets)
    sources = expand(sources, targets)
    pairs = assign(sources, targets)
    found = _complete(specs, sources, targets, pairs)
    found = _counted_apart(specs, sources, targets, pairs, found)
    unmapped = _open(goal, found)
    ordered_leaves = {path: found[path] for path in goal if path in found}
    return Mapping(ordered_leaves, unmapped, unused_keys(specs, ordered_leaves))


def _counted_apart(
    specs: AnyMapping[str, Any],
    sources: list[Unit],
    targets: list[Unit],
    pairs: list[Pair],
    found: dict[str, MappedLeaf],
) -> dict[str, MappedLeaf]:
    """`found`, with questions where the numbers of auto-named targets are in doubt."""
    if not any(unit.auto_within for unit in targets):
        return found
    named = by_name(sources)
    named_pairs = assign(named, targets)
    defined, along_names = order_of(pairs), order_of(named_pairs)
    if follows(defined, along_names):
        return found
    along = _complete(specs, named, targets, named_pairs)
    fits = not along_names.broken
    if fits and not defined.broken:
        return reread(found, along, [found, along])
    free = [replace(unit, order=-1) for unit in sources]
    cautious = _complete(specs, free, targets, assign(free, targets, counted=fits))
    first = along if fits else cautious
    return reread(cautious, first, [first, found, cautious])


def _complete(
    specs: AnyMapping[str, Any],
    sources: list[Unit],
    targets: list[Unit],
    pairs: list[Pair],
) -> dict[str, MappedLeaf]:
    """Target path -> leaf; surer where every leaf is filled and every key has a place."""
    relations = Relations(pairs)
    found = _found(specs, sources, targets, pairs, relations, complete=True)
    if not all_placed(targets, found) or NO_PLACE in unused_keys(specs, found).values():
        found = _found(specs, sources, targets, pairs, relations, complete=False)
    return found


def _open(goal: AnyMapping[str, Any], found: AnyMapping[str, MappedLeaf]) -> dict[str, str]:
    """Target path that is left open -> why."""
    beside = {path.rpartition("/")[0]: leaf.sources[0] for path, leaf in found.items()}
    reasons = {}
    for path in goal.keys() - found.keys():
        parent, _, name = path.rpartition("/")
        reason = buffer_reason(path) or "nothing in the source fits its name and shape"
        reasons[path] = (
            f"{NO_BIAS} {beside[parent]}" if name == "bias" and parent in beside else reason
        )
    return {path: reasons[path] for path in goal if path in reasons}


def _found(
    specs: AnyMapping[str, Any],
    sources: list[Unit],
    targets: list[Unit],
    pairs: list[Pair],
    relations: Relations,
    complete: bool,
) -> dict[str, MappedLeaf]:
    """Target path -> leaf, of the pairs and of what is tied to them."""
    found: dict[str, MappedLeaf] = {}
    flattens = Flattens(sources)
    doubts = doubts_of(pairs, sources, targets, complete)
    for pair in pairs:
        doubt = doubts[id(pair)]
        found |= {leaf.path: leaf for leaf in _leaves_of(pair, relations, flattens, doubt)}
    return found | tie_leaves(specs, sources, targets, found)


def _leaves_of(
    pair: Pair, relations: Relations, flattens: Flattens, doubt: str
) -> list[MappedLeaf]:
    """The target leaves of one pair of layers."""
    doubt = pair.source.note or doubt
    rivals = {id(r): layouts_of(r, pair.target) or {} for r in pair.rivals}
    made = []
    for slot, fits in (layouts_of(pair.source, pair.target) or {}).items():
        part, path = _part(pair.source, slot), pair.target.parts[slot].sources[0]
        layout, others, why = relations.choose(pair, slot, fits)
        flat = flattens.readings(pair, slot, layout)
        if flat:
            layout, *others = flat
            why = FLATTENED
        alternatives = [_leaf(path, pair.source, slot, other) for other in others if why]
        for rival in pair.rivals:
            options = rivals[id(rival)].get(slot)
            if options and slot in rival.parts:
                alternatives.append(_leaf(path, rival, slot, options[0]))
        base = _leaf(path, pair.source, slot, layout)
        if part.pick is not None and part.pick.per_head:
            blocks = replace(part, pick=replace(part.pick, per_head=False))
            alternatives.append(Leaf(path, part.sources, rule_of(layout, blocks.pick), part.join))
        because = "; ".join(text for text in (doubt, why) if text)
        reason = because or _reason(pair, part)
        made.append(
            MappedLeaf(path, base.sources, base.rule, base.join, not because, reason,
                       tuple(alternatives) if because else ())
        )  # fmt: skip
    return made


def _part(unit: Unit, slot: str) -> Part:
    return unit.parts[slot] if slot in unit.parts else unit.parts["v"]


def _leaf(path: str, unit: Unit, slot: str, layout: Layout) -> Leaf:
    part = _part(unit, slot)
    rule = rule_of(layout, part.pick)
    if slot == "w" and "w" not in unit.parts:
        size = unit.parts["g"]
        dim = next((i for i, n in enumerate(size.shape) if n > 1), 0)
        return Leaf(path, (*size.sources, *part.sources), rule, weight_norm(dim))
    return Leaf(path, part.sources, rule, part.join)


def _reason(pair: Pair, part: Part) -> str:
    """What speaks for a sure pair, in a sentence."""
    if literal(pair.source.path, pair.target.path) >= 0.9:
        return f"The names agree: {pair.source}."
    if pair.source.role and pair.source.role == pair.target.role:
        return f"Both names say the same layer ({pair.source.role}): {pair.source}."
    return f"Place, shape and neighbours leave only {pair.source}."


__all__ = ["NO_PLACE", "ONLY", "infer_mapping", "source_specs"]
