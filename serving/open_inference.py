"""The Open Inference Protocol, version 2, as KServe and Triton speak it: the routes under ``/v2``.

The tensors of a request go into the network as they are, and the request is one call of the network by itself. So the
answer has the numbers that ONNX Runtime gives for the same file, bit for bit, whatever else is asked at the time.
Requests of the other routes share their calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from serving.api import Direct
from serving.body import receive
from serving.errors import Busy, RequestError
from serving.keys import SCHEMES, Check, needs
from serving.model import Model
from serving.service import Service
from serving.settings import MIB
from serving.signature import NUMPY, Tensor
from serving.tensors import InferRequest, read_call, write_answer

PREFIX = "/v2"
JSON_SIZE = "Inference-Header-Content-Length"
# JSON of more bytes is read by one thread at a time, because it takes a hundred times its size while it is read.
_LARGE_JSON = 2**16
_MODEL = (f"{PREFIX}/models/{{name}}", f"{PREFIX}/models/{{name}}/versions/{{version}}")


class Failure(BaseModel):
    """One sentence that says what is wrong."""

    error: str


class ServerMetadata(BaseModel):
    """The server and the extensions of the protocol that it knows."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output; -1 stands for a size that the network does not fix."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The served version of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": description}
    for status, description in {
        400: "The request is malformed, or the network cannot compute its inputs.",
        401: "The key is missing or wrong.",
        404: "No such model or version is served.",
        408: "The body took too long to arrive.",
        413: "The body, a tensor or the answer is too large.",
        503: "The server is busy; Retry-After says when to try again.",
    }.items()
}
_BODY = {
    "required": True,
    "content": {"application/json": {"schema": InferRequest.model_json_schema(ref_template="#/{model}")}},
}


class Inference:
    """Threads that read requests, run the network on them and write the answers; some requests may wait for one."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.settings = service.settings
        self.waiting = 0  # requests, those in a thread included
        self.reading = threading.Lock()  # held while a large JSON is read
        self._most_json = int(self.settings.max_json_mib * MIB)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers requests as long as the context is open."""
        with ThreadPoolExecutor(self.settings.decode_threads, thread_name_prefix="tensors") as self.threads:
            yield

    def full(self) -> bool:
        """Whether a request that arrives now would be refused."""
        return self.waiting >= self.settings.queue_size

    def served(self, request: Request) -> Model:
        """Returns the model that the path names. Raises RequestError unless it is the served one."""
        model, path = self.service.model, request.path_params
        if path["name"] != model.name:
            raise RequestError(404, f"No model is named {path['name']!r:.80}; {model.name} is served.")
        if path.get("version", model.version) != model.version:
            raise RequestError(404, f"Version {path['version']!r:.80} is not served; {model.version} is.")
        return model

    async def answer(self, request: Request) -> tuple[bytes, int | None]:
        """Returns the body of the answer, and how many bytes of it are JSON if others follow.

        Raises RequestError if something is wrong with the request.
        """
        model = self.served(request)  # this request keeps it, even if another one is swapped in meanwhile
        if self.full():
            raise Busy
        json_size = _json_size(request)
        limit = self._most_json if json_size is None else self._most_bytes(model)
        with self.service.memory.lease() as lease:
            body = await receive(request, limit, self.settings.body_seconds, lease)
            if json_size is None:
                json_size = len(body)
            elif json_size > len(body):
                raise RequestError(400, f"{JSON_SIZE} must be at most {len(body)}, got {json_size}.")
            if json_size > self._most_json:
                raise RequestError(
                    413,
                    f"The JSON is too large: {self.settings.max_json_mib:g} MiB at most; send binary data.",
                )
            if self.full():
                raise Busy
            self.waiting += 1
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self.threads, self._compute, model, body, json_size)
            finally:
                self.waiting -= 1

    def _most_rows(self, model: Model) -> int:
        return self.settings.max_rows if model.kind is None else self.service.reader(model.kind).most

    def _most_bytes(self, model: Model) -> int:
        rows = self._most_rows(model)
        needed = sum(tensor.most(rows) * NUMPY[tensor.datatype].itemsize for tensor in model.inputs)
        return min(int(self.settings.max_body_mib * MIB), self._most_json + needed)

    def _compute(self, model: Model, body: bytearray, json_size: int) -> tuple[bytes, int | None]:
        task = (body, json_size, model.inputs, model.outputs, self._most_rows(model))
        with self.reading if json_size > _LARGE_JSON else nullcontext():
            call = read_call(*task)
        try:
            arrays = model.compute(call.feeds, list(call.wanted))
        except Exception as error:  # onnxruntime's exceptions share no base class
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise RequestError(400, f"The network cannot compute these inputs ({line:.200}).") from None
        about = {"model_name": model.name, "model_version": model.version}
        most = int(self.settings.max_body_mib * MIB)
        return write_answer(about, call, dict(zip(call.wanted, arrays, strict=True)), model.outputs, most)


