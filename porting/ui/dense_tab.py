"""The tab *Dense load*: one linear layer, loaded rightly or wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np

from porting import dense_case, dense_code, dense_ports, limits
from porting.checkpoint import open_checkpoint
from porting.dense_case import DenseCase
from porting.dense_ports import PORTS, DenseResult
from porting.errors import ArgumentError
from porting.examples import EXAMPLES
from porting.figures import scales
from porting.figures.dense import layout_infos, output_infos, strip_info
from porting.figures.matrix import MatrixInfo, tile
from porting.linear_source import matrices_of, read_linear
from porting.paste import parse_matrix, parse_vector
from porting.ui import frame, lens
from porting.ui.address import from_query, to_query
from porting.ui.messages import as_toast, in_lens

SOURCES = {
    "random": "Random numbers",
    "real": "A real layer",
    "paste": "Pasted numbers",
    "upload": "A .safetensors file",
}
RECIPE = ("port", "source", "n", "in_dim", "features", "seed", "data_seed", "layer")
PASTE_EXAMPLE = "[[0.5, -1.0, 2.0], [1.5, 0.0, -0.5], [-2.0, 1.0, 0.25]]"


def real_layers() -> list[str]:
    """The linear layers of the shipped checkpoints, as `checkpoint:key`."""
    found = []
    for name, example in EXAMPLES.items():
        with open_checkpoint(example.path) as checkpoint:
            found += [f"{name}:{key}" for key in matrices_of(checkpoint.specs)]
    return found


@dataclass(frozen=True)
class Given:
    """What the form holds beside the recipe: things too large for a link."""

    file: str | None = None
    tensor: str | None = None
    weight_text: str = ""
    bias_text: str = ""


def _weights(case: DenseCase, given: Given) -> tuple[np.ndarray, np.ndarray | None, str]:
    """The weight, the bias, and the lines of code that make them."""
    if case.source == "paste":
        weight = parse_matrix(given.weight_text or PASTE_EXAMPLE)
        bias = parse_vector(given.bias_text, len(weight))
        if weight.size > limits.CELLS:
            return weight, bias, dense_code.pasted_source(["paste the weight here"], None)
        listed = None if bias is None else bias.tolist()
        return weight, bias, dense_code.pasted_source(weight.tolist(), listed)
    if case.source == "random":
        weight, bias = dense_case.random_layer(case.in_dim, case.features, case.data_seed)
        return weight, bias, dense_code.random_source(case)
    name, _, key = case.layer.partition(":")
    path: Any = EXAMPLES[name].path
    if case.source == "upload":
        if not given.file or not given.tensor:
            raise ArgumentError(
                "There is no file yet. Upload a .safetensors file and choose a tensor."
            )
        path, key = given.file, given.tensor
    with open_checkpoint(path, max_bytes=limits.FILE_BYTES) as checkpoint:
        weight, bias = read_linear(checkpoint, key)
        bias_key = None if bias is None else key.removesuffix("weight") + "bias"
        shown = (
            f"assets/checkpoints/{path.name}"
            if case.source == "real"
            else str(path).rpartition("/")[2]
        )
        return weight, bias, dense_code.file_source(shown, key, bias_key, len(weight))


def solve(case: DenseCase, given: Given) -> tuple[DenseCase, DenseResult, str]:
    """The port of a recipe, with the sizes that a file or a paste brought, and its program."""
    if case.source == "random":
        limits.dimension("in", case.in_dim)
        limits.dimension("features", case.features)
    limits.dimension("N", case.n)
    limits.seed("init seed", case.seed)
    limits.seed("data seed", case.data_seed)
    weight, bias, source = _weights(case, given)
    features, in_dim = weight.shape
    case = replace(case, in_dim=in_dim, features=features)
    limits.elements({"output": (case.n, features)})
    x = dense_case.random_inputs(case.n, in_dim, case.data_seed)
    return case, dense_ports.run_dense(x, weight, bias, case.port, case.seed), source


def view(case: DenseCase, given: Given) -> dict[str, Any]:
    """The whole column for one recipe."""
    solved, result, source = solve(case, given)
    infos = layout_infos(result)
    limit = infos[0].limit
    strip = strip_info(result.weight, limit)
    note = (
        "The same numbers under every layout, only read in another order."
        if strip
        else f"{result.weight.size:,} numbers; the strip of flat numbers is drawn up to 2,048."
    )
    outputs = output_infos(result)
    legend = ("value", "value", limit)
    actions = [lens.action("right", "Do it right", True)] if result.verdict.fix else []
    blocks = [
        lens.matrices(
            "layouts", "Weight and kernels", infos, legend=legend, motion=("weight", "kernel")
        ),
        lens.matrices("strip", "The file: flat numbers", [strip], note=note, strip=True)
        if strip
        else lens.note("strip-note", note),
        lens.matrices(
            "outputs",
            "Outputs",
            outputs,
            legend=("error over rounding", "excess", scales.DECADES),
            note="White is rounding. Colour begins where the bound ends.",
        ),
        lens.facts("facts", "In numbers", fact_rows(result)),
        lens.code("code", "This port", [("Flax Linen", dense_code.dense_program(solved, source))]),
    ]
    return lens.column(result.verdict, blocks, _link(case), actions)


def _link(case: DenseCase) -> str | None:
    """The query of this view; a file or a paste does not travel in a link."""
    return to_query("dense", case) if case.source in ("random", "real") else None


def fact_rows(result: DenseResult) -> list[tuple[str, str]]:
    """Shapes and differences, in the words of the page."""
    shape = "({}, {})".format
    rows = [
        ("PyTorch weight (out, in)", shape(*result.weight.shape)),
        ("Your kernel", shape(*result.kernel.shape)),
        ("Flax needs (in, out)", shape(*result.needed.shape)),
    ]
    comparison = result.comparison
    if comparison is None:
        return rows
    return [
        *rows,
        ("Largest absolute difference", f"{comparison.largest:.1e}"),
        ("Largest relative difference", f"{comparison.largest_relative:.1e}"),
        ("Outputs over the bound", f"{comparison.over:,} of {comparison.ratio.size:,}"),
        ("Worst difference / bound", f"{comparison.worst:.2g}"),
    ]


def part(
    case: DenseCase, given: Given, key: str, rows: tuple[int, int], columns: tuple[int, int]
) -> dict[str, Any]:
    """The tile of one big panel that a person zoomed into."""
    weight, _, _ = _weights(case, given)
    kernel = PORTS[case.port].kernel
    pictures = {"weight": weight, "needed": weight.T, "kernel": kernel and kernel(weight)}
    values = pictures.get(key)
    if values is None:
        _, result, _ = solve(case, given)
        found = {info.key: info for info in [*layout_infos(result), *output_infos(result)]}
        if key not in found:
            raise ArgumentError(f"There is no picture named {key!r:.40}.")
        info = found[key]
        values = info.values if info.colour is None else info.colour
    return tile(MatrixInfo(key, "", key, values, "", ""), rows, columns)


def read(
    port: str,
    source: str,
    n: Any,
    in_dim: Any,
    features: Any,
    seed: Any,
    data_seed: Any,
    layer: str,
    file: str | None,
    tensor: str | None,
    weight_text: str,
    bias_text: str,
) -> tuple[DenseCase, Given]:
    """What the form holds, checked."""
    asked = {"N": n, "in": in_dim, "features": features, "init seed": seed, "data seed": data_seed}
    n, in_dim, features, seed, data_seed = (limits.whole(k, v) for k, v in asked.items())
    for name, value, known in (("port", port, PORTS), ("source", source, SOURCES)):
        if value not in known:
            raise ArgumentError(f"{name} = {value!r:.40} is none of {', '.join(known)}.")
    case = DenseCase(port, source, n, in_dim, features, seed, data_seed, layer)
    return case, Given(file, tensor, weight_text or "", bias_text or "")


def restored(query: Mapping[str, str]) -> list[Any]:
    """What a link sets: the recipe's components, the visible group, the column."""
    choices = {"port": PORTS, "source": ("random", "real"), "layer": real_layers()}
    case = from_query(DenseCase(), query, choices)
    visible = [gr.update(visible=name == case.source) for name in SOURCES]
    values = [getattr(case, name) for name in RECIPE]
    return [*values, *visible]


