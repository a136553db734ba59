"""The right way to fill a Dense layer, the wrong ways that people take, and what each gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors as flax_errors
from flax import linen

from porting import limits
from porting.compare import (
    Comparison,
    compare,
    dense_bound,
    dense_reference,
    indistinguishable,
)
from porting.errors import ArgumentError
from porting.layouts import TRANSPOSE
from porting.verdict import Verdict, percent


@dataclass(frozen=True)
class DensePort:
    """One way to fill a Dense layer from a PyTorch weight.

    Attributes:
        title: what a menu shows.
        kernel: weight `(out, in)` -> what this port hands to Flax; `None` keeps the init.
        keeps_bias: whether the bias is loaded.
        code: the line that does it.
        happened: what a person did, in one sentence.
        fix: the right line.
    """

    title: str
    kernel: Callable[[np.ndarray], np.ndarray] | None
    code: str
    happened: str = ""
    fix: str = ""
    keeps_bias: bool = True


FIX = "kernel = weight.T"
PORTS: dict[str, DensePort] = {
    "transpose": DensePort("Transpose (right)", TRANSPOSE.apply, FIX),
    "untransposed": DensePort(
        "Transpose forgotten",
        lambda weight: weight,
        "kernel = weight",
        "Your kernel is the weight, not its transpose.",
        FIX,
    ),
    "reshape": DensePort(
        "Reshape instead of transpose",
        lambda weight: weight.reshape(weight.shape[::-1]),
        "kernel = weight.reshape(weight.shape[::-1])",
        "The numbers were poured into the new shape in file order; no axis moved.",
        FIX,
    ),
    "fortran": DensePort(
        "Fortran-order reshape",
        lambda weight: weight.reshape(weight.shape[::-1], order="F"),
        'kernel = weight.reshape(weight.shape[::-1], order="F")',
        "The numbers were read and written column by column; no axis moved.",
        FIX,
    ),
    "no_bias": DensePort(
        "Bias forgotten",
        TRANSPOSE.apply,
        FIX,
        "The bias was left at its init, which is zero.",
        "bias = torch_bias",
        keeps_bias=False,
    ),
    "init": DensePort(
        "Random init kept",
        None,
        "kernel = init_kernel",
        "Nothing was loaded: the layer still holds its random init.",
        "kernel, bias = weight.T, torch_bias",
        keeps_bias=False,
    ),
}


@dataclass(frozen=True)
class DenseResult:
    """A port of one linear layer, run and judged.

    Attributes:
        x: inputs `(N, in)`.
        weight: the PyTorch weight `(out, in)`.
        bias: `(out,)`.
        needed: the kernel that Flax needs `(in, out)`.
        kernel: the kernel that this port made.
        comparison: outputs against the float64 reference; `None` after a crash.
        verdict: what happened, in words.
    """

    port: DensePort
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    needed: np.ndarray
    kernel: np.ndarray
    comparison: Comparison | None
    verdict: Verdict

    @property
    def places(self) -> np.ndarray | None:
        """For every cell of `kernel`, its flat position in the weight; `None` for the init."""
        if self.port.kernel is None:
            return None
        return self.port.kernel(
            np.arange(self.weight.size, dtype=np.int32).reshape(self.weight.shape)
        )


def run_dense(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    port: str = "transpose",
    seed: int = 0,
) -> DenseResult:
    """Port a weight in one of the `PORTS` ways, run Flax, and judge the outputs.

    Args:
        x: float32 `(N, in)`.
        weight: float32 `(out, in)`.
        bias: float32 `(out,)`, or `None` for zeros.
        port: a name in `PORTS`.
        seed: of the init that some ports keep.

    Raises:
        PortingError: the sizes do not fit together, or there is no such port.

    >>> weight = np.arange(4, dtype=np.float32).reshape(2, 2)
    >>> run_dense(np.ones((1, 2), np.float32), weight, None, "untransposed").verdict.kind
    'silent'
    """
    _check(x, weight, bias, port)
    way = PORTS[port]
    out, fan_in = weight.shape
    bias = np.zeros(out, weight.dtype) if bias is None else bias
    needed = TRANSPOSE.apply(weight)
    ported_bias = bias if way.keeps_bias else np.zeros_like(bias)
    model = linen.Dense(out)
    if way.kernel is None:
        init = model.init(jax.random.key(seed), jnp.zeros((1, fan_in)))
        kernel = np.asarray(init["params"]["kernel"])
    else:
        kernel = way.kernel(weight)
    variables = {"params": {"kernel": kernel, "bias": ported_bias}}
    try:
        output = np.asarray(_compiled(out)(variables, x))
    except flax_errors.ScopeParamShapeError as error:
        verdict = _crash(way, kernel.shape, needed.shape, error)
        return DenseResult(way, x, weight, bias, needed, kernel, None, verdict)
    bound = dense_bound(x, weight, bias)
    comparison = compare(dense_reference(x, weight, bias), output, bound)
    right = way.keeps_bias and way.kernel is not None and not way.happened
    verdict = (
        _exact(comparison)
        if right
        else _wrong(way, weight, bias, kernel, ported_bias, x, comparison)
    )
    return DenseResult(way, x, weight, bias, needed, kernel, comparison, verdict)


@lru_cache(32)
def _compiled(features: int) -> Callable[..., jax.Array]:
    """`Dense.apply`, compiled: an eager call on a new shape compiles every step by itself."""
    return jax.jit(linen.Dense(features).apply)


def _check(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, port: str) -> None:
    out, fan_in = weight.shape
    if port not in PORTS:
        raise ArgumentError(f"port = {port!r:.40} is none of {', '.join(PORTS)}.")
    if x.shape[1] != fan_in:
        raise ArgumentError(
            f"x has shape {x.shape} and the weight (out, in) = ({out}, {fan_in}). "
            f"Pass inputs (N, {fan_in})."
        )
    if bias is not None and bias.shape != (out,):
        raise ArgumentError(
            f"bias has shape {bias.shape} and the weight {out} rows (out). "
            "Pass one number for each output."
        )
    limits.elements({"the output": (len(x), out)})


def _exact(comparison: Comparison) -> Verdict:
    if not comparison.within:
        return Verdict(
            "values",
            f"The layout is right, and {comparison.over} of {comparison.ratio.size} outputs leave "
            "the range of float32. Scale the inputs or the weights down.",
        )
    return Verdict(
        "exact",
        f"Every output is within rounding. Largest difference {comparison.largest:.1e}, "
        f"{comparison.worst:.2g} of what rounding allows.",
    )


def _crash(way: DensePort, given: tuple, expected: tuple, error: Exception) -> Verdict:
    (a, b), (c, d) = given, expected
    return Verdict(
        "crash",
        f"Flax asked for a kernel (in, out) = ({c}, {d}) and got ({a}, {b}). {way.happened} "
        "Here the shapes differ, so Flax notices. With a square layer nothing would.",
        fix=way.fix,
        detail=str(error),
    )


def _wrong(
    way: DensePort,
    weight: np.ndarray,
    bias: np.ndarray,
    kernel: np.ndarray,
    ported_bias: np.ndarray,
    x: np.ndarray,
    comparison: Comparison,
) -> Verdict:
    alternative = dense_reference(x, kernel.T, ported_bias)
    if indistinguishable(comparison.reference, alternative, comparison.bound):
        return Verdict("unsure", _why_equal(weight, bias, way))
    over, size = comparison.over, comparison.ratio.size
    if comparison.within:
        return Verdict("unsure", f"{way.happened} Rounding hides it: no output shows it here.")
    share = f"{over} of {size} outputs ({percent(over, size)})"
    ratio = (
        f"The worst is {comparison.worst:.1e} times what rounding allows."
        if np.isfinite(comparison.worst)
        else "Some are finite on one side only."
    )
    text = (
        f"Shapes agree. {share} are further off than rounding can explain. {way.happened} {ratio}"
    )
    layout = way.kernel is not None and way.keeps_bias
    return Verdict("silent" if layout else "values", text, fix=way.fix)


def _why_equal(weight: np.ndarray, bias: np.ndarray, way: DensePort) -> str:
    if not way.keeps_bias and way.kernel is not None and not bias.any():
        return (
            "The bias is zero, so a forgotten bias changes nothing. A fresh PyTorch or Flax "
            "layer cannot show this fault. Change the data seed to see the difference."
        )
    if not way.keeps_bias and way.kernel is not None:
        return (
            "The bias is smaller than the rounding of these outputs, so a forgotten bias does "
            "not show. Scale the inputs or the weights down to see the difference."
        )
    square = weight.shape[0] == weight.shape[1]
    if 1 in weight.shape:
        why = "This weight has an axis of size 1, so every order reads the same numbers"
    elif square and np.array_equal(weight, weight.T):
        why = "This weight is symmetric"
    else:
        why = "This weight and these inputs do not tell the layouts apart"
    return (
        f"{why}: the outputs are the same either way. Change the data seed to see the difference."
    )
