"""Which tensors have the very values of a leaf, in whatever order."""

from __future__ import annotations

import numpy as np

from porting.doctor.bits import canonical, constant, fingerprint
from porting.doctor.evidence import Evidence
from porting.doctor.values import narrow_type, single, through


class Contents:
    """Leaves, each with the keys whose values it has, as they are or through a narrower type.

    The caches belong to one diagnosis; nothing outlives it.

    >>> weight = np.float32([[1.1, 2.2], [3.3, 4.4]])
    >>> Contents(Evidence({"a": weight, "b": 2 * weight})).keys_of(weight.T)
    ['a']
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._prints: dict[tuple[str, type], int] = {}

    def keys_of(self, leaf: np.ndarray) -> list[str]:
        """The keys whose values a leaf has; none for a constant, which is nobody's."""
        keys, bits = self._evidence.of_size(leaf.size), canonical(leaf)
        if not keys or constant(bits):
            return []
        own = fingerprint(bits)
        found = [key for key in keys if self._evidence.print_of(key) == own]
        narrow = None if found else narrow_type(leaf)
        return found if narrow is None else [k for k in keys if self._through(k, narrow) == own]

    def _through(self, key: str, narrow: type) -> int:
        """The fingerprint of a tensor in a narrower type."""
        if (key, narrow) not in self._prints:
            array = self._evidence.array(key)
            if array.dtype.kind not in "fV":
                return -1
            self._prints[key, narrow] = fingerprint(canonical(through(narrow)(single(array))))
        return self._prints[key, narrow]
