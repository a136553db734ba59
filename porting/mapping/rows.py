"""The rows of a rules file: which leaves one row names, and a mapping as few rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import re2

from porting.leaves import ONLY
from porting.mapping.result import NO_PLACE, MappedLeaf, Mapping

_NUMBER = re.compile(r"(?<![0-9A-Za-z])\d+(?![0-9A-Za-z])|(?<=_)\d+(?=/|$)")
_REFERENCE = re.compile(r"\\(\\|\d{1,2})")


@dataclass(frozen=True)
class Row:
    """One row of a rules file.

    Attributes:
        source: a regular expression for each tensor that is joined; one for most leaves.
        path: the target path; `\\1` is what the first group found.
        pattern: the rearrangement, "" where it is to be inferred.
        join: how several tensors become one array.
        sure: whether the row is an answer.
        why: why it is not.
    """

    source: tuple[str, ...]
    path: str
    pattern: str = ""
    join: str = ONLY.name
    sure: bool = True
    why: str = ""

    def matches(self, keys: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(target path, source keys) of everything that the row names.

        Args:
            keys: of the source, with a quick `in` (a dict or a set).

        Raises:
            IndexError: the path refers to a group that the pattern does not have.

        >>> list(Row((r"layer\\.(\\d+)\\.w",), r"layer_\\1/kernel").matches({"layer.7.w": 0}))
        [('layer_7/kernel', ('layer.7.w',))]
        """
        first, *others = self.source
        joined = [
            {groups: key for key, groups in reversed(list(hits(text, keys)))} for text in others
        ]
        for key, groups in hits(first, keys):
            rest = [found[groups] for found in joined if groups in found]
            if len(rest) == len(others):
                yield expand(self.path, groups), (key, *rest)


def regex(pattern: str) -> re2._Regexp:
    """`pattern`, compiled. RE2 takes time linear in the text it reads: a rules file may come
    from a stranger.

    Raises:
        re2.error: it is no regular expression, or one that needs more (a look-ahead).
    """
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def literal(pattern: str) -> str | None:
    """The one text that a pattern finds, if it is one text escaped.

    >>> literal(r"fc\\.weight"), literal(r"fc\\.(\\d+)")
    ('fc.weight', None)
    """
    text = re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)
    return text if re.escape(text) == pattern else None


def hits(pattern: str, keys: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The keys that a pattern finds, each with its groups ("" where a group took no part).

    >>> list(hits(r"(\\w)\\.w", ["a.w", "b.b", "c.w"]))
    [('a.w', ('a',)), ('c.w', ('c',))]
    """
    text = literal(pattern)
    if text is not None:
        yield from [(text, ())] if text in keys else []
        return
    compiled = regex(pattern)
    for key in keys:
        text = key.encode("utf-8", "replace").decode()  # RE2 reads UTF-8; a lone surrogate is none
        if (match := compiled.fullmatch(text)) is not None:
            yield key, match.groups("")


def expand(path: str, groups: tuple[str, ...]) -> str:
    """A path with its references filled in.

    Raises:
        IndexError: it refers to a group that there is not.

    >>> expand(r"layer_\\1/kernel", ("7",))
    'layer_7/kernel'
    """

    def filled(match: re.Match[str]) -> str:
        number = 0 if match[1] == "\\" else int(match[1])
        if number > len(groups):
            raise IndexError(f"there is no group {number}")
        return "\\" if match[1] == "\\" else groups[number - 1]

    return _REFERENCE.sub(filled, path)


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
