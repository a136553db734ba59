"""The Dense port: its contract, its verdicts, its refusals, and the program it prints."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from porting import dense_code
from porting.compare import compare, dense_bound, dense_reference
from porting.dense import load_hf_dense
from porting.dense_case import DenseCase, random_inputs, random_layer
from porting.dense_ports import PORTS, run_dense
from porting.errors import ArgumentError, LimitError, PortingError

SHAPES = [(1, 1, 1), (1, 2, 3), (2, 7, 5), (11, 3, 17), (5, 1, 13), (3, 13, 1), (4, 16, 16), (2, 257, 101)]  # fmt: skip
FAULTS = [name for name in PORTS if name != "transpose"]


def layer(n: int, in_dim: int, features: int, data_seed: int = 0):
    return random_inputs(n, in_dim, data_seed), *random_layer(in_dim, features, data_seed)


@pytest.mark.parametrize(("n", "in_dim", "features"), SHAPES)
def test_the_outputs_are_those_of_pytorch(n, in_dim, features):
    x, weight, bias = layer(n, in_dim, features)
    out = load_hf_dense(3.0, x, weight.reshape(-1), bias, float(features))
    assert isinstance(out, jax.Array)
    assert out.shape == (n * features,)
    assert out.dtype == jnp.float32
    reference = dense_reference(x, weight, bias)
    assert compare(
        reference, np.asarray(out).reshape(n, features), dense_bound(x, weight, bias)
    ).within


def test_the_seed_changes_nothing_for_its_values_are_not_used():
    x, weight, bias = layer(2, 7, 5)
    first, second = (load_hf_dense(s, x, weight.reshape(-1), bias, 5) for s in (0.0, 4.2e9))
    assert first.tolist() == second.tolist()


def test_lists_jax_arrays_and_wider_numbers_are_taken():
    x, weight, bias = layer(2, 7, 5)
    expected = load_hf_dense(0, x, weight.reshape(-1), bias, 5).tolist()
    flat = weight.reshape(-1)
    assert load_hf_dense(0, x.tolist(), flat.tolist(), bias.tolist(), 5).tolist() == expected
    assert load_hf_dense(0, *map(jnp.asarray, (x, flat, bias)), jnp.float32(5)).tolist() == expected
    wide = [a.astype(np.float64) for a in (x, flat, bias)]
    assert load_hf_dense(0, *wide, 5.0).tolist() == expected
    assert load_hf_dense(0, [[1, 2]], [3, 4], [5], 1).tolist() == [16.0]


def test_it_can_be_differentiated_and_compiled():
    x, weight, bias = layer(2, 7, 5)
    run = jax.jit(lambda w: load_hf_dense(0, x, w, bias, 5).sum())
    flat = jnp.asarray(weight.reshape(-1))
    expected = np.broadcast_to(x.sum(axis=0), (5, 7)).reshape(-1)
    np.testing.assert_allclose(jax.grad(run)(flat), expected, rtol=1e-5, atol=1e-6)


X, FLAT, BIAS = np.ones((2, 3), np.float32), np.ones(15, np.float32), np.ones(5, np.float32)
NO_NUMBERS = "{} is not an array of real numbers. Pass a NumPy or JAX array."


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("a", X, FLAT, BIAS, 5), ArgumentError, "seed = 'a' is not a seed. Pass a whole number."),
        ((np.nan, X, FLAT, BIAS, 5), ArgumentError, "seed = nan is not a seed. Pass a whole number."),
        ((-1.0, X, FLAT, BIAS, 5), ArgumentError, "seed = -1 is not a seed. Pass a whole number from 0 to 4,294,967,295."),
        ((True, X, FLAT, BIAS, 5), ArgumentError, "seed = True is not a seed. Pass a whole number."),
        ((0, X, FLAT, BIAS, np.nan), ArgumentError, "features = nan is not a whole number. Pass a whole number."),
        ((0, X, FLAT, BIAS, 2.5), ArgumentError, "features = 2.5 is not a whole number. Pass a whole number."),
        ((0, X, FLAT, BIAS, -5), ArgumentError, "features = -5 is not a size. Pass a whole number from 1 to 1,048,576."),
        ((0, X, FLAT, BIAS, 0), ArgumentError, "features = 0 is not a size. Pass a whole number from 1 to 1,048,576."),
        ((0, X, FLAT, BIAS, 1e12), LimitError, "features = 1,000,000,000,000 is larger than the limit of 1,048,576. Pass a whole number from 1 to 1,048,576."),
        ((0, X, FLAT, BIAS, None), ArgumentError, "features = None is not a number. Pass a whole number."),
        ((0, X[0], FLAT, BIAS, 5), ArgumentError, "x has shape (3,). Pass an array of 2 axes: (N, in_dim)."),
        ((0, X[:0], FLAT, BIAS, 5), ArgumentError, "x has shape (0, 3), which holds no numbers. Pass at least one along each axis."),
        ((0, "x", FLAT, BIAS, 5), ArgumentError, NO_NUMBERS.format("x")),
        ((0, [[1, 2], [3]], FLAT, BIAS, 5), ArgumentError, NO_NUMBERS.format("x")),
        ((0, X * 1j, FLAT, BIAS, 5), ArgumentError, NO_NUMBERS.format("x")),
        ((0, None, FLAT, BIAS, 5), ArgumentError, NO_NUMBERS.format("x")),
        ((0, X, FLAT.reshape(5, 3), BIAS, 5), ArgumentError, "hf_kernel_flat has shape (5, 3). Pass an array of 1 axis: (features·in_dim,)."),
        ((0, X, FLAT[:-1], BIAS, 5), ArgumentError, "hf_kernel_flat has 14 numbers; features × in_dim = 5 × 3 = 15. Pass the whole weight (features, in_dim), flattened."),
        ((0, X, np.full(15, 1e300), BIAS, 5), ArgumentError, "hf_kernel_flat holds a number beyond the range of float32. Scale it down."),
        ((0, X, FLAT, BIAS[:, None], 5), ArgumentError, "hf_bias_flat has shape (5, 1). Pass an array of 1 axis: (features,)."),
        ((0, X, FLAT, BIAS[:-1], 5), ArgumentError, "hf_bias_flat has 4 numbers and features = 5. Pass one bias for each output."),
    ],
)  # fmt: skip
def test_bad_input_word_for_word(arguments, kind, message):
    with pytest.raises(PortingError) as error:
        load_hf_dense(*arguments)
    assert type(error.value) is kind
    assert str(error.value) == message


def test_an_output_that_would_not_fit_is_refused_before_it_is_made():
    with pytest.raises(LimitError) as error:
        load_hf_dense(0, np.ones((8192, 1)), np.ones(8192), np.ones(8192), 8192.0)
    assert str(error.value) == (
        "the output would hold 8,192 × 8,192 = 67,108,864 numbers; the limit is 16,777,216. "
        "Choose smaller sizes."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, np.ones((5, 7)), None, "transpose"), "x has shape (2, 3) and the weight (out, in) = (5, 7). Pass inputs (N, 7)."),
        ((X, np.ones((5, 3)), np.ones(3), "transpose"), "bias has shape (3,) and the weight 5 rows (out). Pass one number for each output."),
        ((X, np.ones((5, 3)), None, "flip"), "port = 'flip' is none of transpose, untransposed, reshape, fortran, no_bias, init."),
    ],
)  # fmt: skip
def test_a_run_that_does_not_fit_together(arguments, message):
    with pytest.raises(ArgumentError) as error:
        run_dense(*arguments)
    assert str(error.value) == message


def verdicts(x, weight, bias) -> dict[str, str]:
    return {name: run_dense(x, weight, bias, name).verdict.kind for name in PORTS}


ALL_SILENT = {
    "transpose": "exact",
    "untransposed": "silent",
    "reshape": "silent",
    "fortran": "silent",
    "no_bias": "values",
    "init": "values",
}


@pytest.mark.parametrize("size", [2, 3, 7, 16, 101])
def test_every_fault_of_a_square_layer_is_seen(size):
    assert verdicts(*layer(5, size, size)) == ALL_SILENT


@pytest.mark.parametrize(("in_dim", "features"), [(7, 5), (3, 11), (257, 101)])
def test_a_forgotten_transpose_of_a_non_square_layer_crashes(in_dim, features):
    assert verdicts(*layer(5, in_dim, features)) == ALL_SILENT | {"untransposed": "crash"}


@pytest.mark.parametrize(("in_dim", "features"), [(1, 7), (7, 1)])
def test_one_row_or_column_reads_the_same_in_every_order(in_dim, features):
    unsure = {"reshape": "unsure", "fortran": "unsure", "untransposed": "crash"}
    assert verdicts(*layer(5, in_dim, features)) == ALL_SILENT | unsure


LAYOUTS_UNSURE = ALL_SILENT | dict.fromkeys(("untransposed", "reshape", "fortran"), "unsure")


def test_weights_that_are_their_own_transpose():
    x, weight, bias = layer(5, 7, 7)
    for same in (weight + weight.T, np.eye(7, dtype="f"), np.ones((7, 7), "f"), weight * 0):
        assert verdicts(x, same, bias) == LAYOUTS_UNSURE


def test_a_layer_of_one_number():
    assert verdicts(*layer(5, 1, 1)) == LAYOUTS_UNSURE


def test_a_zero_bias_hides_a_forgotten_one():
    x, weight, bias = layer(5, 7, 7)
    for zero in (None, bias * 0):
        assert verdicts(x, weight, zero) == ALL_SILENT | {"no_bias": "unsure"}


def test_inputs_of_zeros_hide_the_layout():
    x, weight, bias = layer(5, 7, 7)
    assert verdicts(x * 0, weight, bias) == LAYOUTS_UNSURE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_does_not_hide_a_fault_or_make_one(bad):
    x, weight, bias = layer(5, 7, 7)
    weight[2, 3] = bad
    assert verdicts(x, weight, bias) == ALL_SILENT


def test_an_overflow_is_said_to_be_one():
    x, weight, bias = layer(5, 7, 7)
    verdict = run_dense(x, weight * np.float32(3e38), bias, "transpose").verdict
    assert verdict.kind == "values"
    assert "leave the range of float32" in verdict.text


@pytest.mark.parametrize("data_seed", range(20))
def test_the_clean_port_is_never_accused(data_seed):
    rng = np.random.default_rng(data_seed)
    n, in_dim, features = rng.integers(1, 70, 3).tolist()
    result = run_dense(*layer(n, in_dim, features, data_seed), "transpose")
    assert result.verdict.kind == "exact"
    assert result.verdict.fix == ""


def test_the_words_of_the_first_screen():
    verdict = run_dense(*layer(6, 6, 6), "untransposed").verdict
    assert verdict.title == "Silent wrong layout"
    assert verdict.text.startswith("Shapes agree. ")
    assert "of 36 outputs" in verdict.text
    assert "Your kernel is the weight, not its transpose." in verdict.text
    assert verdict.fix == "kernel = weight.T"


def test_a_crash_carries_the_words_of_flax():
    verdict = run_dense(*layer(5, 7, 3), "untransposed").verdict
    assert verdict.text.startswith("Flax asked for a kernel (in, out) = (7, 3) and got (3, 7).")
    assert "ScopeParamShapeError" in verdict.detail
    assert "(7, 3)" in verdict.detail
    assert "(3, 7)" in verdict.detail


@pytest.mark.parametrize("name", PORTS)
def test_the_fix_of_every_fault_makes_it_exact(name):
    fixed = {"kernel = weight.T": "untransposed", "bias = torch_bias": "no_bias"}
    x, weight, bias = layer(5, 7, 7)
    result = run_dense(x, weight, bias, name)
    if name == "transpose":
        return
    assert result.port.fix in {*fixed, "kernel, bias = weight.T, torch_bias"}
    scope = {"weight": weight, "torch_bias": bias}
    exec(result.port.fix, scope)  # the line that the banner shows
    ported = scope.get("kernel", result.kernel), scope.get("bias", bias)
    assert compare(
        result.comparison.reference, x @ ported[0] + ported[1], result.comparison.bound
    ).within


@pytest.mark.parametrize("name", [n for n in PORTS if PORTS[n].kernel])
def test_places_lead_every_cell_back_to_the_file(name):
    result = run_dense(*layer(5, 7, 3), name)
    np.testing.assert_array_equal(result.weight.reshape(-1)[result.places], result.kernel)
    assert run_dense(*layer(5, 7, 3), "init").places is None


def in_fresh_interpreter(text: str, folder) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def program(case: DenseCase, source: str | None = None) -> str:
    return dense_code.dense_program(case, source or dense_code.random_source(case))


def largest_printed(text: str) -> float:
    assert text.startswith("largest difference: "), text
    return float(text.rpartition(" ")[2])


def test_the_program_runs_in_an_empty_file(tmp_path):
    text = program(DenseCase(port="transpose", n=3, in_dim=7, features=5))
    assert largest_printed(in_fresh_interpreter(text, tmp_path)) < 1e-5


def test_the_program_of_a_crash_crashes(tmp_path):
    text = program(DenseCase(port="untransposed", in_dim=7, features=5))
    assert "ScopeParamShapeError" in in_fresh_interpreter(text, tmp_path)


@pytest.mark.parametrize("port", PORTS)
def test_the_program_shows_the_difference_that_the_page_shows(port, capsys):
    case = DenseCase(port=port, n=3, in_dim=7, features=7, data_seed=11, seed=2)
    exec(program(case), {})
    shown = run_dense(*layer(3, 7, 7, 11), port, 2).comparison
    found = largest_printed(capsys.readouterr().out)
    assert found == pytest.approx(shown.largest, rel=1e-3, abs=1e-6)


def test_the_program_of_a_file_and_of_pasted_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, weight, bias = layer(3, 7, 5)
    save_file({"fc.weight": weight, "fc.bias": bias}, "it's.safetensors")
    sources = [
        dense_code.file_source("it's.safetensors", "fc.weight", "fc.bias", 5),
        dense_code.file_source("it's.safetensors", "fc.weight", None, 5),
        dense_code.pasted_source(weight.tolist(), bias.tolist()),
        dense_code.pasted_source(weight.tolist(), None),
    ]
    for source in sources:
        exec(program(DenseCase(port="transpose", n=3, in_dim=7, features=5), source), {})
        assert largest_printed(capsys.readouterr().out) < 1e-5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_inputs(0, 3, 0), "N = 0 is not a size. Pass a whole number from 1 to 8,192."),
        (lambda: random_layer(3, 9000, 0), "features = 9,000 is larger than the limit of 8,192. Pass a whole number from 1 to 8,192."),
        (lambda: random_layer(8192, 8192, 0), "weight would hold 8,192 × 8,192 = 67,108,864 numbers; the limit is 16,777,216. Choose smaller sizes."),
        (lambda: random_layer(3, 3, -1), "data seed = -1 is not a seed. Pass a whole number from 0 to 4,294,967,295."),
    ],
)  # fmt: skip
def test_sizes_that_a_form_may_not_have(call, message):
    with pytest.raises(PortingError) as error:
        call()
    assert str(error.value) == message


def test_a_case_is_a_value():
    assert replace(DenseCase(), n=3) == DenseCase(n=3)
    assert hash(DenseCase()) == hash(DenseCase())
