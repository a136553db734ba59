"""Faults of encoder layers: which norm, which namespace, which order."""

from __future__ import annotations

from dataclasses import replace

from porting.faults.paths import attends, is_block, is_layer, of
from porting.faults.row import Fault, Port, configure, exchange, rearrange, skip

_LAYER = is_layer("TransformerEncoderLayer")


def _norms(port: Port) -> tuple[str, str]:
    first, second = ("ln1", "ln2") if is_block(port) else ("norm1", "norm2")
    return f"params/{first}", f"params/{second}"


def _exchange_norms(port: Port) -> Port:
    return exchange(*_norms(port))(port)


def _turn_order(port: Port) -> Port:
    return replace(port, config={**port.config, "norm_first": not port.config["norm_first"]})


ROWS = (
    Fault(
        "attn_skipped",
        "The attn namespace skipped",
        "Wrong from q on; ln1 is right.",
        "The source says self_attn, the target attn, and unknown names were passed over.",
        'params["attn"] = {name: port(source["self_attn"][name]) for name in projections}',
        "nnx.update ignores missing and unknown keys",
        lambda port: skip("params/attn" if is_block(port) else "params/self_attn")(port),
        "values",
        fits=lambda port: attends(port) and bool(of(("attn", "self_attn"))(port)),
    ),
    Fault(
        "norms_exchanged",
        "The two norms exchanged",
        "Nothing at a fresh init; wrong from ln1 on with trained weights.",
        "norm1 sits before the attention here and after it in a post-norm block.",
        'params["ln1"], params["ln2"] = norm1, norm2',
        "Llama and Gemma 2 give post_attention_layernorm two meanings",
        _exchange_norms,
        fits=lambda port: bool(port.under(*_norms(port))),
    ),
    Fault(
        "ff1_untransposed",
        "ff1 not transposed",
        "Flax raises, unless d_ff equals d_model: then nothing does.",
        "PyTorch keeps (out, in), Flax (in, out).",
        'params["ff1"]["kernel"] = source["linear1.weight"].T',
        "the first mistake of every port",
        rearrange("i o -> o i", "params/ff1/kernel"),
        fits=is_block,
    ),
    Fault(
        "norm_order",
        "Pre-norm and post-norm exchanged",
        "No leaf differs and every shape fits; every output is wrong.",
        "norm_first is False by default in PyTorch, and most newer models are pre-norm.",
        "x = x + attention(norm1(x)), or x = norm1(x + attention(x))",
        "torch.nn.TransformerEncoderLayer: norm_first",
        _turn_order,
        "values",
        "forward",
        _LAYER,
    ),
    Fault(
        "residual_dropped",
        "Residual dropped",
        "Wrong from the first residual on; every leaf is right.",
        "The forward pass was written again and lost an addition.",
        "x = x + attn(ln1(x)); x = x + ffn(ln2(x))",
        "a code fault: no comparison of weights can see it",
        configure(residual=False),
        "values",
        "forward",
        is_block,
    ),
)
