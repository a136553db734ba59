"""Faults of activations, pooling and shaping: constants and code, without any leaf."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from porting.faults.paths import is_block, is_layer
from porting.faults.row import Fault, Port, configure, run_with

_POOL = is_layer(*(f"{kind}Pool{rank}d" for kind in ("Max", "Avg") for rank in (1, 2, 3)))
_AVERAGE = is_layer("AvgPool1d", "AvgPool2d", "AvgPool3d")
_MAXIMUM = is_layer("MaxPool1d", "MaxPool2d", "MaxPool3d")


def _quick_gelu(module: Any, variables: Any, x: Any) -> Any:
    import jax

    return x * jax.nn.sigmoid(1.702 * x)


def _halves_exchanged(module: Any, variables: Any, x: Any) -> Any:
    import jax.numpy as jnp

    axis = module.fn.keywords["c"].dim
    return module.apply(variables, jnp.roll(x, x.shape[axis] // 2, axis))


def _channels_exchanged(module: Any, variables: Any, x: Any) -> Any:
    """The channels (c r s) taken as (r s c), in channels-last layout."""
    factor = _shuffle_factor(module)
    channels = x.reshape(*x.shape[:-1], factor * factor, -1)
    return module.apply(variables, channels.swapaxes(-1, -2).reshape(x.shape))


def _shuffle_factor(module: Any) -> int:
    return int(module.fn.keywords["c"].upscale_factor)


def _antialiased(module: Any, variables: Any, x: Any) -> Any:
    import jax

    shape = jax.eval_shape(lambda x: module.apply(variables, x), x).shape
    return jax.image.resize(x, shape, "linear", antialias=True)


def _shrinks(port: Port) -> bool:
    factor = port.config.get("scale_factor") or 1
    linear = port.config.get("mode") in ("linear", "bilinear", "trilinear")
    return port.layer == "Upsample" and linear and bool(np.any(np.asarray(factor) < 1))


def _pad_with_zeros(module: Any, variables: Any, x: Any) -> Any:
    """Padded with 0 first, and with minus infinity never."""
    import jax.numpy as jnp
    from flax import linen

    c = module.fn.keywords["c"]
    kernel, stride, pads = ((n,) * c.rank if isinstance(n, int) else tuple(n) for n in _window(c))
    widths = [(0, 0)] * (x.ndim - c.rank - 1) + [(p, p) for p in pads] + [(0, 0)]
    return linen.max_pool(jnp.pad(x, widths), kernel, stride, "VALID")


def _window(c: Any) -> tuple[Any, Any, Any]:
    return c.kernel_size, c.kernel_size if c.stride is None else c.stride, c.padding


def _dropped(module: Any, variables: Any, x: Any) -> Any:
    """Dropout in training mode, from a fixed key."""
    import jax

    rate = module.fn.keywords["c"].p
    kept = jax.random.bernoulli(jax.random.key(0), 1 - rate, x.shape)
    return x * kept / (1 - rate)


def _encode_with_tanh(module: Any, variables: Any, x: Any, mask: Any = None) -> Any:
    """PyTorch's encoder layer with the other GELU, which is no option of it."""
    from functools import partial

    import jax

    from porting.layers.encoder import encode

    layer = module.bind(variables)
    parts = {name: getattr(layer, name) for name in ("linear1", "linear2", "norm1", "norm2")}
    parts["activation"] = partial(jax.nn.gelu, approximate=True)
    parts["attention"] = lambda h: layer.self_attn(h, mask=mask)
    return encode(x, parts, module.config.norm_first)


def _tanh_gelu(port: Port) -> Port:
    if port.layer == "GELU":
        other = "none" if port.config["approximate"] == "tanh" else "tanh"
        return replace(port, config={**port.config, "approximate": other})
    if port.layer == "TransformerEncoderLayer":
        return replace(port, forward=_encode_with_tanh)
    return replace(port, config={**port.config, "activation": "gelu_tanh"})


def _has_erf_gelu(port: Port) -> bool:
    has_option = is_block(port) or port.layer == "TransformerEncoderLayer"
    return port.layer == "GELU" or (has_option and port.config["activation"] == "gelu")


