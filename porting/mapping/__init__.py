"""Which source tensor becomes which target leaf, from names and shapes alone."""

from porting.mapping.infer import infer_mapping
from porting.mapping.result import NO_PLACE, MappedLeaf, Mapping

__all__ = ["NO_PLACE", "MappedLeaf", "Mapping", "infer_mapping"]
