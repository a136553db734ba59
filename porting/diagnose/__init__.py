"""What did I do wrong, which leaf, prove it: the content of a port against its source."""

from porting.diagnose.diagnosis import Diagnosis, diagnose, repair
from porting.diagnose.findings import Finding
from porting.diagnose.verdict import STATUSES, LeafVerdict

__all__ = ["STATUSES", "Diagnosis", "Finding", "LeafVerdict", "diagnose", "repair"]
