"""`portlens doctor`: what a port holds, and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    from porting.trace import forward, load_trace

    saved = ""
    with steps(3) as step, opened(checkpoint) as source, opened(params) as ported:
        step("Diagnosing")
        mapping = infer_mapping(source, ported, rules) if rules is not None else None
        found = diagnose(source, ported, mapping)
        if fix is not None:
            step("Repairing")
            saved = str(save_params(fix, repair(source, ported, found)))
        run = (
            forward((load_trace(traces[0]), load_trace(traces[1])), found, source, ported)
            if traces
            else None
        )
    if as_json:
        passed = {"forward": run.to_dict()} if run else {}
        print_json(found.to_dict() | passed | ({"saved": saved} if saved else {}))
    else:
        lines = [found.report(), run.report() if run else "", saved]
        console().print("\n".join(filter(None, lines)), markup=False)
    raise typer.Exit(WRONG if not found.ok or (run and run.parts) else 0)
