"""A mapping as a file that a person reviews, and back.

The file is TOML (or the same table in JSON). A row of `leaf` says which tensors a regular
expression finds, which target path each becomes, and by which pattern:

    [[leaf]]
    source = 'encoder\\.layer\\.(\\d+)\\.attention\\.self\\.query\\.weight'
    path = 'params/encoder/layer/\\1/attention/self/query/kernel'
    pattern = 'o i -> i o'

`source` is a list where several tensors are joined; `join` names how. `sure = false` marks
a row that is still a question, with the reason in `why`: delete both to answer it. A row
without `pattern` leaves the rearrangement to be inferred. A row of `ignore` names tensors
that are left out on purpose, with the reason.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import Any

import re2

from porting import limits
from porting.errors import LimitError, RuleError, checked
from porting.layouts import Rule
from porting.leaves import ONLY, Leaf, join_named
from porting.mapping.layouts import candidates, rule_of
from porting.mapping.names import components, natural, role
from porting.mapping.result import NO_PLACE, MappedLeaf, Mapping, specs_of
from porting.mapping.rows import Row, hits, literal, regex
from porting.mapping.units import Part

KEYS = {"source", "path", "pattern", "join", "sure", "why"}


def parse_rules(
    rules: str | Path | AnyMapping[str, Any],
) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows and the ignored patterns of a rules file, its text, or its table.

    Raises:
        RuleError: it is neither TOML nor JSON, or a row is not complete.

    >>> parse_rules("[[leaf]]\\nsource = 'fc.weight'\\npath = 'fc/kernel'\\n")[0]
    [Row(source=('fc.weight',), path='fc/kernel', pattern='', join='only', sure=True, why='')]
    """
    kinds = (str, Path, AnyMapping)
    checked("rules", rules, kinds, "Pass the rules file: its path, its text, or its table.")
    table = rules if isinstance(rules, AnyMapping) else _load(rules)
    unknown = sorted(map(str, table.keys() - {"leaf", "ignore"}))
    if unknown:
        raise RuleError(
            f"The rules hold {', '.join(unknown)}. A rules file has rows [[leaf]] and [[ignore]]."
        )
    for kind in table:
        if not isinstance(table[kind], list):
            raise RuleError(f"`{kind}` is not a list of rows. Write [[{kind}]] above each row.")
    rows = [_read_row(i, row) for i, row in enumerate(table.get("leaf", []), 1)]
    ignored = []
    for i, row in enumerate(table.get("ignore", []), 1):
        if not isinstance(row, AnyMapping) or not isinstance(row.get("source"), str):
            raise RuleError(
                f"[[ignore]] row {i} has no `source`, the pattern of what to leave out."
            )
        _checked(row["source"], f"[[ignore]] row {i}")
        ignored.append((row["source"], str(row.get("reason", "left out by the rules"))))
    return rows, ignored


