"""The first guided port: a PyTorch linear layer into `flax.linen.Dense`.

PyTorch keeps the weight as `(out, in)` and computes `x @ weight.T + bias`; Flax keeps the
kernel as `(in, out)` and computes `x @ kernel + bias` (docs: `torch.nn.Linear`,
`flax.linen.Dense`).
"""

from __future__ import annotations

from typing import Any

import jax
from flax import linen

from porting import limits
from porting.arguments import real_array
from porting.errors import ArgumentError
from porting.layouts import TRANSPOSE

LARGEST_FEATURES = 2**20


def load_hf_dense(
    seed: float, x: Any, hf_kernel_flat: Any, hf_bias_flat: Any, features: float
) -> jax.Array:
    """A PyTorch linear layer loaded into `flax.linen.Dense` and applied.

    Args:
        seed: whole part used; it only names the initialisation whose tree is read (shapes,
            no random values).
        x: inputs `(N, in_dim)`.
        hf_kernel_flat: the PyTorch weight `(features, in_dim)`, flattened, `(features·in_dim,)`.
        hf_bias_flat: the bias `(features,)`.
        features: the number of outputs, a whole number.

    Returns:
        The outputs `(N · features,)`, row after row.

    Raises:
        PortingError: a size, a length or a rank does not fit.

    >>> import jax.numpy as jnp
    >>> x, weight = jnp.ones((1, 2)), jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> load_hf_dense(0.0, x, weight.reshape(-1), jnp.zeros(3), 3.0).tolist()
    [3.0, 7.0, 11.0]
    """
    key = limits.truncated_seed("seed", seed)
    features = limits.dimension("features", features, LARGEST_FEATURES)
    x = real_array("x", x, ("N", "in_dim"))
    weight = real_array("hf_kernel_flat", hf_kernel_flat, ("features·in_dim",))
    bias = real_array("hf_bias_flat", hf_bias_flat, ("features",))
    in_dim = x.shape[1]
    if weight.shape[0] != features * in_dim:
        raise ArgumentError(
            f"hf_kernel_flat has {weight.shape[0]:,} numbers; features × in_dim = {features:,} × "
            f"{in_dim:,} = {features * in_dim:,}. Pass the whole weight (features, in_dim), flattened."
        )
    if bias.shape[0] != features:
        raise ArgumentError(
            f"hf_bias_flat has {bias.shape[0]:,} numbers and features = {features:,}. "
            "Pass one bias for each output."
        )
    limits.elements({"the output": (x.shape[0], features)})
    model = linen.Dense(features)
    tree = jax.eval_shape(model.init, jax.random.key(key), x)["params"]
    kernel = TRANSPOSE.apply(weight.reshape(features, in_dim))  # [out, in] -> [in, out]
    params = {"kernel": kernel.reshape(tree["kernel"].shape), "bias": bias}
    output: Any = model.apply({"params": params}, x)  # no other collection comes back
    return output.reshape(-1)
