"""Checkpoints of every usual format, read as data only and written with proof."""

from porting.checkpoint.contents import Spec
from porting.checkpoint.device import to_jax
from porting.checkpoint.reader import Checkpoint, open_checkpoint
from porting.checkpoint.save import SaveReport, save_params

__all__ = ["Checkpoint", "SaveReport", "Spec", "open_checkpoint", "save_params", "to_jax"]
