"""The colours of numbers: one diverging scale for values, one for error over its bound."""

from __future__ import annotations

import numpy as np

#: blue through white to orange, symmetric about 0, apart under every colour blindness
VALUES = [
    [0.0, "#08306b"],
    [0.2, "#3a7ab8"],
    [0.4, "#bcd7ec"],
    [0.5, "#ffffff"],
    [0.6, "#fdd5ae"],
    [0.8, "#e07b2c"],
    [1.0, "#7f2704"],
]
#: white as far as rounding goes, then vermilion by powers of ten
EXCESS = [[0.0, "#ffffff"], [0.02, "#fbe3d9"], [0.5, "#e08a63"], [1.0, "#8f2f0b"]]
#: decades of error over bound that the scale spans
DECADES = 6.0


def symmetric_limit(*arrays: np.ndarray | None) -> float:
    """The largest finite magnitude of all arrays: one range for all that is compared.

    >>> symmetric_limit(np.array([1.0, -3.0]), np.array([np.inf]))
    3.0
    """
    peaks = [
        float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) for a in arrays if a is not None
    ]
    return max(peaks, default=0.0) or 1.0


def excess(ratio: np.ndarray) -> np.ndarray:
    """log₁₀ of a ratio, 0 up to 1, at most `DECADES`.

    >>> excess(np.array([0.5, 100.0, np.inf])).tolist()
    [0.0, 2.0, 6.0]
    """
    return np.log10(np.clip(ratio, 1.0, 10.0**DECADES))
