"""Faults of dense kernels and tables."""

from __future__ import annotations

import numpy as np

from porting.faults.paths import RECURRENT, called, is_block, is_layer, matrices
from porting.faults.row import Fault, Port, Transform, change, configure
from porting.layouts import Rule

_TABLES = is_layer("Embedding", "EmbeddingBag", "TiedHead")
_CONV1D = is_layer("Conv1D")


def _has_torch_matrices(port: Port) -> bool:
    """Kernels that PyTorch keeps as (out, in)."""
    return bool(matrices(port)) and not (
        is_block(port) or is_layer("Conv1D", "FlattenLinear", *RECURRENT)(port)
    )


def _reshaped(kernel: np.ndarray) -> np.ndarray:
    """The weight (out, in), its numbers poured into (in, out)."""
    return kernel.T.reshape(kernel.shape)


def _column_major(kernel: np.ndarray) -> np.ndarray:
    """The weight (out, in), poured into (in, out) column by column."""
    return kernel.T.reshape(kernel.shape, order="F")


def _flattened(order: str) -> Transform:
    """The rows of the kernel in `order` instead of (h w c)."""

    def transform(port: Port) -> Port:
        rule = Rule(
            f"(h w c) o -> ({order}) o", dict(zip("chw", port.config["feature_map"], strict=True))
        )
        return port.with_leaves({"params/kernel": rule.apply(port.leaves["params/kernel"])})

    return transform


def _offset(table: np.ndarray) -> np.ndarray:
    return np.roll(table, -2, axis=0)


ROWS = (
    Fault(
        "kernel_untransposed",
        "Kernel not transposed",
        "Flax raises where in and out differ. A square kernel fits, and every output is wrong.",
        "PyTorch keeps (out, in), Flax (in, out).",
        'params["kernel"] = source["weight"].T',
        "transformers PR 9054: BERT's square projections",
        change(matrices, np.transpose),
        fits=_has_torch_matrices,
    ),
    Fault(
        "kernel_reshaped",
        "Kernel reshaped instead of transposed",
        "Every shape fits, square or not; every output is wrong.",
        "A shape error was answered with reshape, which moves no axis.",
        'params["kernel"] = source["weight"].T',
        "statedict2pytree pours tensors into shapes",
        change(matrices, _reshaped),
        fits=_has_torch_matrices,
    ),
    Fault(
        "kernel_column_major",
        "Kernel reshaped in Fortran order",
        "Every shape fits; wrong as a reshape is, and the same as no transpose where square.",
        'reshape(order="F") reads and writes column by column; it moves no axis either.',
        'params["kernel"] = source["weight"].T',
        "MATLAB and R keep arrays column by column",
        change(matrices, _column_major),
        fits=_has_torch_matrices,
    ),
    Fault(
        "conv1d_transposed",
        "GPT-2's Conv1D transposed",
        "Flax raises where in and out differ; c_proj is square and fits.",
        "Conv1D is stored (in, out) already, and was treated as a Linear.",
        'params["kernel"] = source["weight"]',
        "transformers: pytorch_utils.Conv1D",
        change(matrices, np.transpose),
        fits=_CONV1D,
    ),
    Fault(
        "table_transposed",
        "Table transposed",
        "A square table fits: every id gets a column instead of its row.",
        "Every matrix was transposed, the tables too.",
        'params["embedding"] = source["weight"]',
        "weightbridge transposes every matrix",
        change(called("embedding"), np.transpose),
        fits=_TABLES,
    ),
    Fault(
        "table_offset",
        "Rows of the table off by two",
        "Every position gets the vector of another one.",
        "OPT stores two rows in front, RoBERTa padding_idx + 1: the ids were not moved.",
        'params["embedding"] = source["weight"][offset:]',
        "OPTLearnedPositionalEmbedding: offset 2",
        change(called("embedding"), _offset),
        fits=_TABLES,
    ),
    Fault(
        "table_scaled",
        "Table multiplied by √d, and again in the model",
        "Every embedding is too long; a norm behind it hides it.",
        "Gemma multiplies the embedding in its forward pass; the port did so too.",
        'params["embedding"] = source["weight"]',
        "Gemma: hidden_size ** 0.5",
        change(called("embedding"), lambda t: t * t.dtype.type(np.sqrt(t.shape[-1]))),
        "values",
        fits=is_layer("Embedding"),
    ),
    Fault(
        "bag_mode",
        "Bags summed where the mean was meant",
        "Every output is as many times too large as its bag has ids.",
        "A segment sum is the obvious translation; PyTorch's default mode is the mean.",
        "divide by the number of ids in the bag",
        "torch.nn.EmbeddingBag: mode='mean'",
        configure(mode="sum"),
        "values",
        "forward",
        lambda port: port.layer == "EmbeddingBag" and port.config["mode"] == "mean",
    ),
    Fault(
        "flatten_order",
        "Flattened channels first",
        "Every shape fits; every output is wrong.",
        "PyTorch flattens (C, H, W), Flax (H, W, C); the kernel was only transposed.",
        "kernel = weight.reshape(out, C, H, W).transpose(2, 3, 1, 0).reshape(-1, out)",
        "the Flax guide on convolution and dense layers; VGG, MTCNN",
        _flattened("c h w"),
        fits=is_layer("FlattenLinear"),
    ),
    Fault(
        "flatten_height_width",
        "Flattened with height and width exchanged",
        "Every shape fits; every output is wrong.",
        "A model that flattens (C, W, H), as MTCNN does, was read as (C, H, W), or the reverse.",
        "kernel = weight.reshape(out, C, H, W).transpose(2, 3, 1, 0).reshape(-1, out)",
        "facenet-pytorch: MTCNN permutes before it flattens",
        _flattened("w h c"),
        fits=is_layer("FlattenLinear"),
    ),
)
