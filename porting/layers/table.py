"""`LAYERS`: every row, by the name of the PyTorch class."""

from __future__ import annotations

from porting.layers import attention, conv, dense, norm
from porting.layers.row import Layer

_FAMILIES = (dense, conv, norm, attention)

LAYERS: dict[str, Layer] = {row.name: row for family in _FAMILIES for row in family.ROWS}
