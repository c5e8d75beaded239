"""Tensors as the Open Inference Protocol writes them: as numbers in JSON, or as bytes behind the JSON.

Sources: the protocol (github.com/kserve/open-inference-protocol, specification/protocol) and Triton's extension
``binary_tensor_data``. Differences: a parameter that the server does not know is refused instead of ignored, and no
tensor may be empty. Not covered: the data type BYTES.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import RequestError
from serving.signature import NUMPY, Tensor

MOST_TENSORS, MOST_AXES = 64, 16  # in a request; its errors are collected before the first one is told
_OTHER_MARKS = 1000  # commas and brackets of a request that are not in its data, at most
NUMBER_BYTES = 24  # of a float64 in JSON, at most, with its comma
_JSON_TYPES: Mapping[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
Named = TypeVar("Named", "InputTensor", "OutputChoice")


class InputTensor(BaseModel):
    """An input: its numbers in `data`, flat or nested, or `binary_data_size` bytes behind the JSON."""

    model_config = ConfigDict(strict=True)

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=MOST_AXES)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class OutputChoice(BaseModel):
    """An output that is wanted, as bytes if its parameter `binary_data` is true."""

    model_config = ConfigDict(strict=True)

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(BaseModel):
    """All inputs of the network, and the outputs that are wanted; without `outputs`, all of them are."""

    model_config = ConfigDict(strict=True)

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[InputTensor], Field(max_length=MOST_TENSORS)]
    outputs: Annotated[list[OutputChoice], Field(max_length=MOST_TENSORS)] | None = None


@dataclass(frozen=True)
class Call:
    """What a request asks for: these outputs for these inputs."""

    id: str | None
    feeds: Mapping[str, NDArray[Any]]
    wanted: Mapping[str, bool]  # output -> whether as bytes


def read_call(
    body: bytes | bytearray,
    json_size: int,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    most_rows: int,
) -> Call:
    """Reads a request to a network with these inputs and outputs. Its first ``json_size`` bytes are JSON.

    ``most_rows`` bounds the product of the sizes of an input that the network does not fix.
    Raises RequestError, with one sentence for the client, if anything is wrong with the request.
    """
    head = body[:json_size]
    # Reading JSON takes 100 times as long as counting its marks, and no other Python code runs meanwhile.
    most = _OTHER_MARKS + sum(tensor.most(most_rows) * (1 + len(tensor.shape)) for tensor in inputs)
    if sum(map(head.count, (b",", b"[", b"{"))) > most:
        raise RequestError(413, f"The JSON holds more than the network takes with {most_rows} rows.")
    try:
        request = InferRequest.model_validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(400, f"{place or 'The body'}: {first['msg']}"[:300]) from None
    given = _by_name(request.inputs, inputs, "input")
    if missing := [tensor.name for tensor in inputs if tensor.name not in given]:
        raise RequestError(400, f"The request lacks the input {missing[0]}.")
    known = {tensor.name: tensor for tensor in inputs}
    feeds, place = {}, json_size
    for name, tensor in given.items():  # in the order of the request, which is that of the bytes
        feeds[name], place = _read(tensor, known[name], body, place, most_rows)
    if place != len(body):
        raise RequestError(400, f"The body has {len(body) - place} bytes that belong to no input.")
    return Call(request.id, feeds, _wanted(request, outputs))


def _by_name(given: Sequence[Named], known: Sequence[Tensor], kind: str) -> dict[str, Named]:
    names = [tensor.name for tensor in known]
    found: dict[str, Named] = {}
    for tensor in given:
        if tensor.name not in names:
            raise RequestError(400, f"No {kind} is named {tensor.name!r:.80}; there is {', '.join(names)}.")
        if tensor.name in found:
            raise RequestError(400, f"The {kind} {tensor.name} occurs twice.")
        found[tensor.name] = tensor
    return found


def _wanted(request: InferRequest, outputs: Sequence[Tensor]) -> dict[str, bool]:
    as_bytes = _parameter(request.parameters, "binary_data_output", bool, "The request")
    chosen = _by_name(request.outputs or [], outputs, "output")
    if not chosen:
        return {tensor.name: bool(as_bytes) for tensor in outputs}
    own = {
        name: _parameter(choice.parameters, "binary_data", bool, f"Output {name}")
        for name, choice in chosen.items()
    }
    return {name: bool(as_bytes) if wish is None else wish for name, wish in own.items()}


def _parameter(parameters: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """The value of the only parameter that is known there, or None. What is not understood is not ignored."""
    if unknown := [key for key in parameters if key != name]:
        raise RequestError(400, f"{where}: parameter {unknown[0]!r:.80} is unknown; there is {name}.")
    value = parameters.get(name)
    if value is not None and type(value) is not kind:
        raise RequestError(400, f"{where}: {name} must be of type {kind.__name__}, got {value!r:.80}.")
    return value


def _read(
    given: InputTensor, known: Tensor, body: bytes | bytearray, place: int, most_rows: int
) -> tuple[NDArray[Any], int]:
    """The values of an input, and where in the body the bytes of the next one start."""
    where, shape = f"Input {known.name}", tuple(given.shape)
    if given.datatype != known.datatype:
        raise RequestError(400, f"{where}: datatype must be {known.datatype}, got {given.datatype!r:.80}.")
    if not known.allows(shape):
        raise RequestError(400, f"{where}: shape must be {list(known.shape)}, got {list(shape)!s:.200}.")
    if (rows := known.rows(shape)) > most_rows:
        raise RequestError(413, f"{where}: shape {list(shape)} has {rows} rows; {most_rows} at most.")
    size = _parameter(given.parameters, "binary_data_size", int, where)
    if (size is None) == (given.data is None):
        raise RequestError(400, f"{where}: must have either data or binary_data_size.")
    if given.data is not None:
        return _from_json(given.data, shape, NUMPY[known.datatype], where), place
    return _from_bytes(body[place : place + size], size, shape, NUMPY[known.datatype], where), place + size


def _from_bytes(
    content: bytes | bytearray, size: int, shape: tuple[int, ...], dtype: np.dtype, where: str
) -> NDArray[Any]:
    needed = math.prod(shape) * dtype.itemsize
    if size != needed:
        raise RequestError(400, f"{where}: binary_data_size must be {needed}, got {size}.")
    if len(content) != needed:
        raise RequestError(400, f"{where}: {needed} bytes should follow, but {len(content)} are left.")
    if dtype.kind == "b" and content.strip(b"\0\1"):  # another byte as bool has no defined meaning
        raise RequestError(400, f"{where}: a byte of BOOL must be 0 or 1.")
    return np.frombuffer(content, dtype).reshape(shape)


def _from_json(data: list[Any], shape: tuple[int, ...], dtype: np.dtype, where: str) -> NDArray[Any]:
    form = RequestError(400, f"{where}: data must be flat or nested as shape {list(shape)} says.")
    values, depth = data, 0
    while (types := set(map(type, values))) == {list}:
        depth += 1
        if depth >= len(shape) or set(map(len, values)) != {shape[depth]}:
            raise form
        values = list(chain.from_iterable(values))
    if len(values) != math.prod(shape) or depth not in (0, len(shape) - 1):
        raise form
    if not types <= _JSON_TYPES[dtype.kind]:  # NumPy would turn strings and truth values into numbers
        raise RequestError(400, f"{where}: data must be numbers that fit {dtype.name}.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype).reshape(shape)
    except OverflowError:
        raise RequestError(400, f"{where}: data must be numbers that fit {dtype.name}.") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(400, f"{where}: data must be numbers that fit {dtype.name}.")
    return array


def write_answer(
    about: Mapping[str, str],
    call: Call,
    arrays: Mapping[str, NDArray[Any]],
    outputs: Sequence[Tensor],
    most: int,
) -> tuple[bytes, int | None]:
    """The body of the answer, and how many bytes of it are JSON if others follow.

    ``about`` names the model. Raises RequestError if the answer has more than ``most`` bytes, or if JSON cannot hold it.
    """
    needed = sum(
        array.nbytes if call.wanted[name] else array.size * NUMBER_BYTES for name, array in arrays.items()
    )
    if needed > most:
        raise RequestError(413, f"The answer is too large; it may have {most / 2**20:g} MiB.")
    datatypes = {tensor.name: tensor.datatype for tensor in outputs}
    entries, tail = [], []
    for name, array in arrays.items():
        entry: dict[str, Any] = {"name": name, "datatype": datatypes[name], "shape": list(array.shape)}
        if call.wanted[name]:
            tail.append(array.astype(NUMPY[datatypes[name]], copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    answer = {**about, **({} if call.id is None else {"id": call.id}), "outputs": entries}
    try:
        head = json.dumps(answer, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError:
        raise RequestError(
            400, "The outputs have values that JSON cannot hold, such as NaN; ask for binary_data."
        ) from None
    return b"".join([head, *tail]), len(head) if tail else None
