"""`portlens inspect`: what a checkpoint holds."""

from __future__ import annotations

from rich.markup import escape

from porting.cli.arguments import AsJson, Shards, opened
from porting.cli.terminal import console, print_json, table
from porting.errors import number_of


def inspect(checkpoint: Shards, as_json: AsJson = False) -> None:
    """List the tensors of a checkpoint. Only headers are read."""
    with opened(*checkpoint) as found:
        specs = found.specs
        if as_json:
            rows = [
                {"key": k, "shape": list(s.shape), "dtype": str(s.dtype), "bytes": s.nbytes}
                for k, s in specs.items()
            ]
            about = {"format": found.format, "bytes": found.nbytes, "notes": list(found.notes)}
            print_json(about | {"metadata": found.metadata, "tensors": rows})
            return
        listed = table("Tensor")
        listed.add_column("Shape", no_wrap=True)
        listed.add_column("dtype", no_wrap=True)
        listed.add_column("Bytes", no_wrap=True, justify="right")
        for key, spec in specs.items():
            listed.add_row(escape(key), str(tuple(spec.shape)), str(spec.dtype), f"{spec.nbytes:,}")
        out = console()
        out.print(listed)
        total = f"{number_of(len(specs), 'tensor')}, {found.nbytes:,} bytes, {found.format}"
        out.print("\n".join([total, *found.notes]), markup=False)
