"""`hf://owner/name[@revision][/file]`: weights from the Hugging Face Hub.

The files are fetched by `huggingface_hub` into its own cache and read like any other. They
are found by name in one request; only the first of the formats below that the repository
has is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

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
        r"flax_model\.msgpack",
        r"[\w.-]+\.(pt|pth|bin|msgpack|npz)",
    )
)


class Hub(Protocol):
    """The two functions of `huggingface_hub` that are used here."""

    def list_repo_files(self, repo_id: str, *, revision: str | None = None) -> list[str]: ...

    def hf_hub_download(
        self, repo_id: str, filename: str, *, revision: str | None = None
    ) -> str: ...


def fetch(address: str, client: Hub | None = None) -> list[Path]:
    """The local files of the checkpoint at `address`, downloaded where needed.

    Args:
        address: `hf://owner/name`, with `@revision` or `/file` behind it where wanted.
        client: what lists and downloads; `huggingface_hub` by default.

    Raises:
        CheckpointError: no such address, no weights there, or the download failed.
        LimitError: the checkpoint has too many shards.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise CheckpointError(
            f"{quoted(address)} is not an address on the Hub. Write hf://owner/name, or "
            "hf://owner/name/file."
        )
    hub = client or _client()
    repo, revision = match["repo"], match["revision"]
    names = (
        [match["file"]]
        if match["file"]
        else _choose(repo, _ask(address, lambda: hub.list_repo_files(repo, revision=revision)))
    )
    if len(names) > limits.SHARDS + 1:
        raise LimitError(
            f"{address}: {len(names) - 1:,} shards; the limit is {limits.SHARDS}. Choose a "
            "smaller model."
        )
    return [
        Path(_ask(address, lambda name=name: hub.hf_hub_download(repo, name, revision=revision)))
        for name in names
    ]


def _choose(repo: str, names: Sequence[str]) -> list[str]:
    """The files to fetch: one, or an index and its shards."""
    for pattern in _WANTED:
        found = sorted(name for name in names if pattern.fullmatch(name))
        if found and found[0].endswith(".index.json"):
            stem = found[0].removesuffix(".safetensors.index.json")
            shard = re.compile(re.escape(stem) + r"-\d+-of-\d+\.safetensors")
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
