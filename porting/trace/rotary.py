"""Rotary positions as float64 NumPy functions: layouts, angles, a rounding in between."""

from __future__ import annotations

import numpy as np


def narrow(x: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16 and back.

    >>> float(narrow(np.float64(1.001)))
    1.0
    """
    import ml_dtypes

    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def angles(length: int, half: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and sines of rotary positions from 0, of (length, half).

    >>> [a.tolist() for a in angles(1, 2, 1e4)]
    [[[1.0, 1.0]], [[0.0, 0.0]]]
    """
    angle = np.arange(length)[:, None] * base ** (-np.arange(half) / half)
    return np.cos(angle), np.sin(angle)


def rotate(
    x: np.ndarray,
    style: str,
    base: float = 1e4,
    share: float = 1.0,
    given: tuple[np.ndarray, np.ndarray] | None = None,
    precision: str = "float32",
) -> np.ndarray:
    """Rotary positions on (b, t, heads, width).

    Args:
        x: the queries or keys.
        style: `none`, `half-split` or `interleaved`; `by the given angles` may follow.
        base: of the angles, where none are given.
        share: the share of the width that turns.
        given: cosines and sines, of (t, width) or (b, t, width); of fewer tokens than `x`
            has, they are those of the last ones.
        precision: `bfloat16 in the rotation` rounds every step.

    >>> rotate(np.ones((1, 1, 1, 4)), "half-split").tolist()
    [[[[1.0, 1.0, 1.0, 1.0]]]]
    """
    if style == "none":
        return x
    rounded = narrow if precision == "bfloat16 in the rotation" else np.asarray
    width = int(x.shape[-1] * share)
    half, split = width // 2, style.startswith("half-split")
    if "given" in style and given is not None:
        wide = given[0].shape[-1] > half
        take = slice(0, half) if split or not wide else slice(0, None, 2)
        cos, sin = (a[..., None, take] for a in given)
    else:
        cos, sin = (a[:, None] for a in angles(x.shape[1], half, base))
    sin = -sin if "backwards" in style else sin
    cos, sin, x = rounded(cos), rounded(sin), rounded(x)
    first = x.shape[1] - cos.shape[-3]
    turning, rest = x[:, first:, :, :width], x[:, first:, :, width:]
    a, b = (
        (turning[..., :half], turning[..., half:])
        if split
        else (turning[..., ::2], turning[..., 1::2])
    )
    turned = (
        rounded(rounded(a * cos) - rounded(b * sin)),
        rounded(rounded(b * cos) + rounded(a * sin)),
    )
    joined = np.concatenate(turned, -1) if split else np.stack(turned, -1).reshape(turning.shape)
    return np.concatenate([x[:, :first], np.concatenate([joined, rest], -1)], 1)
