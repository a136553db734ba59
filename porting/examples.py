"""The checkpoints that come with the app, under `assets/checkpoints`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "checkpoints"


@dataclass(frozen=True)
class Example:
    """A shipped checkpoint.

    Attributes:
        title: what a menu shows.
        file: its name in `FOLDER`.
        about: where it is from, in a sentence.
    """

    title: str
    file: str
    about: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / self.file


EXAMPLES: dict[str, Example] = {
    "mtcnn_rnet": Example(
        "MTCNN RNet",
        "mtcnn_rnet.safetensors",
        "The refinement net of the MTCNN face detector (facenet-pytorch 2.6.0, MIT).",
    ),
    "m6aformer": Example(
        "m6aformer encoder layer",
        "m6aformer_layer0.safetensors",
        "The first TransformerEncoderLayer of m6aformer 0.1.2 (MIT); d_model 128, GELU, pre-norm.",
    ),
}
