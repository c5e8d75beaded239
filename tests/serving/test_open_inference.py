"""The Open Inference Protocol, asked by another project's client and by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest

from serving.errors import RequestError
from serving.signature import Tensor
from serving.tensors import Call, read_call
from tests.serving import triton
from tests.serving.conftest import RED, Server, encode, predict, running
from tests.serving.tiny import of_tensors

SIZE = "Inference-Header-Content-Length"
PIXELS = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tensor_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tensors") / "mixture.onnx"
    onnx.save(of_tensors(), path)
    return path


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory, tensor_file: Path) -> Iterator[Server]:
    """A server of a network that takes no pictures, with a key."""
    limits = ("--max-rows", "50", "--max-body-mib", "0.5", "--max-json-mib", "0.25")
    with running(tmp_path_factory.mktemp("server"), "--model", str(tensor_file), *limits) as started:
        yield started


def image(**changes: Any) -> dict[str, Any]:
    given = {"name": "image", "shape": [2, 8, 8, 3], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
    return {key: value for key, value in {**given, **changes}.items() if value is not None}


def asked(server: Server, content: Any, tail: bytes = b"", **headers: str) -> httpx.Response:
    """The answer to an inference request of the model ``tiny``."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    if tail:
        headers.setdefault(SIZE, str(len(body)))
    return httpx.post(f"{server.url}/v2/models/tiny/infer", content=body + tail, headers=headers)


def test_triton_gets_onnx_runtimes_numbers_for_pictures(server: Server, model_file: Path) -> None:
    triton.assert_equals_onnxruntime(server.url, model_file)


def test_triton_gets_onnx_runtimes_numbers_for_tensors_of_many_types(
    tensors: Server, tensor_file: Path
) -> None:
    triton.assert_equals_onnxruntime(tensors.url, tensor_file, batch=5, time=7)


def test_triton_finds_the_server_its_model_and_its_version(server: Server, tensors: Server) -> None:
    version = httpx.get(f"{server.url}/v1/model").json()["version"]
    with triton.client(server.url) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("tiny") and client.is_model_ready("tiny", version)
        assert not client.is_model_ready("tiny", "2") and not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("tiny", version) == {
            "name": "tiny",
            "versions": [version],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
        }
        with pytest.raises(Exception, match=r"\[404\] Version '2' is not served"):
            triton.infer(client, "tiny", {"image": PIXELS}, True, ["probabilities"], model_version="2")
        answer = triton.infer(
            client, "tiny", {"image": PIXELS}, True, ["probabilities"], model_version=version, request_id="7"
        )
        assert answer["probabilities"].shape == (2, 3)
    types = {tensor["datatype"] for tensor in metadata(tensors)["inputs"]}
    assert types == {"FP32", "FP64", "FP16", "INT64", "BOOL"}


def metadata(server: Server) -> dict[str, Any]:
    return httpx.get(f"{server.url}/v2/models/mixture").json()


def test_requests_of_both_kinds_at_once_keep_their_numbers(server: Server, model_file: Path) -> None:
    """A request is a call by itself, so its numbers do not depend on what else is asked."""
    session = onnxruntime.InferenceSession(model_file)
    expected = np.asarray(session.run(None, {"image": PIXELS})[0]).tobytes()

    def one(number: int) -> bool:
        if number % 2:
            return predict(server, encode(RED)).json()["predictions"][0]["class_name"] == "red"
        content = {"id": str(number), "inputs": [image(data=None, parameters={"binary_data_size": 384})]}
        content["parameters"] = {"binary_data_output": True}
        answer = asked(server, content, PIXELS.tobytes())
        head = answer.content[: int(answer.headers[SIZE])]
        assert json.loads(head)["id"] == str(number)
        return answer.content[len(head) :] == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))


def test_nested_and_flat_data_are_the_same(server: Server) -> None:
    flat, nested = (
        asked(server, {"inputs": [image(data=data)]}).json()
        for data in (PIXELS.ravel().tolist(), PIXELS.tolist())
    )
    assert flat == nested
    assert flat["model_name"] == "tiny"
    assert flat["outputs"][0]["shape"] == [2, 3] and len(flat["outputs"][0]["data"]) == 6


