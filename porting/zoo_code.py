"""The program of one layer's port, in Linen and in NNX."""

from __future__ import annotations

from porting.leaves import Leaf
from porting.mapping.script import rule_code
from porting.zoo import ZooResult

_HEAD = """\
import numpy as np

from porting import LAYERS, inject, port_layer, port_layer_nnx, run_layer, unport_layer

config = dict({options})
layer = LAYERS[{name!r}]
state_dict = layer.example_state({seed}, **config)  # PyTorch's keys and layouts
x = layer.example_inputs({seed}, **config)
"""
_LINEN = """
variables = port_layer({name!r}, state_dict, **config)
# what it does, leaf by leaf:
{lines}
{fault}
reference = run_layer({name!r}, state_dict, x, api="reference", **config)
output = run_layer({name!r}, state_dict, x, api="linen", **config)
print("largest difference of the right port:", np.abs(output - reference).max())
"""
_NNX = """
module = port_layer_nnx({name!r}, state_dict, **config)  # in eval mode
# what it does, leaf by leaf:
{lines}

reference = run_layer({name!r}, state_dict, x, api="reference", **config)
output = run_layer({name!r}, state_dict, x, api="nnx", **config)
print("largest difference of the right port:", np.abs(output - reference).max())
"""
_FAULT = """
# The mistake: {title}
wrong, options = inject({fault!r}, variables, layer={name!r}, config=config)
"""


def zoo_programs(result: ZooResult) -> list[tuple[str, str]]:
    """(title, program) for both APIs.

    >>> from porting.zoo import ZooCase, run_zoo
    >>> [title for title, _ in zoo_programs(run_zoo(ZooCase("Linear", fault="")))]
    ['Flax Linen', 'Flax NNX']
    """
    name = result.layer.name
    options = ", ".join(f"{key}={value!r}" for key, value in result.config.items())
    head = _HEAD.format(options=options, name=name, seed=result.case.seed)
    fault = (
        _FAULT.format(title=result.fault.title, fault=result.fault.name, name=name)
        if result.fault
        else ""
    )
    c = result.layer.example_config(**dict(result.config))
    nnx_table = tuple(result.layer.nnx_table(c))
    linen = _LINEN.format(name=name, lines=_lines(result, result.table, "variables"), fault=fault)
    nnx = _NNX.format(name=name, lines=_lines(result, nnx_table, "module"))
    return [("Flax Linen", head + linen), ("Flax NNX", head + nnx)]


def _lines(result: ZooResult, table: tuple[Leaf, ...], target: str) -> str:
    """One comment a leaf: the NumPy expression of its rule."""
    lines = []
    for leaf in table:
        joined = leaf.join.forward([result.state[key] for key in leaf.sources])
        source = " + ".join(f'state_dict["{key}"]' for key in leaf.sources)
        if leaf.join.name not in ("only", "sum"):
            source = f"{leaf.join.name}({source.replace(' + ', ', ')})"
        source = f"({source})" if leaf.join.name == "sum" else source
        lines.append(
            f"#   {leaf.path} = {source}{rule_code(leaf.rule, joined.shape)}  # {leaf.rule}"
        )
    return "\n".join(lines) or "#   this layer has no leaves"
