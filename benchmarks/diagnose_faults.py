"""Does `porting.doctor` find what was done wrong? Faults injected into ports known to be right.

    python -m benchmarks.diagnose_faults [CASES] [--repeats 3] [--show]

CASES is a folder of ports: `*/*/torch.safetensors` beside `flax.safetensors` or
`nnx.safetensors`. The self-made ports of `diagnose_models` and `diagnose_ports` are always included. Counted, for
every leaf that a fault touched: found (called wrong), named (status and kind), located (the
source that it holds), repaired (the fix gives the right leaf bit for bit); and for every leaf
that no fault touched: wrongly accused.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import benchmarks.diagnose_combined  # noqa: F401 (adds its rows to FAULTS)
from benchmarks.diagnose_kinds import FAULTS, Changes, Wrong
from benchmarks.diagnose_models import MODELS, Port
from benchmarks.diagnose_ports import MORE
from porting.checkpoint import open_checkpoint
from porting.doctor import Diagnosis, LeafVerdict, diagnose, repair
from porting.mapping import infer_mapping

COLUMNS = ("leaves", "found", "named", "located", "repaired", "accused")


def cases(folder: Path) -> Iterator[Port]:
    """The ports of a folder, with rows inferred from the clean port and checked on its values."""
    for source_file in sorted(folder.glob("*/*/torch.safetensors")):
        files = [source_file.with_name(n) for n in ("flax.safetensors", "nnx.safetensors")]
        ported_file = next(f for f in files if f.exists())
        source = {k: np.array(v) for k, v in open_checkpoint(source_file).items()}
        ported = {k: np.array(v) for k, v in open_checkpoint(ported_file).items()}
        rows = infer_mapping(source, ported).leaves
        right = {p: r for p, r in rows.items() if np.array_equal(r.apply(source), ported[p])}
        yield Port(source_file.parent.name, source, ported, dict(right), given=False)


def broken(port: Port, changes: Changes) -> dict[str, np.ndarray]:
    """The leaves of a port with the changes made."""
    leaves = {**port.leaves, **{p: m for p, (m, _) in changes.items() if m is not None}}
    return {p: a for p, a in leaves.items() if p not in changes or changes[p][0] is not None}


def score(port: Port, changes: Changes, show: bool = False, title: str = "") -> Counter[str]:
    """The counts of one diagnosis."""
    ported = broken(port, changes)
    diagnosis = diagnose(port.source, ported, port.mapping)
    fixed = repair(port.source, ported, diagnosis)
    count: Counter[str] = Counter()
    for path, (_, truth) in changes.items():
        verdict = diagnosis.leaves.get(path)
        points = judged(verdict, truth, fixed.get(path), port.leaves[path])
        count.update(points)
        if show and len(points) < 5:
            print(f"  {port.name} / {title}: {path} {sorted(points)}\n    {truth}\n    {verdict}")
    count["accused"] = sum(_accused(diagnosis, path, changes) for path in diagnosis.leaves)
    if show and count["accused"]:
        wrong = [p for p in diagnosis.leaves if _accused(diagnosis, p, changes)]
        print(f"  {port.name} / {title}: accused {wrong}\n    {diagnosis.leaves[wrong[0]]}")
    return count


def judged(
    verdict: LeafVerdict | None, truth: Wrong, fixed: np.ndarray | None, right: np.ndarray
) -> list[str]:
    """The columns that one verdict earns."""
    points = ["leaves"]
    if verdict is None or not verdict.wrong:
        return points
    points.append("found")
    all_named = set(truth.also) <= {verdict.kind, *verdict.also}
    named = not truth.kinds or verdict.kind in truth.kinds or verdict.status == "missing"
    points += ["named"] * (verdict.status in truth.statuses and named and all_named)
    held = truth.source is None or truth.source in (verdict.source, *verdict.alternatives)
    points += ["located"] * held
    same = fixed is not None and fixed.shape == right.shape and np.array_equal(fixed, right)
    return points + ["repaired"] * same


def _accused(diagnosis: Diagnosis, path: str, changes: Changes) -> bool:
    return diagnosis.leaves[path].wrong and path not in changes


def combined(first: Changes, second: Changes) -> Changes:
    """Two faults in different leaves."""
    return {**second, **first}


def trials(port: Port, repeats: int) -> Iterator[tuple[str, Changes]]:
    """Every fault that the port has a place for, alone, and each with another one."""
    yield "clean", {}
    names = list(FAULTS)
    for n in range(repeats):
        for place, name in enumerate(names):
            rng = np.random.default_rng(zlib.crc32(f"{port.name} {name} {n}".encode()))
            first = FAULTS[name](port, rng)
            if first is None:
                continue
            yield name, first
            other = FAULTS[names[(place * 7 + n + 3) % len(names)]](port, rng)
            if other and not first.keys() & other.keys():
                yield f"double: {name}", combined(first, other)


def main() -> None:
    """Prints one row for each fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print what was missed")
    options = parser.parse_args()
    ports = [make() for make in (*MODELS, *MORE)] + (
        list(cases(options.cases)) if options.cases else []
    )
    table: dict[str, Counter[str]] = defaultdict(Counter)
    began, runs = time.perf_counter(), 0
    for port in ports:
        for title, changes in trials(port, options.repeats):
            row = "double faults" if title.startswith("double") else title
            table[row] += score(port, changes, options.show, title) + Counter(runs=1)
            runs += 1
    _print(table)
    print(f"{runs} diagnoses of {len(ports)} models in {time.perf_counter() - began:.1f} s")
    sys.exit(0)


def _print(table: dict[str, Counter[str]]) -> None:
    print(f"{'fault':36}{'runs':>6}" + "".join(f"{c:>10}" for c in COLUMNS))
    rows = [*table.items(), ("all", sum(table.values(), Counter()))]
    for name, count in rows:
        print(f"{name:36}{count['runs']:6}" + "".join(f"{count[c]:10}" for c in COLUMNS))


if __name__ == "__main__":
    main()
