"""The layer zoo: how each layer's leaves are ported, run, proved and ported back."""

from porting.layers.judge import compare_layer
from porting.layers.row import Config, Input, Layer
from porting.layers.run import (
    layer_named,
    port_layer,
    port_layer_nnx,
    run_layer,
    settled,
    unport_layer,
)
from porting.layers.table import LAYERS

__all__ = [
    "LAYERS",
    "Config",
    "Input",
    "Layer",
    "compare_layer",
    "layer_named",
    "port_layer",
    "port_layer_nnx",
    "run_layer",
    "settled",
    "unport_layer",
]
