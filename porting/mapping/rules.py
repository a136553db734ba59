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
from collections.abc import Callable, Iterable
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porting.errors import RuleError
from porting.layouts import Rule
from porting.leaves import ONLY, Leaf, join_named
from porting.mapping.layouts import candidates, rule_of
from porting.mapping.names import components, natural, role
from porting.mapping.result import NO_PLACE, MappedLeaf, Mapping, specs_of
from porting.mapping.units import Part

_NUMBER = re.compile(r"(?<![0-9A-Za-z])\d+(?![0-9A-Za-z])|(?<=_)\d+(?=/|$)")
KEYS = {"source", "path", "pattern", "join", "sure", "why"}


@dataclass(frozen=True)
class Row:
    """One row of a rules file."""

    source: tuple[str, ...]
    path: str
    pattern: str = ""
    join: str = ONLY.name
    sure: bool = True
    why: str = ""

    def matches(self, keys: Iterable[str]) -> Iterable[tuple[str, tuple[str, ...]]]:
        """(target path, source keys) of everything that the row names."""
        first, *others = (re.compile(text) for text in self.source)
        found = list(keys)
        for key in found:
            match = first.fullmatch(key)
            if match is None:
                continue
            joined = [key]
            for other in others:
                same = [
                    k for k in found if (m := other.fullmatch(k)) and m.groups() == match.groups()
                ]
                joined += same[:1]
            if len(joined) == len(self.source):
                yield match.expand(self.path), tuple(joined)


def write_rules(mapping: Mapping) -> str:
    """The TOML text of a mapping, repeated layers folded into one row."""
    lines = ["# Which tensor becomes which leaf. Review it, change it, and pass it back."]
    for row, _ in rows_of(mapping):
        lines += ["", "[[leaf]]", f"source = {_text(row.source)}", f"path = {_quoted(row.path)}"]
        lines += [f"pattern = {_quoted(row.pattern)}"]
        lines += [f"join = {_quoted(row.join)}"] if row.join != ONLY.name else []
        lines += ["sure = false", f"why = {_quoted(row.why)}"] if not row.sure else []
    excused: dict[tuple[str, str], None] = {}
    for key, why in mapping.unused.items():
        if why != NO_PLACE:
            excused.setdefault((_folded(key), why), None)
    for pattern, why in excused:
        lines += ["", "[[ignore]]", f"source = {_quoted(pattern)}", f"reason = {_quoted(why)}"]
    return "\n".join(lines) + "\n"


def rows_of(
    mapping: Mapping, variant: Callable[[MappedLeaf], object] = lambda leaf: None
) -> list[tuple[Row, MappedLeaf]]:
    """The rows of a mapping with one of their leaves, repeated layers folded.

    Leaves share a row where they differ only in numbers, in nothing else (`variant`
    included), and where the row names exactly them.
    """
    groups: dict[tuple[tuple[str, ...], str], list[MappedLeaf]] = {}
    for leaf in mapping.leaves.values():
        row = _row(leaf, fold=True)
        groups.setdefault((row.source, row.path), []).append(leaf)
    keys = {key for leaf in mapping.leaves.values() for key in leaf.sources} | mapping.unused.keys()
    rows: list[tuple[Row, MappedLeaf]] = []
    for group in groups.values():
        row = _row(group[0], fold=True)
        alike = len({(_row(leaf, fold=True), variant(leaf)) for leaf in group}) == 1
        mine = {leaf.path: leaf.sources for leaf in group}
        if len(group) > 1 and alike and _names_only(row, mine, mapping, keys):
            rows.append((row, group[0]))
        else:
            rows += [(_row(leaf, fold=False), leaf) for leaf in group]
    return rows


def _names_only(
    row: Row, mine: dict[str, tuple[str, ...]], mapping: Mapping, keys: set[str]
) -> bool:
    """Whether a folded row finds its own leaves and none that the mapping has otherwise."""
    found = dict(row.matches(keys))
    others = (found.keys() - mine.keys()) & (mapping.leaves.keys() | mapping.unmapped.keys())
    return not others and all(found.get(path) == sources for path, sources in mine.items())


