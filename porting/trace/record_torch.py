"""Record a PyTorch model by its forward hooks. Torch is imported when it is called."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.errors import ArgumentError
from porting.trace.stages import Stage, Trace
from porting.trace.tape import Tape, joined, not_run, walk

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
        ArgumentError: torch is not installed, `model` is not a `torch.nn.Module`, cannot be
            hooked or copied, has no values, or does not run on these inputs.
    """
    try:
        import torch
        from torch.nn.parameter import is_lazy
    except ImportError:
        raise ArgumentError(
            "Recording a PyTorch model needs PyTorch, which is not installed here. Install "
            "torch, or record where it is and bring the file that `Trace.save` wrote."
        ) from None
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"A {type(model).__name__} is not a torch.nn.Module. Pass the model.")
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError("What torch.jit made shows nothing inside. Pass the model itself.")
    without = [name for name, p in model.named_parameters() if is_lazy(p) or p.is_meta]
    if without:
        raise ArgumentError(
            f"{without[0]} has no values yet. Load the checkpoint, and run a lazy module once."
        )
    runs = {False: _copy(model) if model.training else model}
    if double:
        runs[True] = _copy(model).double()

    def replay(forced: Mapping[str, Stage]) -> Trace:
        wide = double and (not forced or any(stage.outputs64 for stage in forced.values()))
        stages = [
            _run(runs[is_double], inputs, kw, forced, is_double) if is_double <= wide else []
            for is_double in (False, True)
        ]
        return Trace("torch", joined(*stages), leaves)

    tensors = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    values = {_plain(name): _to_numpy(tensor, False) for name, tensor in tensors.items()}
    leaves = {name: value for name, value in values.items() if value is not None}
    trace = replay({})
    return Trace("torch", trace.stages, leaves, replay)


def _copy(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of a model; tensors that somebody computed and kept in it come along detached."""
    import torch

    kept = (value for module in model.modules() for value in vars(module).values())
    tensors = (value for value in kept if isinstance(value, torch.Tensor))
    memo = {id(t): t.detach().clone() for t in tensors if not t.is_leaf}
    try:
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise ArgumentError(
            f"This model cannot be copied ({error}). Call model.eval() and record it with "
            "double=False."
        ) from error


def _run(
    model: torch.nn.Module, inputs: tuple, kw: dict, forced: Mapping[str, Stage], double: bool
) -> list[Stage]:
    import torch

    tape = Tape(functools.partial(_to_numpy, double=double), _to_torch, forced, double)
    handles = []
    wide = any(p.dtype == torch.float64 for p in model.parameters())
    args, named = walk((inputs, kw), functools.partial(_given, double=double, wide=wide))
    try:
        for path, module in model.named_modules():
            if "_orig_mod" in module._modules or isinstance(module, torch.jit.ScriptModule):
                continue  # what torch.compile wraps has the name; torch.jit takes no hooks
            before = functools.partial(_before, tape, _plain(path))
            after = functools.partial(_after, tape)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, always_call=True))
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            model(*args, **named)
    except Exception as error:
        raise not_run(error, double) from error
    finally:
        for handle in handles:
            handle.remove()
    return tape.stages


def _plain(path: str) -> str:
    """A path without the wrapper of `torch.compile`."""
    return ".".join(word for word in path.split(".") if word != "_orig_mod")


def _before(tape: Tape, path: str, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    return tape.enter(path, module, args, kwargs)


def _after(tape: Tape, module: Any, args: tuple, output: Any) -> Any:
    return tape.leave(output)


def _given(name: str, array: Any, double: bool, wide: bool) -> Any:
    """An input as a tensor of the run's own: a model may write into what it is given."""
    import torch

    if isinstance(array, torch.Tensor):
        tensor = array.detach().clone()
    else:
        tensor = torch.tensor(np.asarray(array))
        tensor = tensor.float() if tensor.dtype == torch.float64 and not wide else tensor
    return tensor.double() if double and tensor.is_floating_point() else tensor


def _to_numpy(tensor: Any, double: bool) -> np.ndarray | None:
    """A copy; a complex number as two real ones. None of what holds no values (inside vmap)."""
    import torch

    try:
        tensor = torch.as_tensor(tensor).detach().resolve_conj().resolve_neg()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
        tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float64 if double else torch.float32)
        return np.array(tensor.cpu().numpy(), order="C")
    except (RuntimeError, TypeError):
        return None


def _to_torch(array: np.ndarray, like: Any) -> Any:
    import torch

    if not isinstance(like, torch.Tensor):
        return array.astype(like.dtype)
    tensor = torch.tensor(array)
    if like.is_complex():
        tensor = torch.view_as_complex(tensor)
    return tensor.to(dtype=like.dtype, device=like.device)
