"""The endpoints, as a program meets them through `gradio_client`."""

import http.client
import json
from urllib.parse import urlsplit

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from porting import load_hf_dense as engine_dense
from porting import port_transformer_block
from porting.dense_case import random_inputs, random_layer
from porting.ui.endpoints import ENDPOINTS
from porting.ui.guard import JSON_BYTES

NAMES = {f"/{endpoint.__name__}" for endpoint in ENDPOINTS}
X, (WEIGHT, BIAS) = random_inputs(3, 7, 0), random_layer(7, 5, 0)


@pytest.fixture(scope="module")
def client(address, tmp_path_factory) -> Client:
    return Client(address, verbose=False, download_files=tmp_path_factory.mktemp("client"))


def test_only_the_documented_endpoints_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == NAMES
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.__name__)
def test_every_endpoint_has_types_and_a_description(client, endpoint):
    told = client.view_api(return_format="dict")["named_endpoints"][f"/{endpoint.__name__}"]
    names = [p["parameter_name"] for p in told["parameters"]]
    code = endpoint.__code__
    assert names == list(code.co_varnames[: code.co_argcount])
    for parameter in told["parameters"]:
        assert parameter["type"], parameter
    assert told["description"].startswith(endpoint.__doc__.splitlines()[0][:40])
    assert told["returns"][0]["type"]
    optional = [p["parameter_name"] for p in told["parameters"] if p["parameter_has_default"]]
    assert optional == names[len(names) - len(endpoint.__defaults__ or ()) :]


def test_a_dense_layer(client):
    out = client.predict(
        0, X.tolist(), WEIGHT.reshape(-1).tolist(), BIAS.tolist(), 5, api_name="/load_hf_dense"
    )
    expected = engine_dense(0, X, WEIGHT.reshape(-1), BIAS, 5)
    np.testing.assert_array_equal(np.float32(out), expected)


def test_an_encoder_block(client):
    x = random_inputs(3, 14, 0)
    out = client.predict(
        seed=3, x=x.tolist(), num_heads=2, d_model=14, d_ff=11, api_name="/port_transformer_block"
    )
    assert out == pytest.approx(port_transformer_block(3, x, 2, 14, 11).tolist())
    assert out[0] == out[1]


def test_a_torch_layer(client):
    rng = np.random.default_rng(0)
    shapes = {
        "self_attn.in_proj_weight": (42, 14), "self_attn.in_proj_bias": (42,),
        "self_attn.out_proj.weight": (14, 14), "self_attn.out_proj.bias": (14,),
        "linear1.weight": (11, 14), "linear1.bias": (11,), "linear2.weight": (14, 11), "linear2.bias": (14,),
        "norm1.weight": (14,), "norm1.bias": (14,), "norm2.weight": (14,), "norm2.bias": (14,),
    }  # fmt: skip
    state = {key: rng.standard_normal(shape).astype("f") for key, shape in shapes.items()}
    given = {key: array.tolist() for key, array in state.items()}
    leaves = client.predict(given, 2, api_name="/load_torch_encoder_layer")
    assert len(leaves) == 16
    np.testing.assert_array_equal(
        np.float32(leaves["params/ff1/kernel"]), state["linear1.weight"].T
    )
    packed = state["self_attn.in_proj_weight"]
    np.testing.assert_array_equal(np.float32(leaves["params/attn/k_proj/kernel"]), packed[14:28].T)
    del given["norm2.bias"]
    with pytest.raises(AppError, match=r"norm2\.bias"):
        client.predict(given, 2, api_name="/load_torch_encoder_layer")


def test_a_verdict(client):
    square = random_layer(7, 7, 0)[0].tolist()
    found = client.predict(square, api_name="/dense_verdict")
    assert (found["kind"], found["title"], found["fix"]) == (
        "silent",
        "Silent wrong layout",
        "kernel = weight.T",
    )
    assert found["outputs"] == 42
    assert found["over_bound"] > 35
    assert found["kernel"] == square
    found = client.predict(square, port="transpose", x=X.tolist(), api_name="/dense_verdict")
    assert found["kind"] == "exact"
    assert found["worst_over_bound"] < 1
    found = client.predict(
        WEIGHT.tolist(), BIAS.tolist(), "untransposed", api_name="/dense_verdict"
    )
    assert found["kind"] == "crash"
    assert "ScopeParamShapeError" in found["detail"]


