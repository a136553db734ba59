"""`FAULTS`: every row, for all layers and the encoder block."""

from __future__ import annotations

from porting.errors import ArgumentError
from porting.faults import (
    any_leaf,
    attention,
    constants,
    conv,
    dense,
    encoder,
    norm,
    parametrised,
    recurrent,
    rotary,
)
from porting.faults.row import Fault, Port

_FAMILIES = (
    any_leaf,
    dense,
    conv,
    norm,
    attention,
    rotary,
    encoder,
    recurrent,
    parametrised,
    constants,
)

#: name -> fault, by family.
FAULTS: dict[str, Fault] = {row.name: row for family in _FAMILIES for row in family.ROWS}


def fault_named(name: str) -> Fault:
    """The row called `name`.

    Raises:
        ArgumentError: there is none; the text lists the names.

    >>> fault_named("qk_exchanged").title
    'q and k exchanged'
    """
    if name not in FAULTS:
        raise ArgumentError(f"There is no fault {name!r}. Use one of {', '.join(FAULTS)}.")
    return FAULTS[name]


def fitting(port: Port) -> tuple[Fault, ...]:
    """The faults that a port can have, in the order of the table."""
    return tuple(fault for fault in FAULTS.values() if fault.fits(port))
