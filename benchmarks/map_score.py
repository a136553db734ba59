"""Right, unsure and wrong leaves of `infer_mapping` on tables of names and shapes.

    python benchmarks/map_score.py FOLDER [--auto[=leaves|=flat]] [--sorted] [--drop] [--lines] [NAME …]

`--auto` renames every target module as Flax would count it (`Dense_0`), `--sorted` gives
the source's keys in the order of a safetensors file, `--drop` leaves out tied keys as
`save_pretrained` does.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from porting.mapping import infer_mapping
from porting.mapping.names import natural


def spec(shape, dtype):
    return SimpleNamespace(shape=tuple(shape), dtype=np.dtype(dtype))


def auto_names(table: dict, style: str) -> dict[str, str]:
    """target path -> the same path with modules named by class and counter.

    Modules are counted in the order in which the source defines them, inside their parent;
    with `style` "leaves" only layers are renamed, with "flat" all stand beside each other.
    """
    position = {key: i for i, key in enumerate(table["source"])}
    place = {
        path: min(position[k] for k in table["map"][path]["from"])
        for path in table["target"]
        if path in table["map"]
    }
    paths = sorted(table["target"], key=lambda p: (place.get(p, 10**9), natural(p)))
    slots: dict[str, set[str]] = {}
    for path in paths:
        *parents, leaf = path.split("/")[1:]
        slots.setdefault("/".join(parents), set()).add(leaf)
    names: dict[str, str] = {"": ""}
    counts: Counter = Counter()
    for path in paths:
        *parents, _ = path.split("/")[1:]
        module = "/".join(parents)
        if style == "flat" and module not in names:
            kind = _kind(slots.get(module), table["target"], path)
            names[module] = f"/{kind}_{counts[kind]}"
            counts[kind] += 1
        for depth in range(1, len(parents) + 1):
            module, parent = "/".join(parents[:depth]), "/".join(parents[: depth - 1])
            if module not in names:
                kind = _kind(slots.get(module), table["target"], path)
                name = f"{kind}_{counts[names[parent], kind]}"
                counts[names[parent], kind] += 1
                if style == "leaves" and kind == "Module":
                    name = parents[depth - 1]
                names[module] = f"{names[parent]}/{name}"
    renamed = {}
    for path in table["target"]:
        root, *parents, leaf = path.split("/")
        renamed[path] = f"{root}{names['/'.join(parents)]}/{leaf}"
    return renamed


def _kind(leaves: set[str] | None, target: dict, path: str) -> str:
    if not leaves or not leaves & {"kernel", "embedding", "scale", "weight"}:
        return "Module"
    if "embedding" in leaves:
        return "Embed"
    if "kernel" in leaves:
        return "Dense" if len(target[path][0]) < 3 else "Conv"
    return "BatchNorm" if "mean" in leaves else "LayerNorm"


def score(table: dict, style: str, in_order: bool, drop: bool) -> tuple[Counter, list[str], float]:
    """Counts by outcome, and a line for every leaf that is not right and sure."""
    names = auto_names(table, style) if style else {path: path for path in table["target"]}
    keys = list(table["source"]) if in_order else sorted(table["source"])
    if drop:
        twins = {k for t in table["map"].values() for k in t["from"][1:]}
        keys = [k for k in keys if k not in twins]
    source = SimpleNamespace(specs={k: spec(*table["source"][k]) for k in keys}, ordered=in_order)
    target = {names[p]: spec(*s) for p, s in table["target"].items()}
    start = time.perf_counter()
    mapping = infer_mapping(source, target)
    seconds = time.perf_counter() - start
    counts: Counter = Counter()
    lines = []
    for path in table["target"]:
        truth, leaf = table["map"].get(path), mapping.leaves.get(names[path])
        if leaf is None:
            outcome = "open"
        elif truth is None:
            outcome = "no truth"
        else:
            right = is_right(leaf, truth, table, source, target[names[path]])
            outcome = ("right" if right else "WRONG") + ("" if leaf.confident else " unsure")
        counts[outcome] += 1
        if outcome not in ("right", "no truth"):
            lines.append(
                f"{outcome}: {path} ({names[path]}): {leaf} | {leaf and leaf.reason} | {truth}"
            )
    counts["spare"] = len(mapping.left_over)
    lines += [f"spare: {key}" for key in mapping.left_over]
    return counts, lines, seconds


def is_right(leaf, truth: dict, table: dict, source, goal) -> bool:
    """Whether the leaf is the array that the truth describes."""
    given = {
        key: np.arange(int(np.prod(source.specs[key].shape)), dtype=np.int64).reshape(
            source.specs[key].shape
        )
        + (index << 32)
        for index, key in enumerate(source.specs)
    }
    for group in (truth["from"],):
        known = [key for key in group if key in given]
        for key in known[1:]:
            given[key] = given[known[0]]
    expected = given[known[0]].transpose(truth["order"]).reshape(goal.shape)
    return np.array_equal(leaf.apply(given), expected)


def main(folder: str, *args: str) -> None:
    flags = {a for a in args if a.startswith("--")}
    names = [a for a in args if a not in flags]
    style = next(
        (f.removeprefix("--auto").lstrip("=") or "nested" for f in flags if f.startswith("--auto")),
        "",
    )
    total: Counter = Counter()
    for file in sorted(Path(folder).glob("*.json")):
        if names and file.stem not in names:
            continue
        table = json.loads(file.read_text())
        counts, lines, seconds = score(table, style, "--sorted" not in flags, "--drop" in flags)
        total += counts
        print(f"{file.stem:24} {seconds:6.2f} s  {dict(counts)}")
        if "-v" in args or names or "--lines" in flags:
            print("\n".join(f"    {line}" for line in lines))
    print("total", dict(total))


if __name__ == "__main__":
    main(*sys.argv[1:])
