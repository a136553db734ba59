"""The rotation of rotary position embedding, in NumPy and in JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def rotary_angles(time: int, dim: int, base: float) -> np.ndarray:
    """position · base^(−2i/dim), of shape (time, dim / 2), float64.

    >>> rotary_angles(2, 4, 10000.0).round(3).tolist()
    [[0.0, 0.0], [1.0, 0.01]]
    """
    return np.outer(np.arange(time), base ** (-np.arange(0, dim, 2) / dim))


@dataclass(frozen=True)
class Rotation:
    """Which features turn, how fast, and in which pairs.

    Attributes:
        width: the first features of a head turn, an even number of them.
        base: 10000 unless the model says otherwise.
        interleaved: pairs are (2i, 2i + 1); else half-split, (i, i + width / 2).
    """

    width: int
    base: float = 10000.0
    interleaved: bool = False

    def turn(self, x: Any, api: Any, axis: int) -> Any:
        """x (…, head_dim) turned by its position along `axis` (negative).

        Args:
            api: `numpy` or `jax.numpy`.
        """
        angles = rotary_angles(x.shape[axis], self.width, self.base)
        angles = angles.reshape(len(angles), *[1] * (-axis - 2), -1)
        cos, sin = (api.asarray(f(angles), x.dtype) for f in (np.cos, np.sin))
        turned = self._pairs(x[..., : self.width], cos, sin, api)
        if self.width == x.shape[-1]:
            return turned
        return api.concatenate([turned, x[..., self.width :]], -1)

    def _pairs(self, x: Any, cos: Any, sin: Any, api: Any) -> Any:
        half = self.width // 2
        if self.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
        else:
            a, b = x[..., :half], x[..., half:]
        parts = (a * cos - b * sin, b * cos + a * sin)
        if self.interleaved:
            return api.stack(parts, -1).reshape(x.shape)
        return api.concatenate(parts, -1)
