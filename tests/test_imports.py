"""The walls of the house: what may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Rooms that may know Gradio or Plotly; every other module is the engine.
ROOMS = {"ui": {"gradio"}, "figures": {"plotly"}}
#: Doors: they may name any room, inside a function, and still bring nothing when imported.
DOORS = {"porting.cli.serving"}
#: What the engine never brings along. PyTorch is for golden scripts and an optional recorder.
FORBIDDEN = ("gradio", "plotly", "torch")
#: Files that may name PyTorch, inside a function.
RECORDERS = {"porting/trace/record_torch.py"}

PROBE = """
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    came = [m for m in {forbidden!r} if m in sys.modules]
    if came:
        sys.exit(f"{{name}} brings {{', '.join(came)}}")
"""


def modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    found = {}
    for path in sorted((ROOT / "porting").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(name: str) -> str:
    return next((part for part in name.split(".")[1:2] if part in ROOMS), "engine")


def engine() -> list[str]:
    return [name for name in modules() if room_of(name) == "engine"]


def brought(names: list[str]) -> str:
    """What a fresh process says that imports `names` one after another: "" if all is well."""
    script = PROBE.format(names=names, forbidden=FORBIDDEN)
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def imported(path: Path) -> set[str]:
    """The full names that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_engine_brings_neither_gradio_nor_plotly_nor_torch():
    assert len(engine()) > 20
    assert brought(engine()) == ""


def test_the_test_above_can_fail():
    figures = [name for name in modules() if room_of(name) == "figures"]
    assert "brings plotly" in brought([*engine()[:3], *figures])


@pytest.mark.parametrize("name", sorted(modules().keys() - DOORS))
def test_no_module_names_what_is_not_for_its_room(name):
    path = modules()[name]
    room, names = room_of(name), imported(path)
    allowed = ROOMS.get(room, set())
    if path.relative_to(ROOT).as_posix() in RECORDERS:
        allowed = allowed | {"torch"}
    assert not {full.split(".")[0] for full in names} & {*FORBIDDEN, "app"} - allowed
    above = {"engine": ("porting.figures", "porting.ui"), "figures": ("porting.ui",), "ui": ()}
    assert not [full for full in names if full.startswith(above[room])]