def _json_size(request: Request) -> int | None:
    text = request.headers.get(JSON_SIZE)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError(400, f"{JSON_SIZE} must be a number of bytes, got {text!r:.80}.")
    return int(text)


def add_health(app: FastAPI, inference: Inference) -> None:
    """``GET /v2/health/live`` and ``GET /v2/health/ready``."""

    @app.get(f"{PREFIX}/health/live", response_description="The process is alive.")
    async def live() -> dict[str, bool]:
        """Answers as long as the process is alive."""
        return {"live": True}

    @app.get(
        f"{PREFIX}/health/ready", response_description="The server is ready.", responses={503: PROBLEMS[503]}
    )
    async def ready() -> Response:
        """Says whether an inference requested now would be answered."""
        _require_ready(inference)
        return JSONResponse({"ready": True})


def _require_ready(inference: Inference) -> None:
    if inference.full() or not inference.service.ready():
        raise Busy


def add_metadata(app: FastAPI, inference: Inference, check: Check) -> None:
    """``GET /v2``, and the metadata and readiness of the served model."""

    @app.get(
        PREFIX, dependencies=needs(check), response_description="The server.", responses={401: PROBLEMS[401]}
    )
    async def server() -> ServerMetadata:
        """Describes the server."""
        return ServerMetadata(name=app.title, version=app.version, extensions=["binary_tensor_data"])

    async def metadata(request: Request) -> ModelMetadata:
        """Describes the inputs and outputs of the served version."""
        model = inference.served(request)
        return ModelMetadata(
            name=model.name,
            versions=[model.version],
            platform="onnx_onnxv1",
            inputs=[_described(tensor) for tensor in model.inputs],
            outputs=[_described(tensor) for tensor in model.outputs],
        )

    async def ready(request: Request) -> Response:
        """Says whether an inference with this model, requested now, would be answered."""
        model = inference.served(request)
        _require_ready(inference)
        return JSONResponse({"name": model.name, "ready": True})

    described: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (401, 404)}
    for path in _MODEL:
        app.add_api_route(
            path,
            metadata,
            dependencies=needs(check),
            response_description="The model.",
            responses=described,
        )
        app.add_api_route(
            f"{path}/ready",
            ready,
            dependencies=needs(check),
            response_description="The model is ready.",
            responses={**described, 503: PROBLEMS[503]},
        )


def _described(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def add_infer(app: FastAPI, inference: Inference, check: Check) -> None:
    """``POST /v2/models/NAME/infer``, with or without a version."""

    async def infer(request: Request) -> Response:
        """Runs the network on tensors. Binary data follow the JSON if the header Inference-Header-Content-Length says
        how long the JSON is."""
        await check(request)
        body, json_size = await inference.answer(request)
        if json_size is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={JSON_SIZE: str(json_size)}, media_type="application/octet-stream")

    for path in _MODEL:
        app.router.add_api_route(
            f"{path}/infer",
            infer,
            methods=["POST"],
            route_class_override=Direct,
            dependencies=SCHEMES,
            response_description="The outputs, as numbers in JSON or as bytes behind it.",
            responses=PROBLEMS,
            openapi_extra={"requestBody": _BODY},
        )


def add_open_inference(app: FastAPI, inference: Inference, check: Check) -> None:
    """All routes under ``/v2``."""
    add_health(app, inference)
    add_metadata(app, inference, check)
    add_infer(app, inference, check)
