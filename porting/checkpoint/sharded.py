"""Several files that make up one checkpoint, with or without their index.

`*.index.json` maps every key to the file it is in (`{"weight_map": {key: file}}`), as
written by `save_pretrained` of transformers: safetensors, `pytorch_model-….bin`, or
`flax_model-….msgpack`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from porting import limits
from porting.checkpoint.contents import Contents, Tensor, check_count, quoted
from porting.checkpoint.files import MappedFile
from porting.checkpoint.msgpack_file import FORMAT as MSGPACK
from porting.checkpoint.safetensors import FORMAT, parse_json
from porting.checkpoint.torch_file import LEGACY_FORMAT, ZIP_FORMAT
from porting.errors import CheckpointError, LimitError, number_of

_SHARD = re.compile(r"[\w.-]+\.(safetensors|bin|pt|pth|msgpack)", re.ASCII)
_SHARDED = (FORMAT, ZIP_FORMAT, LEGACY_FORMAT, MSGPACK)  #: formats that come in several files


def is_index(file: MappedFile) -> bool:
    """Whether the file is JSON with a `weight_map`."""
    return file.read(0, 512).lstrip()[:1] == b"{" and b'"weight_map"' in file.read(
        0, limits.HEADER_BYTES
    )


def read_index(file: MappedFile) -> dict[str, str]:
    """For every key, the name of the file that holds it.

    Raises:
        CheckpointError: not an index, or a file name that could point elsewhere.
        LimitError: the index is too large or names too many files.
    """
    if file.size > limits.HEADER_BYTES:
        raise LimitError(
            f"{file.name}: the index has {file.size:,} bytes; the limit is "
            f"{limits.HEADER_BYTES:,}. Pass the shards without it."
        )
    places = parse_json(file.name, file.read(0, file.size)).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{file.name}: its weight_map is not a table from tensor to file.")
    check_count(file.name, len(places))
    for shard in set(map(str, places.values())):
        if not _SHARD.fullmatch(shard):
            raise CheckpointError(
                f"{file.name}: names the shard {quoted(shard)}, which is not the plain "
                "name of a checkpoint. A shard lies beside its index."
            )
    if not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{file.name}: its weight_map is not a table from tensor to file.")
    check_shards(file.name, len(set(places.values())))
    return places


def check_shards(file: str, count: int) -> None:
    """Raise if `count` files are too many."""
    if count > limits.SHARDS:
        raise LimitError(
            f"{file}: {count:,} files make up this checkpoint; the limit is {limits.SHARDS}. "
            "Save it in larger shards."
        )


def merge(
    files: Sequence[MappedFile], shards: Sequence[Contents], index: Mapping[str, str] | None
) -> Contents:
    """One checkpoint from its shards, every key in one file, and where the index says.

    Raises:
        CheckpointError: shards of two formats, a key twice, a key that is not where the index
            says, or not at all.
    """
    tensors: dict[str, Tensor] = {}
    home: dict[str, str] = {}
    metadata: dict[str, str] = {}
    aliases: dict[str, str] = {}
    kind = shards[0].format
    for file, shard in zip(files, shards, strict=True):
        if shard.format != kind or kind not in _SHARDED:
            raise CheckpointError(
                f"{file.name} is {shard.format}, and {files[0].name} is {kind}. The files of one "
                "checkpoint are all safetensors, all PyTorch or all Flax msgpack. Pass one file."
            )
        for key, tensor in shard.tensors.items():
            if key in tensors:
                raise CheckpointError(
                    f"{file.name}: tensor {quoted(key)} is also in {home[key]}. Pass the shards of "
                    "one checkpoint only."
                )
            tensors[key], home[key] = tensor, file.path.name
        metadata.update(shard.metadata)
        aliases.update(shard.aliases)
    check_count(files[0].name, len(tensors))
    wrong = [k for k, shard in (index or {}).items() if home.get(k) != shard]
    if wrong and index is not None:
        where = f"the index puts it in {quoted(index[wrong[0]])}"
        raise CheckpointError(
            f"{number_of(len(wrong), 'tensor')} not where the index says: {quoted(wrong[0])}, "
            f"{where}. The shards are of another checkpoint, or one is missing."
        )
    extra = [key for key in tensors if index is not None and key not in index]
    notes = [note for shard in shards for note in shard.notes]
    if extra:
        notes.append(f"{number_of(len(extra), 'tensor')} not in the index: {quoted(extra[0])}.")
    return Contents(
        f"{kind}, sharded",
        tensors,
        ordered=False,
        metadata=metadata,
        aliases=aliases,
        notes=tuple(notes),
    )
