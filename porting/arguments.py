"""Arrays that a person passes, checked before they are used."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from porting.errors import ArgumentError, number_of


def real_array(name: str, value: Any, axes: tuple[str, ...]) -> jax.Array:
    """`value` as a floating JAX array with these `axes`, none of them empty.

    >>> real_array("x", [[1, 2, 3]], ("T", "d_model")).shape
    (1, 3)
    >>> float(real_array("x", [2**40], ("N",))[0]) == 2**40
    True
    >>> real_array("x", [1, 2, 3], ("T", "d_model"))
    Traceback (most recent call last):
    porting.errors.ArgumentError: x has shape (3,). Pass an array of 2 axes: (T, d_model).
    """
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise TypeError
        if array.dtype.kind in "iub" and isinstance(array, np.ndarray):
            array = array.astype(np.float32)  # JAX would wrap an integer past 32 bits
        with np.errstate(over="raise"):
            array = jnp.asarray(array)
        array = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    except FloatingPointError:
        raise ArgumentError(
            f"{name} holds a number beyond the range of float32. Scale it down."
        ) from None
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{name} is not an array of real numbers. Pass a NumPy or JAX array."
        ) from None
    named = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
    if array.ndim != len(axes):
        raise ArgumentError(
            f"{name} has shape {array.shape}. Pass an array of "
            f"{number_of(len(axes), 'axis')}: {named}."
        )
    if 0 in array.shape:
        raise ArgumentError(
            f"{name} has shape {array.shape}, which holds no numbers. Pass at least one along each axis."
        )
    return array
