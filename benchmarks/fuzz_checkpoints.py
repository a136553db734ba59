"""Mutate right checkpoint files and read them: only `PortingError`, and never slowly.

    python -m benchmarks.fuzz_checkpoints --count 10000

For every reader, right files are changed at random (bytes flipped, runs cut, doubled or
moved, numbers set to their limits), opened, and every tensor is read. Archives are also
changed inside and packed again with right checksums, since a checksum would refuse the
rest; `fuzz_makers` draws files whose structure is wrong. It fails on any exception but
`PortingError`, on any file that takes more than half a second of the processor, and on any
that leaves a descriptor, a map or a file behind, and keeps the file that did it.
"""

import argparse
import gc
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz_makers import NUMBERS, makers
from porting.checkpoint import open_checkpoint
from porting.errors import PortingError
from tests import checkpoint_files as make

SLOWEST = 0.5  # seconds


@dataclass
class Tally:
    """What became of the files of one reader."""

    files: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.files:7,} files: {self.read:6,} read, {self.refused:6,} refused, "
            f"slowest {1e3 * self.slowest:6.1f} ms"
        )


def mutate(data: bytes, draw: random.Random) -> bytes:
    """`data` with one to eight changes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        draw.choice(_CHANGES)(changed, draw)
    return bytes(changed)


def _place(data: bytearray, draw: random.Random) -> int:
    return draw.randrange(len(data)) if data else 0


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _set(data: bytearray, draw: random.Random) -> None:
    if data:
        data[_place(data, draw)] = draw.randrange(256)


def _number(data: bytearray, draw: random.Random) -> None:
    place, layout = _place(data, draw), draw.choice(("<H", "<I", "<Q", ">H", ">I", ">Q", "B"))
    number = draw.choice(NUMBERS) % 2 ** (8 * struct.calcsize(layout))
    data[place : place + struct.calcsize(layout)] = struct.pack(layout, number)


def _cut(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    del data[place : place + draw.choice((1, 2, 4, 16, 64))]


def _end(data: bytearray, draw: random.Random) -> None:
    del data[_place(data, draw) :]


def _double(data: bytearray, draw: random.Random) -> None:
    place, size = _place(data, draw), draw.choice((1, 4, 16, 64))
    data[place:place] = bytes(data[place : place + size]) * draw.choice((1, 1, 2, 50))


def _move(data: bytearray, draw: random.Random) -> None:
    start, size = _place(data, draw), draw.choice((1, 4, 16))
    target = _place(data, draw)
    data[target : target + size] = data[start : start + size]


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _set, _number, _cut, _end, _double, _move),
)


def _repacked(seed: bytes) -> Callable[[random.Random], bytes]:
    """Change one member of an archive and pack it again."""
    with zipfile.ZipFile(make.io.BytesIO(seed)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    inner = [i for i, (name, _) in enumerate(members) if name.endswith((".pkl", ".npy"))]

    def build(draw: random.Random) -> bytes:
        chosen = draw.choice(inner)
        changed = [(n, mutate(d, draw) if i == chosen else d) for i, (n, d) in enumerate(members)]
        return make.npz(changed)

    return build


def _headed(seed: bytes) -> Callable[[random.Random], bytes]:
    """Change the header of a safetensors file and give it the right length."""
    length = int.from_bytes(seed[:8], "little")
    text, data = seed[8 : 8 + length], seed[8 + length :]

    def build(draw: random.Random) -> bytes:
        number = str(draw.choice((*NUMBERS, -1, 1.5, "[]", '"x"'))).encode()
        digits = draw.choice([i for i in range(length) if text[i : i + 1].isdigit()])
        exact = text[:digits] + number + text[digits + 1 :]
        return make.safetensors(draw.choice((exact, mutate(text, draw))), data)

    return build


def builders() -> dict[str, Callable[[random.Random], bytes]]:
    """What makes the files, by reader."""
    seeds = make.seeds()
    table = {name: (lambda draw, data=data: mutate(data, draw)) for name, data in seeds.items()}
    table["safetensors header"] = _headed(seeds["safetensors"])
    table["torch pickle"] = _repacked(seeds["torch zip"])
    table["torch pickle 4"] = _repacked(seeds["torch protocol 4"])
    table["npy in npz"] = _repacked(seeds["npz stored"])
    return table | makers()


def check(path: Path) -> bool:
    """Whether the file could be read; raises what is not a `PortingError`."""
    try:
        with open_checkpoint(path) as checkpoint:
            for array in checkpoint.values():
                array.tobytes()
            repr((checkpoint, checkpoint.notes, checkpoint.specs))
    except PortingError as error:
        if not str(error).isprintable() or len(str(error)) > 1000:
            raise AssertionError(f"a message that cannot be shown: {str(error)!r}") from error
        return False
    return True


def fuzz(name: str, count: int, seed: int, folder: Path) -> Tally:
    """Read `count` files of one reader.

    Raises:
        Exception: whatever escaped from the reader; the file is then left in `folder`.
    """
    draw, build, tally = random.Random(f"{name} {seed}"), builders()[name], Tally()
    path, shard = folder / f"{name.replace(' ', '_')}.bin", folder / "one.safetensors"
    shard.write_bytes(make.safetensors({"a": make.row([3], 0, 12)}, bytes(12)))
    held = _held(folder)
    for _ in range(count):
        path.write_bytes(build(draw))
        start = time.process_time()
        good = check(path)
        tally.slowest = max(tally.slowest, time.process_time() - start)
        tally.files, tally.read = tally.files + 1, tally.read + good
        tally.refused += not good
        if tally.slowest > SLOWEST:
            raise AssertionError(f"{path} took {tally.slowest:.2f} s")
    if _held(folder) != held:
        raise AssertionError(f"{name}: a file is still open, mapped or in {folder}")
    path.unlink()
    shard.unlink()
    return tally


def _held(folder: Path) -> tuple[int, bool, int]:
    """Descriptors of this process, whether it maps a file of `folder`, and files in there."""
    gc.collect()
    process = Path("/proc/self")  # Linux tells; elsewhere only the folder is looked at
    descriptors = len(list((process / "fd").iterdir())) if process.exists() else 0
    maps = (process / "maps").read_text() if process.exists() else ""
    names = [file.name for file in folder.iterdir() if file.suffix != ".bin"]
    return descriptors, str(folder) in maps, len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help="all by default")
    parser.add_argument("--count", type=int, default=10_000, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    for name in options.readers or builders():
        print(f"{name:18}", fuzz(name, options.count, options.seed, folder), flush=True)
    folder.rmdir()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / (2**20 if sys.platform == 'darwin' else 2**10):.0f} MB")


if __name__ == "__main__":
    main()
