"""`open_checkpoint`: which reader a file gets, and what the caller gets back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from porting.checkpoint import archive, directories, hub, numpy_files, sharded
from porting.checkpoint.contents import Contents, Spec, check_bytes, quoted
from porting.checkpoint.files import MappedFile
from porting.checkpoint.msgpack_file import read_msgpack
from porting.checkpoint.safetensors import read_safetensors
from porting.checkpoint.torch_file import read_torch_legacy, read_torch_zip
from porting.errors import CheckpointError, checked

_READABLE = "safetensors, PyTorch (.pt, .pth, .bin), NumPy (.npz, .npy) and Flax msgpack"
_INSTEAD = f"PortLens reads {_READABLE}."

#: How files that are no checkpoint begin, and what to tell the person who has one.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a git-LFS pointer, not weights: a note of 130 bytes that says where the weights are. "
        "Run `git lfs pull`, or download the file itself.",
    ),
    (
        b"<",
        "is a web page, not weights: the download page was saved in place of the file. Use the "
        "link that downloads the file itself.",
    ),
    (b"\x89HDF", f"is HDF5 (Keras or MATLAB). Save it in another format. {_INSTEAD}"),
    (b"GGUF", f"is GGUF. Use the checkpoint that it was made from. {_INSTEAD}"),
    (b"\x1f\x8b", "is compressed with gzip. Unpack it first."),
    (b"\xfd7zXZ", "is compressed with xz. Unpack it first."),
    (b"BZh", "is compressed with bzip2. Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd. Unpack it first."),
    (b"7z\xbc\xaf", "is a 7z archive. Unpack it first."),
    (b"Rar!", "is a RAR archive. Unpack it first."),
    (b"{", f"is JSON and not the index of a sharded checkpoint. {_INSTEAD}"),
    (b"%PDF", f"is a PDF. {_INSTEAD}"),
    (b"\x89PNG", f"is a picture. {_INSTEAD}"),
    *(
        (
            sentence,
            "is an answer of the Hub, not weights: it says that there is no such file, or "
            "that it takes a token. Check the name, and download the file itself.",
        )
        for sentence in (
            b"Entry not found",
            b"Repository not found",
            b"Invalid username",
            b"Access to",
        )
    ),
)


class Checkpoint(Mapping[str, np.ndarray]):
    """A checkpoint that is open: a read-only mapping from key to array.

    A tensor is read when it is asked for, as a read-only view of the file where the format
    allows. The views stay valid after `close`.

    Attributes:
        specs: key to `Spec` (shape, dtype, nbytes), known without reading any tensor.
        files: the files that it came from.
        format: the name of the format.
        ordered: whether the keys stand in the order of definition, as in a `.pt`; others are
            sorted (safetensors), or were once (JAX sorts its trees).
        metadata: text that the file carries about itself.
        aliases: a key that is the same tensor as an earlier key, and that key (`.pt` only).
        notes: what was left out of the file, and why.
    """

    def __init__(self, files: Sequence[MappedFile], paths: Sequence[Path], found: Contents) -> None:
        self._mapped = tuple(files)
        self._tensors = dict(found.tensors)
        self._closed = False
        self.files = tuple(paths)
        self.format = found.format
        self.ordered = found.ordered
        self.metadata = dict(found.metadata)
        self.aliases = dict(found.aliases)
        self.notes = found.notes
        self.specs: Mapping[str, Spec] = {key: t.spec for key, t in found.tensors.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(spec.nbytes for spec in self.specs.values())

    def __getitem__(self, key: str) -> np.ndarray:
        """The array under `key`, read-only.

        Raises:
            KeyError: there is no such key.
            CheckpointError: the checkpoint is closed, or this tensor's bytes are damaged.
        """
        if self._closed:
            raise CheckpointError(
                f"{quoted(key)} cannot be read: the checkpoint is closed. Open it again, or read "
                "the arrays before it closes."
            )
        return self._tensors[key].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __contains__(self, key: object) -> bool:
        return key in self.specs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(path.name for path in self.files[:3])
        return f"<Checkpoint {names}: {self.format}, {len(self):,} tensors, {self.nbytes:,} bytes>"

    def close(self) -> None:
        """Let go of the files. Arrays that were read stay valid."""
        if not self._closed:
            self._closed = True
            self._tensors = {}
            for file in self._mapped:
                file.close()


PathLike = str | os.PathLike[str]


def open_checkpoint(
    path_or_paths: PathLike | Sequence[PathLike],
    *,
    max_bytes: int | None = None,
    allow_directories: bool = False,
) -> Checkpoint:
    """Open a checkpoint as data: nothing in it runs, and only headers are read.

    The format is told from the first bytes, not from the name. What is accepted, refused
    and capped stands in `porting.limits`; a file that takes more than 64 times its size
    when read is refused whatever the caller allows.

    Args:
        path_or_paths: one file; the shards of one checkpoint, with or without their
            `*.index.json`; the index alone, with the shards beside it; or
            `hf://owner/name`, fetched through `huggingface_hub`.
        max_bytes: the most bytes that all tensors together, and a download, may take; None
            for no cap.
        allow_directories: whether a directory (Orbax, or a folder of shards) may be read.
            Leave it off for what strangers upload.

    Returns:
        A `Checkpoint`: use it in a `with` block, or `close` it.

    Raises:
        CheckpointError: the file is no checkpoint, is damaged, or would run code.
        LimitError: it is larger than `porting.limits` or `max_bytes` allow.

    >>> import tempfile, numpy as np
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     np.savez(file, weight=np.ones((3, 2), np.float32)); _ = file.flush()
    ...     with open_checkpoint(file.name) as checkpoint:
    ...         checkpoint.specs["weight"].shape, float(checkpoint["weight"].sum())
    ((3, 2), 6.0)
    """
    paths = _paths(path_or_paths, max_bytes, allow_directories)
    sharded.check_shards("This checkpoint", max(len(paths) - 1, 1))
    if allow_directories and len(paths) == 1 and os.path.isdir(paths[0]):
        return Checkpoint((), paths, directories.read_orbax(paths[0], max_bytes))
    files: list[MappedFile] = []
    try:
        found = _read_all(paths, files)
        size = sum(file.size for file in files)
        check_bytes(files[0].name, found.tensors, size, max_bytes)
    except BaseException:
        for file in files:
            file.close()
        raise
    return Checkpoint(files, [file.path for file in files], found)


def _paths(
    given: PathLike | Sequence[PathLike], max_bytes: int | None, allow_directories: bool
) -> list[Path]:
    if isinstance(given, str) and given.startswith(hub.PREFIX):
        return hub.fetch(given, max_bytes)
    checked("path_or_paths", given, (str, os.PathLike, Iterable), "Pass the path of a checkpoint.")
    items = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    if not items or not all(isinstance(item, (str, os.PathLike)) for item in items):
        raise CheckpointError("No file was given. Pass the path of a checkpoint, or of its shards.")
    paths = [Path(item) for item in items]
    if allow_directories and len(paths) == 1 and os.path.isdir(paths[0]):
        return directories.weights_in(paths[0])
    return paths


def _read_all(paths: Sequence[Path], files: list[MappedFile]) -> Contents:
    """The contents of `paths`; every file that is opened on the way is added to `files`."""
    if len(paths) == 1:
        files.append(MappedFile(paths[0]))
        if not sharded.is_index(files[0]):
            return _read_one(files[0])
        index = sharded.read_index(files[0])
        for name in sorted(set(index.values())):
            files.append(MappedFile(paths[0].parent / name))
        return sharded.merge(files[1:], [_read_one(f) for f in files[1:]], index)
    for path in paths:
        files.append(MappedFile(path))
    indices = [file for file in files if sharded.is_index(file)]
    if len(indices) > 1:
        raise CheckpointError(
            f"{indices[0].name} and {indices[1].name} are both an index. Pass the files of one "
            "checkpoint."
        )
    places = sharded.read_index(indices[0]) if indices else None
    shards = [file for file in files if file not in indices]
    missing = set((places or {}).values()) - {file.path.name for file in shards}
    if missing:
        raise CheckpointError(
            f"{indices[0].name} names the shard {quoted(min(missing))}, which is not among the "
            "files given. Pass all shards together."
        )
    return sharded.merge(shards, [_read_one(file) for file in shards], places)


def _read_one(file: MappedFile) -> Contents:
    start = file.read(0, 512)
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return _read_zip(file)
    if start.startswith(numpy_files.MAGIC):
        return numpy_files.read_npy(file)
    if start[5:9] == b"\0\0\0{":  # before the pickles: a length of 896 begins like one
        return read_safetensors(file)
    if start[0] == 0x80 and len(start) > 1 and 2 <= start[1] <= 5:
        return read_torch_legacy(file)
    reader = _foreign(file, start)
    if reader is None:
        raise CheckpointError(f"{file.name} is not a checkpoint that can be read. {_INSTEAD}")
    return reader(file)


def _foreign(file: MappedFile, start: bytes) -> Callable[[MappedFile], Contents] | None:
    """The msgpack reader, which has no magic, if nothing else claims the file."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, sentence in _FOREIGN:
        if text.startswith(magic) or start.startswith(magic):
            raise CheckpointError(f"{file.name} {sentence}")
    if start[257:262] == b"ustar":
        raise CheckpointError(f"{file.name} is a tar archive. Unpack it first.")
    is_table = 0x80 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)
    return read_msgpack if is_table or start[0] in (0xC7, 0xC8, 0xC9) else None


def _read_zip(file: MappedFile) -> Contents:
    entries = archive.read_entries(file)
    if any(name.endswith("/data.pkl") for name in entries):
        return read_torch_zip(file, entries)
    if any(name.endswith(".npy") for name in entries):
        return numpy_files.read_npz(file, entries)
    raise CheckpointError(
        f"{file.name} is a zip archive without weights that can be read. Unpack it and choose the "
        f"checkpoint inside. {_INSTEAD}"
    )
