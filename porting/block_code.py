"""The program of one encoder block port: what the picture shows, to paste into an empty file."""

from __future__ import annotations

from porting.block import LINEN_TO_NNX
from porting.block_case import SOURCES, BlockCase, resolve
from porting.block_result import ports_of
from porting.faults import Fault, Port

_PROGRAM = """\
import jax
import numpy as np
from flax import nnx

from porting.block import port_linen_to_nnx
from porting.block_case import BlockCase, input_of, reference_of, resolve, tensors_of
from porting.block_modules import LinenEncoderBlock, NNXEncoderBlock
{imports}

case = resolve({case!r})
source, x = tensors_of(case), input_of(case)
expected = reference_of(case, source).stages(x)["output"]  # float64, from the source

linen_block = LinenEncoderBlock({linen})
nnx_block = NNXEncoderBlock({nnx}, rngs=nnx.Rngs({target_seed}))
variables = {variables}
params = jax.tree.map(lambda leaf: leaf, variables["params"])
attn = params["attn"]
{mistake}
port_linen_to_nnx({{"params": params}}, nnx_block)

linen_out = {linen_call}
nnx_out = {nnx_call}
print("sums:", float(nnx_out.sum()), float(linen_out.sum()))
print("largest difference:", np.abs(nnx_out - expected).max())
"""


def block_program(case: BlockCase) -> str:
    """The whole program of a case: source, port with its fault, both blocks, the comparison.

    >>> "load_torch_encoder_layer(source, 4)" in block_program(BlockCase(source="m6aformer"))
    True
    """
    case = resolve(case)
    fault, right, port = ports_of(case)
    packed = SOURCES[case.source].packed
    # A PyTorch layer is ported into Linen first, so both blocks hold the fault.
    linen = port if packed else right
    held = '{"params": params}' if packed else "variables"
    return _PROGRAM.format(
        imports=f"from porting.{'block_torch' if packed else 'tree'} import {_MAKE[packed][0]}",
        case=case,
        linen=_constants(linen),
        nnx=_constants(port),
        target_seed=case.seed + 1,
        variables=_MAKE[packed][1].format(case.num_heads),
        mistake=_mistake(case, fault, port),
        linen_call=_LINEN_CALL[linen.config["residual"]].format(held),
        nnx_call=_NNX_CALL[port.config["residual"]],
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
        split = array.reshape(*array.shape[:-1], -1, case.num_heads)
        attn[f"{n}_proj"][leaf] = split.swapaxes(-1, -2).reshape(array.shape)"""
_SHARDS = """\
for leaf, array in params["ff2"].items():
    params["ff2"][leaf] = np.roll(array, case.d_model // 2, axis=-1)"""

#: fault of the leaves -> the mistake as a person writes it, on nested `params`.
MISTAKES = {
    "qk_exchanged": 'attn["q_proj"], attn["k_proj"] = attn["k_proj"], attn["q_proj"]',
    "square_transposed": 'attn["out_proj"]["kernel"] = attn["out_proj"]["kernel"].T',
    "qkv_order": 'attn["k_proj"], attn["v_proj"] = attn["v_proj"], attn["k_proj"]',
    "qkv_per_head": _PER_HEAD,
    "heads_exchanged": _HEADS,
    "norms_exchanged": 'params["ln1"], params["ln2"] = params["ln2"], params["ln1"]',
    "shards_exchanged": _SHARDS,
    "ff1_untransposed": 'params["ff1"]["kernel"] = params["ff1"]["kernel"].T',
}
#: packed -> what makes the variables, and how.
_MAKE = {
    True: ("load_torch_encoder_layer", "load_torch_encoder_layer(source, {})"),
    False: ("unflatten", "unflatten(source)"),
}
#: residual -> the call; without it, the stages are asked for their last one.
_LINEN_CALL = {
    True: "linen_block.apply({}, x)",
    False: 'linen_block.apply({}, x, False, method="stages")["output"]',
}
_NNX_CALL = {True: "nnx_block(x)", False: 'nnx_block.stages(x, False)["output"]'}


def _constants(port: Port) -> str:
    names = ("num_heads", "d_model", "d_ff", "activation", "epsilon")
    return ", ".join(f"{name}={port.config[name]!r}" for name in names)


def _mistake(case: BlockCase, fault: Fault | None, port: Port) -> str:
    """The lines that make the mistake."""
    if fault is None:
        return "# The right port: nothing in between."
    if not port.skipped:
        text = MISTAKES.get(fault.name, "# It stands in the constants above or in the call below.")
        return f"# The mistake: {fault.title}.\n{text}"
    lines = [f"# The mistake: {fault.title}."]
    if SOURCES[case.source].packed:
        lines.append(f'init = linen_block.init(jax.random.key({case.seed + 1}), x)["params"]')
    for path in sorted(port.skipped):
        keys = "".join(f'["{name}"]' for name in path.split("/")[1:])
        attribute = LINEN_TO_NNX[path].replace("/", ".")
        kept = f"init{keys}" if SOURCES[case.source].packed else f"nnx_block.{attribute}[...]"
        lines.append(f"params{keys} = {kept}")
    return "\n".join(lines)