def _row(leaf: MappedLeaf, fold: bool) -> Row:
    """The row of one leaf; with `fold`, numbers that stand on both sides become groups."""
    numbers = _NUMBER.findall(leaf.path)
    fold = fold and bool(numbers) and all(_NUMBER.findall(k) == numbers for k in leaf.sources)
    sources = tuple(_folded(key) if fold else re.escape(key) for key in leaf.sources)
    groups = iter(range(1, len(numbers) + 1))
    literal = leaf.path.replace("\\", r"\\")
    path = _NUMBER.sub(lambda _: rf"\{next(groups)}", literal) if fold else literal
    why = "" if leaf.confident else leaf.reason if not fold else _NUMBER.sub("N", leaf.reason)
    return Row(sources, path, str(leaf.rule), leaf.join.name, leaf.confident, why)


def _folded(key: str) -> str:
    """A key as a regular expression in which every number is a group."""
    pieces = _NUMBER.split(key)
    return r"(\d+)".join(re.escape(piece) for piece in pieces)


def _quoted(text: str) -> str:
    if "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(sources: tuple[str, ...]) -> str:
    if len(sources) == 1:
        return _quoted(sources[0])
    return "[" + ", ".join(_quoted(s) for s in sources) + "]"


def parse_rules(
    rules: str | Path | AnyMapping[str, Any],
) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows and the ignored patterns of a rules file, its text, or its table.

    Raises:
        RuleError: it is neither TOML nor JSON, or a row is not complete.

    >>> parse_rules("[[leaf]]\\nsource = 'fc.weight'\\npath = 'fc/kernel'\\n")[0]
    [Row(source=('fc.weight',), path='fc/kernel', pattern='', join='only', sure=True, why='')]
    """
    table = rules if isinstance(rules, AnyMapping) else _load(rules)
    unknown = sorted(table.keys() - {"leaf", "ignore"})
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
            rules = Path(rules).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RuleError(f"The rules file cannot be read: {error}.") from None
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
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RuleError(f"{where}: {pattern!r} is no regular expression: {error}.") from None


def read_rules(rules: Any, source: Any, target: Any) -> Mapping:
    """The mapping that the rules alone describe; nothing is inferred but open patterns."""
    from porting.mapping.infer import source_specs

    specs, _ = source_specs(source)
    goal = specs_of(target)
    found, ignored = _apply(rules, specs, goal)
    read = {key for leaf in found.values() for key in leaf.sources}
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
    read = {key for leaf in found.values() if not leaf.rule.selects for key in leaf.sources}
    named = {k: v for k, v in specs.items() if k not in ignored}
    whole = infer(named, goal, ordered)
    kept = {
        path: leaf
        for path, leaf in whole.leaves.items()
        if path not in found and read.isdisjoint(leaf.sources)
    }
    both = found | kept
    rest = {k: v for k, v in named.items() if k not in read and not _reads(kept, k)}
    again = infer(rest, {p: v for p, v in goal.items() if p not in both}, ordered)
    both |= again.leaves
    reasons = whole.unused | again.unused | ignored
    unused = {k: reasons.get(k, NO_PLACE) for k in specs if not _reads(both, k)}
    return Mapping({p: both[p] for p in goal if p in both}, again.unmapped, unused)


def _reads(found: AnyMapping[str, MappedLeaf], key: str) -> bool:
    return any(key in leaf.sources for leaf in found.values())


def _apply(
    rules: Any, specs: AnyMapping[str, Any], goal: AnyMapping[str, Any]
) -> tuple[dict[str, MappedLeaf], dict[str, str]]:
    rows, ignored = parse_rules(rules)
    found: dict[str, MappedLeaf] = {}
    keys = sorted(specs, key=natural)
    for number, row in enumerate(rows, 1):
        where, hits = f"[[leaf]] row {number}", 0
        try:
            for path, sources in row.matches(keys):
                if path in goal:
                    found[path] = _leaf(row, path, sources, specs, goal[path], where)
                    hits += 1
        except (re.error, IndexError) as error:
            raise RuleError(f"{where}: the path {row.path!r} does not fit: {error}.") from None
        if not hits:
            raise RuleError(
                f"{where} names nothing: no tensor matches {' and '.join(row.source)} and "
                f"becomes a path of the target by {row.path!r}."
            )
    out = {k: why for pattern, why in ignored for k in keys if re.fullmatch(pattern, k)}
    return found, out


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
