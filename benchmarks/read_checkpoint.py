"""How fast a large checkpoint is read, and in how much memory, next to a plain read.

    python -m benchmarks.read_checkpoint [--parameters 110] [--folder DIR]

A file with the tensors of a BERT of 110 million parameters is written in each format. For
every way of reading it, a fresh process reports the time (the best of three, file in the
page cache) and the highest memory of the first above what it held before; `plain` reads
the file's bytes once. Nothing is compared with times of another run or machine.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from porting.checkpoint import open_checkpoint, save_params, to_jax
from tests import checkpoint_files as make

FORMATS = (".safetensors", ".pt", ".npz", ".msgpack")


def parameters(millions: float) -> dict[str, np.ndarray]:
    """Tensors in the sizes of a BERT, about `millions` in all."""
    width, draw = 768, np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word": (30_522, width)}
    layer = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
    layer |= {"up": (4 * width, width), "down": (width, 4 * width), "bias": (width,)}
    count = round((millions * 1e6 - 30_522 * width) / sum(np.prod(s) for s in layer.values()))
    for i in range(max(count, 1)):
        shapes |= {f"layer.{i}.{name}": shape for name, shape in layer.items()}
    return {name: draw.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write `arrays`; a `.pt` as `torch.save` would, without PyTorch."""
    if path.suffix != ".pt":
        save_params(path, arrays)
        return
    refs, storages = {}, {}
    for i, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // 4 for step in array.strides)
        refs[name] = make.tensor(array.shape, strides, 0, array.size, key=str(i))
        storages[str(i)] = array.tobytes()
    path.write_bytes(make.torch_zip(make.pickled(refs), storages))


def plain(path: Path) -> object:
    data = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.readinto(view) :]
    return data


def headers(path: Path) -> object:
    return open_checkpoint(path)


def views(path: Path) -> object:
    return {key: array.T for key, array in open_checkpoint(path).items()}


def copies(path: Path) -> object:
    return {key: np.array(array) for key, array in open_checkpoint(path).items()}


def jax_arrays(path: Path) -> object:
    return to_jax(dict(open_checkpoint(path)))


def jax_transposed(path: Path) -> object:
    return to_jax({key: array.T for key, array in open_checkpoint(path).items()})


def tree_map(path: Path) -> object:
    """What JAX does by itself, to compare with."""
    import jax

    tree = {key: array.T for key, array in open_checkpoint(path).items()}
    return jax.block_until_ready(jax.tree.map(jax.numpy.asarray, tree))


WAYS: dict[str, Callable[[Path], object]] = {
    f.__name__: f for f in (plain, headers, views, copies, jax_arrays, jax_transposed, tree_map)
}


def memory(field: str) -> int:
    """A line of `/proc/self/status`, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(way: str, path: Path) -> None:
    """Print the best time and the peak memory of one way, in this fresh process."""
    if "jax" in way or way == "tree_map":
        import jax

        jax.numpy.array(np.ones((3, 2), np.float32).T).block_until_ready()
    Path("/proc/self/clear_refs").write_text("5")
    before, times, peaks = memory("VmRSS"), [], []
    for _ in range(3):
        start = time.perf_counter()
        kept = WAYS[way](path)
        times.append(time.perf_counter() - start)
        peaks.append(memory("VmHWM") - before)
        del kept
    print(min(times), peaks[0])  # JAX frees late: a second run has part of the first beside it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=float, default=110, help="in millions")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]))
        return
    arrays = parameters(options.parameters)
    largest = max(array.nbytes for array in arrays.values())
    total = sum(array.nbytes for array in arrays.values())
    print(f"{total / 1e6:.0f} MB, largest tensor {largest / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for suffix in FORMATS:
            path = Path(folder) / f"model{suffix}"
            write(path, arrays)
            report(path)
            path.unlink()


def report(path: Path) -> None:
    """One line a way: time, times a plain read, and peak memory by size of the file."""
    base = 0.0
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.read_checkpoint", "--measure", way, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = (float(number) for number in done.stdout.split())
        base = base or seconds
        size = path.stat().st_size
        print(
            f"{path.suffix:13}{way:15}{1e3 * seconds:9.1f} ms {seconds / base:6.2f} × plain"
            f"{peak / 1e6:8.0f} MB {peak / size:5.2f} × file",
            flush=True,
        )


if __name__ == "__main__":
    main()
