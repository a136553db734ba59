"""What names say: their words and numbers, and how alike a path and a key are."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[^./_]+")
_NAMES = 2**16  #: names of which the parts are remembered: every one is asked for many times


@lru_cache(_NAMES)
def template(name: str) -> str:
    """`name` with every number replaced by '#'.

    >>> template("encoder.layer.10.bias")
    'encoder.layer.#.bias'
    """
    return _NUMBER.sub("#", name)


@lru_cache(_NAMES)
def numbers(name: str) -> tuple[int, ...]:
    """The numbers in `name`.

    >>> numbers("stages.1.layers.0")
    (1, 0)
    """
    return tuple(map(int, _NUMBER.findall(name)))


@lru_cache(_NAMES)
def parent(name: str) -> str:
    """`name` without its last part, '.' or '/' between parts.

    >>> parent("a.b.weight"), parent("a/b/kernel")
    ('a.b', 'a/b')
    """
    return re.split(r"[./](?=[^./]*$)", name)[0]


def last(name: str) -> str:
    """The last part of `name`.

    >>> last("a.b.weight"), last("a/b/kernel")
    ('weight', 'kernel')
    """
    return re.split(r"[./]", name)[-1]


def words(name: str) -> list[str]:
    """The words of a path or key.

    >>> words("h_0/q.weight")
    ['h', '0', 'q', 'weight']
    """
    return _WORD.findall(name)


def alike(path: str, key: str) -> float:
    """The share of words that the modules of a path and a key have in common.

    >>> alike("params/h_0/q/kernel", "h.0.q.weight") > alike("params/h_0/q/kernel", "h.1.q.weight")
    True
    """
    mine, theirs = (Counter(words(parent(n))) for n in (path, key))
    if last(path) == last(key):
        mine, theirs = mine + Counter([last(path)]), theirs + Counter([last(key)])
    return (mine & theirs).total() / max((mine | theirs).total(), 1)


def renumber(path: str, source: str, key: str) -> str | None:
    """`path` with the numbers that tell `key` from `source` put in their place.

    Of two places the one is meant whose number follows the word that it follows in the keys.

    >>> renumber("layers/1/linear1/bias", "layer.1.mlp.bias", "layer.0.mlp.bias")
    'layers/0/linear1/bias'
    """
    old, new, have = numbers(source), numbers(key), list(numbers(path))
    words_of, there = _counted(source), _counted(path)
    for i in (i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b):
        places = [j for j, n in enumerate(have) if n == old[i]]
        if not places:
            return None

        def distance(j: int, i: int = i) -> tuple[bool, int]:
            return there[j] != words_of[i], abs((len(have) - j) - (len(old) - i))

        have[min(places, key=distance)] = new[i]
    rest = iter(have)
    return _NUMBER.sub(lambda _: str(next(rest)), path)


def in_place(path: str, key: str) -> bool:
    """Whether a path has the numbers of a key: those after the same words, or else all of them.

    >>> in_place("layers/0/linear1/bias", "layer.0.mlp.bias"), in_place("h_1/q", "h.0.q")
    (True, False)
    """
    there: dict[str, set[int]] = {}
    for word, number in zip(_counted(path), numbers(path), strict=True):
        there.setdefault(word, set()).add(number)
    pairs = [(w, n) for w, n in zip(_counted(key), numbers(key), strict=True) if w in there]
    return all(n in there[w] for w, n in pairs) if pairs else numbers(path) == numbers(key)


def _counted(name: str) -> list[str]:
    """The word before each number, in the singular."""
    return [word.lower().rstrip("s") for word in re.findall(r"([a-zA-Z]*)[^a-zA-Z\d]*\d+", name)]
