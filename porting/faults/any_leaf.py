"""Faults that any leaf can have: left at its init, stored in another dtype, shards exchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from porting.faults.paths import called, has, is_block, last_module, of
from porting.faults.row import Fault, Port, change, skip, skip_paths

_EVERY = "transformers 12528, diffusers 4840: leaves left at their init"


def _every(port: Port) -> list[str]:
    return list(port.leaves)


def _last_kernel(port: Port) -> Sequence[str]:
    return called("kernel", "embedding")(port)[-1:]


def _is_layer_with_leaves(port: Port) -> bool:
    return bool(port.leaves) and not is_block(port)


def _exchange_halves(array: np.ndarray) -> np.ndarray:
    return np.roll(array, array.shape[-1] // 2, -1)


def _shards(port: Port) -> Sequence[str]:
    return of(("ff2",))(port) if is_block(port) else last_module(port)


def _stored_as(dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array.astype(dtype).astype(array.dtype)


def _read_as_bfloat16(array: np.ndarray) -> np.ndarray:
    """The bytes of float16 numbers, taken for those of bfloat16."""
    return array.astype(np.float16).view(ml_dtypes.bfloat16).astype(array.dtype)


ROWS = (
    Fault(
        "all_at_init",
        "Every leaf left at its init",
        "The output is that of an untrained layer. Nothing is raised.",
        "The names of source and target differ in a prefix, and unknown names were passed over.",
        "raise on every key that is not used and every leaf that is not filled",
        _EVERY,
        skip_paths(_every),
        "values",
        fits=_is_layer_with_leaves,
    ),
    Fault(
        "kernel_at_init",
        "One kernel left at its init",
        "Wrong outputs of the right size; no error, since a random kernel has the right shape.",
        "The loop over names missed one, or a tied tensor is absent from the checkpoint.",
        "compare the set of filled leaves with the set of all leaves",
        "transformers 13086, 26813: a tied head left at its init",
        skip_paths(_last_kernel),
        "values",
        fits=lambda port: bool(_last_kernel(port)) and not is_block(port),
    ),
    Fault(
        "biases_at_init",
        "The biases forgotten",
        "Nothing where biases are fresh zeros; every output shifted with trained weights.",
        "The port handled the weights and kept the target's own zeros for the rest.",
        'params["bias"] = source["bias"]',
        _EVERY,
        skip_paths(called("bias")),
        "values",
        fits=lambda port: has(called("bias"))(port) and not is_block(port),
    ),
    Fault(
        "bias_skipped",
        "A leaf skipped: ff1/bias",
        "Nothing at a fresh init; small errors from ff1 on with trained weights.",
        "The loop over names missed one, and the target kept its own zeros.",
        'params["ff1"]["bias"] = source["linear1.bias"]',
        _EVERY,
        skip("params/ff1/bias"),
        "values",
        fits=is_block,
    ),
    Fault(
        "kernel_skipped",
        "A leaf skipped: ff2/kernel",
        "Wrong from ff2 on; no error is raised, since a random kernel has the right shape.",
        "The loop over names missed one, and the target kept its random init.",
        'params["ff2"]["kernel"] = source["linear2.weight"].T',
        _EVERY,
        skip("params/ff2/kernel"),
        "values",
        fits=is_block,
    ),
    Fault(
        "shards_exchanged",
        "Two shards of the last kernel joined in the wrong order",
        "The output features change places: the sum is the same, the outputs are not.",
        "A tensor that was split over devices was put together in the order of a directory.",
        "kernel = np.concatenate([shards[i] for i in range(len(shards))], axis=-1)",
        "sums are blind to a permutation",
        change(_shards, _exchange_halves),
        fits=lambda port: any(port.leaves[path].shape[-1:] > (1,) for path in _shards(port)),
    ),
    Fault(
        "narrowed_bfloat16",
        "Leaves stored in bfloat16",
        "Small errors everywhere, up to half a percent of each number.",
        "The checkpoint was saved in half precision, or the target's param_dtype is bfloat16.",
        "port in the dtype of the source, and narrow knowingly",
        "fault catalogue: a dtype narrowed in silence",
        change(_every, _stored_as(ml_dtypes.bfloat16)),
        "values",
        fits=lambda port: bool(port.leaves),
    ),
    Fault(
        "narrowed_float16",
        "Leaves stored in float16",
        "Errors of about 1e-4 of each number, and zeros or infinities outside float16's range.",
        "The checkpoint was saved in half precision.",
        "port in the dtype of the source, and narrow knowingly",
        "fault catalogue: a dtype narrowed in silence",
        change(_every, _stored_as(np.float16)),
        "values",
        fits=lambda port: bool(port.leaves),
    ),
    Fault(
        "float16_as_bfloat16",
        "float16 bytes read as bfloat16",
        "Every number is off: 1.0 becomes 0.0078.",
        "Both dtypes have two bytes, and one reader was used for files of both.",
        "read the dtype of every tensor from the file's header",
        "tunix on files of mixed dtypes",
        change(_every, _read_as_bfloat16),
        "values",
        fits=lambda port: bool(port.leaves),
    ),
)
