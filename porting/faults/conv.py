"""Faults of convolution kernels and of what surrounds them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from porting.faults.paths import CONVOLUTIONS, TRANSPOSED, is_layer
from porting.faults.row import Fault, Port, change, configure, run_with

_CONV = is_layer(*CONVOLUTIONS)
_TRANSPOSED = is_layer(*TRANSPOSED)
_KERNEL = "params/kernel"


def _kernel(port: Port) -> list[str]:
    return [_KERNEL]


def _either(port: Port) -> bool:
    return _CONV(port) or _TRANSPOSED(port)


def _rank(port: Port) -> int:
    return port.leaves[_KERNEL].ndim - 2


def _weight(kernel: np.ndarray) -> np.ndarray:
    """(…, i, o) -> PyTorch's (o, i, …)."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _reshaped(kernel: np.ndarray) -> np.ndarray:
    return _weight(kernel).reshape(kernel.shape)


def _reverse_axes(kernel: np.ndarray) -> np.ndarray:
    """The spatial axes in the reverse order, which is what `.T` does to them."""
    rank = kernel.ndim - 2
    return kernel.transpose(*reversed(range(rank)), rank, rank + 1)


def _exchange_in_and_out(kernel: np.ndarray) -> np.ndarray:
    return np.swapaxes(kernel, -1, -2)


def _flip(kernel: np.ndarray) -> np.ndarray:
    return np.flip(kernel, tuple(range(kernel.ndim - 2)))


def _regroup(port: Port) -> Port:
    """Output channels (group, o) taken as (o, group)."""
    kernel, groups = port.leaves[_KERNEL], port.config["groups"]
    split = kernel.reshape(*kernel.shape[:-1], groups, -1)
    return port.with_leaves({_KERNEL: np.swapaxes(split, -1, -2).reshape(kernel.shape)})


def _same_padding(module: Any, variables: Any, *inputs: Any, **keywords: Any) -> Any:
    return module.clone(padding="SAME").apply(variables, *inputs, **keywords)


def _pads_explicitly(port: Port) -> bool:
    plain = port.config.get("padding_mode", "zeros") == "zeros"
    return _CONV(port) and plain and not isinstance(port.config["padding"], str)


def _padding_lost(port: Port) -> Port:
    return replace(port, config={**port.config, "padding": 0})


ROWS = (
    Fault(
        "conv_untransposed",
        "Kernel left as (O, I, …)",
        "Flax raises, unless all axes are equal.",
        "PyTorch keeps OIHW, Flax HWIO.",
        'params["kernel"] = source["weight"].transpose(2, 3, 1, 0)',
        "the Flax guide on convolutions",
        change(_kernel, lambda k: np.ascontiguousarray(_weight(k))),
        fits=_CONV,
    ),
    Fault(
        "conv_reshaped",
        "Convolution kernel reshaped instead of transposed",
        "Every shape fits; every output is wrong.",
        "A shape error was answered with reshape, which moves no axis.",
        'params["kernel"] = source["weight"].transpose(2, 3, 1, 0)',
        "transformers' Flax converter on 5-D weights",
        change(_kernel, _reshaped),
        fits=_either,
    ),
    Fault(
        "conv_axes_reversed",
        "Height and width exchanged",
        "A square kernel fits. A constant image hides it where nothing is padded.",
        "The kernel went through .T, which reverses all axes: OIHW becomes WHIO.",
        'params["kernel"] = source["weight"].transpose(2, 3, 1, 0)',
        "a Conv3d weight sent through .T",
        change(_kernel, _reverse_axes),
        fits=lambda port: _either(port) and _rank(port) > 1,
    ),
    Fault(
        "conv_in_out_exchanged",
        "Input and output channels exchanged",
        "Fits where the layer has as many outputs as inputs.",
        "OIHW and IOHW look alike: a transposed convolution has the second.",
        'params["kernel"] = source["weight"].transpose(2, 3, 1, 0)',
        "torch.nn.ConvTranspose2d keeps (in, out, …)",
        change(_kernel, _exchange_in_and_out),
        fits=_either,
    ),
    Fault(
        "transpose_unflipped",
        "Transposed convolution not flipped",
        "Every shape fits; every output is wrong, by a mirrored kernel.",
        "PyTorch's is the gradient of a convolution, Flax's a convolution of the spread input.",
        'params["kernel"] = source["weight"][:, :, ::-1, ::-1].transpose(2, 3, 0, 1)',
        "flax 3137, jax 11252",
        change(_kernel, _flip),
        fits=_TRANSPOSED,
    ),
    Fault(
        "conv_flipped",
        "Kernel flipped, as for a true convolution",
        "Every shape fits; every output is wrong, by a mirrored kernel.",
        "Theano and MATLAB flip; PyTorch and Flax both correlate.",
        'params["kernel"] = source["weight"].transpose(2, 3, 1, 0)',
        "the rule of a transposed convolution, used for a plain one",
        change(_kernel, _flip),
        fits=_CONV,
    ),
    Fault(
        "groups_interleaved",
        "Groups taken as interleaved",
        "Every shape fits; outputs land in other channels, made by other groups.",
        "Groups are runs of channels in both frameworks; they were read as alternating.",
        "leave the order of the output channels as it is",
        "channel shuffles in ShuffleNet",
        _regroup,
        fits=lambda port: _either(port) and port.config["groups"] > 1,
    ),
    Fault(
        "same_padding",
        "'SAME' where PyTorch pads by number",
        "At stride 2 an even size is shifted by one pixel; an odd size hides it.",
        "'SAME' pads more at the end, PyTorch the same on both sides.",
        "Conv(padding=[(1, 1), (1, 1)])",
        "flax 963, 2993; ResNet",
        run_with(_same_padding),
        "values",
        "forward",
        _pads_explicitly,
    ),
    Fault(
        "padding_lost",
        "Padding left out",
        "The output is smaller.",
        "PyTorch's padding is an option, and no leaf holds it.",
        "Conv(padding=[(1, 1), (1, 1)])",
        "flax.linen.Conv pads by 'SAME' unless told otherwise",
        _padding_lost,
        "values",
        "forward",
        lambda port: _pads_explicitly(port) and bool(np.any(port.config["padding"])),
    ),
    Fault(
        "padding_mode_lost",
        "Padding by zeros where the source reflects or wraps",
        "Wrong along the border; right inside. A small kernel on a large image hides it well.",
        "padding_mode is an option, and no leaf holds it.",
        'jnp.pad(x, pads, mode="reflect"), then Conv(padding="VALID")',
        "torch.nn.Conv2d: padding_mode",
        configure(padding_mode="zeros"),
        "values",
        "forward",
        lambda port: _CONV(port) and port.config["padding_mode"] != "zeros",
    ),
)
