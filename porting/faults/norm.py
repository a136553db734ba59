"""Faults of normalisation layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from porting.faults.paths import called, has, is_block, is_layer
from porting.faults.row import Fault, Port, change, exchange, run_with, skip, skip_paths

#: The epsilon of Flax's norms, and of TensorFlow's batch normalisation.
FLAX_EPSILON, TENSORFLOW_EPSILON = 1e-6, 1e-3
_EPSILONS = ("eps", "epsilon", "layer_norm_eps")
_BATCH = is_layer("BatchNorm1d", "BatchNorm2d", "BatchNorm3d")
_STATISTICS = ("batch_stats/mean", "batch_stats/var")


def _epsilon(port: Port) -> str:
    """The name of the option that holds epsilon; "" if there is none."""
    return next((name for name in _EPSILONS if name in port.config), "")


def _set_epsilon(value: float) -> Any:
    return lambda port: replace(port, config={**port.config, _epsilon(port): value})


def _starts_at_flax_epsilon(port: Port) -> bool:
    """Whether Flax's module would start from another epsilon; its BatchNorm has PyTorch's."""
    batch = any(path.startswith("batch_stats/") for path in port.leaves)
    spectral = port.layer.startswith("SpectralNorm")
    name = _epsilon(port)
    return bool(name) and not batch and not spectral and port.config[name] != FLAX_EPSILON


def _exchange_scale_and_bias(port: Port) -> Port:
    for scale in called("scale")(port):
        bias = scale.removesuffix("scale") + "bias"
        if bias in port.leaves:
            port = exchange(scale, bias)(port)
    return port


def _has_scale_and_bias(port: Port) -> bool:
    scales = called("scale")(port)
    return any(path.removesuffix("scale") + "bias" in port.leaves for path in scales)


def _has_statistics(port: Port) -> bool:
    return "batch_stats/var" in port.leaves


def _by_the_batch(module: Any, variables: Any, *inputs: Any, **keywords: Any) -> Any:
    """BatchNorm in training mode, its new statistics dropped."""
    train = module.clone(use_running_average=False)
    return train.apply(variables, *inputs, mutable=["batch_stats"], **keywords)[0]


def _plus(number: int) -> Any:
    return change(called("scale"), lambda scale: scale + scale.dtype.type(number))


def _other_groups(port: Port) -> Port:
    count = port.leaves["params/scale"].shape[0] // port.config["num_groups"]
    return replace(port, config={**port.config, "num_groups": count})


def _is_regrouped(port: Port) -> bool:
    if port.layer != "GroupNorm" or "params/scale" not in port.leaves:
        return False
    return port.leaves["params/scale"].shape[0] != port.config["num_groups"] ** 2


ROWS = (
    Fault(
        "scale_bias_exchanged",
        "Scale and bias exchanged",
        "Nothing raises, both have one shape; a fresh norm shrinks to a constant.",
        "Two vectors of one shape, zipped in the wrong order.",
        'params["scale"], params["bias"] = source["weight"], source["bias"]',
        "fault catalogue: any norm",
        _exchange_scale_and_bias,
        fits=lambda port: _has_scale_and_bias(port) and not is_block(port),
    ),
    Fault(
        "scale_at_init",
        "Scale left at one",
        "Nothing on a fresh layer; wrong with trained weights.",
        "PyTorch calls it weight, Flax scale; the name was not translated.",
        'params["scale"] = source["weight"]',
        "PyTorch norms say weight, Flax norms scale",
        skip_paths(called("scale")),
        "values",
        fits=lambda port: has(called("scale"))(port) and not is_block(port),
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
        fits=is_block,
    ),
    Fault(
        "default_epsilon",
        "Default epsilon: 1e-6 where the source has another",
        "A small error from the norm on; large where activations are small.",
        "torch.nn.LayerNorm has 1e-5, Flax 1e-6, and no leaf holds it.",
        "LayerNorm(epsilon=1e-5)",
        "torch.nn.LayerNorm, flax.linen.LayerNorm",
        _set_epsilon(FLAX_EPSILON),
        "values",
        "forward",
        _starts_at_flax_epsilon,
    ),
    Fault(
        "tensorflow_epsilon",
        "TensorFlow's epsilon: 1e-3",
        "A small error; large where the variance is small.",
        "The model was known from TensorFlow, whose BatchNormalization has 1e-3.",
        "BatchNorm(epsilon=1e-5)",
        "keras.layers.BatchNormalization: epsilon=0.001",
        _set_epsilon(TENSORFLOW_EPSILON),
        "values",
        "forward",
        lambda port: _BATCH(port) and port.config["eps"] != TENSORFLOW_EPSILON,
    ),
    Fault(
        "statistics_at_init",
        "Running statistics left at (0, 1)",
        "Nothing on a fresh layer; large errors with trained statistics.",
        "They are a second collection, batch_stats, and only params was ported.",
        'variables["batch_stats"]["mean"] = source["running_mean"]',
        "fault catalogue: BatchNorm",
        skip(*_STATISTICS),
        "values",
        fits=_has_statistics,
    ),
    Fault(
        "mean_var_exchanged",
        "Mean and variance exchanged",
        "NaN where a mean is negative; wrong elsewhere.",
        "Two vectors of one shape, zipped in the wrong order.",
        'stats["mean"], stats["var"] = source["running_mean"], source["running_var"]',
        "fault catalogue: two leaves of one shape",
        exchange(*_STATISTICS),
        fits=_has_statistics,
    ),
    Fault(
        "deviation_for_variance",
        "Standard deviation where a variance belongs",
        "Nothing on a fresh layer; every channel scaled wrongly with trained statistics.",
        "The square root was taken while porting, and Flax takes it again.",
        'stats["var"] = source["running_var"]',
        "frameworks differ in what they store",
        change(lambda port: ["batch_stats/var"], np.sqrt),
        "values",
        fits=_has_statistics,
    ),
    Fault(
        "train_mode",
        "Left in training mode",
        "The output depends on the other examples of the batch.",
        "nnx.BatchNorm starts in training mode; Linen asks for use_running_average=True.",
        "model.eval(), or use_running_average=True",
        "flax.nnx.BatchNorm: use_running_average=False",
        run_with(_by_the_batch),
        "values",
        "forward",
        _has_statistics,
    ),
    Fault(
        "momentum_kept",
        "Momentum not turned round",
        "Nothing in eval mode; in training the statistics follow one batch almost alone.",
        "Flax's momentum is 1 − PyTorch's.",
        "BatchNorm(momentum=0.9) where PyTorch has 0.1",
        "flax.linen.BatchNorm, torch.nn.BatchNorm2d",
        lambda port: replace(
            port, config={**port.config, "momentum": 1 - (port.config["momentum"] or 0.1)}
        ),
        "values",
        "forward",
        _has_statistics,
        lambda port: "Momentum is used in training only: in eval mode no output depends on it.",
    ),
    Fault(
        "one_plus_missed",
        "1 + weight missed",
        "The layer nearly vanishes: a fresh weight is zero.",
        "Gemma stores the scale around zero and adds one in its forward pass; Flax does not.",
        'params["scale"] = 1 + source["weight"]',
        "transformers: GemmaRMSNorm",
        _plus(-1),
        "values",
        fits=is_layer("GemmaRMSNorm"),
    ),
    Fault(
        "one_plus_doubled",
        "1 + weight added where it does not belong",
        "Outputs about twice as large.",
        "A Gemma port was used again for Llama, or the one was added twice.",
        'params["scale"] = source["weight"]',
        "Llama multiplies by the weight, Gemma by 1 + weight",
        _plus(1),
        "values",
        fits=lambda port: is_layer("GemmaRMSNorm", "RMSNorm")(port) and bool(port.leaves),
    ),
    Fault(
        "groups_exchanged",
        "Number of groups and group size exchanged",
        "No leaf differs and every shape fits; every output is wrong.",
        "num_groups and group_size are both whole numbers that divide the channels.",
        "GroupNorm(num_groups=32, group_size=None)",
        "flax.linen.GroupNorm takes either",
        _other_groups,
        "values",
        "forward",
        _is_regrouped,
    ),
)
