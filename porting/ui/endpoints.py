"""The ports as endpoints for programs: JSON in, JSON out, usable from `gradio_client`.

Every endpoint calls one engine function, which checks its arguments; a `PortingError`
reaches the client as an `AppError` with the same sentence.
"""

# Gradio reads these annotations as types, so they may not be postponed to text.

from dataclasses import asdict
from typing import Any

import gradio as gr
import numpy as np

from porting import dense, dense_case, dense_ports, limits
from porting.arguments import real_array
from porting.block import port_transformer_block as port_block
from porting.block_case import SOURCES, BlockCase
from porting.block_faults import BLOCK_FAULTS
from porting.block_result import run_block
from porting.block_torch import load_torch_encoder_layer as load_encoder
from porting.compare import Comparison
from porting.errors import ArgumentError
from porting.tree import flatten
from porting.ui.messages import as_toast
from porting.verdict import Verdict


def load_hf_dense(
    seed: float,
    x: list[list[float]],
    hf_kernel_flat: list[float],
    hf_bias_flat: list[float],
    features: float,
) -> list[float]:
    """Load a PyTorch linear layer into flax.linen.Dense, the right way, and apply it.

    x is (N, in_dim). hf_kernel_flat is the PyTorch weight (features, in_dim), flattened.
    hf_bias_flat is (features,). seed and features are whole numbers. Returns the N * features
    outputs, row after row, in float32.
    """
    return _plain(dense.load_hf_dense(seed, x, hf_kernel_flat, hf_bias_flat, features))


def port_transformer_block(
    seed: float, x: list[list[float]], num_heads: float, d_model: float, d_ff: float
) -> list[float]:
    """Initialise a pre-norm encoder block in Flax Linen, port every leaf into NNX, run both on x.

    x is (T, d_model); num_heads divides d_model. Returns [sum of the NNX output, sum of the
    Linen output]. Equal sums are weak evidence: a permutation of the outputs keeps them.
    """
    return _plain(port_block(seed, x, num_heads, d_model, d_ff))


def load_torch_encoder_layer(state_dict: dict, num_heads: float) -> dict:
    """Convert the state_dict of nn.TransformerEncoderLayer(norm_first=True) to Flax leaves.

    state_dict maps PyTorch keys (self_attn.in_proj_weight, linear1.weight, ...) to nested
    lists. Returns the leaves by path (params/attn/q_proj/kernel, ...) as nested lists.
    """
    variables = load_encoder(state_dict, num_heads)
    return {path: _plain(leaf) for path, leaf in flatten(variables).items()}


def dense_verdict(
    weight: list[list[float]],
    bias: list[float] | None = None,
    port: str = "untransposed",
    x: list[list[float]] | None = None,
    seed: float = 0,
) -> dict:
    """Port a PyTorch weight (out, in) into Dense in a right or a wrong way, and judge the outputs.

    port is one of transpose, untransposed, reshape, fortran, no_bias, init. Without a bias it
    is zero; without x, six random rows are used. Returns kind (exact, silent, crash, values,
    unsure), title, text, fix, detail, and the numbers behind them; null stands for a number
    that is not finite.
    """
    matrix = np.asarray(real_array("weight", weight, ("out", "in")))
    vector = None if bias is None else np.asarray(real_array("bias", bias, ("out",)))
    rows = dense_case.random_inputs(6, matrix.shape[1], 0) if x is None else x
    inputs = np.asarray(real_array("x", rows, ("N", "in")))
    found = dense_ports.run_dense(inputs, matrix, vector, str(port), limits.seed("seed", seed))
    return _judged(found.verdict, found.comparison) | {"kernel": _plain(found.kernel)}


def block_verdict(
    source: str = "linen-init",
    fault: str = "",
    randomise: bool = False,
    length: float = 5,
    d_model: float = 8,
    num_heads: float = 2,
    d_ff: float = 16,
    seed: float = 0,
    data_seed: float = 0,
) -> dict:
    """Port an encoder block with one fault injected and say which checks see it.

    source is one of linen-init, torch-init, m6aformer; fault is empty or a name of the
    Encoder block tab (leaf_skipped, qk_exchanged, ...). Returns the verdict, the leaves that
    are not right, the first stage that diverges, and the pair of sums.
    """
    for name, value, known in (("source", source, SOURCES), ("fault", fault, BLOCK_FAULTS)):
        if str(value) not in known and (name, value) != ("fault", ""):
            raise ArgumentError(f"{name} = {value!r:.40} is none of {', '.join(known)}.")
    case = BlockCase(
        limits.whole("T", length),
        limits.whole("d_model", d_model),
        limits.whole("num_heads", num_heads),
        limits.whole("d_ff", d_ff),
        limits.seed("seed", seed),
        limits.seed("data_seed", data_seed),
        str(source),
        str(fault),
        bool(randomise),
    )
    found = run_block(case)
    return _judged(found.verdict, None) | {
        "sums": _plain(found.sums),
        "sums_agree": bool(found.sums_agree),
        "outputs_agree": bool(found.outputs_agree),
        "first_stage": None if found.first is None else found.first.title,
        "wrong_leaves": [row.path for row in found.rows if not row.same],
    }


ENDPOINTS = (
    load_hf_dense,
    port_transformer_block,
    load_torch_encoder_layer,
    dense_verdict,
    block_verdict,
)


def add() -> None:
    """Add every endpoint to the app that is being built; one runs at a time."""
    for endpoint in ENDPOINTS:
        gr.api(
            as_toast(endpoint),
            api_name=endpoint.__name__,
            concurrency_limit=1,
            concurrency_id="heavy",
        )


def _judged(verdict: Verdict, comparison: Comparison | None) -> dict[str, Any]:
    judged: dict[str, Any] = asdict(verdict) | {"title": verdict.title}
    if comparison is None:
        return judged
    return judged | {
        "outputs": comparison.ratio.size,
        "over_bound": comparison.over,
        "largest_difference": _plain(comparison.largest),
        "worst_over_bound": _plain(comparison.worst),
    }


def _plain(values: Any) -> Any:
    """Numbers as JSON has them: lists, and null for what is not finite."""
    array = np.asarray(values)
    return np.where(np.isfinite(array), array.astype(object), np.array(None)).tolist()
