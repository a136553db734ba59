"""Which axis of a weight comes first in the source: `out` in PyTorch, `in` in GPT-2's Conv1D."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from porting.doctor.names import parent, template
from porting.mapping.names import components, role

Shapes = Mapping[str, Sequence[int]]

#: roles of layers that read the width of the model, and of those that write it
READING, WRITING = frozenset({"q", "k", "v", "gate", "up"}), frozenset({"o", "down"})


def out_in_front(key: str, shapes: Shapes) -> bool:
    """Whether `out` comes first in a matrix: told by its bias, or by those of its likes.

    >>> out_in_front("fc.weight", {"fc.weight": (8, 3), "fc.bias": (3,)})
    False
    """
    shape, bias = tuple(shapes[key]), shapes.get(f"{parent(key)}.bias")
    if bias is not None and shape[0] != shape[1] and len(bias) == 1:
        return shape[0] == bias[0]
    return _front_of_likes(key, shapes)


def _front_of_likes(key: str, shapes: Shapes) -> bool:
    """Whether `out` comes first in the source: so in PyTorch, but for GPT-2's Conv1D."""
    stem, numbered, _ = template(key).partition("#")
    oblong = (k for k, s in shapes.items() if numbered and len(s) == 2 and s[0] != s[1])
    for other in oblong:
        bias = shapes.get(f"{parent(other)}.bias")
        if bias is not None and template(other).partition("#")[0] == stem:
            return tuple(bias) == (shapes[other][0],)
    return True


def out_first(keys: Sequence[str], shapes: Shapes) -> bool:
    """Whether an oblong weight proves that `out` comes first in the source.

    A bias is as long as `out`. Without one, a layer that reads (or writes) the width of the
    model by its name has that length last (or first): the width is that of most vectors.

    >>> out_first(["q_proj.weight"], {"q_proj.weight": (8, 6), "norm.weight": (6,)})
    True
    """
    vectors = Counter(tuple(shape) for shape in shapes.values() if len(shape) == 1)
    width = vectors.most_common(1)[0][0] if vectors else ()
    for key in keys:
        shape, what = tuple(shapes[key]), role(components(parent(key)))
        bias = shapes.get(f"{parent(key)}.bias")
        if bias is not None and tuple(bias) == shape[:1]:
            return True
        end = shape[1:] if what in READING else shape[:1] if what in WRITING else ()
        if len(shape) == 2 and bias is None and width and end == width:
            return True
    return False
