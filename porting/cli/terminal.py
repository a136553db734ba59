"""What commands print: tables as wide as the terminal, a bar while they work, JSON, and texts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from porting.errors import ArgumentError

UNFOLDED = 10_000  #: columns of what is no terminal: a program reads it


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal; what is piped is not folded."""
    made = Console(stderr=stderr, highlight=False)
    piped = not made.is_terminal and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, width=UNFOLDED) if piped else made


@contextmanager
def steps(count: int) -> Iterator[Callable[[str], None]]:
    """A bar on the terminal; the function it gives starts the next of `count` steps."""
    screen = console(stderr=True)
    columns = TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn()
    off = not screen.is_terminal
    with Progress(*columns, console=screen, transient=True, disable=off) as progress:
        task = progress.add_task("Opening", total=count)

        def step(what: str) -> None:
            progress.update(task, description=what, advance=1)

        yield step


def table(*folding: str) -> Table:
    """An empty table without lines, with columns whose long texts are folded."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in folding:
        made.add_column(title, overflow="fold")
    return made


def print_json(data: Any) -> None:
    """Write `data` to the output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to the file that an option names.

    Raises:
        ArgumentError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(
            f"{path} cannot be written: {error.strerror}. Choose another folder, or make room."
        ) from None
