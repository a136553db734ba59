"""'/'-joined paths <-> Linen variables, NNX modules, flat mappings.

A Linen leaf is named by its collection and module path (`params/ln1/scale`), an NNX leaf
by its attribute path (`ln1/scale`, `layers/0/kernel`), as
`nnx.to_flat_state` spells it. Flax's own writers accept any shape and dtype and ignore
unknown keys (`nnx.update`), or broadcast (`param[...] = x`), so what is written here is
compared first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.errors import ArgumentError, CoverageError, LimitError
from porting.limits import NAME_CHARACTERS, NAME_PARTS, RANK
from porting.tensors import without_torch

if TYPE_CHECKING:
    from flax import nnx


def is_leaf(value: Any) -> bool:
    """Whether `value` is an array or stands for one (it has a shape and a dtype)."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping (or a flat one) as path -> leaf.

    >>> flatten({"params": {"ln1": {"scale": np.ones(3)}}})
    {'params/ln1/scale': array([1., 1., 1.])}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        _check_name(path)
        found: dict[str, Any] = {}
        if isinstance(value, Mapping):
            found = flatten(value, f"{path}/")
        elif isinstance(value, (list, tuple)):
            found = flatten({str(i): item for i, item in enumerate(value)}, f"{path}/")
        elif is_leaf(value):
            if len(value.shape) > RANK:
                raise LimitError(f"{path} has {len(value.shape)} axes. Pass at most {RANK}.")
            found = {path: without_torch(value)}
        elif value is not None:
            raise ArgumentError(
                f"{path} holds a {type(value).__name__}, which is neither an array nor a "
                "mapping of arrays. Pass parameters only."
            )
        twice = flat.keys() & found.keys()
        if twice:
            raise ArgumentError(f"{min(twice)} is named twice. Name every leaf once.")
        flat |= found
    return flat


