"""`LAYERS`: every row, by the name of the PyTorch class."""

from __future__ import annotations

from porting.layers import (
    activation,
    attention,
    conv,
    dense,
    encoder,
    norm,
    parametrised,
    recurrent,
    shaping,
)
from porting.layers.row import Layer

_FAMILIES = (
    dense,
    conv,
    norm,
    attention,
    encoder,
    recurrent,
    parametrised,
    activation,
    shaping,
)

LAYERS: dict[str, Layer] = {row.name: row for family in _FAMILIES for row in family.ROWS}
