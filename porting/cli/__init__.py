"""See, prove and repair weight ports: PyTorch to Flax, Linen to NNX.

Exit codes: 0 good; 1 something open, unsure or wrong; 2 bad usage, or a file that is refused.
"""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from porting.cli.arguments import REFUSED, WRONG
from porting.cli.doctoring import doctor
from porting.cli.inspecting import inspect
from porting.cli.mapping import map_
from porting.cli.ports import port
from porting.cli.serving import app_
from porting.errors import CoverageError, PortingError


class Commands(TyperGroup):
    """Commands whose refusals are a sentence on stderr and an exit code."""

    # Typer names the private base of its public `Context` here.
    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command of `ctx`."""
        try:
            return super().invoke(ctx)
        except (PortingError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            name = type(error).__name__ if isinstance(error, PortingError) else "File"
            sys.stderr.write(f"{name}: {error}\n")
            raise typer.Exit(WRONG if isinstance(error, CoverageError) else REFUSED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help=__doc__,
)

for command in (inspect, map_, port, doctor, app_):
    app.command(command.__name__.rstrip("_"))(command)


def main() -> None:
    """Run the command line."""
    app()
