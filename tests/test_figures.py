"""What the pictures hold: values, places, ranges, marks; no web page is needed."""

import base64

import numpy as np
import pytest

from porting.dense_case import random_inputs, random_layer
from porting.dense_ports import PORTS, run_dense
from porting.figures import scales
from porting.figures.dense import STRIP_CELLS, layout_infos, output_infos, strip_info
from porting.figures.matrix import EXACT_CELLS, MatrixInfo, encode, matrix_panel, tile
from porting.figures.stages import StageBar, stage_chart


def result(port: str = "untransposed", n: int = 5, in_dim: int = 7, features: int = 7):
    return run_dense(random_inputs(n, in_dim, 0), *random_layer(in_dim, features, 0), port)


def info(values: np.ndarray, **more) -> MatrixInfo:
    return MatrixInfo("w", "weight (out, in)", "weight", values, "out", "in", **more)


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.mark.parametrize("port", PORTS)
def test_the_three_matrices_of_a_port(port):
    found = result(port)
    weight, kernel, needed = layout_infos(found)
    np.testing.assert_array_equal(weight.values, found.weight)
    np.testing.assert_array_equal(kernel.values, found.kernel)
    np.testing.assert_array_equal(needed.values, found.weight.T)
    assert weight.limit == kernel.limit == needed.limit >= np.abs(found.weight).max()
    for picture in (weight, needed) if port == "init" else (weight, kernel, needed):
        np.testing.assert_array_equal(found.weight.reshape(-1)[picture.places], picture.values)
    assert (kernel.places is None) == (port == "init")


def test_the_axes_say_which_one_counts_the_outputs():
    weight, kernel, needed = layout_infos(result())
    assert [i.output_axis for i in (weight, kernel, needed)] == ["row", "column", "column"]
    assert [(i.rows, i.columns) for i in (weight, needed)] == [("out", "in"), ("in", "out")]


def test_after_a_crash_the_kernel_feeds_nothing_and_there_is_no_output():
    crashed = result("untransposed", in_dim=7, features=5)
    kernel = layout_infos(crashed)[1]
    assert (kernel.output_axis, kernel.rows, kernel.columns) == ("", "axis 0", "axis 1")
    assert output_infos(crashed) == []


def test_the_outputs_are_coloured_by_what_rounding_explains():
    found = result()
    pictures = {i.key: i for i in output_infos(found)}
    assert list(pictures) == ["reference", "output", "difference", "ratio"]
    assert pictures["reference"].limit == pictures["output"].limit
    np.testing.assert_array_equal(pictures["ratio"].colour, scales.excess(found.comparison.ratio))
    clean = {i.key: i for i in output_infos(result("transpose"))}
    assert not clean["ratio"].colour.any()
    assert not clean["difference"].colour.any()


def test_the_strip_is_the_file_in_order():
    values = np.arange(7 * 31, dtype=np.float32).reshape(7, 31)
    strip = strip_info(values, 1.0)
    places = strip.places.reshape(-1)
    np.testing.assert_array_equal(places[: values.size], np.arange(values.size))
    assert (places[values.size :] == -1).all()
    np.testing.assert_array_equal(strip.values.reshape(-1)[: values.size], values.reshape(-1))
    assert strip_info(np.zeros((STRIP_CELLS + 1, 1)), 1.0) is None


def test_a_panel_sends_every_number_once_and_as_bytes():
    values = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    panel = matrix_panel(info(values, places=np.arange(35).reshape(5, 7)))
    np.testing.assert_array_equal(decoded(panel["values"], "<f4").reshape(5, 7), values)
    np.testing.assert_array_equal(decoded(panel["places"], "<i4"), np.arange(35))
    assert panel["axes"] == ["out = 5", "in = 7"]
    (trace,) = panel["figure"]["data"]
    assert (trace["zmin"], trace["zmax"]) == (-1.0, 1.0)


