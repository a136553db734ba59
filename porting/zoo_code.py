"""The program of one layer's port, in Linen and in NNX."""

from __future__ import annotations

import textwrap

from porting.errors import PortingError
from porting.leaves import Leaf
from porting.mapping.script import rule_code
from porting.zoo import ZooResult

_HEAD = """\
import numpy as np

from porting import LAYERS, {names}
{more}
config = dict({options})
layer = LAYERS[{name!r}]
state_dict = layer.example_state({seed}, **config)  # PyTorch's keys and layouts
x = layer.example_inputs({seed}, **config)
"""
_LINEN = """
variables = port_layer({name!r}, state_dict, **config)
# what it does, leaf by leaf:
{lines}

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
_WRONG = """\
output = run_variables({name!r}, wrong, x, config=options)
print("largest difference of the wrong port:", np.abs(output - reference).max())
"""


def zoo_programs(result: ZooResult) -> list[tuple[str, str]]:
    """(title, program) for both APIs.

    >>> from porting.zoo import ZooCase, run_zoo
    >>> [title for title, _ in zoo_programs(run_zoo(ZooCase("Linear", fault="")))]
    ['Flax Linen', 'Flax NNX']
    """
    name = result.layer.name
    options = ", ".join(f"{key}={value!r}" for key, value in result.config.items())
    mistake = _mistake(result)

    def head(*names: str, more: str = "") -> str:
        return _HEAD.format(
            names=", ".join(names), more=more, options=options, name=name, seed=result.case.seed
        )

    linen = _LINEN.format(name=name, lines=_lines(result, result.table))
    used = ("inject", "port_layer", "run_layer") if mistake else ("port_layer", "run_layer")
    checks = "from porting.checks import run_variables\n" if "run_variables" in mistake else ""
    return [
        ("Flax Linen", head(*used, more=checks) + linen + mistake),
        ("Flax NNX", _nnx_refusal(result) or head("port_layer_nnx", "run_layer") + _nnx(result)),
    ]


def _nnx(result: ZooResult) -> str:
    table = result.layer.nnx_table(result.layer.example_config(**dict(result.config)))
    return _NNX.format(name=result.layer.name, lines=_lines(result, tuple(table)))


def _nnx_refusal(result: ZooResult) -> str:
    """Why NNX cannot hold this layer, as a comment; "" where it can."""
    config = result.layer.example_config(**dict(result.config))
    try:
        result.layer.check(config, result.state, "nnx")
    except PortingError as error:
        return "\n".join(f"# {line}" for line in textwrap.wrap(str(error), 86)) + "\n"
    return ""


def _mistake(result: ZooResult) -> str:
    """The lines that put the fault in, and run it where it runs."""
    if result.fault is None:
        return ""
    name = result.layer.name
    lines = _FAULT.format(title=result.fault.title, fault=result.fault.name, name=name)
    return lines + (_WRONG.format(name=name) if result.comparison else "")


def _lines(result: ZooResult, table: tuple[Leaf, ...]) -> str:
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
