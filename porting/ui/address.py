"""A frozen recipe <-> the query string of a link. Only declared fields are ever read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

Recipe = TypeVar("Recipe")


def to_query(tab: str, recipe: Any) -> str:
    """The tab and every field that differs from its default.

    >>> from porting.dense_case import DenseCase
    >>> to_query("dense", DenseCase(n=3))
    'tab=dense&n=3'
    """
    changed = {
        f.name: getattr(recipe, f.name)
        for f in fields(recipe)
        if getattr(recipe, f.name) != f.default
    }
    plain = {k: int(v) if isinstance(v, bool) else v for k, v in changed.items()}
    return urlencode({"tab": tab, **plain})


def from_query(default: Recipe, query: Mapping[str, str], choices: Mapping[str, Any]) -> Recipe:
    """`default` with the fields that the query sets to something this recipe allows.

    Args:
        default: a frozen dataclass instance.
        query: of the address; unknown names and unusable values are left out.
        choices: field -> the values it may have, for the fields that are names.

    >>> from porting.dense_case import DenseCase
    >>> from porting.dense_ports import PORTS
    >>> from_query(DenseCase(), {"n": "3", "port": "<b>"}, {"port": PORTS}).n
    3
    """
    found: dict[str, Any] = {}
    for field in fields(default):  # type: ignore[arg-type]
        text, kind = query.get(field.name), type(getattr(default, field.name))
        if text is None or len(text) > 200:
            continue
        if field.name in choices:
            if text in choices[field.name]:
                found[field.name] = text
        elif kind is bool:
            found[field.name] = text == "1"
        elif kind is int and re.fullmatch("-?[0-9]{1,18}", text):
            found[field.name] = int(text)
    return replace(default, **found)  # type: ignore[type-var]
