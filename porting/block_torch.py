"""The way in from PyTorch: `nn.TransformerEncoderLayer(norm_first=True)` into the Linen block.

PyTorch keeps a linear weight as `(out, in)` and stacks query, key and value in one packed
tensor (docs: `torch.nn.MultiheadAttention`, `in_proj_weight`); Flax keeps `(in, out)`. The
port is the table `TORCH_TO_LINEN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from porting import limits
from porting.block import check_heads
from porting.errors import ArgumentError, CoverageError
from porting.layouts import TRANSPOSE, Rule, identity
from porting.leaves import Leaf, port_leaves
from porting.tree import fold, unflatten

_VECTOR = identity(1)
_PACKED = {"qkv": 3}  # in_proj stacks query, key and value, in this order


def _packed(index: int, name: str) -> tuple[Leaf, Leaf]:
    """Kernel and bias of one of the three projections inside the packed `in_proj`."""
    return (
        Leaf(
            f"params/attn/{name}/kernel",
            ("self_attn.in_proj_weight",),
            Rule(f"(qkv={index} o) i -> i o", _PACKED),
        ),
        Leaf(
            f"params/attn/{name}/bias",
            ("self_attn.in_proj_bias",),
            Rule(f"(qkv={index} o) -> o", _PACKED),
        ),
    )


#: PyTorch key -> Linen leaf, for a layer whose query, key and value are packed.
TORCH_TO_LINEN: tuple[Leaf, ...] = (
    Leaf("params/ln1/scale", ("norm1.weight",), _VECTOR),
    Leaf("params/ln1/bias", ("norm1.bias",), _VECTOR),
    *_packed(0, "q_proj"),
    *_packed(1, "k_proj"),
    *_packed(2, "v_proj"),
    Leaf("params/attn/out_proj/kernel", ("self_attn.out_proj.weight",), TRANSPOSE),
    Leaf("params/attn/out_proj/bias", ("self_attn.out_proj.bias",), _VECTOR),
    Leaf("params/ln2/scale", ("norm2.weight",), _VECTOR),
    Leaf("params/ln2/bias", ("norm2.bias",), _VECTOR),
    Leaf("params/ff1/kernel", ("linear1.weight",), TRANSPOSE),
    Leaf("params/ff1/bias", ("linear1.bias",), _VECTOR),
    Leaf("params/ff2/kernel", ("linear2.weight",), TRANSPOSE),
    Leaf("params/ff2/bias", ("linear2.bias",), _VECTOR),
)


def torch_shapes(d_model: int, d_ff: int) -> dict[str, tuple[int, ...]]:
    """The state_dict of `nn.TransformerEncoderLayer`: key -> shape.

    >>> torch_shapes(4, 6)["self_attn.in_proj_weight"], torch_shapes(4, 6)["linear1.weight"]
    ((12, 4), (6, 4))
    """
    return {
        "self_attn.in_proj_weight": (3 * d_model, d_model),
        "self_attn.in_proj_bias": (3 * d_model,),
        "self_attn.out_proj.weight": (d_model, d_model),
        "self_attn.out_proj.bias": (d_model,),
        "linear1.weight": (d_ff, d_model),
        "linear1.bias": (d_ff,),
        "linear2.weight": (d_model, d_ff),
        "linear2.bias": (d_model,),
        "norm1.weight": (d_model,),
        "norm1.bias": (d_model,),
        "norm2.weight": (d_model,),
        "norm2.bias": (d_model,),
    }


def load_torch_encoder_layer(state_dict: Mapping[str, Any], num_heads: float) -> dict[str, Any]:
    """A PyTorch encoder layer as the variables of `LinenEncoderBlock`.

    The layer is `torch.nn.TransformerEncoderLayer(norm_first=True)`. Build the block with
    `epsilon=1e-5` and the activation that was trained: PyTorch's `gelu` is `"gelu"`.

    Args:
        state_dict: the 12 tensors of the layer under its own keys (`self_attn.in_proj_weight`,
            `linear1.weight`, …), as anything that `np.asarray` takes; bfloat16 as `ml_dtypes`.
        num_heads: whole, divides `d_model`. The tensors do not tell it.

    Returns:
        `{"params": {"ln1": …, "attn": …, "ln2": …, "ff1": …, "ff2": …}}`: NumPy arrays in the
        dtype of the source, C-contiguous.

    Raises:
        CoverageError: keys are missing or unknown, or shapes do not fit; all in one text.
        ArgumentError: the features do not split into the heads.

    >>> state = {key: np.ones(shape, np.float32) for key, shape in torch_shapes(4, 6).items()}
    >>> load_torch_encoder_layer(state, 2)["params"]["attn"]["v_proj"]["kernel"].shape
    (4, 4)
    """
    heads = limits.dimension("num_heads", num_heads)
    source = {str(key): _tensor(str(key), value) for key, value in state_dict.items()}
    check_heads(heads, _checked_width(source))
    ported = port_leaves(TORCH_TO_LINEN, source)
    return unflatten({path: np.array(leaf, order="C") for path, leaf in ported.items()})


def _tensor(key: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(
            f"{key} is not an array of floating numbers. Pass `tensor.detach().float().numpy()`."
        ) from None
    return array


def _checked_width(source: Mapping[str, np.ndarray]) -> int:
    """d_model, if keys and shapes are those of one layer; all that is wrong, at once."""
    width = _length_of(source, "norm1.weight", "norm2.weight", "linear2.bias")
    hidden = _length_of(source, "linear1.bias")
    known, wrong = torch_shapes(width, hidden), []
    for key, shape in known.items():
        if key not in source:
            wrong.append(f"{key} is missing")
        elif source[key].shape != shape:
            wrong.append(f"{key} has shape {source[key].shape}, the layer needs {shape}")
    wrong += [f"{key} is not a key of this layer" for key in source if key not in known]
    if wrong or not width or not hidden:
        raise CoverageError("\n".join([_COVERAGE.format(width, hidden), *fold(wrong)]))
    return width


_COVERAGE = (
    "This is not the state_dict of one nn.TransformerEncoderLayer (d_model = {}, d_ff = {}). "
    "Pass its 12 tensors, without a prefix such as 'layers.0.':"
)


def _length_of(source: Mapping[str, np.ndarray], *keys: str) -> int:
    """The length of the first vector there is, or 0."""
    return next((len(source[k]) for k in keys if k in source and source[k].ndim == 1), 0)
