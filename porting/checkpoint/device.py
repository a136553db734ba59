"""`to_jax`: a ported tree as JAX arrays, one leaf after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from porting.checkpoint.files import Freed
from porting.errors import ArgumentError, checked
from porting.tree import flatten, fold

_ALIGNED = 64  # bytes; from such a place JAX takes an array on the CPU without a copy
_LARGE = 2**18  # bytes; what is smaller lies in the cache of the processor as a whole


def to_jax(variables: Mapping[Any, Any]) -> dict[Any, Any]:
    """A tree of NumPy arrays as JAX arrays in one copy: peak memory is the tree and its largest leaf.

    `jax.tree.map(jnp.asarray, variables)` makes the same arrays in more memory: the pages
    of the file that were looked at stay beside them, and where a leaf is a transposed view
    JAX makes copies on the way, whose memory the allocator keeps.

    Args:
        variables: nested dictionaries, as `port_checkpoint` returns them.

    Returns:
        The same tree of `jax.Array` on JAX's default device, dtypes kept.

    Raises:
        ArgumentError: JAX would narrow a dtype, or has no such type; all of them at once.

    >>> to_jax({"params": {"kernel": np.ones((2, 3), np.float32).T}})["params"]["kernel"].shape
    (3, 2)
    """
    import jax

    checked("variables", variables, Mapping, "Pass nested dictionaries of arrays.")
    _check_dtypes(flatten({str(key): value for key, value in variables.items()}))
    freed = Freed()

    def moved(leaf: Any) -> Any:
        array = np.asarray(leaf)
        made = jax.device_put(_fresh(array), may_alias=True)
        made.block_until_ready()
        freed.after(array)
        return made

    return _mapped(variables, moved)


def _mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """`tree` with its leaves changed; JAX's own map would sort keys, and fails on 0 beside "a"."""
    if isinstance(tree, Mapping):
        return {key: _mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_mapped(value, change) for value in tree]
    return None if tree is None else change(tree)


def _fresh(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy that nobody else holds, at an address that JAX takes as it is."""
    raw = np.empty(array.nbytes + _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    if array.flags.c_contiguous or array.nbytes < _LARGE:
        copy[...] = array
        return copy
    # A transposed view line by line: twice as fast as at once, where each row evicts the last.
    step = max(_ALIGNED // array.itemsize, -(-array.shape[-1] // 1024))
    for i in range(0, array.shape[-1], step):
        copy[..., i : i + step] = array[..., i : i + step]
    return copy


def _check_dtypes(flat: Mapping[str, Any]) -> None:
    becomes = {dtype: _in_jax(dtype) for dtype in {np.dtype(leaf.dtype) for leaf in flat.values()}}
    wrong = [
        f"{path} is {leaf.dtype}, which JAX {becomes[leaf.dtype]}"
        for path, leaf in flat.items()
        if becomes[leaf.dtype]
    ]
    if wrong:
        raise ArgumentError(
            "\n".join(
                [
                    "JAX cannot hold these leaves as they are. Pass dtype= to port_checkpoint, or "
                    'turn on 64-bit types with jax.config.update("jax_enable_x64", True):',
                    *fold(wrong),
                ]
            )
        )


def _in_jax(dtype: np.dtype) -> str:
    """What JAX would do to an array of `dtype`; "" if nothing."""
    import jax

    try:
        made = jax.device_put(np.zeros(0, dtype)).dtype
    except (TypeError, RuntimeError):
        return "lacks"
    return "" if made == dtype else f"would narrow to {made}"