@in_lens
def show(*values: Any) -> dict[str, Any]:
    """Form -> column."""
    return view(*read(*values))


def _form() -> dict[str, Any]:
    """The controls by the names of the recipe and of `Given`, as they first stand, and buttons."""
    default = DenseCase()
    port = gr.Radio(
        [(p.title, name) for name, p in PORTS.items()],
        value=default.port,
        label="How the port is done",
        elem_classes="pl-list",
    )
    source = gr.Radio(
        [(title, name) for name, title in SOURCES.items()],
        value=default.source,
        label="Where the weight comes from",
        elem_classes="pl-list",
    )
    form: dict[str, Any] = {"port": port, "source": source, **_origins(default)}
    with gr.Row():
        for name, label in (("n", "N"), ("data_seed", "data seed"), ("seed", "init seed")):
            form[name] = gr.Number(getattr(default, name), label=label, precision=0, min_width=50)
    return form


def _origins(default: DenseCase) -> dict[str, Any]:
    """What each source asks for; the group of one source has its name."""
    form: dict[str, Any] = {}
    with gr.Group(visible=default.source == "random") as form["random"]:
        with gr.Row():
            for name, label in (("in_dim", "in"), ("features", "features")):
                form[name] = gr.Number(
                    getattr(default, name), label=label, precision=0, min_width=60
                )
        with gr.Row():
            form["square"] = gr.Button("Make it square", size="sm", min_width=60)
            form["oblong"] = gr.Button("Make it non-square", size="sm", min_width=60)
    form["layer"] = form["real"] = gr.Dropdown(
        real_layers(), value=default.layer, label="Layer", visible=default.source == "real"
    )
    with gr.Group(visible=default.source == "paste") as form["paste"]:
        form["weight_text"] = gr.Textbox(PASTE_EXAMPLE, label="weight (out, in)", lines=4)
        form["bias_text"] = gr.Textbox("", label="bias (out), optional", lines=1)
    with gr.Group(visible=default.source == "upload") as form["upload"]:
        form["file"] = gr.File(label="A .safetensors file", file_types=[".safetensors"], height=120)
        form["tensor"] = gr.Dropdown([], label="2-D tensor", interactive=True)
    return form


