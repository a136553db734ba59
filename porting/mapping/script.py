"""A mapping written as a script: NumPy only, so that it can be read, kept and run alone."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from porting.checkpoint.dtypes import PLAIN
from porting.errors import ArgumentError
from porting.layouts import Rule
from porting.mapping.result import MappedLeaf, Mapping
from porting.mapping.rows import rows_of

_HEAD = '''"""The port of a checkpoint into Flax ({kind}). Written by PortLens."""

import re

{imports}

# (patterns of the source keys, path of the leaf, how the arrays w become the leaf)
TABLE = [
'''
_TAIL = '''

def port(source):
    """Source key -> array becomes path -> array."""
    leaves = {}
    for (first, *others), path, make in TABLE:
        for key in source:
            if match := re.fullmatch(first, key):
                keys = [key]
                for other in others:
                    same = (re.fullmatch(other, k) for k in source)
                    keys += [m[0] for m in same if m and m.groups() == match.groups()][:1]
                leaves[match.expand(path)] = make([source[k] for k in keys])
    return leaves


def nested(leaves):
    """path -> array as nested dictionaries."""
    tree = {}
    for path, array in leaves.items():
        *parents, name = %s
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = np.asarray(array, order="C")
    return tree


if __name__ == "__main__":
    variables = nested(port(%s))
    %s
'''
_SPLIT = {
    "linen": 'path.split("/")',
    "nnx": '[int(p) if p.isdigit() else p for p in path.split("/")]',
}
_USE = {
    "linen": "# outputs = model.apply(variables, inputs)",
    "nnx": "# from flax import nnx; nnx.update(model, variables)",
}
_JOINS = {
    "only": "w[0]",
    "stack": "np.stack(w)",
    "concat": "np.concatenate(w)",
    "sum": "sum(w[1:], w[0])",
    "one_plus": "(w[0] + w[0].dtype.type(1))",
}


@dataclass(frozen=True)
class Source:
    """What a script reads.

    Attributes:
        files: the file of the checkpoint, or its shards.
        types: the dtypes of all its tensors.
        shapes: source key -> shape.
        casts: path of a leaf -> the dtype that it was cast to.
    """

    files: Sequence[str]
    types: frozenset[str]
    shapes: AnyMapping[str, tuple[int, ...]]
    casts: AnyMapping[str, str] = field(default_factory=dict)

    @property
    def load(self) -> tuple[str, str]:
        """The import of a reader, and the expression that reads with it.

        The library of safetensors reads one file of NumPy's own types; bfloat16 too, where
        ml_dtypes was imported before.
        """
        first, *others = self.files
        if first.endswith(".safetensors") and not others and self.types <= {*PLAIN, "bfloat16"}:
            return "from safetensors.numpy import load_file", f"load_file({first!r})"
        named = repr(list(self.files) if others else first)
        return (
            "from porting import open_checkpoint  # PortLens",
            f"open_checkpoint({named}, allow_directories=True)",
        )

    @property
    def imports(self) -> str:
        """What stands at the head of the script."""
        own = not self.types.union(self.casts.values()) <= set(PLAIN)
        lines = ["import ml_dtypes  # NumPy alone has no bfloat16"] if own else []
        return "\n".join([*lines, "import numpy as np", self.load[0]])

    def cast(self, path: str) -> str:
        """What to write behind a leaf to cast it as the port did."""
        name = self.casts.get(path)
        return f".astype({'np' if name in PLAIN else 'ml_dtypes'}.{name})" if name else ""


def script(mapping: Mapping, source: Source, kind: str) -> str:
    """The port of `mapping` as the text of a Python program.

    Args:
        mapping: the table of the port.
        source: the checkpoint that the script reads.
        kind: "linen" or "nnx".

    Raises:
        ArgumentError: `kind` is neither "linen" nor "nnx".
    """
    if kind not in _SPLIT:
        raise ArgumentError(f'kind = {kind!r}: a script is for "linen" or for "nnx".')

    def code(leaf: MappedLeaf) -> str:
        return leaf_code(leaf, source.shapes) + source.cast(leaf.path)

    lines = []
    for row, leaf in rows_of(mapping, code):
        patterns = ", ".join(_raw(key) for key in row.source)
        doubt = "" if leaf.confident else f"  # UNSURE: {' '.join(row.why.split())}"
        lines.append(
            f"    (\n        [{patterns}],\n        {_raw(row.path)},\n"
            f"        lambda w: {code(leaf)},  # {leaf.rule}{doubt}\n    ),\n"
        )
    tail = _TAIL % (_SPLIT[kind], source.load[1], _USE[kind])
    return _HEAD.format(kind=kind, imports=source.imports) + "".join(lines) + "]\n" + tail


def _raw(text: str) -> str:
    plain = text.isprintable() and '"' not in text and not text.endswith("\\")
    return f'r"{text}"' if plain else ascii(text)


def leaf_code(leaf: MappedLeaf, shapes: AnyMapping[str, tuple[int, ...]]) -> str:
    """The expression that makes a leaf from its source arrays `w`.

    >>> kernel = MappedLeaf("fc/kernel", ("fc.weight",), Rule("o i -> i o"))
    >>> leaf_code(kernel, {"fc.weight": (5, 3)})
    'w[0].transpose(1, 0)'
    """
    name, _, dim = leaf.join.name.partition(":")
    if name == "weight_norm":
        axes = tuple(
            a for a in range(len(shapes[leaf.sources[1]])) if dim == "None" or a != int(dim)
        )
        start = f"(w[1] * (w[0] / np.sqrt(np.square(w[1]).sum({axes}, keepdims=True))))"
    else:
        start = _JOINS[name]
    blanks = [np.broadcast_to(np.float32(1), shapes[key]) for key in leaf.sources]
    return start + rule_code(leaf.rule, leaf.join.forward(blanks).shape)


def rule_code(rule: Rule, shape: tuple[int, ...]) -> str:
    """What to write behind an array of `shape` to apply `rule` to it.

    >>> rule_code(Rule("(qkv=1 h d) e -> e h d", {"qkv": 3, "h": 2}), (12, 4))
    '.reshape(3, 2, 2, 4)[1].transpose(2, 0, 1)'
    """
    left, right = rule.sides
    sizes = {"1": 1, **rule.axis_sizes(shape)}
    atoms = [atom for axis in left for atom in axis.atoms]
    text = _index([axis.take if axis.parts else None for axis in left])
    if any(axis.parts for axis in left):
        text += f".reshape({_listed(sizes[a.name] for a in atoms)})"
    text += _index([0 if a.name == "1" else a.take for a in atoms])
    kept = [a.name for a in atoms if not isinstance(a.take, int) and a.name != "1"]
    flips = {a.name for axis in left + right for a in axis.atoms if a.flip}
    text += _index([slice(None, None, -1) if name in flips else None for name in kept])
    goal = [a.name for axis in right for a in axis.atoms if a.name != "1"]
    order = [kept.index(name) for name in goal]
    text += f".transpose({_listed(order)})" if order != sorted(order) else ""
    merges = any(axis.parts or axis.name == "1" for axis in right)
    return text + (f".reshape({_listed(rule.shape(shape))})" if merges else "")


def _index(takes: list[int | slice | None]) -> str:
    """A subscript, "" where it would take everything."""
    while takes and takes[-1] is None:
        takes = takes[:-1]
    return "[" + ", ".join(map(_taken, takes)) + "]" if takes else ""


def _taken(take: int | slice | None) -> str:
    if isinstance(take, slice):
        start, stop = ("" if n is None else str(n) for n in (take.start, take.stop))
        return f"{start}:{stop}" + ("" if take.step is None else f":{take.step}")
    return ":" if take is None else str(take)


def _listed(numbers) -> str:
    return ", ".join(str(int(n)) for n in numbers)