def _load(rules: str | Path) -> dict[str, Any]:
    if isinstance(rules, Path) or ("\n" not in rules and rules.endswith((".toml", ".json"))):
        try:
            with open(rules, encoding="utf-8") as file:
                rules = file.read(limits.RULES_CHARACTERS + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise RuleError(f"The rules file cannot be read: {error}.") from None
    if len(rules) > limits.RULES_CHARACTERS:
        raise LimitError(
            f"The rules have more than {limits.RULES_CHARACTERS:,} characters, which is the "
            "limit. Fold repeated layers into one row each."
        )
    try:
        table = json.loads(rules) if rules.lstrip().startswith("{") else tomllib.loads(rules)
    except (ValueError, RecursionError) as error:
        raise RuleError(f"The rules are neither TOML nor JSON: {error}.") from None
    return table


def _read_row(number: int, row: Any) -> Row:
    where = f"[[leaf]] row {number}"
    if not isinstance(row, AnyMapping) or not {"source", "path"} <= row.keys():
        raise RuleError(f"{where} needs `source` (a pattern) and `path` (a target path).")
    unknown = sorted(row.keys() - KEYS)
    if unknown:
        raise RuleError(f"{where} has {', '.join(unknown)}; a row has {', '.join(sorted(KEYS))}.")
    source = row["source"] if isinstance(row["source"], list) else [row["source"]]
    texts = [*source, row["path"], row.get("pattern", ""), row.get("join", ""), row.get("why", "")]
    if not source or not all(isinstance(text, str) for text in texts):
        raise RuleError(f"{where}: every entry but `sure` is text, `source` also a list of texts.")
    if max(map(len, texts)) > limits.RULE_CHARACTERS:
        raise LimitError(f"{where}: an entry is longer than {limits.RULE_CHARACTERS:,} characters.")
    for pattern in source:
        _checked(pattern, where)
    if row.get("pattern"):
        Rule.parse(row["pattern"])
    join = row.get("join", ONLY.name)
    join_named(join)
    return Row(tuple(source), row["path"], row.get("pattern", ""), join,
               bool(row.get("sure", True)), row.get("why", ""))  # fmt: skip


def _checked(pattern: str, where: str) -> None:
    try:
        regex(pattern)
    except (re2.error, UnicodeError) as error:
        told = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise RuleError(
            f"{where}: {pattern!r:.200} is no regular expression of RE2: {told}."
        ) from None


def read_rules(rules: Any, source: Any, target: Any) -> Mapping:
    """The mapping that the rules alone describe; nothing is inferred but open patterns."""
    from porting.mapping.infer import source_specs

    specs, _ = source_specs(source)
    goal = specs_of(target)
    found, ignored = _apply(rules, specs, goal)
    read = _read(found)
    unused = {k: ignored.get(k, NO_PLACE) for k in specs if k not in read}
    unmapped = {path: "no rule names it" for path in goal if path not in found}
    return Mapping({p: found[p] for p in goal if p in found}, unmapped, unused)


def overrule(
    rules: Any,
    specs: AnyMapping[str, Any],
    goal: AnyMapping[str, Any],
    ordered: bool,
    infer: Callable[[AnyMapping[str, Any], AnyMapping[str, Any], bool], Mapping],
) -> Mapping:
    """The rules, and for what they do not name, what is inferred.

    The whole is inferred first, since a leaf tells of its neighbours; only what reads a
    tensor that the rules gave away is inferred again among what is left.
    """
    found, ignored = _apply(rules, specs, goal)
    whole_reads = (leaf for leaf in found.values() if not (leaf.rule.selects or leaf.join.constant))
    read = {key for leaf in whole_reads for key in leaf.sources}
    named = {k: v for k, v in specs.items() if k not in ignored}
    whole = infer(named, goal, ordered)
    kept = {
        path: leaf
        for path, leaf in whole.leaves.items()
        if path not in found and read.isdisjoint(leaf.sources)
    }
    both = found | kept
    kept_keys = _read(kept)
    rest = {k: v for k, v in named.items() if k not in read and k not in kept_keys}
    again = infer(rest, {p: v for p, v in goal.items() if p not in both}, ordered)
    both |= again.leaves
    reasons = whole.unused | again.unused | ignored
    all_read = _read(both)
    unused = {k: reasons.get(k, NO_PLACE) for k in specs if k not in all_read}
    return Mapping({p: both[p] for p in goal if p in both}, again.unmapped, unused)


def _read(found: AnyMapping[str, MappedLeaf]) -> set[str]:
    return {key for leaf in found.values() for key in leaf.sources}


def _apply(
    rules: Any, specs: AnyMapping[str, Any], goal: AnyMapping[str, Any]
) -> tuple[dict[str, MappedLeaf], dict[str, str]]:
    rows, ignored = parse_rules(rules)
    found: dict[str, MappedLeaf] = {}
    keys = dict.fromkeys(sorted(specs, key=natural))
    _check_work([*(text for row in rows for text in row.source), *(t for t, _ in ignored)], keys)
    for number, row in enumerate(rows, 1):
        where, named = f"[[leaf]] row {number}", 0
        try:
            for path, sources in row.matches(keys):
                if path in goal:
                    found[path] = _leaf(row, path, sources, specs, goal[path], where)
                    named += 1
        except IndexError as error:
            raise RuleError(f"{where}: the path {row.path!r} does not fit: {error}.") from None
        if not named:
            raise RuleError(
                f"{where} names nothing: no tensor matches {' and '.join(row.source)} and "
                f"becomes a path of the target by {row.path!r}."
            )
    return found, {k: why for pattern, why in ignored for k, _ in hits(pattern, keys)}


def _check_work(patterns: list[str], keys: AnyMapping[str, Any]) -> None:
    """Every pattern that is not one name reads every key: that product is bounded."""
    tries = sum(literal(text) is None for text in patterns) * len(keys)
    if tries > limits.RULE_TRIES:
        raise LimitError(
            f"The rules try {tries:,} pairs of a pattern and a tensor; the limit is "
            f"{limits.RULE_TRIES:,}. Fold repeated layers into one row each."
        )


def _leaf(
    row: Row,
    path: str,
    sources: tuple[str, ...],
    specs: AnyMapping[str, Any],
    goal: Any,
    where: str,
) -> MappedLeaf:
    shape = tuple(goal.shape)
    if row.pattern:
        leaf = Leaf(path, sources, Rule.parse(row.pattern), join_named(row.join))
    else:
        names = [re.split(r"[./]", text)[-1] for text in (sources[0], path)]
        have = Part(sources, tuple(specs[sources[0]].shape), names[0])
        fits = candidates(have, Part((path,), shape, names[1]), role(components(path)[:-1]), True)
        if not fits:
            raise RuleError(
                f"{where}: {sources[0]} has shape {have.shape} and {path} {shape}; "
                "no known rearrangement leads there. Give the row a `pattern`."
            )
        leaf = Leaf(path, sources, rule_of(fits[0], None))
    reason = "A rule says so." if row.sure else row.why
    return MappedLeaf(path, leaf.sources, leaf.rule, leaf.join, row.sure, reason)
