"""`portlens map`: which tensor goes to which leaf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from porting.cli.arguments import WRONG, AsJson, Rules, Source, Target, opened, target_of
from porting.cli.terminal import console, print_json, steps, table, write_text

WIDE = 120  #: columns of a terminal that hold both sides of a port in one line


def map_(
    checkpoint: Source,
    target: Target,
    rules: Rules = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the mapping to this TOML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which tensor goes to which leaf, by which rule, and what is unsure."""
    from porting.mapping import infer_mapping

    with steps(2) as step, opened(checkpoint) as source:
        step("Mapping")
        mapping = infer_mapping(source, target_of(target), rules)
    if write is not None:
        write_text(write, mapping.to_rules())
    if as_json:
        leaves = {path: _leaf_row(leaf) for path, leaf in mapping.leaves.items()}
        print_json({"leaves": leaves, "unmapped": mapping.unmapped, "unused": mapping.unused})
    else:
        _show_mapping(console(), mapping)
    raise typer.Exit(WRONG if mapping.unmapped or mapping.left_over or mapping.unsure else 0)


def _leaf_row(leaf: Any) -> dict[str, Any]:
    return {
        "sources": list(leaf.sources),
        "rule": str(leaf.rule),
        "join": leaf.join.name,
        "confident": leaf.confident,
        "reason": leaf.reason,
        "alternatives": [str(other).partition(" <- ")[2] for other in leaf.alternatives],
    }


def _show_mapping(out: Console, mapping: Any) -> None:
    """A line a leaf, the source under it where the terminal is narrow; then what is open."""
    wide = out.width >= WIDE
    rows = table("", "Flax leaf", "From", "Rule") if wide else table("", "Flax leaf", "Rule")
    for path, leaf in mapping.leaves.items():
        sign = "[green]✓[/]" if leaf.confident else "[yellow]?[/]"
        source, rule = escape(", ".join(leaf.sources)), escape(str(leaf.rule))
        first = [escape(path), source] if wide else [f"{escape(path)}\n  [dim]← {source}[/]"]
        rows.add_row(sign, *first, rule)
    for path in mapping.unmapped:
        rows.add_row("[red]✕[/]", escape(path), *([""] if wide else []), "[red]open[/]")
    out.print(rows)
    out.print(str(mapping), markup=False)
    for path, leaf in mapping.unsure.items():
        for other in leaf.alternatives:
            out.print(f"or {path} <- {str(other).partition(' <- ')[2]}", markup=False)
    if mapping.unsure:
        out.print("Decide in a file: --write mapping.toml, edit it, then --rules mapping.toml")
