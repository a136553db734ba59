"""What the tab *Checkpoint* works on: a checkpoint, a target, the mapping with the answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porting import limits
from porting.checkpoint import open_checkpoint
from porting.errors import ArgumentError
from porting.examples import EXAMPLES
from porting.leaves import Leaf
from porting.mapping import Mapping, infer_mapping
from porting.models import MODELS
from porting.questions import answered, readings

UPLOAD, HUB, NOTHING = "upload", "hub", "none"
SOURCES = {**{k: e.title for k, e in EXAMPLES.items()}, UPLOAD: "Upload", HUB: "Hugging Face Hub"}
TARGETS = {
    **{k: m.title for k, m in MODELS.items()},
    UPLOAD: "Upload parameters",
    NOTHING: "None: only look",
}


@dataclass(frozen=True)
class CheckpointView:
    """The recipe of the tab: what a link holds.

    Attributes:
        source: an example, "upload" or "hub".
        target: a model, "upload" or "none".
        pick: the target leaf whose picture is open; "" for the first question, or the first.
        tensor: the tensor of the file whose picture is open; "" for none, or, where the person
            only looks, for the first.
    """

    source: str = "mtcnn_rnet"
    target: str = "rnet-linen"
    pick: str = ""
    tensor: str = ""


@dataclass(frozen=True)
class Given:
    """What the form holds beside the recipe.

    Attributes:
        files: the uploaded checkpoint, or all its shards.
        hub: the name of a repository.
        params: the uploaded parameters of a Flax model.
        rules: the uploaded rules file, which overrules what it names.
        answers: target path -> which reading the person chose.
    """

    files: tuple[str, ...] = ()
    hub: str = ""
    params: str | None = None
    rules: str | None = None
    answers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Work:
    """A checkpoint on its way into a model.

    Attributes:
        checkpoint: open.
        target: what the mapping aims at; None where the person only looks.
        asked: the readings of every leaf that was a question.
        mapping: with the person's answers; None without a target.
    """

    checkpoint: Any
    target: Any = None
    asked: dict[str, tuple[Leaf, ...]] = field(default_factory=dict)
    mapping: Mapping | None = None

    def leaf(self, pick: str) -> str:
        """The leaf in the picture: the wanted one, a question, or the first; "" without any."""
        if self.mapping is None or pick in self.mapping.leaves:
            return pick if self.mapping else ""
        return next(iter([*self.mapping.unsure, *self.asked, *self.mapping.leaves]), "")

    def tensor(self, pick: str) -> str:
        """The tensor in the picture: the wanted one, or, without a target, the first."""
        if pick in self.checkpoint.specs or self.mapping is not None:
            return pick if pick in self.checkpoint.specs else ""
        return next(iter(self.checkpoint.specs), "")


@contextmanager
def work(recipe: CheckpointView, given: Given) -> Iterator[Work]:
    """The checkpoint, the target and the mapping of a recipe; both files close at the end.

    Raises:
        PortingError: a file is missing or refused, or an answer fits no question.
    """
    with _source(recipe, given) as checkpoint:
        if recipe.target == NOTHING:
            yield Work(checkpoint)
        elif recipe.target in MODELS:
            yield _mapped(checkpoint, MODELS[recipe.target].target(), given)
        else:
            with _params(given) as target:
                yield _mapped(checkpoint, target, given)


def _mapped(checkpoint: Any, target: Any, given: Given) -> Work:
    found = infer_mapping(checkpoint, target, Path(given.rules) if given.rules else None)
    return Work(checkpoint, target, readings(found), answered(found, dict(given.answers)))


def _source(recipe: CheckpointView, given: Given) -> Any:
    if recipe.source in EXAMPLES:
        return open_checkpoint(EXAMPLES[recipe.source].path)
    if recipe.source == HUB:
        name = given.hub.strip().removeprefix("hf://")
        if not name:
            raise ArgumentError(
                "There is no name yet. Write the name of a repository, as in owner/name."
            )
        return open_checkpoint(f"hf://{name}", max_bytes=limits.FILE_BYTES)
    if not given.files:
        raise ArgumentError(
            "There is no checkpoint yet. Upload a file, or all shards with their index."
        )
    files = given.files if len(given.files) > 1 else given.files[0]
    return open_checkpoint(files, max_bytes=limits.FILE_BYTES)


def _params(given: Given) -> Any:
    if not given.params:
        raise ArgumentError(
            "There are no parameters yet. Upload the parameters of your Flax model."
        )
    return open_checkpoint(given.params, max_bytes=limits.FILE_BYTES)
