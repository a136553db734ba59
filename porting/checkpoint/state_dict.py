"""Which of the tensors in a PyTorch file are the weights.

A file is often a dict around the state_dict: `{"model_state_dict": …, "optimizer": …,
"epoch": 7}`. The state_dict inside is found and its keys are used as they are; whatever
else holds tensors is left out and noted. Where there are several state_dicts and no name
tells which is meant, all are kept, with their names in front, joined by '.'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from porting import limits
from porting.checkpoint.contents import check_count, check_name, quoted
from porting.checkpoint.pickles import Unknown
from porting.checkpoint.torch_calls import TensorRef, Unreadable
from porting.errors import CheckpointError, LimitError, number_of

_SPARE = 10_000  # values that are named twice, such as a dict shared by two others
_Path = tuple[Any, ...]
_Leaf = TensorRef | Unreadable
_LEAVES = (TensorRef, Unreadable)
_PLAIN = frozenset([int, float, bool, str, bytes, bytearray, type(None)])

#: Names under which a state_dict is kept, whatever stands beside it.
_STATE_DICT = frozenset({"state_dict", "model_state_dict", "model_state", "model_states"})
#: Names of a wrapper that is dropped if nothing else beside it holds weights.
_WRAPPER = frozenset(
    [
        "model",
        "net",
        "network",
        "module",
        "params",
        "weights",
        "generator",
        "params_ema",
        "backbone",
        "ema",
    ]
)
#: Names of what training keeps beside the weights.
_TRAINING = re.compile(
    r"optim|sched|scaler|rng|amp$|_ema$|^ema|hyper|loss|criterion|metric|callback|loops", re.I
)


@dataclass
class _Found:
    """All leaves of a value with their paths, and the modules among them."""

    leaves: dict[_Path, _Leaf] = field(default_factory=dict)
    modules: list[Unknown] = field(default_factory=list)
    training: set[_Path] = field(default_factory=set)
    others: list[_Path] = field(default_factory=list)


def find_state_dict(
    file: str, root: Any, length: int
) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    """The weights in the value of a PyTorch file, by key, and notes on what was left out.

    Args:
        file: the file's name, for messages.
        root: the value of its pickle.
        length: bytes of that pickle. It has no more values than bytes, unless a few lists
            that refer to one another stand for billions.

    Raises:
        CheckpointError: a whole module was pickled, there are no tensors, or one of them is
            not a plain array.
        LimitError: too many values, tensors, or tables inside tables.
    """
    if isinstance(root, _Leaf):
        return {"tensor": _readable(file, "tensor", root)}, ()
    found = _walk(file, root, min(limits.PICKLE_OPCODES, length + _SPARE))
    prefix, chosen = _choose(found)
    if not chosen:
        raise _nothing(file, root, found)
    tensors: dict[str, TensorRef] = {}
    for path in chosen:
        name = check_name(file, ".".join(str(part) for part in path[len(prefix) :]))
        if name in tensors:
            raise CheckpointError(
                f"{file}: two tensors are called {quoted(name)} once the tables are joined with "
                "'.'. Save one flat state_dict."
            )
        tensors[name] = _readable(file, name, found.leaves[path])
    return tensors, _notes(found, prefix, chosen)


def _readable(file: str, name: str, leaf: _Leaf) -> TensorRef:
    if isinstance(leaf, Unreadable):
        raise CheckpointError(f"{file}: tensor {quoted(name)} {leaf.reason}.")
    return leaf


def _table(value: Any) -> dict[Any, Any] | Sequence[Any] | None:
    """What `value` holds, if it is a table or a list."""
    if isinstance(value, (dict, list, tuple)):
        return value
    return value.items if isinstance(value, Unknown) and not value.is_module else None


def _items(table: dict[Any, Any] | Sequence[Any], depth: int) -> Iterator[tuple[Any, Any]] | None:
    """The items of a table, or of a list or far down those that can lead to a tensor, if any."""
    values: Iterable[Any] = table
    items: Iterable[tuple[Any, Any]] = enumerate(table)
    if isinstance(table, dict):
        values, items = table.values(), table.items()
        if depth < 2:
            return iter(items)
    if _PLAIN.issuperset(map(type, values)):
        return None
    return iter([item for item in items if type(item[1]) not in _PLAIN])


def _walk(file: str, root: Any, most: int) -> _Found:
    """Every tensor below `root`: without recursion, and with an end even in a loop."""
    found, visits = _Found(), 0
    path: list[Any] = []
    stack = [_items(_table(root) or [root], 0) or iter(())]
    while stack:
        for key, value in stack[-1]:
            if isinstance(value, _LEAVES):
                found.leaves[*path, key] = value
                check_count(file, len(found.leaves))
                continue
            inner = _table(value)
            if inner is not None:
                visits += len(inner)
                if visits > most or len(stack) >= limits.DEPTH:
                    raise LimitError(
                        f"{file}: its tables hold more than {most:,} values or lie "
                        f"more than {limits.DEPTH} deep, perhaps in a loop. Save the state_dict alone."
                    )
                if isinstance(value, dict) and "param_groups" in value:
                    found.training.add((*path, key))
                below = _items(inner, len(path) + 1)
                if below is None:
                    continue
                path.append(key)
                stack.append(below)
                break
            if isinstance(value, Unknown) and value.is_module:
                found.modules.append(value)
            found.others.append((*path, key)) if len(path) < 2 and isinstance(key, str) else None
        else:
            stack.pop()
            if path:
                path.pop()
    return found


def _choose(found: _Found) -> tuple[_Path, list[_Path]]:
    """The path of the state_dict, and the paths of the tensors to take from below it."""
    prefix: _Path = ()
    chosen = list(found.leaves)
    while True:
        chosen = [p for p in chosen if not _is_training(found, p, len(prefix))]
        name = _wrapper(chosen, len(prefix))
        if name is None:
            return prefix, chosen
        chosen = [p for p in chosen if p[len(prefix)] == name and len(p) > len(prefix) + 1]
        prefix = (*prefix, name)


def _is_training(found: _Found, path: _Path, depth: int) -> bool:
    inside = len(path) > depth + 1
    return inside and (
        path[: depth + 1] in found.training or bool(_TRAINING.search(str(path[depth])))
    )


def _wrapper(paths: Sequence[_Path], depth: int) -> Any:
    """The name at `depth` that only wraps the state_dict, or None."""
    tables = list(dict.fromkeys(p[depth] for p in paths if len(p) > depth + 1))
    texts = [name for name in tables if isinstance(name, str)]
    strong = [name for name in texts if name in _STATE_DICT]
    if len(strong) == 1:
        return strong[0]
    if len(tables) != 1 or not texts:
        return None
    below = [p for p in paths if len(p) > depth + 1]
    flat = all(len(p) == depth + 2 for p in below)
    dotted = any("." in str(p[depth + 1]) for p in below)
    is_wrapper = texts[0] in _WRAPPER or texts[0].endswith("state_dict")
    return texts[0] if is_wrapper or (flat and dotted and len(below) == len(paths)) else None


def _nothing(file: str, root: Any, found: _Found) -> CheckpointError:
    whole = [root] if isinstance(root, Unknown) else found.modules
    if whole:
        return CheckpointError(
            f"{file}: holds a whole pickled object ({quoted(whole[0].name)}), not its weights. "
            "Where you trust the file, load it in PyTorch and save the state_dict instead: "
            "torch.save(model.state_dict(), path)."
        )
    rest = " but those of an optimizer or of training" if found.leaves else ""
    return CheckpointError(f"{file}: holds no tensors{rest}. Save the model's state_dict.")


def _notes(found: _Found, prefix: _Path, chosen: Sequence[_Path]) -> tuple[str, ...]:
    taken, notes = set(chosen), []
    left: dict[str, int] = {}
    for path in found.leaves:
        if path not in taken:
            depth = next((i for i, part in enumerate(path) if path[: i + 1] != prefix[: i + 1]), 0)
            name = ".".join(str(part) for part in path[: depth + 1])
            left[name] = left.get(name, 0) + 1
    if prefix:
        notes.append(f"The weights are those under {quoted('.'.join(map(str, prefix)))}.")
    notes += [f"Left out {quoted(name)}: {number_of(n, 'tensor')}." for name, n in left.items()]
    if found.others:
        names = ", ".join(quoted(".".join(map(str, path)), 40) for path in found.others[:5])
        more = ", …" if len(found.others) > 5 else ""
        notes.append(f"Left out what is no tensor: {names}{more}.")
    return tuple(notes)