LONG = {"inputs": [image(shape=[5, 8, 8, 3], data=[0] * 960)]}  # the server takes 4 pictures
BINARY = image(data=None, parameters={"binary_data_size": 384})
BAD = {
    "not JSON": (b"{", 400, "EOF while parsing"),
    "no inputs": ({}, 400, "inputs: Field required"),
    "not an object": ([], 400, "The body"),
    "an empty list of inputs": ({"inputs": []}, 400, "lacks the input image"),
    "another input": ({"inputs": [image(name="x")]}, 400, "No input is named 'x'; there is image."),
    "an input twice": ({"inputs": [image(), image()]}, 400, "The input image occurs twice."),
    "another type": ({"inputs": [image(datatype="FP32")]}, 400, "datatype must be UINT8, got 'FP32'"),
    "another shape": ({"inputs": [image(shape=[2, 8, 8, 1])]}, 400, "shape must be [-1, 8, 8, 3]"),
    "another rank": ({"inputs": [image(shape=[384])]}, 400, "shape must be [-1, 8, 8, 3]"),
    "nothing": ({"inputs": [image(shape=[0, 8, 8, 3], data=[])]}, 400, "inputs.0.shape.0"),
    "a fraction of a size": ({"inputs": [image(shape=[1.5, 8, 8, 3])]}, 400, "inputs.0.shape.0"),
    "too many rows": (LONG, 413, "has 5 rows; 4 at most"),
    "far too much data": ({"inputs": [image(data=[0] * 9000)]}, 413, "more than the network takes with 4 rows"),
    "far too many inputs": (b'{"inputs": [' + b"1," * 5000 + b"1]}", 413, "more than the network takes with 4 rows"),
    "too little data": ({"inputs": [image(data=[0] * 383)]}, 400, "flat or nested"),
    "ragged data": ({"inputs": [image(data=[[0] * 192, [0] * 191, [0]])]}, 400, "flat or nested"),
    "deep data": ({"inputs": [image(data=[[[[[0]]]]])]}, 400, "flat or nested"),
    "a half nested": ({"inputs": [image(data=PIXELS.reshape(2, 192).tolist())]}, 400, "flat or nested"),
    "a large number": ({"inputs": [image(data=[256] * 384)]}, 400, "numbers that fit uint8"),
    "a negative number": ({"inputs": [image(data=[-1] * 384)]}, 400, "numbers that fit uint8"),
    "a fraction": ({"inputs": [image(data=[0.5] * 384)]}, 400, "numbers that fit uint8"),
    "a string": ({"inputs": [image(data=["1"] * 384)]}, 400, "numbers that fit uint8"),
    "a truth value": ({"inputs": [image(data=[True] * 384)]}, 400, "numbers that fit uint8"),
    "no data": ({"inputs": [image(data=None)]}, 400, "either data or binary_data_size"),
    "bytes that are not sent": ({"inputs": [BINARY]}, 400, "384 bytes should follow, but 0 are left"),
    "a size that is a string": (
        {"inputs": [image(data=None, parameters={"binary_data_size": "384"})]}, 400, "must be of type int"),
    "another size": (
        {"inputs": [image(data=None, parameters={"binary_data_size": 383})]}, 400, "must be 384, got 383"),
    "a negative size": (
        {"inputs": [image(data=None, parameters={"binary_data_size": -384})]}, 400, "must be 384, got -384"),
    "shared memory": (
        {"inputs": [image(data=None, parameters={"shared_memory_region": "a"})]}, 400, "'shared_memory_region' is unknown"),
    "a sequence": ({"inputs": [image()], "parameters": {"sequence_id": 1}}, 400, "'sequence_id' is unknown"),
    "classification": (
        {"inputs": [image()], "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}]},
        400, "'classification' is unknown"),
    "another output": ({"inputs": [image()], "outputs": [{"name": "logits"}]}, 400, "No output is named 'logits'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_request_gets_a_sentence(server: Server, name: str) -> None:
    content, status, part = BAD[name]
    answer = asked(server, content)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert part in answer.json()["error"] and len(answer.content) < 500


def test_wrong_lengths_of_the_json_get_a_sentence(server: Server) -> None:
    head = json.dumps({"inputs": [BINARY]}).encode()
    for size, part in (
        ("x", "must be a number of bytes, got 'x'"),
        ("-1", "must be a number of bytes"),
        ("9" * 99, "must be a number of bytes"),
        (str(len(head) + 385), f"must be at most {len(head) + 384}"),
        ("0", "The body: "),
        (str(len(head) - 1), "The body: Invalid JSON: EOF"),
    ):
        answer = asked(server, head, PIXELS.tobytes(), **{SIZE: size})
        assert answer.status_code == 400
        assert part in answer.json()["error"]
    assert "1 bytes that belong to no input" in asked(server, head, PIXELS.tobytes() + b"x").json()["error"]
    many = asked(server, b" " * (2**18 - 50) + head, PIXELS.tobytes())
    assert many.status_code == 413 and "The JSON is too large: 0.25 MiB" in many.json()["error"]
    large = asked(server, head, bytes(300_000))  # no 4 pictures have so many bytes
    assert large.status_code == 413 and "The request is too large" in large.json()["error"]


def test_all_failures_under_v2_have_the_protocols_form(server: Server) -> None:
    for method, path, status in (
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/tiny/versions/0/ready", 404),
        ("GET", "/v2/models/tiny/config", 404),
        ("GET", "/v2/models/tiny/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("POST", "/v2", 405),
    ):
        answer = httpx.request(method, server.url + path)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), path
    assert list(httpx.get(f"{server.url}/v3").json()) == ["detail"]


def test_the_key_is_required_except_for_health(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file), MSDARTS_API_KEY="open sesame") as server:
        for path in ("/v2", "/v2/models/tiny", "/v2/models/tiny/ready", "/v2/models/other"):
            answer = httpx.get(server.url + path)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
        assert asked(server, {"inputs": [image()]}).status_code == 401
        key = {"X-API-Key": "open sesame"}
        assert httpx.get(f"{server.url}/v2/models/tiny", headers=key).status_code == 200
        body = {"inputs": [image()]}
        assert httpx.post(f"{server.url}/v2/models/tiny/infer", json=body, headers=key).status_code == 200
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert httpx.get(server.url + path).status_code == 200


def test_a_network_without_pictures_refuses_them_and_unfit_tensors(
    tensors: Server, tensor_file: Path
) -> None:
    refused = predict(tensors, encode(RED))
    assert refused.status_code == 404
    assert (
        refused.json()["detail"]
        == "The served network takes neither pictures nor series; see /v2/models/mixture."
    )
    about = httpx.get(f"{tensors.url}/v1/model").json()
    assert (about["image_shape"], about["class_names"]) == ([], [])
    feeds = dict(triton.made_up(onnxruntime.InferenceSession(tensor_file), np.random.default_rng(0)))

    def error(binary: bool = False, **changes: np.ndarray) -> tuple[int, str]:
        inputs, tail = [], b""
        for name, value in {**feeds, **changes}.items():
            kind = {"f": "FP", "i": "INT"}.get(value.dtype.kind, "")
            entry: dict[str, Any] = {"name": name, "shape": list(value.shape)}
            entry["datatype"] = f"{kind}{8 * value.itemsize}" if kind else "BOOL"
            entry["parameters"] = {"binary_data_size": value.nbytes}
            tail += value.tobytes()
            inputs.append(entry)
        content = {"inputs": inputs, "parameters": {"binary_data_output": binary}}
        head = json.dumps(content).encode()
        answer = httpx.post(
            f"{tensors.url}/v2/models/mixture/infer", content=head + tail, headers={SIZE: str(len(head))}
        )
        return answer.status_code, answer.json()["error"] if answer.status_code != 200 else ""

    assert error() == (200, "")
    assert error(tokens=np.full((3, 3), 100))[0] == 400  # outside the table
    assert "cannot compute these inputs" in error(tokens=np.full((3, 3), 100))[1]
    assert "cannot compute these inputs" in error(x=np.zeros((2, 4), np.float32))[1]  # another batch
    assert error(tokens=np.zeros((3, 17), np.int64))[1].endswith("has 51 rows; 50 at most.")
    assert "ask for binary_data" in error(half=np.zeros((3, 4), np.float16))[1]  # 1 / 0
    assert error(binary=True, half=np.zeros((3, 4), np.float16)) == (200, "")
    assert error(flag=np.frombuffer(b"\2", np.bool_))[1] == "Input flag: a byte of BOOL must be 0 or 1."


@pytest.mark.parametrize("value", ["1e300", "1e999", "NaN", "-Infinity", "1" + "0" * 400, "true", "null"])
def test_what_float32_cannot_hold_is_refused(value: str) -> None:
    known = [Tensor("x", "FP32", (-1, 4))]

    def read(number: str) -> Call:
        body = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ["?", 0, 0.1, 0]}]}
        )
        content = body.replace('"?"', number).encode()
        return read_call(content, len(content), known, known, 1)

    np.testing.assert_array_equal(read("-3e38").feeds["x"], np.array([[-3e38, 0, 0.1, 0]], np.float32))
    with pytest.raises(RequestError, match="numbers that fit float32|Invalid JSON"):
        read(value)


def test_malformed_requests_get_4xx_and_do_no_harm(server: Server) -> None:
    rng = random.Random(3)
    good = json.dumps({"id": "a", "inputs": [image()], "outputs": [{"name": "probabilities"}]}).encode()
    pieces = [b"{", b"}", b"[", b"]", b'"', b",", b"null", b"1e9", b"-", b"\xff", b"\\ud800", b"99999999999"]
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(500):
            body = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                start = rng.randrange(len(body))
                body[start : start + rng.randrange(9)] = rng.choice(pieces)
            headers = {SIZE: str(rng.randrange(2 * len(body)))} if number % 2 else {}
            answer = client.post("/v2/models/tiny/infer", content=bytes(body), headers=headers)
            assert answer.status_code in (200, 400, 413), (answer.status_code, bytes(body))
            assert answer.status_code == 200 or list(answer.json()) == ["error"]
        assert client.post("/v2/models/tiny/infer", content=good).status_code == 200
    assert "Traceback" not in server.log.read_text()
