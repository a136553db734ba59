"""The program of one Dense port: what the picture shows, to paste into an empty file."""

from __future__ import annotations

from porting.dense_case import DenseCase
from porting.dense_ports import PORTS

_RANDOM = """\
rng = np.random.default_rng(({data_seed}, 1))
edge = {in_dim}**-0.5
weight = rng.uniform(-edge, edge, ({features}, {in_dim})).astype(np.float32)  # PyTorch: (out, in)
torch_bias = rng.uniform(-edge, edge, {features}).astype(np.float32)"""
_FILE = """\
tensors = load_file({file!r})
weight = np.asarray(tensors[{key!r}], np.float32)  # PyTorch: (out, in)
torch_bias = {bias}"""
_PASTED = """\
weight = np.array({weight}, np.float32)  # PyTorch: (out, in)
torch_bias = {bias}"""
_PROGRAM = """\
import jax
import numpy as np
from flax import linen as nn
{imports}
{source}
x = np.random.default_rng({data_seed}).standard_normal(({n}, {in_dim}), np.float32)

layer = nn.Dense(features={features})
init = layer.init(jax.random.key({seed}), x)["params"]  # kernel: (in, out)
{port}

y = layer.apply({{"params": {{"kernel": kernel, "bias": bias}}}}, x)
print("largest difference:", np.abs(y - (x @ weight.T + torch_bias)).max())
"""


def random_source(case: DenseCase) -> str:
    """The lines that make the random weight of `case`."""
    return _RANDOM.format(data_seed=case.data_seed, in_dim=case.in_dim, features=case.features)


def file_source(file: str, key: str, bias_key: str | None, features: int) -> str:
    """The lines that read a weight from a safetensors file."""
    bias = f"np.zeros({features}, np.float32)"
    if bias_key:
        bias = f"np.asarray(tensors[{bias_key!r}], np.float32)"
    return _FILE.format(file=file, key=key, bias=bias)


def pasted_source(weight: list, bias: list | None) -> str:
    """The lines that hold a pasted weight."""
    zeros = f"np.zeros({len(weight)}, np.float32)"
    return _PASTED.format(
        weight=weight, bias=zeros if bias is None else f"np.array({bias}, np.float32)"
    )


def dense_program(case: DenseCase, source: str) -> str:
    """The whole program: the weight's `source` lines, the port, the layer, the comparison.

    >>> case = DenseCase(port="transpose")
    >>> "kernel = weight.T" in dense_program(case, random_source(case))
    True
    """
    way = PORTS[case.port]
    kernel = way.code.replace("init_kernel", 'init["kernel"]')
    bias = "bias = torch_bias" if way.keeps_bias else 'bias = init["bias"]'
    imports = "from safetensors.numpy import load_file\n" if "load_file" in source else ""
    return _PROGRAM.format(
        imports=imports,
        source=source,
        n=case.n,
        in_dim=case.in_dim,
        features=case.features,
        seed=case.seed,
        data_seed=case.data_seed,
        port=f"{kernel}\n{bias}",
    )
