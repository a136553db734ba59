"""`portlens port`: a checkpoint into a Flax model, or trained parameters home again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from porting.cli.arguments import WRONG, AsJson, Rules, Source, Target, opened, target_of
from porting.cli.terminal import console, print_json, steps, write_text
from porting.errors import ArgumentError, number_of


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
    allow_unused: Annotated[
        bool,
        typer.Option("--allow-unused", help="Do not object to tensors without a place in TARGET."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Port a checkpoint into a Flax model, and write the parameters. What is written is read back."""
    if reverse:
        if dtype or script or allow_unused:
            raise ArgumentError(
                "--dtype, --script and --allow-unused belong to a port, not to --reverse."
            )
        done = _port_back(checkpoint, target, output, rules)
    else:
        done = _port(checkpoint, target, output, rules, dtype, script, allow_unused)
    if as_json:
        print_json(done)
    else:
        console().print(f"{done['report']}\n{done['saved']}", markup=False)
    raise typer.Exit(WRONG if done["unsure"] or done.get("missing") else 0)


def _port(
    checkpoint: str,
    target: str,
    output: Path,
    rules: Path | None,
    dtype: str | None,
    script: Path | None,
    allow_unused: bool,
) -> dict[str, Any]:
    from porting.checkpoint import save_params
    from porting.mapping import infer_mapping, port_checkpoint

    with steps(4) as step, opened(checkpoint) as source:
        step("Mapping")
        goal = target_of(target)
        mapping = infer_mapping(source, goal, rules)
        step("Porting")
        made, report = port_checkpoint(
            source, goal, mapping, dtype=dtype, allow_unused=allow_unused
        )
        if script is not None:  # first: a script that cannot be written leaves no parameters
            kind = "linen" if any(path.startswith("params/") for path in mapping.leaves) else "nnx"
            write_text(script, report.code(kind, [str(path) for path in source.files]))
        step("Writing and reading back")
        saved = save_params(output, made)
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
    with steps(4) as step, opened(checkpoint) as source, opened(params) as ported:
        step("Mapping")
        mapping = infer_mapping(source, ported, rules)
        step("Porting back")
        made = unport_checkpoint(ported, source.specs, mapping)
        step("Writing and reading back")
        saved = save_params(output, made, metadata={"format": "pt"})
        absent = {key: mapping.unused.get(key, "") for key in source.specs if key not in made}
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
