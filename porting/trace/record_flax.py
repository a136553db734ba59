"""Record Flax models: Linen by method interception, NNX by wrapping `__call__`.

Both run eagerly, in full float32 matrix precision, so that an accelerator's shortened
products are not taken for faults. What runs inside `jit`, `scan` or `nnx.remat` holds no
values and leaves no stages; `nn.remat` is lifted for the time of the call.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from porting.errors import ArgumentError, checked
from porting.trace.stages import Stage, Trace
from porting.trace.tape import Tape, joined, not_run, walk
from porting.trace.wrapping import METHODS, on_tape, path_of, without_remat, wrapped
from porting.tree import flatten, nnx_variables

if TYPE_CHECKING:
    from flax import linen, nnx

Run = Callable[[Tape, bool], None]


def record_linen(
    module: linen.Module | Callable[..., Any],
    variables: Mapping[str, Any] | None,
    *inputs: Any,
    double: bool = False,
    **kw: Any,
) -> Trace:
    """The stages of `module.apply(variables, *inputs, **kw)`.

    Args:
        module: a Linen module; or, with `variables=None`, a function that applies one (the
            wrapper classes of transformers, a training step). A function runs as it is: for
            a noise floor it must take float64 itself, so `double` is refused.
        variables: the collections, `{"params": …}`.
        inputs: arrays, as `kw`; `rngs`, `method` and `mutable` go to `apply` (without
            `mutable`, all collections but the parameters may be written; nothing is kept).
        double: also run in float64, which gives the noise floor. A `dtype` of float32 that a
            module was built with gives way to float64 in that run.

    Raises:
        ArgumentError: `module` has no `apply`, or `double` comes with a function.

    >>> from flax import linen
    >>> x = np.ones((2, 3), np.float32)
    >>> variables = linen.Dense(5).init(__import__("jax").random.key(0), x)
    >>> record_linen(linen.Dense(5), variables, x)["(model)"].shape
    (2, 5)
    """
    if variables is None and (double or not callable(module)):
        raise ArgumentError(
            "Without variables, record_linen calls a function as it is and cannot widen it. "
            "Pass the module with its variables, or double=False."
        )
    apply: Any = getattr(module, "apply", None)
    if variables is not None and apply is None:
        raise ArgumentError(
            f"A {type(module).__name__} has no apply. Pass the Linen module and its variables "
            "(of a transformers model: model.module and {'params': model.params})."
        )

    def run(tape: Tape, is_double: bool) -> None:
        from flax import linen

        seen = functools.partial(_intercept, tape, is_double)
        with without_remat(), linen.intercept_methods(seen):
            if variables is None:
                module(*inputs, **kw)
            else:
                state, args, named = _on_device((dict(variables), inputs, kw), is_double)
                written = [name for name in state if name != "params"]
                apply(state, *args, **{"mutable": written, **named})

    return _trace("linen", run, {} if variables is None else _leaves(variables), double)


def _leaves(variables: Any) -> dict[str, Any]:
    """The leaves by path, out of the boxes of a partitioned model."""
    from flax.core import meta

    checked("variables", variables, Mapping, "Pass the collections, {'params': …}.")
    return flatten(meta.unbox(variables))


def _intercept(tape: Tape, double: bool, proceed: Any, args: tuple, kwargs: dict, at: Any) -> Any:
    module, method = at.module, at.method_name
    if method not in METHODS or tape.is_inside(module):
        return proceed(*args, **kwargs)
    if double:
        _widen(module)
    return on_tape(tape, path_of(module.path, method), module, proceed, args, kwargs)


def record_nnx(module: nnx.Module, *inputs: Any, double: bool = False, **kw: Any) -> Trace:
    """The stages of `module(*inputs, **kw)`; works on any NNX module, unchanged.

    The `__call__` of the classes of its submodules is wrapped for the time of the call, and
    a clone of the module runs, so its statistics and random streams stay as they are.

    Args:
        module: the module, in the mode in which it is to be judged (mostly `eval()`).
        inputs: arrays, as `kw`.
        double: also run a float64 clone, which gives the noise floor.

    Raises:
        ArgumentError: `module` is not an NNX module.

    >>> from flax import nnx
    >>> linear = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    >>> record_nnx(linear, np.ones((2, 3), np.float32))["(model)"].shape
    (2, 5)
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise ArgumentError(f"A {type(module).__name__} is not an nnx.Module. Pass the model.")

    def run(tape: Tape, is_double: bool) -> None:
        clone = nnx.clone(module)
        if is_double:
            _widen_nnx(clone)
        paths = {id(m): "/".join(map(str, path)) for path, m in nnx.iter_modules(clone)}
        args, named = _on_device((inputs, kw), is_double)
        with wrapped({type(m) for _, m in nnx.iter_modules(clone)}, paths, tape):
            clone(*args, **named)

    leaves = {path: variable.get_value() for path, variable in nnx_variables(module).items()}
    return _trace("nnx", run, leaves, double)


