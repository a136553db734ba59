"""One input file, opened so that nothing but a plain file is ever read."""

from __future__ import annotations

import math
import mmap
import os
import stat
from pathlib import Path

import numpy as np

from porting.checkpoint.contents import quoted
from porting.checkpoint.dtypes import stray_byte
from porting.errors import CheckpointError

_HELD = 2**20  # bytes of a map that may stay in memory after they were looked at


class Freed:
    """Gives back the memory of a map that was looked at, once it is much.

    A loop over a large file would otherwise hold all of it next to what the loop makes.
    Views stay valid: the system reads a page again when it is touched again.
    """

    def __init__(self) -> None:
        self._seen = 0

    def before(self, pages: mmap.mmap, count: int) -> None:
        """`count` bytes of `pages` will be looked at; let go of the bytes before them."""
        if self._seen + count > _HELD:
            self._free(pages)
        self._seen += count

    def after(self, array: np.ndarray) -> None:
        """`array`, perhaps a view of a map, was looked at and is not needed for now."""
        owner: object = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        pages = owner.obj if isinstance(owner, memoryview) else None
        self._seen += array.nbytes
        if isinstance(pages, mmap.mmap) and self._seen > _HELD:
            self._free(pages)

    def _free(self, pages: mmap.mmap) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
        self._seen = 0


class MappedFile:
    """A regular file mapped read-only into memory.

    Arrays made from it are views: they cost nothing until they are looked at, and they
    keep the map alive. The descriptor that opened the file is closed at once.

    Args:
        path: the file. A directory, pipe, socket or device is refused, and opening one
            never blocks.

    Raises:
        CheckpointError: it cannot be opened, is not a regular file, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = quoted(path.name, 120)[1:-1]
        self._freed = Freed()
        descriptor = _open(path, self.name)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(
                    f"{self.name} is a directory, a pipe or a device, not a file. Choose a file; a "
                    "directory is read on the command line only."
                )
            self.size = status.st_size
            if not self.size:
                raise CheckpointError(
                    f"{self.name} is empty (0 bytes). The download or the upload did not finish; "
                    "fetch it again."
                )
            self._map = mmap.mmap(descriptor, self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.name} cannot be read: {quoted(str(error))}.") from None
        finally:
            os.close(descriptor)

    def read(self, start: int, stop: int) -> bytes:
        """A copy of the bytes in `start…stop`, cut at the end of the file."""
        self._check_whole()
        return self._map[start:stop]

    def find_last(self, needle: bytes, start: int) -> int:
        """Where `needle` stands last at or after `start`, or -1."""
        return self._map.rfind(needle, max(start, 0))

    def raw(self, start: int, count: int) -> np.ndarray:
        """`count` bytes from `start` on, as a read-only view, uint8 `(count,)`."""
        if not count:
            return np.zeros(0, np.uint8)
        self._check_whole()
        self._freed.before(self._map, count)
        return np.frombuffer(self._map, np.uint8, count, start)

    def _check_whole(self) -> None:
        """Raise if the file was cut since: a page beyond its end would end the process."""
        if self._map.size() < self.size:
            raise CheckpointError(
                f"{self.name} was cut short or written anew while it was open. Open it again."
            )

    def array(self, tensor: str, dtype: np.dtype, shape: tuple[int, ...], start: int) -> np.ndarray:
        """The array of `shape` and `dtype` whose C-ordered bytes begin at `start`.

        A read-only view; a copy where the bytes are not aligned for the type, because
        compiled code downstream takes alignment for granted.
        """
        raw = self.raw(start, math.prod(shape) * dtype.itemsize)
        if start % dtype.itemsize:
            raw = raw.copy()
        return finished(self.name, tensor, raw.view(dtype).reshape(shape))

    def close(self) -> None:
        """Let go of the map; arrays that were handed out stay valid."""
        try:
            self._map.close()
        except BufferError:  # an array still looks at it: its last view ends the map
            del self._map


def finished(file: str, tensor: str, array: np.ndarray) -> np.ndarray:
    """`array` read-only, if every byte of it is a value of its type."""
    stray = stray_byte(array)
    if stray is not None:
        raise CheckpointError(
            f"{file}: tensor {quoted(tensor)} holds the byte {stray}, which is no "
            f"{array.dtype.name}. The file is damaged, or was not written by a usual tool."
        )
    array.setflags(write=False)
    return array


def _open(path: Path, name: str) -> int:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise CheckpointError(f"{name} does not exist. Check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise CheckpointError(f"{name} cannot be opened: {reason}.") from None
