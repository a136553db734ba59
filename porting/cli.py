"""See, prove and repair weight ports: PyTorch to Flax, Linen to NNX.

Exit codes: 0 good; 1 something open, unsure or wrong; 2 bad usage, or a file that is refused.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperGroup

from porting.errors import ArgumentError, CoverageError, PortingError, number_of

WRONG, REFUSED = 1, 2  #: exit codes
WIDE = 120  #: columns of a terminal that hold both sides of a port in one line
UNFOLDED = 10_000  #: columns of what is no terminal: a program reads it


class Commands(TyperGroup):
    """Commands whose refusals are a sentence on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
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


def _console(stderr: bool = False) -> Console:
    """A console as wide as the terminal; what is piped is not folded."""
    console = Console(stderr=stderr, highlight=False)
    piped = not console.is_terminal and "COLUMNS" not in os.environ
    return Console(stderr=stderr, highlight=False, width=UNFOLDED) if piped else console


@contextmanager
def _steps(count: int) -> Iterator[Callable[[str], None]]:
    """A bar on the terminal; the function it gives starts the next of `count` steps."""
    console = _console(stderr=True)
    columns = TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn()
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        task = progress.add_task("Opening", total=count)

        def step(what: str) -> None:
            progress.update(task, description=what, advance=1)

        yield step


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _open(*names: str) -> Any:
    from porting.targets import open_named

    return open_named(names)


def _target(text: str) -> Any:
    from porting.targets import flax_target, is_callable_name

    return flax_target(text) if is_callable_name(text) else _open(text)


@app.command()
def inspect(checkpoint: Shards, as_json: AsJson = False) -> None:
    """List the tensors of a checkpoint. Only headers are read."""
    with _open(*checkpoint) as opened:
        specs = opened.specs
        if as_json:
            rows = [
                {"key": k, "shape": list(s.shape), "dtype": str(s.dtype), "bytes": s.nbytes}
                for k, s in specs.items()
            ]
            about = {"format": opened.format, "bytes": opened.nbytes, "notes": list(opened.notes)}
            _print_json(about | {"metadata": opened.metadata, "tensors": rows})
            return
        table = _table("Tensor")
        table.add_column("Shape", no_wrap=True)
        table.add_column("dtype", no_wrap=True)
        table.add_column("Bytes", no_wrap=True, justify="right")
        for key, spec in specs.items():
            table.add_row(escape(key), str(tuple(spec.shape)), str(spec.dtype), f"{spec.nbytes:,}")
        console = _console()
        console.print(table)
        total = f"{number_of(len(specs), 'tensor')}, {opened.nbytes:,} bytes, {opened.format}"
        console.print("\n".join([total, *opened.notes]), markup=False)


