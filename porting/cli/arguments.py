"""The arguments and options that several commands share, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

WRONG, REFUSED = 1, 2  #: exit codes

_NAMED = "A file, a folder of shards, their index, a 'pattern' in quotes, or hf://owner/name"
Shards = Annotated[list[str], typer.Argument(metavar="CKPT...", help=f"{_NAMED}; or every shard")]
Source = Annotated[str, typer.Argument(metavar="CKPT", help=_NAMED)]
Target = Annotated[
    str,
    typer.Argument(help="A parameters file, or package.module:callable that returns a Flax module"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Rules = Annotated[
    Path | None, typer.Option("--rules", help="A mapping file: what it names is not inferred.")
]


def opened(*names: str) -> Any:
    """The checkpoint that an argument names, open."""
    from porting.targets import open_named

    return open_named(names)


def target_of(text: str) -> Any:
    """The Flax model, or the open file of parameters, that an argument names."""
    from porting.targets import flax_target, is_callable_name

    return flax_target(text) if is_callable_name(text) else opened(text)
