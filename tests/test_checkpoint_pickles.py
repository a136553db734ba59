"""Our reader of opcodes against CPython's `pickletools`, and pickles of the largest size."""

import pickle
import pickletools
import random
import struct

import numpy as np
import pytest

from benchmarks.fuzz_checkpoints import mutate
from benchmarks.read_limits import PICKLES
from porting.checkpoint import opcodes, open_checkpoint
from porting.errors import PortingError
from tests import checkpoint_files as make

VALUES = [
    None,
    True,
    [0, -1, 255, 65_536, 2**31, -(2**31), 2**63, 2**127, -(2**127)],
    (1.5, float("-inf"), 1j),
    {"naïve": b"\xff\x00", "a\n\\'\"": "ü\u2028😀", 3: bytearray(b"abc"), "x" * 300: b"y" * 300},
    {1, 2, 3},
    frozenset("ab"),
    [[]] * 5,
    np.arange(5.0),
    "a" * 70_000,
]


def ours(data: bytes) -> list[tuple[str, object]]:
    """Name and argument of every opcode, as the reader of checkpoints takes them."""
    found, position = [], 0
    while True:
        code = data[position]
        name, read = opcodes.OPCODES[code]
        argument, position = read(data, position + 1) if read else (None, position + 1)
        found.append((name, " ".join(argument) if isinstance(argument, tuple) else argument))
        if code == opcodes.STOP:
            return found


def theirs(data: bytes) -> list[tuple[str, object]]:
    return [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]


def read(reader, data):
    """What a reader makes of `data`, or None where it finds it damaged."""
    try:
        return repr(reader(data))
    except OverflowError:
        return "an integer of more than 128 bits"
    except (ValueError, LookupError, struct.error):
        return None


@pytest.mark.parametrize("protocol", range(6))
def test_opcodes_are_those_of_pickletools(protocol):
    for value in VALUES:
        data = pickle.dumps(value, protocol)
        assert ours(data) == theirs(data)


@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")  # both read it so
def test_damaged_opcodes_are_read_or_refused_as_by_pickletools():
    draw = random.Random(0)
    seeds = [pickle.dumps(value, p) for value in VALUES[:-1] for p in (0, 2, 4)]
    outcomes = set()
    for _ in range(4_000):
        data = mutate(draw.choice(seeds), draw)
        mine, other = read(ours, data), read(theirs, data)
        assert mine in (other, "an integer of more than 128 bits"), data
        outcomes.add(mine is None)
    assert outcomes == {True, False}


def test_an_integer_has_at_most_128_bits():
    for data in (pickle.dumps(2**2000, 0), pickle.dumps(2**2000, 2), b"I" + b"9" * 50 + b"\n."):
        with pytest.raises(OverflowError):
            ours(data)


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_at_the_limit_is_read_to_its_end(case, tmp_path):
    """How long that takes is measured by `benchmarks/read_limits.py`."""
    path = tmp_path / "model.pt"
    path.write_bytes(make.torch_zip(PICKLES[case]))
    with pytest.raises(PortingError, match="holds no tensors"):
        open_checkpoint(path)