def test_a_verdict_on_the_block(client):
    found = client.predict(source="linen-init", fault="", api_name="/block_verdict")
    assert found["kind"] == "exact"
    assert found["wrong_leaves"] == []
    assert found["outputs_agree"]
    found = client.predict(source="torch-init", fault="qk_exchanged", api_name="/block_verdict")
    assert found["kind"] == "silent"
    assert "params/attn/q_proj/kernel" in found["wrong_leaves"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("load_hf_dense", [0, X.tolist(), [1.0], [1.0], 5], "hf_kernel_flat has 1 numbers; features × in_dim = 5 × 7 = 35. Pass the whole weight (features, in_dim), flattened."),
        ("load_hf_dense", [0, X.tolist(), [1.0], [1.0], 1e12], "features = 1,000,000,000,000 is larger than the limit of 1,048,576. Pass a whole number from 1 to 1,048,576."),
        ("load_hf_dense", [True, X.tolist(), [1.0], [1.0], 5], "seed = True is not a seed. Pass a whole number."),
        ("load_hf_dense", [0, "x", [1.0], [1.0], 5], "x is not an array of real numbers. Pass a NumPy or JAX array."),
        ("load_hf_dense", [0, {"a": 1}, None, None, None], "features = None is not a number. Pass a whole number."),
        ("load_hf_dense", [0, [[1.0]] * 8192, [1.0] * 8192, [1.0] * 8192, 8192], "the output would hold 8,192 × 8,192 = 67,108,864 numbers; the limit is 16,777,216. Choose smaller sizes."),
        ("port_transformer_block", [0, [[1.0] * 14], 3, 14, 11], None),
        ("port_transformer_block", [0, [[1.0, 1.0]] * 9000, 2, 2, 11], None),
        ("dense_verdict", [[[1.0, 2.0]], None, "flip"], "port = 'flip' is none of transpose, untransposed, reshape, fortran, no_bias, init."),
        ("dense_verdict", [[[1.0, 2.0]], [1.0, 2.0]], "bias has shape (2,) and the weight 1 rows (out). Pass one number for each output."),
        ("dense_verdict", [[[1.0], [2.0, 3.0]]], "weight is not an array of real numbers. Pass a NumPy or JAX array."),
        ("block_verdict", ["<b>"], "source = '<b>' is none of linen-init, torch-init, m6aformer."),
        ("block_verdict", ["linen-init", "nothing"], None),
        ("block_verdict", ["linen-init", "", False, 10**9], None),
        ("load_torch_encoder_layer", [{}, 2], None),
        ("load_torch_encoder_layer", [{"a": "b"}, 2], None),
        ("load_torch_encoder_layer", [[1], 2], None),
    ],
)  # fmt: skip
def test_a_wrong_request_gets_a_sentence(client, name, arguments, message):
    with pytest.raises(AppError) as error:
        client.predict(*arguments, api_name=f"/{name}")
    said = str(error.value)
    assert "." in said
    assert "Error(" not in said
    assert message is None or said == message


def test_after_a_wrong_request_the_next_one_is_served(client):
    with pytest.raises(AppError):
        client.predict(0, [], [], [], 1, api_name="/load_hf_dense")
    assert client.predict(0, [[1, 2]], [3, 4], [5], 1, api_name="/load_hf_dense") == [16.0]


def post(address: str, path: str, body, headers: dict) -> tuple[int, str]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    try:
        connection.request(
            "POST", path, body, headers, encode_chunked="Transfer-Encoding" in headers
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


JOIN = "/gradio_api/queue/join"


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(address):
    headers = {"Content-Type": "application/json", "Content-Length": str(60 * 2**20)}
    status, words = post(address, JOIN, b"", headers)
    assert status == 413
    assert json.loads(words)["detail"] == "The request is larger than 4 MB. Send less at a time."


def test_a_body_of_unknown_length_is_cut_off(address):
    chunks = (b" " * 65536 for _ in range(JSON_BYTES // 65536 + 2))
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    status, _ = post(address, JOIN, chunks, headers)
    assert status == 413


def test_a_body_within_the_limit_is_read(client):
    many = [[1.0] * 100] * 2000
    out = client.predict(0, many, [1.0] * 100, [0.0], 1, api_name="/load_hf_dense")
    assert out == [100.0] * 2000