def _trace(framework: str, run: Run, leaves: Mapping[str, Any], double: bool) -> Trace:
    def once(forced: Mapping[str, Stage], is_double: bool) -> list[Stage]:
        import jax

        tape = Tape(functools.partial(_to_numpy, double=is_double), _to_jax, forced, is_double)
        with jax.enable_x64(is_double), jax.default_matmul_precision("highest"):
            try:
                run(tape, is_double)
            except Exception as error:
                raise not_run(error, is_double) from error
        return tape.stages

    def replay(forced: Mapping[str, Stage]) -> Trace:
        wide = double and (not forced or any(stage.outputs64 for stage in forced.values()))
        stages = joined(once(forced, False), once(forced, True) if wide else [])
        return Trace(framework, stages, leaves)

    return Trace(framework, replay({}).stages, leaves, replay)


def _widen(module: Any) -> None:
    """Let a module that was built for float32 compute in float64 (it is Flax's own copy).

    `param_dtype` is also that of the carry which a recurrent layer makes for its cell.
    """
    for owner in (module, getattr(module, "cell", None)):
        for name in ("dtype", "param_dtype"):
            with contextlib.suppress(TypeError):
                if np.dtype(getattr(owner, name, None) or "V") == np.float32:
                    object.__setattr__(owner, name, np.float64)


def _widen_nnx(module: nnx.Module) -> None:
    import jax.numpy as jnp
    from flax import nnx

    for _, part in nnx.iter_modules(module):
        _widen(part)
    for variable in nnx_variables(module).values():
        value = variable.get_value()
        if jnp.issubdtype(value.dtype, jnp.floating):
            variable.set_value(jnp.asarray(value, jnp.float64))


def _on_device(tree: Any, double: bool) -> Any:
    import jax.numpy as jnp

    def move(name: str, array: Any) -> Any:
        if jnp.issubdtype(array.dtype, jnp.floating) and double:
            return jnp.asarray(array, jnp.float64)
        return array if hasattr(array, "at") else _from_numpy(np.asarray(array))

    return walk(tree, move)


def _from_numpy(array: np.ndarray) -> Any:
    import jax
    import jax.numpy as jnp

    wide = array.dtype.kind in "iuf" and array.dtype.itemsize == 8
    if wide and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        array = array.astype(f"{array.dtype.kind}4")
    return jnp.asarray(array)


def _to_numpy(array: Any, double: bool) -> np.ndarray | None:
    import jax
    import jax.numpy as jnp

    held = isinstance(array, (jax.Array, np.ndarray, np.generic))
    if not held or isinstance(array, jax.core.Tracer):
        return None
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return None
    if jnp.iscomplexobj(array):
        array = np.stack([np.real(array), np.imag(array)], -1)  # two real numbers
    if jnp.issubdtype(array.dtype, jnp.floating):
        return np.array(array, np.float64 if double else np.float32, order="C")
    # int4 and its like have no place in a file
    return np.array(
        array, np.dtype(array.dtype) if array.dtype.isbuiltin == 1 else np.int8, order="C"
    )


def _to_jax(array: np.ndarray, like: Any) -> Any:
    import jax.numpy as jnp

    if jnp.iscomplexobj(like):
        array = array[..., 0] + 1j * array[..., 1]
    return jnp.asarray(array.astype(like.dtype) if array.dtype != like.dtype else array)
