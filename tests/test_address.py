"""A recipe goes into a link and comes back; a link cannot say more than the form."""

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from porting.dense_case import DenseCase
from porting.dense_ports import PORTS
from porting.ui.address import from_query, to_query

CHOICES = {
    "port": PORTS,
    "source": ("random", "real"),
    "layer": ("mtcnn_rnet:dense4.weight", "m6aformer:linear1.weight"),
}
CASES = [
    DenseCase(),
    DenseCase(port="fortran", n=3, in_dim=5, features=7, seed=2**32 - 1, data_seed=11),
    DenseCase(port="transpose", source="real", layer="m6aformer:linear1.weight"),
]


def read(text: str) -> DenseCase:
    return from_query(DenseCase(), dict(parse_qsl(text)), CHOICES)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case):
    text = to_query("dense", case)
    assert text.startswith("tab=dense")
    assert read(text) == case


def test_a_default_view_has_a_short_link():
    assert to_query("dense", DenseCase()) == "tab=dense"


@pytest.mark.parametrize(
    "text",
    [
        "port=<script>",
        "source=upload",
        "layer=../../etc/passwd",
        "n=",
        "n=3.5",
        "n=three",
        "n=--3",
        "n=²",
        "n=0x10",
        "n=" + "9" * 201,
        "unknown=1&__theme=dark",
        "__class__=x",
    ],
)
def test_what_a_link_may_not_say_is_left_out(text):
    assert read(text) == DenseCase()


def test_numbers_out_of_range_reach_the_form_where_they_are_named():
    assert read("n=-3&features=999999") == replace(DenseCase(), n=-3, features=999999)
