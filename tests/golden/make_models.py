"""Record what real PyTorch answers under `tests/golden/models/`. Needs torch.

    pip download --no-deps facenet-pytorch==2.6.0 && unzip facenet_pytorch-*.whl -d unpacked
    python tests/golden/make_models.py unpacked

RNet of facenet-pytorch (MIT), with its own weights, in float64 on random images.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent / "models"
SEED = 20261123
IMAGES = 5


def rnet(package: Path) -> torch.nn.Module:
    """RNet from its own file: the package's `__init__` imports more than it needs."""
    folder = package / "facenet_pytorch"
    source = (folder / "models" / "mtcnn.py").read_text()
    source = source.replace("from .utils.detect_face import", "from types import SimpleNamespace #")
    spec = importlib.util.spec_from_loader("mtcnn", loader=None)
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(folder / "models" / "mtcnn.py")
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module.RNet().double().eval()


def main() -> None:
    """Write the images and both outputs."""
    images = np.random.default_rng(SEED).standard_normal((IMAGES, 24, 24, 3)).astype(np.float32)
    with torch.no_grad():
        box, face = rnet(Path(sys.argv[1]))(torch.from_numpy(images).double().permute(0, 3, 1, 2))
    HERE.mkdir(exist_ok=True)
    about = f"facenet-pytorch 2.6.0 RNet, torch {torch.__version__}, seed {SEED}, float64"
    np.savez_compressed(
        HERE / "rnet.npz", images=images, box=box.numpy(), face=face.numpy(), about=about
    )


if __name__ == "__main__":
    main()
