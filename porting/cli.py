"""The command line: `portlens inspect | map | port | doctor | app`.

Exit codes: 0 good, 1 something unmapped or wrong, 2 bad usage or a file that is refused.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from porting.errors import ArgumentError, PortingError, number_of

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
out, err = Console(), Console(stderr=True)

Checkpoint = Annotated[
    list[str],
    typer.Argument(help="A checkpoint: one file, all its shards, a folder, or hf://owner/name"),
]
Target = Annotated[
    str,
    typer.Argument(help="A parameters file, or package.module:callable that returns a Flax module"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Rules = Annotated[
    Path | None, typer.Option("--rules", help="A mapping file that overrules the inferred one.")
]

STATUS = {"ok": "[green]✓ right[/]", "ambiguous": "[yellow]? cannot tell[/]"}


@contextmanager
def _working(what: str) -> Iterator[None]:
    """A line that says what is being done, on a terminal."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield


def _open(paths: list[str] | str) -> Any:
    from porting.checkpoint import open_checkpoint

    paths = [paths] if isinstance(paths, str) else paths
    return open_checkpoint(paths[0] if len(paths) == 1 else paths, allow_directories=True)


def _target(text: str) -> Any:
    """The parameters or the Flax module that TARGET names.

    A callable may return an NNX module, an abstract one, a Linen module with its sample
    inputs as a tuple, or a tree of parameters.
    """
    module, colon, name = text.partition(":")
    if not colon or text.startswith("hf://") or Path(text).exists():
        return _open(text)
    sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(
            f"TARGET {text!r} cannot be imported: {error}. Write package.module:callable, or a path."
        ) from None
    finally:
        sys.path.remove("")
    return _abstract(made) if callable(made) and not hasattr(made, "init") else made


def _abstract(make: Any) -> Any:
    """What a callable returns; an NNX module is made without its numbers where that works."""
    from flax import nnx

    try:
        return nnx.eval_shape(make)
    except Exception:  # a tuple with a Linen module, say, is no tree of arrays
        return make()


def _print(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@app.command()
def inspect(checkpoint: Checkpoint, as_json: AsJson = False) -> None:
    """List the tensors of a checkpoint. Only headers are read."""
    with _open(checkpoint) as opened:
        rows = [(k, tuple(s.shape), str(s.dtype), s.nbytes) for k, s in opened.specs.items()]
        if as_json:
            listed = [dict(zip(("key", "shape", "dtype", "bytes"), r, strict=True)) for r in rows]
            _print({"format": opened.format, "tensors": listed})
            return
        table = Table("Tensor", "Shape", "dtype", "Bytes", box=None, header_style="bold")
        for key, shape, dtype, size in rows:
            table.add_row(key, str(shape), dtype, f"{size:,}")
        out.print(table)
        total = sum(r[3] for r in rows)
        out.print(f"{number_of(len(rows), 'tensor')}, {total:,} bytes, {opened.format}")


def _map(opened: Any, target: Any, rules: Path | None) -> Any:
    from porting.mapping import Mapping, infer_mapping

    if rules is not None:
        return Mapping.from_rules(rules, opened, target)
    return infer_mapping(opened, target)


@app.command("map")
def map_(
    checkpoint: Checkpoint,
    target: Target,
    rules: Rules = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="Write the mapping to this TOML file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which tensor goes to which leaf, by which rule, and what is unsure."""
    with _open(checkpoint) as opened, _working("Mapping"):
        mapping = _map(opened, _target(target), rules)
    if write is not None:
        write.write_text(mapping.to_rules())
    if as_json:
        leaves = {
            path: {
                "sources": list(x.sources),
                "rule": str(x.rule),
                "join": x.join.name,
                "confident": x.confident,
                "reason": x.reason,
            }
            for path, x in mapping.leaves.items()
        }
        _print({"leaves": leaves, "unmapped": mapping.unmapped, "unused": mapping.unused})
    else:
        table = Table("Flax leaf", "From", "Rule", "", box=None, header_style="bold")
        for path, leaf in mapping.leaves.items():
            sure = "[green]✓[/]" if leaf.confident else f"[yellow]? {leaf.reason}[/]"
            table.add_row(path, ", ".join(leaf.sources), str(leaf.rule), sure)
        for path, why in mapping.unmapped.items():
            table.add_row(path, "", "", f"[red]open: {why}[/]")
        out.print(table)
        out.print(str(mapping))
    raise typer.Exit(bool(mapping.unmapped or mapping.left_over or mapping.unsure))


@app.command()
def port(
    checkpoint: Checkpoint,
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
            help="TARGET is the ported parameters: write the checkpoint they came from.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Port a checkpoint into a Flax model, and write the parameters. What is written is read back."""
    from porting.checkpoint import save_params
    from porting.mapping import port_checkpoint, unport_checkpoint

    with _open(checkpoint) as opened, _working("Porting"):
        goal = _target(target)
        mapping = _map(opened, goal, rules)
        if reverse:
            made, said = unport_checkpoint(goal, opened.specs, mapping), "ported back"
            unsure = len(mapping.unsure)
        else:
            made, report = port_checkpoint(opened, goal, mapping)
            said, unsure = str(report), len(report.unsure)
        save_params(output, made)
    if as_json:
        _print({"output": str(output), "unsure": unsure, "report": said})
    else:
        out.print(said, highlight=False)
        out.print(f"Wrote {output}, read back and compared bit for bit.")
    raise typer.Exit(bool(unsure))


@app.command()
def doctor(
    checkpoint: Annotated[str, typer.Argument(help="The original checkpoint")],
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
    from porting.diagnose import diagnose, repair

    with _open(checkpoint) as source, _open(params) as ported, _working("Diagnosing"):
        mapping = _map(source, ported, rules) if rules is not None else None
        found = diagnose(source, ported, mapping)
        if fix is not None:
            save_params(fix, repair(source, ported, found))
    forward = _forward(traces, found) if traces else None
    if as_json:
        _print(found.to_dict() | ({"forward": forward[1]} if forward else {}))
    else:
        out.print(found.report(), highlight=False, markup=False)
        if forward:
            out.print(forward[0], highlight=False, markup=False)
        if fix is not None:
            out.print(f"Wrote {fix}, read back and compared bit for bit.")
    raise typer.Exit(not found.ok or bool(forward and forward[2]))


def _forward(traces: tuple[str, str], found: Any) -> tuple[str, Any, bool]:
    """The comparison of two traces: text, rows, whether something parts."""
    from porting.trace import compare_traces, explain, load_trace

    comparison = compare_traces(*(load_trace(path) for path in traces))
    said = explain(comparison, found)
    return (
        f"{comparison.report()}\n{said.report()}",
        comparison.as_rows(),
        comparison.verdict == "parts",
    )


@app.command("app")
def app_() -> None:
    """Serve the app; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where."""
    from porting.ui.page import build, launch

    launch(build())


def main() -> None:
    """Run the command line; a refusal is one sentence and exit code 2."""
    try:
        app()
    except PortingError as error:
        err.print(f"[red]{type(error).__name__}[/]: {error}", highlight=False)
        raise SystemExit(2) from None
