"""`LAYERS`: every row, by the name of the PyTorch class."""

from __future__ import annotations

from porting.layers import (
    activation,
    attention,
    batch_norm,
    conv,
    conv_transpose,
    dense,
    embedding,
    encoder,
    norm,
    packed,
    parametrised,
    pooling,
    recurrent,
    rotary,
    shaping,
)
from porting.layers.row import Layer

_FAMILIES = (
    dense,
    embedding,
    conv,
    conv_transpose,
    batch_norm,
    norm,
    attention,
    packed,
    rotary,
    encoder,
    recurrent,
    parametrised,
    activation,
    pooling,
    shaping,
)

LAYERS: dict[str, Layer] = {row.name: row for family in _FAMILIES for row in family.ROWS}
