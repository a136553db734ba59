"""The command line: what it prints, what it writes, and its exit codes."""

import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from porting.checkpoint import open_checkpoint, save_params
from porting.cli import app
from porting.examples import EXAMPLES
from porting.models import decided_mapping
from tests import checkpoint_files as make

ROOT = Path(__file__).parents[1]
RNET = str(EXAMPLES["mtcnn_rnet"].path)
NNX, LINEN = "porting.models:NNXRNet", "cli_models:linen_rnet"
MODELS = """
import jax.numpy as jnp
from flax import linen, nnx
from porting.models import LinenRNet

def linen_rnet():
    return LinenRNet(), jnp.zeros((1, 24, 24, 3))

def tree():
    return {"fc": {"kernel": jnp.zeros((3, 5)), "bias": jnp.zeros(5)}}

def abstract():
    return nnx.eval_shape(lambda: nnx.Linear(3, 5, rngs=nnx.Rngs(0)))

def broken():
    raise RuntimeError("no such width\\nsecond line")

def wants(width):
    return nnx.Linear(width, 5, rngs=nnx.Rngs(0))

def ends():
    raise SystemExit(3)

def flat():
    return linen.Conv(3, (3, 3)), jnp.zeros(2)

class Zoo:
    tree = staticmethod(tree)

alone = linen.Dense(5)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory with a module of models."""
    (tmp_path / "cli_models.py").write_text(MODELS)
    (tmp_path / "cli_program.py").write_text("raise SystemExit(2)")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("cli_models", None)


