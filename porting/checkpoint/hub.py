"""`hf://owner/name[@revision][/file]`: weights from the Hugging Face Hub.

The files are fetched by `huggingface_hub` into its own cache and read like any other. They
are found by name in one request; only the first of the formats below that the repository
has is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from porting import limits
from porting.checkpoint.contents import quoted
from porting.errors import CheckpointError, LimitError

PREFIX = "hf://"
_T = TypeVar("_T")
_ADDRESS = re.compile(
    r"hf://(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(?:@(?P<revision>[A-Za-z0-9][\w.-]{0,95}))?(?:/(?P<file>[\w-][\w.-]*(?:/[\w-][\w.-]*)*))?",
    re.ASCII,
)
_WANTED: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors",
        r"[\w.-]+\.safetensors\.index\.json",
        r"[\w.-]+\.safetensors",
        r"pytorch_model\.bin",
        r"pytorch_model\.bin\.index\.json",
        r"flax_model\.msgpack",
        r"flax_model\.msgpack\.index\.json",
        r"[\w.-]+\.(pt|pth|bin|msgpack|npz)",
    )
)


class Hub(Protocol):
    """The two functions of `huggingface_hub` that are used here."""

    def model_info(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        files_metadata: bool = False,
        token: bool | None = None,
    ) -> Any: ...

    def hf_hub_download(
        self,
        repo_id: str,
        filename: str,
        *,
        revision: str | None = None,
        token: bool | None = None,
    ) -> str: ...


def fetch(address: str, max_bytes: int | None = None, client: Hub | None = None) -> list[Path]:
    """The local files of the checkpoint at `address`, downloaded where needed.

    Args:
        address: `hf://owner/name`, with `@revision` or `/file` behind it where wanted.
        max_bytes: the most bytes to download; None for no cap. With a cap, which is how an
            app for strangers asks, the token of this machine is not used.
        client: what lists and downloads; `huggingface_hub` by default.

    Raises:
        CheckpointError: no such address, no weights there, or the download failed.
        LimitError: the checkpoint has too many shards or bytes.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise CheckpointError(
            f"{quoted(address)} is not an address on the Hub. Write hf://owner/name, or "
            "hf://owner/name/file."
        )
    hub = client or _client()
    repo = match["repo"]
    common: dict[str, Any] = {
        "revision": match["revision"],
        "token": None if max_bytes is None else False,
    }
    info = _ask(address, lambda: hub.model_info(repo, files_metadata=True, **common))
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    names = [match["file"]] if match["file"] else _choose(repo, list(sizes))
    _check_size(address, {name: sizes.get(name, 0) for name in names}, max_bytes)
    return [
        Path(_ask(address, partial(hub.hf_hub_download, repo, name, **common))) for name in names
    ]


def _check_size(address: str, sizes: Mapping[str, int], max_bytes: int | None) -> None:
    if len(sizes) > limits.SHARDS + 1:
        raise LimitError(
            f"{address}: {len(sizes) - 1:,} shards; the limit is {limits.SHARDS}. Choose a "
            "smaller model."
        )
    total = sum(sizes.values())
    if max_bytes is not None and total > max_bytes:
        raise LimitError(
            f"{address}: {total:,} bytes to download; the limit here is {max_bytes:,}. Choose a "
            "smaller model, or use the command line, which has no such limit."
        )


def _choose(repo: str, names: Sequence[str]) -> list[str]:
    """The files to fetch: one, or an index and its shards."""
    for pattern in _WANTED:
        found = sorted(name for name in names if pattern.fullmatch(name))
        if found and found[0].endswith(".index.json"):
            stem, kind = found[0].removesuffix(".index.json").rsplit(".", 1)
            shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{kind}")
            return [found[0], *sorted(name for name in names if shard.fullmatch(name))]
        if len(found) == 1:
            return found
        if found:
            raise CheckpointError(
                f"{PREFIX}{repo} has several checkpoints: {', '.join(found[:8])}. Add the name of "
                f"one: {PREFIX}{repo}/{found[0]}."
            )
    raise CheckpointError(
        f"{PREFIX}{repo} has no weights that can be read. It needs a .safetensors, .bin, .pt or "
        ".msgpack file at its root."
    )


def _ask(address: str, question: Callable[[], _T]) -> _T:
    try:
        return question()
    except Exception as error:  # the client raises many kinds: no network, no access, no such file
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{address} cannot be fetched: {quoted(reason[0] if reason else type(error).__name__, 160)}. "
            "Check the name and the network, or download the file and pass its path."
        ) from None


def _client() -> Hub:
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(
            "An hf:// address needs huggingface_hub. Run `pip install huggingface_hub`, or pass a "
            "file."
        ) from None
    return huggingface_hub  # type: ignore[return-value]
