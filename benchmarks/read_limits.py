"""How long the readers take over files as large as `porting.limits` lets them be.

    python -m benchmarks.read_limits

Beside each stands a named peer on the same bytes in the same process: `pickletools.genops` of
CPython, which our reader of opcodes stands in for, and `msgpack.unpackb`. All times are CPU
seconds, the least of five. On an idle machine none of ours may pass BOUND.
"""

from __future__ import annotations

import pickletools
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgpack

from porting import limits
from porting.checkpoint import open_checkpoint
from porting.errors import PortingError
from tests import checkpoint_files as make

BOUND = 0.5  #: CPU seconds
OPCODES = limits.PICKLE_OPCODES - 10

#: Pickles of as many opcodes as are read, none of which makes a tensor.
PICKLES = {
    "texts": b"\x80\x02(" + b"X\x05\0\0\0abcde" * OPCODES + b"t.",
    "texts of protocol 0": b"(" + b"S'a\\x41bc'\n" * (OPCODES // 2) + b"t.",
    "tuples": b"\x80\x02]" + b")\x85a" * (OPCODES // 3) + b".",
    "a dict": b"\x80\x02}" + b"X\x01\0\0\0aK\x01s" * (OPCODES // 3) + b".",
    "long integers": b"\x80\x02(" + b"\x8a\x08\1\2\3\4\5\6\7\1" * OPCODES + b"t.",
}


def values() -> bytes:
    """A msgpack file of a few more values than are read."""
    count = limits.MSGPACK_VALUES + 5
    keys = b"".join(b"\xa6%06d\xc0" % i for i in range(count))
    return b"\xdf" + struct.pack(">I", count) + keys


def least(call: Callable[[], object]) -> float:
    """CPU seconds of a call, the least of five."""
    times = []
    for _ in range(5):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def refuse(path: Path) -> None:
    """Open a file that holds no tensors or too much."""
    try:
        open_checkpoint(path).close()
    except PortingError:
        return
    raise AssertionError(f"{path.name} was read")


def main() -> int:
    """Print ours, the peer's, and their ratio; 1 where ours passes the bound."""
    cases: list[tuple[str, bytes, Callable[[], object], str]] = [
        (f"{name}.pt", make.torch_zip(data), lambda d=data: list(pickletools.genops(d)), "genops")
        for name, data in PICKLES.items()
    ]
    large = values()
    cases += [("values.msgpack", large, lambda: msgpack.unpackb(large), "unpackb")]
    late = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, data, peer, whose in cases:
            path = Path(folder) / name
            path.write_bytes(data)
            ours, theirs = least(lambda p=path: refuse(p)), least(peer)
            late += ours > BOUND
            print(f"{name:24} {ours:6.3f} s  {whose} {theirs:6.3f} s  {ours / theirs:5.2f} ×")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