def _check_name(path: str) -> None:
    """Raise for a name that no model has: of very many parts, or very long."""
    if path.count("/") + path.count(".") >= NAME_PARTS:
        raise LimitError(
            f"{path[:40]}… has more than {NAME_PARTS} parts. Is a mapping in itself? Pass "
            "parameters whose names have fewer parts."
        )
    if len(path) > NAME_CHARACTERS:
        raise LimitError(
            f"{path[:40]}… has {len(path):,} characters. Is a mapping in itself? Pass names of "
            f"at most {NAME_CHARACTERS} characters."
        )


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """path -> leaf as nested dictionaries.

    >>> unflatten({"params/ln1/scale": 1, "params/ln1/bias": 0})
    {'params': {'ln1': {'scale': 1, 'bias': 0}}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ArgumentError(f"{path}: {parent} is both a leaf and a branch.")
        if name in node:
            raise ArgumentError(f"{path}: {name} is both a leaf and a branch.")
        if name in node:
            raise ArgumentError(f"{path}: {name} is both a leaf and a branch.")
        node[name] = leaf
    return tree


def nnx_variables(module: nnx.Module | nnx.State) -> dict[str, nnx.Variable]:
    """The variables of an NNX module by attribute path.

    Random streams are left out, and bare arrays (`nnx.data`): they are no parameters.

    >>> from flax import nnx
    >>> sorted(nnx_variables(nnx.Linear(3, 5, rngs=nnx.Rngs(0))))
    ['bias', 'kernel']
    """
    from flax import nnx

    state = module if isinstance(module, nnx.State) else nnx.state(module)
    return {
        "/".join(map(str, path)): variable
        for path, variable in nnx.to_flat_state(state)
        if isinstance(variable, nnx.Variable) and not isinstance(variable, nnx.RngState)
    }


def leaves(target: Any) -> dict[str, Any]:
    """path -> leaf of anything that holds parameters.

    Args:
        target: a nested or flat mapping, an NNX module or state (also abstract, from
            `nnx.eval_shape`), or a tuple of a Linen module and its sample inputs (shapes
            only: nothing is computed).

    Returns:
        Leaves with `.shape` and `.dtype`; NNX variables are replaced by their value.

    >>> from flax import linen
    >>> {k: v.shape for k, v in leaves((linen.Dense(5), np.zeros((2, 3)))).items()}
    {'params/bias': (5,), 'params/kernel': (3, 5)}
    """
    if isinstance(target, Mapping):
        from_state = type(target).__module__.startswith("flax.nnx")
        if not from_state:
            return flatten(target)
    elif isinstance(target, tuple) and target and hasattr(target[0], "init"):
        import jax

        module, *inputs = target
        try:
            shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        except Exception as error:  # the module is the person's: it may raise anything
            raise ArgumentError(
                "The module cannot be made with its sample input, "
                f"{type(error).__name__}: {error}. Pass (linen_module, sample_input) as in "
                "`module.init(key, sample_input)`."
            ) from error
        return flatten(shapes)
    elif not any(base.__module__.startswith("flax.nnx") for base in type(target).__mro__):
        if hasattr(target, "init") and hasattr(target, "apply"):
            raise ArgumentError(
                "A Linen module alone has no shapes. Pass the pair (module, sample_input)."
            )
        if hasattr(target, "state_dict"):
            raise ArgumentError(
                f"A {type(target).__name__} of PyTorch is a module. Pass its `.state_dict()`."
            )
        raise ArgumentError(
            f"A {type(target).__name__} holds no parameters. Pass a mapping of arrays, an NNX "
            "module or its state, or the pair (linen_module, sample_input)."
        )
    return {path: v.get_value() for path, v in nnx_variables(target).items()}


def write_nnx(module: nnx.Module, values: Mapping[str, Any]) -> None:
    """Write arrays into an NNX module in place, every leaf once, shapes and dtypes equal.

    This replaces the deprecated `variable.value = array` of older tutorials, which writes
    any shape and dtype without a word, as `nnx.update` and `set_value` do.

    Args:
        module: the module; abstract leaves (from `nnx.eval_shape`) are filled as well.
        values: attribute path -> array.

    Raises:
        CoverageError: a path is on one side only, or a shape or dtype differs.

    >>> from flax import nnx
    >>> linear = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    >>> write_nnx(linear, {"kernel": np.ones((3, 5), np.float32), "bias": np.ones(5, np.float32)})
    >>> float(linear.bias[...].sum())
    5.0
    """
    import jax.numpy as jnp

    variables = nnx_variables(module)
    check_cover({path: v.get_value() for path, v in variables.items()}, values)
    for path, variable in variables.items():
        variable.set_value(jnp.asarray(values[path]))


def check_cover(expected: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise unless both have the same paths with the same shapes and dtypes.

    >>> check_cover({"a": np.zeros(2)}, {"a": np.zeros(2)})
    >>> check_cover({"a": np.zeros(2)}, {"b": np.zeros(2)})
    Traceback (most recent call last):
    porting.errors.CoverageError: The leaves do not match:
    a is not filled
    b has no place in the target
    """
    wrong = [f"{path} is not filled" for path in expected if path not in given]
    wrong += [f"{path} has no place in the target" for path in given if path not in expected]
    for path in expected.keys() & given.keys():
        want, have = expected[path], given[path]
        if tuple(want.shape) != tuple(have.shape):
            wrong.append(f"{path} has shape {tuple(have.shape)}, the target {tuple(want.shape)}")
        elif np.dtype(want.dtype) != np.dtype(have.dtype):
            wrong.append(f"{path} has dtype {have.dtype}, the target {want.dtype}")
    if wrong:
        raise CoverageError("\n".join(["The leaves do not match:", *fold(sorted(wrong))]))


def fold(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in one number, written once with all its values.

    >>> fold(["layer.0.bias is open", "layer.1.bias is open", "head is open"])
    ['layer.{0,1}.bias is open', 'head is open']
    >>> fold(f"layer.{i}.bias is open" for i in range(48))
    ['layer.{0…47}.bias is open']
    """
    groups: dict[str, list[str]] = {}
    for line in lines:
        match = re.search(r"(?<![\w(])\d+(?![\w)])|(?<=_)\d+(?![\w)])", line)
        key = f"{line[: match.start()]}\0{line[match.end() :]}" if match else line
        groups.setdefault(key, []).append(match[0] if match else "")
    folded = []
    for key, found in groups.items():
        numbers = found[0] if len(found) == 1 else "{" + _run(found) + "}"
        folded.append(key.replace("\0", numbers))
    return folded


def _run(numbers: list[str]) -> str:
    """Numbers for a message: the first and the last where none is missing between them."""
    in_order = sorted(numbers, key=int)
    whole = [str(int(in_order[0]) + i) for i in range(len(numbers))]
    return (
        f"{whole[0]}…{whole[-1]}" if len(numbers) > 3 and in_order == whole else ",".join(numbers)
    )
