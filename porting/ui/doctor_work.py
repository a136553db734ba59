"""What the tab *Doctor* works on: a patient, its traces, and how it was broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from porting import limits
from porting.breaks import BREAKS, break_tree
from porting.checkpoint import open_checkpoint
from porting.doctor import Diagnosis, diagnose
from porting.errors import ArgumentError, number_of
from porting.examples import EXAMPLES
from porting.faults import Port
from porting.mapping import Mapping as PortMapping
from porting.mapping import infer_mapping, port_checkpoint
from porting.models import MODELS, decided_mapping, traces_of
from porting.trace import Forward, Trace, forward, load_trace
from porting.tree import flatten

UPLOAD = "upload"


@dataclass(frozen=True)
class DoctorView:
    """The recipe of the tab: what a link holds.

    Attributes:
        patient: a model that is broken here, or "upload".
        breaks: names of `BREAKS`, joined by commas: what is broken, or, in a riddle, the guess.
        hidden: the number of the riddle; 0 for none.
        revealed: whether the riddle's answer is shown.
        pick: the leaf in the picture; "" for the first that is wrong.
        forward: whether the right and the broken model are run and compared as well.
    """

    patient: str = "block-linen"
    breaks: str = "square,query_key"
    hidden: int = 0
    revealed: bool = False
    pick: str = ""
    forward: bool = False

    @property
    def chosen(self) -> list[str]:
        """The breaks that the person ticked."""
        return [name for name in self.breaks.split(",") if name in BREAKS]

    @property
    def names(self) -> list[str]:
        """The breaks to put in; those of a riddle are drawn by its number."""
        if not self.hidden:
            return self.chosen
        fitting = fitting_breaks(self.patient)
        drawn = np.random.default_rng(self.hidden).choice(fitting, 2, replace=False)
        return [name for name in fitting if name in drawn]

    @property
    def asks(self) -> bool:
        """Whether this is a riddle whose answer is not shown yet."""
        return bool(self.hidden) and not self.revealed


@dataclass(frozen=True)
class Given:
    """The files of the person."""

    checkpoint: tuple[str, ...] = ()
    params: str | None = None
    traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patient:
    """What the doctor looks at. Arrays are shared: do not write.

    Attributes:
        source: key -> array.
        ported: path -> array, as the person has it.
        mapping: what should be where, if it is known.
        file: the name of the checkpoint's file.
    """

    source: dict[str, np.ndarray]
    ported: dict[str, np.ndarray]
    mapping: PortMapping | None
    file: str

    def diagnosis(self) -> Diagnosis:
        """What is wrong with it."""
        return diagnose(self.source, self.ported, self.mapping)


@lru_cache(len(MODELS))
def _clean(model: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], PortMapping]:
    """The right leaves of a shipped model, its checkpoint and its mapping."""
    with open_checkpoint(EXAMPLES[MODELS[model].checkpoint].path) as checkpoint:
        source = {key: np.array(checkpoint[key]) for key in checkpoint}
    mapping = decided_mapping(model, source)
    variables, _ = port_checkpoint(source, MODELS[model].target(), mapping)
    return flatten(variables), source, mapping


def fitting_breaks(model: str) -> list[str]:
    """The breaks that change something in a model.

    >>> "height_width" in fitting_breaks("rnet-linen"), "query_key" in fitting_breaks("rnet-linen")
    (True, False)
    """
    port = Port(_clean(model)[0], dict)
    return [name for name, row in BREAKS.items() if row.fits(port)]


def patient_of(recipe: DoctorView, given: Given) -> Patient:
    """The shipped model, broken as the recipe says, or the files of the person.

    Raises:
        PortingError: a file is missing or cannot be read.
    """
    if recipe.patient in MODELS:
        leaves, source, mapping = _clean(recipe.patient)
        file = EXAMPLES[MODELS[recipe.patient].checkpoint].path.name
        return Patient(source, break_tree(leaves, recipe.names), mapping, file)
    if not given.checkpoint or not given.params:
        raise ArgumentError(
            "There are no files yet. Upload the original checkpoint and your Flax parameters."
        )
    files = given.checkpoint if len(given.checkpoint) > 1 else given.checkpoint[0]
    with (
        open_checkpoint(files, max_bytes=limits.FILE_BYTES) as checkpoint,
        open_checkpoint(given.params, max_bytes=limits.FILE_BYTES) as params,
    ):
        source = {k: np.array(checkpoint[k]) for k in checkpoint}
        ported = {k: np.array(params[k]) for k in params}
        return Patient(source, ported, None, checkpoint.files[0].name)


def traces_given(recipe: DoctorView, given: Given, patient: Patient) -> tuple[Trace, Trace] | None:
    """The reference's trace and the patient's: uploaded, or recorded on a shipped model."""
    if recipe.patient in MODELS:
        if not recipe.forward:
            return None
        right = _clean(recipe.patient)[0]
        return traces_of(recipe.patient, right), traces_of(recipe.patient, patient.ported)
    if not given.traces:
        return None
    if len(given.traces) != 2:
        raise ArgumentError(
            f"There {'is' if len(given.traces) == 1 else 'are'} "
            f"{number_of(len(given.traces), 'trace')}. Upload two, the reference first."
        )
    return load_trace(given.traces[0]), load_trace(given.traces[1])


def forward_of(
    recipe: DoctorView, given: Given, patient: Patient, found: Diagnosis
) -> Forward | None:
    """Where the patient's forward pass parts; None without traces."""
    traces = traces_given(recipe, given, patient)
    return forward(traces, found, patient.source, patient.ported) if traces else None


def regression_test(patient: Patient) -> str:
    """A test to paste into a suite: the port as a table, compared bit for bit with the file."""
    mapping = patient.mapping or infer_mapping(patient.source, patient.ported)
    try:
        _, report = port_checkpoint(patient.source, patient.ported, mapping, allow_unused=True)
    except ValueError as error:
        told = str(error).replace("\n", "\n# ")
        return f"# The mapping is not complete, so there is no test yet:\n# {told}\n"
    head = report.code("linen").partition('if __name__ == "__main__":')[0]
    return head + _TEST.format(file=patient.file)


_TEST = """def test_port_is_exact():
    source, params = load_file("{file}"), load_file("params.safetensors")
    for path, array in port(source).items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)
"""


def listed(names: Any) -> str:
    """The breaks of a form or a link, as a recipe holds them."""
    given = names.split(",") if isinstance(names, str) else list(names or [])
    return ",".join(name for name in given if name in BREAKS)


def broken(query: Mapping[str, str], default: DoctorView) -> str:
    """The breaks of a link."""
    return listed(query.get("breaks", default.breaks))
