"""Which check sees which fault: mutation testing for the checks of a port."""

from porting.checks.columns import CHECKS
from porting.checks.fill import check_matrix
from porting.checks.layer_bench import run_variables
from porting.checks.matrix import CLEAN, STATES, STATUSES, Cell, Check, CheckMatrix, Tally
from porting.checks.probes import PROBES, Probe

__all__ = [
    "CHECKS",
    "CLEAN",
    "PROBES",
    "STATES",
    "STATUSES",
    "Cell",
    "Check",
    "CheckMatrix",
    "Probe",
    "Tally",
    "check_matrix",
    "run_variables",
]
