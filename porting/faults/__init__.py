"""The catalogue of faults: what goes wrong in ports, and how to make it on purpose."""

from porting.faults.injection import checked, faults_for, fresh_leaves, inject, port_of
from porting.faults.row import (
    Fault,
    Forward,
    Leaves,
    Port,
    Transform,
    change,
    configure,
    exchange,
    in_turn,
    rearrange,
    run_with,
    skip,
    skip_paths,
)
from porting.faults.table import FAULTS, fault_named, fitting

__all__ = [
    "FAULTS",
    "Fault",
    "Forward",
    "Leaves",
    "Port",
    "Transform",
    "change",
    "checked",
    "configure",
    "exchange",
    "fault_named",
    "faults_for",
    "fitting",
    "fresh_leaves",
    "in_turn",
    "inject",
    "port_of",
    "rearrange",
    "run_with",
    "skip",
    "skip_paths",
]