def portlens(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def dense(path: Path, **extra: np.ndarray) -> Path:
    draw = np.random.default_rng(0)
    arrays = {"fc.weight": draw.standard_normal((5, 3)), "fc.bias": draw.standard_normal(5)}
    save_file({k: v.astype("f") for k, v in arrays.items()} | extra, path)
    return path


def test_inspect_lists_every_tensor():
    done = portlens("inspect", RNET)
    assert done.exit_code == 0
    assert "conv2.weight     (48, 28, 3, 3)  float32   48,384" in done.stdout
    assert "16 tensors, 400,712 bytes, safetensors" in done.stdout


def test_inspect_as_json():
    done = portlens("inspect", RNET, "--json")
    said = json.loads(done.stdout)
    assert (said["format"], said["bytes"], len(said["tensors"])) == ("safetensors", 400_712, 16)
    assert said["tensors"][1] == {
        "key": "conv1.weight",
        "shape": [28, 3, 3, 3],
        "dtype": "float32",
        "bytes": 3024,
    }


def test_markup_in_a_name_is_text(here):
    path = dense(here / "odd.safetensors", **{"[bold]x[/bold]": np.ones(2, "f")})
    assert "[bold]x[/bold]" in portlens("inspect", path).stdout


def test_shards_one_by_one_as_pattern_index_and_folder(here):
    for i in (1, 2):
        save_file({f"w{i}": np.ones((3, i), "f")}, here / f"model-{i}.safetensors")
    index = {"weight_map": {f"w{i}": f"model-{i}.safetensors" for i in (1, 2)}}
    (here / "model.safetensors.index.json").write_text(json.dumps(index))
    shards = [here / f"model-{i}.safetensors" for i in (1, 2)]
    ways = [shards, ["model-*.safetensors"], ["model.safetensors.index.json"], [here]]
    for names in ways:
        done = portlens("inspect", *names)
        assert done.exit_code == 0, names
        assert "2 tensors, 36 bytes, safetensors, sharded" in done.stdout


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_a_mapping_fits_its_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    done = portlens("map", RNET, NNX)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    row = next(i for i, line in enumerate(lines) if "conv1/kernel" in line)
    assert ("conv1.weight" in lines[row]) == (width == 160)
    assert "conv1.weight" in lines[row] + lines[row + 1]
    assert "o i h w -> h w i o" in lines[row]


def test_a_question_is_exit_code_1_and_shows_the_other_reading():
    done = portlens("map", RNET, NNX)
    assert done.exit_code == 1
    assert "15 of 16 leaves sure, 1 unsure, 0 open" in done.stdout
    assert "or dense4/kernel <- dense4.weight by o i -> i o" in done.stdout


def test_a_mapping_as_json_holds_the_alternatives():
    said = json.loads(portlens("map", RNET, NNX, "--json").stdout)
    leaf = said["leaves"]["dense4/kernel"]
    assert (leaf["sources"], leaf["confident"]) == (["dense4.weight"], False)
    assert leaf["alternatives"] == ["dense4.weight by o i -> i o"]
    assert (said["unmapped"], said["unused"]) == ({}, {})


def test_a_decided_mapping_ports_and_goes_home(here):
    mapping = decided_mapping("rnet-nnx", open_checkpoint(RNET))
    Path("decided.toml").write_text(mapping.to_rules())
    assert portlens("map", RNET, NNX, "--rules", "decided.toml").exit_code == 0
    done = portlens("port", RNET, NNX, "--rules", "decided.toml", "-o", "params.safetensors")
    assert done.exit_code == 0
    assert "read back and compared bit for bit" in " ".join(done.stdout.split())
    source, ported = load_file(RNET), load_file("params.safetensors")
    np.testing.assert_array_equal(ported["dense4/kernel"], source["dense4.weight"].T)

    back = ("port", RNET, "params.safetensors", "--reverse", "--rules", "decided.toml")
    assert portlens(*back, "-o", "home.safetensors").exit_code == 0
    home = load_file("home.safetensors")
    assert home.keys() == source.keys()
    assert all(home[k].tobytes() == source[k].tobytes() for k in source)
    with safe_open("home.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_written_mapping_is_a_file_that_can_be_decided(here):
    assert portlens("map", RNET, NNX, "--write", "mapping.toml").exit_code == 1
    rows = tomllib.loads(Path("mapping.toml").read_text())["leaf"]
    assert [row["path"] for row in rows if row.get("sure") is False] == ["dense4/kernel"]
    lines = Path("mapping.toml").read_text().splitlines()
    decided = [line for line in lines if not line.startswith(("sure =", "why ="))]
    Path("decided.toml").write_text("\n".join(decided))
    assert portlens("map", RNET, NNX, "--rules", "decided.toml").exit_code == 0


def test_an_unsure_port_is_written_and_is_exit_code_1(here):
    done = portlens("port", RNET, LINEN, "-o", "params.msgpack", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 1
    assert said["leaves"] == 16
    assert said["unsure"][0].startswith("params/dense4/kernel <- dense4.weight")
    assert "params/dense4/kernel" in open_checkpoint("params.msgpack").specs


@pytest.mark.parametrize("target", ["cli_models:tree", "cli_models:Zoo.tree"])
def test_a_tree_is_a_target(here, target):
    source = dense(here / "fc.safetensors")
    assert portlens("port", source, target, "-o", "fc.npz").exit_code == 0
    np.testing.assert_array_equal(np.load("fc.npz")["fc/kernel"], load_file(source)["fc.weight"].T)


def test_abstract_modules_and_files_are_targets(here):
    save_file({"weight": np.ones((5, 3), "f"), "bias": np.ones(5, "f")}, "fc.safetensors")
    assert portlens("map", "fc.safetensors", "cli_models:abstract").exit_code == 0
    save_params("like.npz", {"kernel": np.zeros((3, 5), "f"), "bias": np.zeros(5, "f")})
    assert portlens("map", "fc.safetensors", "like.npz").exit_code == 0


def test_the_dtype_and_the_script(here):
    source = dense(here / "fc.safetensors")
    done = portlens(
        *("port", source, "cli_models:tree", "-o", "fc.safetensors.out.safetensors"),
        *("--dtype", "bfloat16", "--script", "port.py"),
    )
    assert done.exit_code == 0
    assert "2 leaves cast from float32 to bfloat16, which rounds" in done.stdout
    compile(Path("port.py").read_text(), "port.py", "exec")


@pytest.mark.parametrize("shards", [False, True])
def test_the_script_of_any_checkpoint_runs(here, shards):
    source = make.state({"fc.weight": make.tensor((5, 3), (3, 1), count=15)}, bytes(range(60)))
    bias = make.state({"fc.bias": make.tensor((5,), (1,), count=5)}, bytes(range(20)))
    Path("a.bin").write_bytes(source)
    Path("b.bin").write_bytes(bias)
    places = {"fc.weight": "a.bin", "fc.bias": "b.bin"}
    Path("m.bin.index.json").write_text(json.dumps({"weight_map": places}))
    both = make.tensor((5, 3), (3, 1), count=15), make.tensor((5,), (1,), count=15)
    Path("one.pt").write_bytes(
        make.state({"fc.weight": both[0], "fc.bias": both[1]}, bytes(range(60)))
    )
    name = "m.bin.index.json" if shards else "one.pt"
    done = portlens("port", name, "cli_models:tree", "-o", "out.npz", "--script", "port.py")
    assert done.exit_code == 0, done.stderr
    made = runpy.run_path("port.py", run_name="__main__")["variables"]
    with open_checkpoint("out.npz") as kept:
        assert made["fc"]["kernel"].tobytes() == kept["fc/kernel"].tobytes()
        assert made["fc"]["bias"].tobytes() == kept["fc/bias"].tobytes()


def test_tensors_without_a_place_can_be_allowed(here):
    source = dense(here / "fc.safetensors", spare=np.ones(7, "f"))
    done = portlens("port", source, "cli_models:tree", "-o", "fc.npz", "--allow-unused")
    assert done.exit_code == 0
    assert "1 key not read: no place in the target" in done.stdout


def test_what_does_not_fit_is_listed_whole_with_exit_code_1(here):
    source = dense(here / "fc.safetensors", spare=np.ones(7, "f"))
    done = portlens("port", source, "cli_models:tree", "-o", "fc.npz")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "CoverageError: The checkpoint does not fill the target, in 1 place:" in done.stderr
    assert "spare has no place in the target" in done.stderr
    assert not Path("fc.npz").exists()


def test_the_doctor_finds_a_forgotten_transpose_and_repairs_it(here):
    rng = np.random.default_rng(0)
    source = {"fc.weight": rng.standard_normal((5, 5)).astype("f"), "fc.bias": np.ones(5, "f")}
    save_file(source, "source.safetensors")
    save_params("bad.npz", {"fc": {"kernel": source["fc.weight"], "bias": source["fc.bias"]}})
    done = portlens("doctor", "source.safetensors", "bad.npz", "--fix", "good.npz")
    assert done.exit_code == 1
    assert "fc/kernel" in done.stdout
    np.testing.assert_array_equal(np.load("good.npz")["fc/kernel"], source["fc.weight"].T)
    again = portlens("doctor", "source.safetensors", "good.npz", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)


REFUSED = [
    (("inspect", "nowhere.pt"), "CheckpointError: nowhere.pt does not exist. Check the path."),
    (("inspect", "no-*.pt"), "CheckpointError: No file fits 'no-*.pt'. Check the folder"),
    (("inspect", "page.bin"), "is a web page, not weights"),
    (("map", RNET, "nowhere:model"), "TARGET 'nowhere:model' cannot be imported: ModuleNotFound"),
    (("map", RNET, "cli_models:absent"), "AttributeError: module 'cli_models' has no attribute"),
    (("map", RNET, "cli_models:broken"), "raises RuntimeError: no such width. Name a callable"),
    (("map", RNET, "cli_models:wants"), "raises TypeError: wants() missing 1 required positional"),
    (("map", RNET, "cli_models:ends"), "raises SystemExit: 3. Name a callable"),
    (("map", RNET, "cli_program:model"), "cannot be imported: SystemExit"),
    (("map", RNET, "cli_models:flat"), "The module cannot be made with its sample input, ValueE"),
    (("map", RNET, "cli_models:alone"), "A Linen module alone has no shapes. Pass the pair"),
    (("map", RNET, NNX, "--rules", "none.toml"), "RuleError: The rules file cannot be read"),
    (
        ("map", RNET, NNX, "--write", "no/such/folder.toml"),
        "no/such/folder.toml cannot be written: No such",
    ),
    (("port", RNET, NNX, "-o", "x.npz", "--script", "no/such.py"), "no/such.py cannot be written"),
    (("port", RNET, NNX, "-o", "params.h5"), "'params.h5' has a suffix that names no format"),
    (("port", RNET, NNX, "-o", "p.npz", "--dtype", "float3"), "dtype = 'float3' is no dtype"),
    (("port", RNET, NNX, "-o", "x.safetensors", "--reverse"), "--reverse takes the file of the"),
    (("port", RNET, RNET, "-o", "x.npz", "--reverse"), "writes a .safetensors file"),
    (("doctor", RNET, "nowhere.npz"), "nowhere.npz does not exist"),
    (("doctor", RNET, RNET, "--traces", "a.npz", "b.npz"), "a.npz"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_a_refusal_is_a_sentence_on_stderr_with_exit_code_2(here, arguments, words):
    (here / "page.bin").write_bytes(b"<!DOCTYPE html>")
    done = portlens(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("nothing",), ("map", RNET), ("inspect", RNET, "--jsno")])
def test_bad_usage_is_exit_code_2(arguments):
    assert portlens(*arguments).exit_code == 2


def process(*arguments: str, program: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, *(["-c", program] if program else ["-m", "porting"]), *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_as_a_program():
    done = process("inspect", RNET)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "16 tensors, 400,712 bytes, safetensors"
    refused = process("inspect", "nowhere.pt")
    assert refused.returncode == 2
    assert refused.stderr == "CheckpointError: nowhere.pt does not exist. Check the path.\n"


def test_looking_brings_no_large_package():
    program = """
import sys
from porting.cli import app
app(sys.argv[1:], standalone_mode=False)
came = {"jax", "flax", "gradio", "plotly", "torch"} & sys.modules.keys()
sys.exit(f"brought {came}" if came else 0)
"""
    for command in (("inspect", RNET), ("map", RNET, RNET)):
        done = process(*command, program=program)
        assert "brought" not in done.stderr, done.stderr