def _table(*folding: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in folding:
        table.add_column(title, overflow="fold")
    return table


@app.command("map")
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

    with _steps(2) as step, _open(checkpoint) as opened:
        step("Mapping")
        mapping = infer_mapping(opened, _target(target), rules)
    if write is not None:
        write.write_text(mapping.to_rules(), encoding="utf-8")
    if as_json:
        leaves = {path: _leaf_row(leaf) for path, leaf in mapping.leaves.items()}
        _print_json({"leaves": leaves, "unmapped": mapping.unmapped, "unused": mapping.unused})
    else:
        _show_mapping(_console(), mapping)
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


def _show_mapping(console: Console, mapping: Any) -> None:
    """A line a leaf, the source under it where the terminal is narrow; then what is open."""
    wide = console.width >= WIDE
    table = _table("", "Flax leaf", "From", "Rule") if wide else _table("", "Flax leaf", "Rule")
    for path, leaf in mapping.leaves.items():
        sign = "[green]✓[/]" if leaf.confident else "[yellow]?[/]"
        source, rule = escape(", ".join(leaf.sources)), escape(str(leaf.rule))
        first = [escape(path), source] if wide else [f"{escape(path)}\n  [dim]← {source}[/]"]
        table.add_row(sign, *first, rule)
    for path in mapping.unmapped:
        table.add_row("[red]✕[/]", escape(path), *([""] if wide else []), "[red]open[/]")
    console.print(table)
    console.print(str(mapping), markup=False)
    for path, leaf in mapping.unsure.items():
        for other in leaf.alternatives:
            console.print(f"or {path} <- {str(other).partition(' <- ')[2]}", markup=False)
    if mapping.unsure:
        console.print("Decide in a file: --write mapping.toml, edit it, then --rules mapping.toml")


@app.command()
def port(
    checkpoint: Source,
    target: Target,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help=".safetensors, .msgpack, .npz, or a folder for Orbax"),
    ],
    rules: Rules = None,
    reverse: Annotated[
        bool,
        typer.Option(
            "--reverse",
            help="TARGET is the ported parameters: write the state_dict that they come from.",
        ),
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help='float32, bfloat16, …, or "target"; kept by default'),
    ] = None,
    script: Annotated[
        Path | None, typer.Option("--script", help="Write the port as a program to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Port a checkpoint into a Flax model, and write the parameters. What is written is read back."""
    if reverse:
        if dtype or script:
            raise ArgumentError("--dtype and --script belong to a port, not to --reverse.")
        done = _port_back(checkpoint, target, output, rules)
    else:
        done = _port(checkpoint, target, output, rules, dtype, script)
    if as_json:
        _print_json(done)
    else:
        _console().print(f"{done['report']}\n{done['saved']}", markup=False)
    raise typer.Exit(WRONG if done["unsure"] or done.get("missing") else 0)


def _port(
    checkpoint: str, target: str, output: Path, rules: Path | None, dtype: Any, script: Path | None
) -> dict[str, Any]:
    from porting.checkpoint import save_params
    from porting.mapping import infer_mapping, port_checkpoint

    with _steps(4) as step, _open(checkpoint) as opened:
        step("Mapping")
        goal = _target(target)
        mapping = infer_mapping(opened, goal, rules)
        step("Porting")
        made, report = port_checkpoint(opened, goal, mapping, dtype=dtype)
        step("Writing and reading back")
        saved = save_params(output, made)
    if script is not None:
        kind = "linen" if any(path.startswith("params/") for path in mapping.leaves) else "nnx"
        script.write_text(report.code(kind, checkpoint), encoding="utf-8")
    return {
        "output": str(output),
        "leaves": report.leaves,
        "bytes": report.nbytes,
        "unsure": list(report.unsure),
        "report": str(report),
        "saved": str(saved),
    }


def _port_back(checkpoint: str, params: str, output: Path, rules: Path | None) -> dict[str, Any]:
    from porting.checkpoint import save_params
    from porting.mapping import infer_mapping, unport_checkpoint
    from porting.targets import is_callable_name

    if is_callable_name(params) or output.suffix != ".safetensors":
        raise ArgumentError(
            "--reverse takes the file of the ported parameters as TARGET and writes a "
            ".safetensors file, which PyTorch loads with safetensors.torch.load_file."
        )
    with _steps(4) as step, _open(checkpoint) as opened, _open(params) as ported:
        step("Mapping")
        mapping = infer_mapping(opened, ported, rules)
        step("Porting back")
        made = unport_checkpoint(ported, opened.specs, mapping)
        step("Writing and reading back")
        saved = save_params(output, made, metadata={"format": "pt"})
        absent = {key: mapping.unused.get(key, "") for key in opened.specs if key not in made}
    unsure = [f"{leaf}: {leaf.reason}" for leaf in mapping.unsure.values()]
    lines = [f"{number_of(len(made), 'tensor')} from {number_of(len(mapping.leaves), 'leaf')}"]
    lines += [f"UNSURE {line}" for line in unsure]
    lines += [f"{key} is left out: {why}" for key, why in absent.items()]
    return {
        "output": str(output),
        "tensors": len(made),
        "unsure": unsure,
        "missing": [key for key in absent if key in mapping.left_over],
        "report": "\n".join(lines),
        "saved": str(saved),
    }


@app.command()
def doctor(
    checkpoint: Source,
    params: Annotated[str, typer.Argument(help="The ported Flax parameters")],
    rules: Rules = None,
    traces: Annotated[
        tuple[str, str] | None,
        typer.Option("--traces", help="Two recorded traces, the reference first."),
    ] = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", help="Write the repaired parameters here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say leaf by leaf what a port holds, what was done to it, and the line that fixes it."""
    from porting.checkpoint import save_params
    from porting.doctor import diagnose, repair
    from porting.mapping import infer_mapping

    saved = ""
    with _steps(3) as step, _open(checkpoint) as source, _open(params) as ported:
        step("Diagnosing")
        mapping = infer_mapping(source, ported, rules) if rules is not None else None
        found = diagnose(source, ported, mapping)
        if fix is not None:
            step("Repairing")
            saved = str(save_params(fix, repair(source, ported, found)))
    forward = _forward(traces, found) if traces else {}
    if as_json:
        _print_json(found.to_dict() | forward | ({"saved": saved} if saved else {}))
    else:
        lines = [found.report(), forward.get("report", ""), saved]
        _console().print("\n".join(filter(None, lines)), markup=False)
    raise typer.Exit(WRONG if not found.ok or forward.get("verdict") == "parts" else 0)


def _forward(traces: tuple[str, str], found: Any) -> dict[str, Any]:
    """The comparison of two traces, explained by the diagnosis of the leaves."""
    from porting.trace import compare_traces, explain, load_trace

    comparison = compare_traces(*(load_trace(path) for path in traces))
    text = f"{comparison.report()}\n{explain(comparison, found).report()}"
    return {"verdict": comparison.verdict, "report": text, "forward": comparison.as_rows()}


@app.command("app")
def app_(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port_number: Annotated[int | None, typer.Option("--port", help="The port.")] = None,
) -> None:
    """Serve the app; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT are its defaults."""
    from porting.ui.page import build, serve

    serve(build(), server_name=host, server_port=port_number)


def main() -> None:
    """Run the command line."""
    app()
