"""What a person is told when a port cannot be done.

Every error of this package is a `PortingError`. Its text is a sentence for the person at
the keyboard: what is wrong (names, axes, sizes), why that is likely, and what to do.
Anything else that escapes is a bug.
"""

from typing import Any


class PortingError(ValueError):
    """Base class: a request that cannot be carried out, explained."""


class ArgumentError(PortingError):
    """An argument has the wrong kind, rank, length or range.

    Wrong: `load_hf_dense(0, x, weight[:-1], bias, 8)`, a weight one number short.
    Right: `load_hf_dense(0, x, weight, bias, 8)`.
    """


class LimitError(PortingError):
    """The request is well formed and larger than this tool accepts.

    Wrong: `features=1e12`.  Right: a size within `porting.limits`.
    """


class RuleError(PortingError):
    """A rearrangement does not fit the array it is given.

    Wrong: `Rule("o i -> i o").apply(conv_kernel)`, two names for four axes.
    Right: `Rule("o i h w -> h w i o").apply(conv_kernel)`.
    """


class CoverageError(PortingError):
    """A leaf is left over on one side, or its shape or dtype differs.

    Wrong: a state_dict without `linear1.bias`.  Right: all keys of the layer.
    """


class UnsupportedError(PortingError):
    """Flax has no way to say this; the text names the way round.

    Wrong: `port_layer_nnx("GRU", …)` with a non-zero `b_hh[n]`.
    Right: the Linen module, whose `GRUCell` has that bias.
    """


class CheckpointError(PortingError):
    """A file is not a checkpoint that can be read as data only.

    Wrong: a pickled module.  Right: its `state_dict()`.
    """


def checked(name: str, value: Any, kinds: type | tuple[type, ...], way_out: str) -> None:
    """Refuse a `value` that is of none of the `kinds`.

    >>> checked("mapping", 3, dict, "Pass a dictionary.")
    Traceback (most recent call last):
    porting.errors.ArgumentError: mapping is of the type int. Pass a dictionary.
    """
    if not isinstance(value, kinds):
        raise ArgumentError(f"{name} is of the type {type(value).__name__}. {way_out}")


def number_of(count: int, noun: str) -> str:
    """`count` and `noun`, in the plural where it is one.

    >>> number_of(1, "leaf"), number_of(3, "key")
    ('1 leaf', '3 keys')
    """
    plural = {"leaf": "leaves", "axis": "axes"}.get(noun, noun + "s")
    return f"{count:,} {noun if count == 1 else plural}"
