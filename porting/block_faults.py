"""The mistakes that the encoder block can show, as rows."""

from __future__ import annotations

import numpy as np

from porting.block_modules import FLAX_EPSILON
from porting.faults import Fault, Port, configure, exchange, in_turn, rearrange, skip
from porting.layouts import Rule

ATTN = "params/attn"
QKV = tuple(f"{ATTN}/{name}_proj" for name in "qkv")


def _has_packed(port: Port) -> bool:
    return bool(port.config["packed"])


def _splits(port: Port) -> bool:
    heads, width = port.config["num_heads"], port.config["d_model"]
    return 1 < heads < width


def _read_per_head(port: Port) -> Port:
    """`in_proj` read as rows per head [q; k; v], as GPT-NeoX packs them."""
    changed = {}
    for kind, rule in (("kernel", "(h qkv={} d) i -> i (h d)"), ("bias", "(h qkv={} d) -> (h d)")):
        packed = np.concatenate([port.leaves[f"{path}/{kind}"].T for path in QKV])
        for index, path in enumerate(QKV):
            sizes = {"qkv": 3, "h": port.config["num_heads"]}
            changed[f"{path}/{kind}"] = Rule(rule.format(index), sizes).apply(packed)
    return port.with_leaves(changed)


def _exchange_halves(port: Port) -> Port:
    """The two halves of ff2's outputs exchanged, as shards joined in the wrong order."""
    return port.with_leaves(
        {
            p: np.roll(port.leaves[p], port.config["d_model"] // 2, -1)
            for p in port.under("params/ff2")
        }
    )


_PER_HEAD = """\
packed = {leaf: np.concatenate([attn[f"{n}_proj"][leaf].T for n in "qkv"]) for leaf in ("kernel", "bias")}
for index, n in enumerate("qkv"):
    for leaf, array in packed.items():  # rows: heads, then q, k, v, then head_dim
        rows = array.reshape(case.num_heads, 3, -1, *array.shape[1:])[:, index]
        attn[f"{n}_proj"][leaf] = rows.reshape(-1, *array.shape[1:]).T"""
_HEADS = """\
for n in "qkv":
    for leaf, array in attn[f"{n}_proj"].items():
        split = array.reshape(*array.shape[:-1], case.num_heads, -1)
        attn[f"{n}_proj"][leaf] = split.swapaxes(-1, -2).reshape(array.shape)"""

_ROWS = (
    Fault(
        "bias_skipped",
        "A leaf skipped: ff1/bias",
        "Nothing at a fresh init; small errors from ff1 on with trained weights.",
        "The loop over names missed one, and the target kept its own zeros.",
        'params["ff1"]["bias"] = source["linear1.bias"]',
        "transformers 12528, diffusers 4840: leaves left at their init",
        skip("params/ff1/bias"),
        "values",
    ),
    Fault(
        "kernel_skipped",
        "A leaf skipped: ff2/kernel",
        "Wrong from ff2 on; no error is raised, since a random kernel has the right shape.",
        "The loop over names missed one, and the target kept its random init.",
        'params["ff2"]["kernel"] = source["linear2.weight"].T',
        "transformers 12528, diffusers 4840: leaves left at their init",
        skip("params/ff2/kernel"),
        "values",
    ),
    Fault(
        "key_bias_skipped",
        "The key bias skipped",
        "No output ever shows it: it adds one number to a whole row of scores, and softmax "
        "takes it out again. Only comparing leaves finds it.",
        "The loop over names missed one. With rotary positions it would matter.",
        'params["attn"]["k_proj"]["bias"] = source["self_attn.in_proj_bias"][d:2 * d]',
        "softmax is invariant to a constant",
        skip(f"{ATTN}/k_proj/bias"),
        "values",
    ),
    Fault(
        "attn_skipped",
        "The attn namespace skipped",
        "Wrong from q on; ln1 is right.",
        "The source says self_attn, the target attn, and unknown names were passed over.",
        'params["attn"] = {name: port(source["self_attn"][name]) for name in projections}',
        "nnx.update ignores missing and unknown keys",
        skip(ATTN),
        "values",
    ),
    Fault(
        "scale_at_one",
        "Scale left at one: ln2/scale",
        "Nothing at a fresh init; wrong from ln2 on with trained weights.",
        "PyTorch calls it weight, Flax scale; the name was not translated.",
        'params["ln2"]["scale"] = source["norm2.weight"]',
        "PyTorch norms say weight, Flax norms scale",
        skip("params/ln2/scale"),
        "values",
    ),
    Fault(
        "qk_exchanged",
        "q and k exchanged",
        "The scores are transposed: wrong from q on. One token, or rows that are all equal, hide it.",
        "Two tensors of one shape, taken in the wrong order.",
        'params["attn"]["q_proj"], params["attn"]["k_proj"] = query, key',
        "fault catalogue: any attention",
        exchange(f"{ATTN}/q_proj", f"{ATTN}/k_proj"),
        code='attn["q_proj"], attn["k_proj"] = attn["k_proj"], attn["q_proj"]',
    ),
    Fault(
        "square_transposed",
        "A square projection transposed once too often",
        "Wrong from out on; (d_model, d_model) fits either way.",
        "PyTorch keeps (out, in), Flax (in, out). A square weight lets the mistake pass.",
        'params["attn"]["out_proj"]["kernel"] = source["self_attn.out_proj.weight"].T',
        "transformers PR 9054",
        rearrange("i o -> o i", f"{ATTN}/out_proj/kernel"),
        code='attn["out_proj"]["kernel"] = attn["out_proj"]["kernel"].T',
    ),
    Fault(
        "qkv_order",
        "q/k/v split in the wrong order",
        "Wrong from k on; q is right.",
        "in_proj stacks query, key, value; it was read as query, value, key.",
        "q, k, v = np.split(in_proj_weight, 3)",
        "torch.nn.MultiheadAttention: in_proj_weight",
        exchange(f"{ATTN}/k_proj", f"{ATTN}/v_proj"),
        code='attn["k_proj"], attn["v_proj"] = attn["v_proj"], attn["k_proj"]',
        fits=_has_packed,
    ),
    Fault(
        "qkv_per_head",
        "q/k/v read as interleaved per head",
        "Wrong from q on; only the values tell, every shape is right.",
        "GPT-NeoX and BLOOM pack q, k, v per head; PyTorch stacks three whole blocks.",
        "q, k, v = np.split(in_proj_weight, 3)",
        "GPT-NeoX, BLOOM query_key_value",
        _read_per_head,
        fits=lambda port: _has_packed(port) and port.config["num_heads"] > 1,
        code=_PER_HEAD,
    ),
    Fault(
        "heads_exchanged",
        "heads and head_dim exchanged",
        "Every feature lands in another head: wrong from q on.",
        "A head is a run of features, (heads, head_dim); it was read as (head_dim, heads).",
        "x.reshape(T, num_heads, head_dim)",
        "fault catalogue: any attention",
        in_turn(
            rearrange("i (h d) -> i (d h)", *(f"{p}/kernel" for p in QKV), h="num_heads"),
            rearrange("(h d) -> (d h)", *(f"{p}/bias" for p in QKV), h="num_heads"),
        ),
        fits=_splits,
        code=_HEADS,
    ),
    Fault(
        "norms_exchanged",
        "The two norms exchanged",
        "Nothing at a fresh init; wrong from ln1 on with trained weights.",
        "norm1 sits before the attention here and after it in a post-norm block.",
        'params["ln1"], params["ln2"] = norm1, norm2',
        "Llama and Gemma 2 give post_attention_layernorm two meanings",
        exchange("params/ln1", "params/ln2"),
        code='params["ln1"], params["ln2"] = params["ln2"], params["ln1"]',
    ),
    Fault(
        "shards_exchanged",
        "Two shards of ff2 joined in the wrong order",
        "The output features change places: the sum is the same, the outputs are not.",
        "A tensor that was split over devices was put together in the order of a directory.",
        "kernel = np.concatenate([shards[i] for i in range(len(shards))], axis=-1)",
        "sums are blind to a permutation",
        _exchange_halves,
        fits=lambda port: port.config["d_model"] > 1,
        code="for leaf, array in params['ff2'].items():\n"
        "    params['ff2'][leaf] = np.roll(array, case.d_model // 2, axis=-1)",
    ),
    Fault(
        "ff1_untransposed",
        "ff1 not transposed",
        "Flax raises, unless d_ff equals d_model: then nothing does.",
        "PyTorch keeps (out, in), Flax (in, out).",
        'params["ff1"]["kernel"] = source["linear1.weight"].T',
        "the first mistake of every port",
        rearrange("i o -> o i", "params/ff1/kernel"),
        code='params["ff1"]["kernel"] = params["ff1"]["kernel"].T',
    ),
    Fault(
        "default_epsilon",
        "Default epsilon: 1e-6 where 1e-5 was trained",
        "A small error from ln1 on; large where activations are small.",
        "torch.nn.LayerNorm has 1e-5, Flax 1e-6, and no leaf holds it.",
        "LinenEncoderBlock(num_heads, d_model, d_ff, activation, epsilon=1e-5)",
        "torch.nn.LayerNorm, flax.linen.LayerNorm",
        configure(epsilon=FLAX_EPSILON),
        "values",
        "forward",
        lambda port: port.config["epsilon"] != FLAX_EPSILON,
    ),
    Fault(
        "tanh_gelu",
        "tanh GELU where erf was trained",
        "An error of about 1e-4 from the activation on.",
        "jax.nn.gelu is the tanh form by default, torch.nn.functional.gelu the erf form.",
        'LinenEncoderBlock(num_heads, d_model, d_ff, activation="gelu")',
        "jax.nn.gelu, torch.nn.functional.gelu; ViT and Whisper in jax-ml/bonsai",
        configure(activation="gelu_tanh"),
        "values",
        "forward",
        lambda port: port.config["activation"] == "gelu",
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
    ),
)

#: name -> fault, in the order of a menu.
BLOCK_FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ROWS}
