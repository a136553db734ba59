"""Weight norm and spectral norm around a Linear or a convolution: fused into one kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from porting.errors import ArgumentError, UnsupportedError
from porting.layers import conv, conv_transpose, dense
from porting.layers.row import Config, Layer, Shapes, State, random_tensor
from porting.leaves import Join, Leaf, spectral_norm, weight_norm

#: The keys of both styles: `torch.nn.utils.weight_norm`, and the newer `parametrizations`.
WEIGHT_NORM_KEYS = {
    "old": ("weight_g", "weight_v"),
    "parametrizations": (
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ),
}
SPECTRAL_KEYS = {
    "old": ("weight_orig", "weight_u", "weight_v"),
    "parametrizations": (
        "parametrizations.weight.original",
        "parametrizations.weight.0._u",
        "parametrizations.weight.0._v",
    ),
}
DOCS = "https://docs.pytorch.org/docs/2.13/generated/torch.nn.utils."


def _style(shapes: Shapes, c: Config, names: Mapping[str, tuple[str, ...]]) -> str:
    """The style of the keys: as given, else as found, else the newer one."""
    if c.style is not None and c.style not in names:
        raise ArgumentError(f"style = {c.style!r}. Use one of {', '.join(names)}.")
    found = [style for style, keys in names.items() if set(keys) & set(shapes)]
    return c.style or (found[0] if found else "parametrizations")


def _derived(
    row: Layer,
    prefix: str,
    names: Mapping[str, tuple[str, ...]],
    parts: Callable[[tuple[int, ...], Config], tuple[tuple[int, ...], ...]],
    join: Callable[[Config], Join],
    carrier: int,
    **fields: Any,
) -> Layer:
    """`row` with its `weight` replaced by several tensors.

    Args:
        parts: the weight's shape -> the shapes of the tensors.
        join: how they become the weight.
        carrier: which of them has the weight's shape.
    """

    def keys(c: Config) -> dict[str, tuple[int, ...]]:
        inner = row.keys(c)
        weight = inner.pop("weight")
        style = names[_style({}, c, names)]
        return inner | dict(zip(style, parts(weight, c), strict=True))

    def sizes(shapes: Shapes, c: Config) -> dict[str, Any]:
        c.style = _style(shapes, c, names)
        rank = len(shapes[names[c.style][carrier]])
        if c.dim is not None and not -rank <= c.dim < rank:
            raise ArgumentError(f"dim = {c.dim} is no axis of a weight of {rank} axes.")
        return row.sizes({**shapes, "weight": shapes[names[c.style][carrier]]}, c)

    def leaves(c: Config) -> list[Leaf]:
        style = names[c.style or "parametrizations"]
        return [
            Leaf(leaf.path, style, leaf.rule, join(c)) if leaf.sources == ("weight",) else leaf
            for leaf in row.leaves(c)
        ]

    def reference(state: State, inputs: tuple[np.ndarray, ...], c: Config) -> np.ndarray:
        weight = join(c).forward([state[key] for key in names[c.style]])
        return row.reference({**state, "weight": weight}, inputs, c)

    return replace(
        row,
        name=f"{prefix}{row.name}",
        family="parametrised",
        options={**row.options, "style": None} | fields.pop("options"),
        keys=keys,
        sizes=sizes,
        leaves=leaves,
        reference=reference,
        terms=None,
        **fields,
    )


def _dim(c: Config) -> int | None:
    """PyTorch reads dim=-1 as None: one norm over everything."""
    return None if c.dim == -1 else c.dim


def _lengths(weight: tuple[int, ...], c: Config) -> tuple[tuple[int, ...], ...]:
    if _dim(c) is None:
        return (), weight
    return tuple(n if axis == c.dim else 1 for axis, n in enumerate(weight)), weight


def _weight_normed(row: Layer) -> Layer:
    return _derived(
        row,
        "WeightNorm",
        WEIGHT_NORM_KEYS,
        _lengths,
        lambda c: weight_norm(_dim(c)),
        1,
        title=f"{row.name} with weight norm: a length and a direction",
        options={"dim": 0},
        loses="the length of v is gone once g and v are fused; going back v is the weight",
        pitfalls=(
            "W = g · v / ‖v‖, the norm over all axes but dim (0 by default; wav2vec 2.0's "
            "positional convolution has 2).",
            "Keys weight_g, weight_v, or parametrizations.weight.original0 and original1.",
            *row.pitfalls,
        ),
        differs="Fused into a plain kernel in both; Flax's WeightNorm knows no other dim.",
        sources=(DOCS + "parametrizations.weight_norm.html", *row.sources),
    )


def _vectors(weight: tuple[int, ...], c: Config) -> tuple[tuple[int, ...], ...]:
    if c.dim is None:
        raise ArgumentError("Spectral norm needs dim, the axis of the matrix's rows.")
    height = weight[c.dim % len(weight)]
    return weight, (height,), (int(np.prod(weight)) // max(height, 1),)


def _random_spectral(row: Layer) -> Callable[[Config, np.random.Generator], dict[str, np.ndarray]]:
    """u and v near the largest singular vectors, as training leaves them."""

    def make(c: Config, generator: np.random.Generator) -> dict[str, np.ndarray]:
        state = {k: random_tensor(k, s, generator) for k, s in row.keys(c).items()}
        weight = state.pop("weight")
        matrix = np.moveaxis(weight, c.dim, 0).reshape(weight.shape[c.dim], -1)
        u = generator.standard_normal(len(matrix))
        for _ in range(2):
            v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
            u = matrix @ v / np.linalg.norm(matrix @ v)
        parts = (weight, u.astype(np.float32), v.astype(np.float32))
        return state | dict(zip(SPECTRAL_KEYS[c.style], parts, strict=True))

    return make


def _check_spectral(row: Layer) -> Callable[[Config, State | None, str], Any]:
    def check(c: Config, state: State | None, api: str) -> Any:
        if not c.fused:
            raise UnsupportedError(
                "Flax's SpectralNorm keeps u only and runs its power iteration at every call, so "
                "it cannot use the stored u and v. Fuse W / (uᵀ W v) into the kernel: fused=True."
            )
        return row.check(c, state, api)

    return check


def _spectral_normed(row: Layer) -> Layer:
    dim = 1 if "Transpose" in row.name else 0
    return _derived(
        row,
        "SpectralNorm",
        SPECTRAL_KEYS,
        _vectors,
        lambda c: spectral_norm(c.dim),
        0,
        title=f"{row.name} with spectral norm, eval mode",
        options={
            "dim": dim,
            "n_power_iterations": 1,
            "eps": 1e-12,
            "fused": True,
        },
        check=_check_spectral(row),
        random=_random_spectral(row),
        loses="σ = uᵀWv is divided out; going back u and v are chosen so that σ is 1",
        pitfalls=(
            "In eval mode PyTorch divides by uᵀ W v with the stored u and v; another power "
            "iteration gives another σ.",
            "dim is 1 for a transposed convolution.",
            *row.pitfalls,
        ),
        differs="Fused into a plain kernel in both: Flax's SpectralNorm iterates at every call.",
        sources=(DOCS + "parametrizations.spectral_norm.html", *row.sources),
    )


_BASES = (dense.LINEAR, *conv.ROWS, *conv_transpose.ROWS)

ROWS = (*map(_weight_normed, _BASES), *map(_spectral_normed, _BASES))