ROWS = (
    Fault(
        "tanh_gelu",
        "tanh GELU where erf was trained",
        "An error of about 1e-4 from the activation on.",
        "jax.nn.gelu is the tanh form by default, torch.nn.functional.gelu the erf form.",
        "jax.nn.gelu(x, approximate=False)",
        "jax.nn.gelu, torch.nn.functional.gelu; ViT and Whisper in jax-ml/bonsai",
        _tanh_gelu,
        "values",
        "forward",
        _has_erf_gelu,
    ),
    Fault(
        "quick_gelu",
        "Quick GELU where GELU was trained, or the other way round",
        "Errors of up to 0.02 from the activation on.",
        "CLIP calls x · sigmoid(1.702 x) quick_gelu; the config's hidden_act was not read.",
        "jax.nn.gelu(x, approximate=False)",
        "CLIP: hidden_act",
        run_with(_quick_gelu),
        "values",
        "forward",
        is_layer("GELU"),
    ),
    Fault(
        "leaky_slope",
        "Another slope: 0.2",
        "Negative outputs are twenty times too large.",
        "TensorFlow's leaky_relu has 0.2, PyTorch's and JAX's 0.01.",
        "jax.nn.leaky_relu(x, negative_slope=0.01)",
        "tf.nn.leaky_relu: alpha=0.2",
        configure(negative_slope=0.2),
        "values",
        "forward",
        lambda port: port.layer == "LeakyReLU" and port.config["negative_slope"] != 0.2,
    ),
    Fault(
        "gate_up_exchanged",
        "Gate and value exchanged",
        "Every shape fits; every output is wrong.",
        "PyTorch's GLU gates with the second half, Llama's MLP with the first.",
        "a, b = jnp.split(x, 2, axis=-1); a * jax.nn.sigmoid(b)",
        "torch.nn.GLU; gate_proj and up_proj in Llama",
        run_with(_halves_exchanged),
        "values",
        "forward",
        is_layer("GLU"),
    ),
    Fault(
        "softmax_axis",
        "Softmax over another axis",
        "Rows no longer sum to one; every shape fits.",
        "dim counts PyTorch's axes, and the channel axis moves to the end in Flax.",
        "jax.nn.softmax(x, axis=-1)",
        "NCHW and NHWC",
        configure(dim=0),
        "values",
        "forward",
        lambda port: (
            port.layer in ("Softmax", "LogSoftmax") and port.config["dim"] not in (0, None)
        ),
    ),
    Fault(
        "dropout_train_mode",
        "Dropout left in training mode",
        "Outputs differ from call to call, some are zero.",
        "nnx.Dropout starts in training mode.",
        "model.eval(), or deterministic=True",
        "flax.nnx.Dropout: deterministic=False",
        run_with(_dropped),
        "values",
        "forward",
        lambda port: port.layer == "Dropout" and 0 < port.config["p"] < 1,
    ),
    Fault(
        "pool_stride_default",
        "Stride left at Flax's default: 1",
        "The output is larger.",
        "PyTorch's stride defaults to the kernel size, Flax's to 1.",
        "linen.max_pool(x, window, strides=window)",
        "flax.linen.max_pool: strides=None means 1",
        configure(stride=1),
        "values",
        "forward",
        lambda port: _POOL(port) and port.config["stride"] != 1,
    ),
    Fault(
        "pool_zero_padding",
        "Maximum pool padded with zeros",
        "Wrong along the border where all numbers of a window are negative.",
        "The padding was done with jnp.pad; PyTorch and Flax pad with minus infinity.",
        "linen.max_pool(x, window, strides, padding=[(1, 1), (1, 1)])",
        "torch.nn.MaxPool2d: implicit negative infinity padding",
        run_with(_pad_with_zeros),
        "values",
        "forward",
        lambda port: (
            _MAXIMUM(port) and bool(port.config["padding"]) and not port.config["ceil_mode"]
        ),
    ),
    Fault(
        "count_include_pad",
        "Average pool: the padding not counted",
        "Wrong along the border; right inside.",
        "PyTorch divides by the whole window by default; count_include_pad is an option in both.",
        "linen.avg_pool(x, window, strides, padding, count_include_pad=True)",
        "the Flax guide: count_include_pad",
        configure(count_include_pad=False),
        "values",
        "forward",
        lambda port: (
            _AVERAGE(port) and port.config["count_include_pad"] and bool(port.config["padding"])
        ),
    ),
    Fault(
        "antialiased",
        "Shrunk with antialiasing",
        "Outputs are blurred; a constant image hides it.",
        "jax.image.resize antialiases when it shrinks, PyTorch does not.",
        'jax.image.resize(x, shape, "linear", antialias=False)',
        "jax.image.resize: antialias=True",
        run_with(_antialiased),
        "values",
        "forward",
        _shrinks,
    ),
    Fault(
        "corners_aligned",
        "Corners aligned",
        "Outputs are taken from other places; a constant image hides it.",
        "align_corners is an option of PyTorch's that jax.image.resize does not have.",
        "multiply each axis by a matrix of PyTorch's weights",
        "torch.nn.Upsample: align_corners",
        configure(align_corners=True),
        "values",
        "forward",
        lambda port: (
            port.layer == "Upsample"
            and port.config["mode"] != "nearest"
            and not port.config["align_corners"]
        ),
    ),
    Fault(
        "shuffle_order",
        "Pixel shuffle with channels last in the block",
        "Every shape fits; pixels land in other channels.",
        "PyTorch reads the channels as (C, r, r), TensorFlow's depth_to_space as (r, r, C).",
        'einops.rearrange(x, "b h w (c r s) -> b (h r) (w s) c", r=r, s=r)',
        "torch.nn.PixelShuffle, tf.nn.depth_to_space",
        run_with(_channels_exchanged),
        "values",
        "forward",
        lambda port: port.layer == "PixelShuffle" and port.config["upscale_factor"] > 1,
    ),
)
