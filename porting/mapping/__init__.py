"""Which source tensor becomes which target leaf, from names and shapes alone."""

from porting.mapping.infer import infer_mapping
from porting.mapping.port import PortReport, port_checkpoint
from porting.mapping.result import NO_PLACE, MappedLeaf, Mapping
from porting.mapping.unport import unport_checkpoint

__all__ = [
    "NO_PLACE",
    "MappedLeaf",
    "Mapping",
    "PortReport",
    "infer_mapping",
    "port_checkpoint",
    "unport_checkpoint",
]
