"""Stages of a forward pass: recorded, stored, paired, judged, explained."""

from porting.trace.causes import Cause, Explanation, explain
from porting.trace.comparison import Site, StageResult, TraceComparison
from porting.trace.forward import Forward, forward
from porting.trace.judge import compare_traces
from porting.trace.record_flax import record_linen, record_nnx
from porting.trace.record_torch import record_torch
from porting.trace.stages import Stage, Trace
from porting.trace.store import load_trace

__all__ = [
    "Cause",
    "Explanation",
    "Forward",
    "Site",
    "Stage",
    "StageResult",
    "Trace",
    "TraceComparison",
    "compare_traces",
    "explain",
    "forward",
    "load_trace",
    "record_linen",
    "record_nnx",
    "record_torch",
]
