"""Paths, keys and numbers in few words."""

from __future__ import annotations

from collections.abc import Iterable

from porting.doctor.names import numbers, template
from porting.errors import number_of


def places(paths: Iterable[str]) -> str:
    """Paths with the numbers that vary written as a range.

    >>> places(["h/0/bias", "h/1/bias", "h/2/bias"])
    'h/0…2/bias'
    """
    groups: dict[str, list[tuple[int, ...]]] = {}
    paths = list(paths)
    for path in paths:
        groups.setdefault(template(path), []).append(numbers(path))
    if len(groups) > 3:
        return number_of(len(paths), "leaf")
    return ", ".join(_ranged(stem, values) for stem, values in groups.items())


def _ranged(stem: str, values: list[tuple[int, ...]]) -> str:
    text = stem
    for column in zip(*values, strict=True):
        text = text.replace("#", spans(column), 1)
    return text


def spans(values: Iterable[int]) -> str:
    """Numbers as ranges.

    >>> spans([0, 1, 2, 5])
    '0…2,5'
    """
    ordered = sorted(set(values))
    runs: list[list[int]] = []
    for n in ordered:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}…{r[-1]}" for r in runs)


def few(texts: Iterable[str]) -> str:
    """The first three of some texts in a line."""
    texts = list(texts)
    return "; ".join(texts[:3]) + " …" * (len(texts) > 3)


def apart(a: str, b: str) -> tuple[str, str]:
    """The beginnings of two paths of one form up to the last part in which they differ.

    >>> apart("h/2/q/kernel", "h/9/q/kernel")
    ('h/2', 'h/9')
    """
    left, right = a.split("/"), b.split("/")
    end = max(n for n, (x, y) in enumerate(zip(left, right, strict=True), 1) if x != y)
    return "/".join(left[:end]), "/".join(right[:end])


def difference(a: str, b: str) -> tuple[str, str]:
    """The parts in which two keys differ.

    >>> difference("layer.0.query.weight", "layer.0.key.weight")
    ('query', 'key')
    """
    left, right = a.split("."), b.split(".")
    if len(left) == len(right):
        differ = [(x, y) for x, y in zip(left, right, strict=True) if x != y]
        if differ:
            return ".".join(x for x, _ in differ), ".".join(y for _, y in differ)
    return a, b