def test_nan_and_infinity_are_marks_and_not_colours():
    values = np.array([[np.nan, np.inf, -np.inf, 0.5]])
    panel = matrix_panel(info(values))
    heat, marks = panel["figure"]["data"]
    assert marks["text"] == ["NaN", "+∞", "−∞"]
    assert marks["x"] == [0, 1, 2]
    assert heat["text"] == [["", "", "", ".50"]]


@pytest.mark.parametrize(
    ("value", "plain", "short"),
    [
        (0.0, "0", "0"),
        (-0.134, "−.13", "−0.1"),
        (0.999, "1.0", "1.0"),
        (0.05, ".05", "5e−2"),
        (-9.87, "−9.9", "−9.9"),
        (123.4, "123", "123"),
        (4.8e-7, "5e−7", "5e−7"),
        (-123456.0, "−1e5", "−1e5"),
    ],
)
def test_numbers_in_cells_are_short(value, plain, short):
    panels = [matrix_panel(info(np.array([[value]]), text=kind)) for kind in ("plain", "short")]
    assert [p["figure"]["data"][0]["text"][0][0] for p in panels] == [plain, short]


def test_a_big_matrix_is_pooled_and_says_so():
    values = np.random.default_rng(0).standard_normal((401, 307)).astype(np.float32)
    assert values.size > EXACT_CELLS
    panel = matrix_panel(info(values))
    assert panel["pooled"] == "Each cell is the largest of 5 × 4."
    assert panel["shape"] == [401, 307]
    assert (panel["rows"], panel["columns"]) == (81, 77)
    assert [len(n) for n in panel["norms"]] == [81, 77]
    assert max(panel["norms"][0]) == 1.0
    assert panel["places"] is None


def test_a_tile_is_the_part_that_was_asked_for():
    values = np.random.default_rng(0).standard_normal((401, 307)).astype(np.float32)
    part = tile(info(values), (100, 153), (200, 261))
    found = decoded(part["values"], "<f4").reshape(part["rows"], part["columns"])
    np.testing.assert_array_equal(found, values[100:153, 200:261])
    assert part["extent"] == [100, 153, 200, 261]


@pytest.mark.parametrize(
    ("rows", "columns", "extent"),
    [
        ((-50, 10**9), (-1, 10**12), [0, 401, 0, 307]),
        ((900, 901), (-9, -8), [400, 401, 0, 1]),
        ((7, 3), (5, 5), [7, 8, 5, 6]),
    ],
)
def test_a_tile_outside_is_clamped(rows, columns, extent):
    assert tile(info(np.zeros((401, 307), np.float32)), rows, columns)["extent"] == extent


def test_a_stage_is_labelled_with_what_its_error_is_times_rounding():
    ratios = (0.0, 3.21, 32.1, 321.0, 7_123.0, 2e9, np.inf)
    bars = [StageBar(f"s{i}", r, "wrong" if r else "right", "") for i, r in enumerate(ratios)]
    figure = stage_chart(bars)
    labels = ["✓", "<b>3.2× starts here</b>", "32×", "320×", "7·10³×", "2·10⁹×", "∞×"]
    assert list(figure.data[0].text) == labels
    assert max(figure.data[0].x) == 1e9
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "10²", "10⁴", "10⁶", "10⁸"]
    assert list(stage_chart(bars[:3]).layout.xaxis.ticktext) == ["0", "1", "10²"]


def test_one_range_for_all_that_is_compared():
    assert scales.symmetric_limit(np.array([np.nan, 1.0]), None, np.array([[-3.0]])) == 3.0
    assert scales.symmetric_limit(np.zeros(3)) == 1.0
    assert scales.symmetric_limit(np.array([np.inf])) == 1.0


def test_excess_is_zero_up_to_the_bound():
    ratios = np.array([0.0, 0.5, 1.0, 10.0, 1e9, np.inf])
    np.testing.assert_allclose(scales.excess(ratios), [0, 0, 0, 1, 6, 6])


def test_bytes_are_in_reading_order_whatever_the_memory_order():
    matrix = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert encode(matrix.T) == encode(np.array(matrix.T, order="C"))
