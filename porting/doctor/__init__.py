"""What did I do wrong, which leaf, prove it: the content of a port against its source."""

from porting.doctor.diagnosis import Diagnosis, diagnose, repair
from porting.doctor.findings import Finding
from porting.doctor.verdict import STATUSES, LeafVerdict

__all__ = ["STATUSES", "Diagnosis", "Finding", "LeafVerdict", "diagnose", "repair"]
