"""`portlens doctor`: what a port holds, and the way out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from porting.cli.arguments import WRONG, AsJson, Rules, Source, opened
from porting.cli.terminal import console, print_json, steps


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
    with steps(3) as step, opened(checkpoint) as source, opened(params) as ported:
        step("Diagnosing")
        mapping = infer_mapping(source, ported, rules) if rules is not None else None
        found = diagnose(source, ported, mapping)
        if fix is not None:
            step("Repairing")
            saved = str(save_params(fix, repair(source, ported, found)))
        forward = _forward(traces, found, ported) if traces else {}
    if as_json:
        print_json(found.to_dict() | forward | ({"saved": saved} if saved else {}))
    else:
        lines = [found.report(), forward.get("report", ""), saved]
        console().print("\n".join(filter(None, lines)), markup=False)
    raise typer.Exit(WRONG if not found.ok or forward.get("verdict") == "parts" else 0)


def _forward(traces: tuple[str, str], found: Any, ported: Any) -> dict[str, Any]:
    """The comparison of two traces, explained by the diagnosis of the leaves."""
    from porting.trace import compare_traces, explain, load_trace

    wanted, given = (load_trace(path) for path in traces)
    given = given if given.leaves else dataclasses.replace(given, leaves=ported)
    comparison = compare_traces(wanted, given)
    text = f"{comparison.report()}\n{explain(comparison, found).report()}"
    return {"verdict": comparison.verdict, "report": text, "forward": comparison.as_rows()}
