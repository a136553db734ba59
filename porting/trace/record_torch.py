"""Record a PyTorch model by its forward hooks. Torch is imported when it is called."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.errors import ArgumentError
from porting.trace.stages import Stage, Trace
from porting.trace.tape import Tape, joined, walk

if TYPE_CHECKING:
    import torch


def record_torch(model: torch.nn.Module, *inputs: Any, double: bool = False, **kw: Any) -> Trace:
    """The stages of `model(*inputs, **kw)`.

    Every module of the model gets a forward hook for the time of the call. What is called
    as a function (`F.gelu`) is no module and no stage; the module around it is. The model
    is not changed: one in training mode is copied first.

    Args:
        model: the model, in the mode in which it is to be judged (mostly `eval()`).
        inputs: tensors or NumPy arrays, as `kw`.
        double: also run a float64 copy of the model, which gives the noise floor.

    Returns:
        Outputs as float32 (or the integer or boolean dtype that they have).

    Raises:
        ArgumentError: torch is not installed, or `model` is not a `torch.nn.Module`.
    """
    try:
        import torch
    except ImportError:
        raise ArgumentError(
            "Recording a PyTorch model needs PyTorch, which is not installed here. Install "
            "torch, or record where it is and bring the file that `Trace.save` wrote."
        ) from None
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"A {type(model).__name__} is not a torch.nn.Module. Pass the model.")
    runs = {False: copy.deepcopy(model) if model.training else model}
    if double:
        runs[True] = copy.deepcopy(model).double()

    def replay(forced: Mapping[str, Stage]) -> Trace:
        wide = double and (not forced or any(stage.outputs64 for stage in forced.values()))
        stages = [
            _run(runs[is_double], inputs, kw, forced, is_double) if is_double <= wide else []
            for is_double in (False, True)
        ]
        return Trace("torch", joined(*stages), leaves)

    leaves = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    leaves = {k: (v.float() if v.is_floating_point() else v).numpy() for k, v in leaves.items()}
    trace = replay({})
    return Trace("torch", trace.stages, leaves, replay)


def _run(
    model: torch.nn.Module, inputs: tuple, kw: dict, forced: Mapping[str, Stage], double: bool
) -> list[Stage]:
    import torch

    tape = Tape(functools.partial(_to_numpy, double=double), _to_torch, forced, double)
    handles = []
    for path, module in model.named_modules():
        before = functools.partial(_before, tape, path)
        handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(module.register_forward_hook(functools.partial(_after, tape)))
    args, named = walk((inputs, kw), functools.partial(_given, double=double))
    try:
        with torch.no_grad():
            model(*args, **named)
    finally:
        for handle in handles:
            handle.remove()
    return tape.stages


def _before(tape: Tape, path: str, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return tape.enter(path, module, args, kwargs)


def _after(tape: Tape, module: Any, args: tuple, output: Any) -> Any:
    return tape.leave(output)


def _given(name: str, array: Any, double: bool) -> Any:
    import torch

    tensor = array if isinstance(array, torch.Tensor) else torch.tensor(np.asarray(array))
    return tensor.double() if double and tensor.is_floating_point() else tensor


def _to_numpy(tensor: torch.Tensor, double: bool) -> np.ndarray:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float64 if double else torch.float32)
    return np.array(tensor.numpy(), order="C")


def _to_torch(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.tensor(array).to(dtype=like.dtype, device=like.device)
