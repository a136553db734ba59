"""How long a diagnosis takes, against reading both files once; and how much memory.

    python -m benchmarks.diagnose_speed [FOLDER] [--scale 1.0] [--faults clean,untransposed,…]

Writes a GPT-like checkpoint of 110 M parameters and its port as safetensors into FOLDER (a
temporary one if none is given), opens both, and diagnoses the clean port and broken ones. The
yardstick is the time to read all bytes of both files once, in the same state of the page
cache, the best of three.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

WIDTH, LAYERS, VOCAB = 768, 12, 30522

Leaves = dict[str, np.ndarray]


def source_tensors(seed: int = 0) -> Leaves:
    """A BERT-like state_dict of 110 M parameters."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    out = {"embeddings.word_embeddings.weight": draw(VOCAB, WIDTH)}
    out["embeddings.position_embeddings.weight"] = draw(512, WIDTH)
    for n in range(LAYERS):
        stem = f"encoder.layer.{n}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            out[f"{stem}attention.{part}.weight"] = draw(WIDTH, WIDTH)
            out[f"{stem}attention.{part}.bias"] = draw(WIDTH)
        for name, (o, i) in {
            "intermediate": (4 * WIDTH, WIDTH),
            "output": (WIDTH, 4 * WIDTH),
        }.items():
            out[f"{stem}{name}.dense.weight"], out[f"{stem}{name}.dense.bias"] = draw(o, i), draw(o)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            out[f"{stem}{name}.weight"], out[f"{stem}{name}.bias"] = 1 + draw(WIDTH), draw(WIDTH)
    return out


def port(source: Leaves) -> Leaves:
    """The Flax leaves of these tensors."""
    out = {}
    for key, array in source.items():
        *module, name = key.split(".")
        if name == "weight":
            table = "embedding" if "embeddings" in key else "kernel"
            name = "scale" if array.ndim == 1 else table
        moved = array.T if name == "kernel" else array
        out["/".join(["params", *module, name])] = np.asarray(moved, order="C")
    return out


def _square(leaves: Leaves) -> list[str]:
    return [p for p, a in leaves.items() if a.shape == (WIDTH, WIDTH)]


def untransposed(leaves: Leaves) -> Leaves:
    """Every square kernel left as PyTorch has it."""
    return {p: np.asarray(leaves[p].T, order="C") for p in _square(leaves)}


def shifted(leaves: Leaves) -> Leaves:
    """Every layer holds the one before it."""
    return {p: leaves[p.replace(f"/{n}/", f"/{n - 1}/")] for n in range(1, LAYERS) for p in leaves if f"layer/{n}/" in p}  # fmt: skip


def narrowed(leaves: Leaves) -> Leaves:
    """Every leaf through bfloat16."""
    return {p: a.astype(ml_dtypes.bfloat16).astype(np.float32) for p, a in leaves.items()}


def random_table(leaves: Leaves) -> Leaves:
    """The word embedding left at its init."""
    path = "params/embeddings/word_embeddings/embedding"
    return {path: np.random.default_rng(9).standard_normal(leaves[path].shape, dtype=np.float32)}


def scaled(leaves: Leaves) -> Leaves:
    """The attention scale folded into every query."""
    return {p: leaves[p] / np.float32(8) for p in leaves if "query" in p}


def shifted_narrowed(leaves: Leaves) -> Leaves:
    """Every layer holds the one before it, through bfloat16."""
    return narrowed(shifted(leaves))


def shifted_untransposed(leaves: Leaves) -> Leaves:
    """Every layer holds the one before it, square kernels as PyTorch has them."""
    moved = shifted(leaves)
    return {**moved, **untransposed(moved)}


def another_model(leaves: Leaves) -> Leaves:
    """Nothing of this checkpoint at all."""
    return port(source_tensors(seed=1))


FAULTS: dict[str, Callable[[Leaves], Leaves]] = {
    "clean": lambda leaves: {},
    "untransposed": untransposed,
    "shifted": shifted,
    "narrowed": narrowed,
    "random_table": random_table,
    "scaled": scaled,
    "shifted_narrowed": shifted_narrowed,
    "shifted_untransposed": shifted_untransposed,
    "another_model": another_model,
}


def read_once(files: list[Path]) -> float:
    """Seconds to read all bytes of the files into memory, the best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for file in files:
            np.fromfile(file, np.uint8)
        best = min(best, time.perf_counter() - began)
    return best


def _resident(field: str) -> float:
    """A line of /proc/self/status, in MiB: pages of the mapped files count as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(folder: Path, fault: str) -> None:
    """One diagnosis in this process: prints its time and what memory it took."""
    from porting.checkpoint import open_checkpoint
    from porting.doctor import diagnose

    files = [folder / "source.safetensors", folder / f"{fault}.safetensors"]
    yardstick = read_once(files)
    size = sum(f.stat().st_size for f in files) / 2**20
    source, ported = open_checkpoint(files[0]), open_checkpoint(files[1])
    diagnose({"a.weight": np.eye(3)}, {"a": {"kernel": np.eye(3)}})  # imports are not counted
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    began = time.perf_counter()
    diagnosis = diagnose(source, dict(ported))
    took = time.perf_counter() - began
    peak = _resident("VmHWM")
    print(
        f"{fault:21}{took:8.2f} s{yardstick:8.2f} s{took / yardstick:7.1f} x"
        f"{peak - before:9.0f} MiB above {before:.0f} ({size:.0f} in the files)  {diagnosis.counts}"
    )


def main() -> None:
    """Writes the files, then measures each fault in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--one", help="measure this fault in this process")
    options = parser.parse_args()
    if options.one:
        measure(options.folder, options.one)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        source = source_tensors()
        leaves = port(source)
        save_file(source, folder / "source.safetensors")
        count = sum(a.size for a in source.values())
        print(f"{count / 1e6:.0f} M parameters; diagnosis, reading both files, ratio, memory")
        for fault in options.faults.split(","):
            save_file({**leaves, **FAULTS[fault](leaves)}, folder / f"{fault}.safetensors")
            command = [
                sys.executable,
                "-m",
                "benchmarks.diagnose_speed",
                str(folder),
                "--one",
                fault,
            ]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
