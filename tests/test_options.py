"""Options as a person types them: literals only, and a message for anything else."""

import pytest

from porting.errors import ArgumentError
from porting.layers import LAYERS
from porting.options import LONGEST, parse_options, write_options
from porting.zoo import options_of


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_the_options_of_every_layer_can_be_read_back(layer):
    text = options_of(layer)
    assert write_options(parse_options(text)) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("a=1, b=-2.5, c=None, d='x', e=True", {"a": 1, "b": -2.5, "c": None, "d": "x", "e": True}),
        ("size=[3, 5]", {"size": (3, 5)}),
        ("\n a = (1,\n 2) ", {"a": (1, 2)}),
    ],
)
def test_literals_are_read(text, found):
    assert parse_options(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "a",
        "**x",
        "a=b",
        "a=1, a=2",
        "a=print(1)",
        "a=__import__('os')",
        "a=1)(b=2",
        "a=" + "(" * 220 + ")" * 220,
        "a={1: 2}",
        "a=((1, 2), 3)",
        "a=b'x'",
        "a=2**9",
        "a='\x00'",
        "a=99999999999",
        "a=1 " * LONGEST,
    ],
)
def test_anything_else_has_a_message(text):
    with pytest.raises(ArgumentError) as caught:
        parse_options(text)
    assert str(caught.value).endswith(".")


def test_nothing_is_evaluated(tmp_path):
    there = tmp_path / "there"
    with pytest.raises(ArgumentError):
        parse_options(f"a=open({str(there)!r}, 'w')")
    assert not there.exists()