def build() -> frame.Built:
    """The controls and the lens of the tab, wired."""
    with frame.tab_row():
        with frame.controls():
            form = _form()
        with frame.result():
            result = lens.Lens(view(DenseCase(), Given()), elem_id="dense-lens")
            closer = lens.Tile("dense-lens")
    recipe, groups = ([form[name] for name in names] for names in (RECIPE, SOURCES))
    inputs = [*recipe, *(form[name] for name in ("file", "tensor", "weight_text", "bias_text"))]
    draw = {"fn": show, "inputs": inputs, "outputs": result, **frame.QUIET}
    gr.on(
        [c.input for c in (*recipe, form["tensor"])]
        + [form[name].change for name in ("weight_text", "bias_text")],
        trigger_mode="always_last",
        concurrency_limit=frame.LIGHT,
        **draw,
    )
    form["source"].change(
        lambda chosen: [gr.update(visible=name == chosen) for name in SOURCES],
        form["source"],
        groups,
        **frame.QUIET,
    )
    sizes = [form["in_dim"], form["features"]]
    form["square"].click(make_square, sizes, sizes, **frame.QUIET).then(**draw)
    form["oblong"].click(make_oblong, sizes, sizes, **frame.QUIET).then(**draw)
    form["file"].change(list_tensors, form["file"], form["tensor"], **frame.QUIET).then(**draw)
    result.act(lambda: "transpose", None, form["port"], **frame.QUIET).then(**draw)
    result.zoom(zoomed, inputs, closer, **frame.QUIET)
    return frame.Built([*recipe, *groups], show, inputs, result)


def make_square(in_dim: Any, features: Any) -> tuple[Any, Any]:
    """Both sizes equal to `in`."""
    return in_dim, in_dim


def make_oblong(in_dim: Any, features: Any) -> tuple[Any, Any]:
    """Two outputs fewer than inputs, if the sizes are equal."""
    if in_dim != features or not isinstance(in_dim, (int, float)):
        return in_dim, features
    return in_dim, in_dim - 2 if in_dim > 2 else in_dim + 2


@as_toast
def list_tensors(file: str | None) -> Any:
    """The 2-D tensors of an uploaded file, the first one chosen."""
    if not file:
        return gr.Dropdown([], value=None)
    with open_checkpoint(file, max_bytes=limits.FILE_BYTES) as checkpoint:
        names = matrices_of(checkpoint.specs)
    if not names:
        raise ArgumentError(
            "This file holds no 2-D floating tensor. Upload one that has a linear weight."
        )
    return gr.Dropdown(names, value=names[0])


@as_toast
def zoomed(event: gr.EventData, *values: Any) -> dict[str, Any]:
    """Zoom event -> tile."""
    asked = event._data
    case, given = read(*values)
    return part(case, given, str(asked.get("key")), tuple(asked["rows"]), tuple(asked["columns"]))
