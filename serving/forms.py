"""The parts of a multipart form."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.errors import RequestError

FORM, JSON = b"multipart/form-data", b"application/json"
PART_BYTES = 2**18


def media_type(content_type: str) -> tuple[bytes, dict[bytes, bytes]]:
    """The media type of a body in lower case, and its parameters."""
    return parse_options_header(content_type.encode("latin-1"))


def read_parts(boundary: bytes, body: bytes | bytearray, most: int, name: str) -> list[bytes]:
    """Returns the contents of the parts of a multipart body; their names and headers do not matter.

    ``name`` is that of what the parts hold. Raises RequestError if there are more than ``most``.
    """
    parts: list[bytearray] = []
    ended = False

    def begin() -> None:
        if len(parts) == most:
            raise RequestError(413, f"Too many {name}: a request may hold {most}.")
        parts.append(bytearray())

    def data(chunk: bytes, start: int, end: int) -> None:
        parts[-1] += chunk[start:end]

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(boundary, {"on_part_begin": begin, "on_part_data": data, "on_end": end})
        for start in range(0, len(body), PART_BYTES):
            parser.write(bytes(body[start : start + PART_BYTES]))
        parser.finalize()
    except FormParserError:
        raise RequestError(400, "The multipart body is malformed.") from None
    if not ended:
        raise RequestError(400, "The multipart body ends early.")
    return [bytes(part) for part in parts]


def count_parts(boundary: bytes, body: bytearray, most: int) -> int:
    """At least as many parts as the body has, without parsing it, but at most ``most``."""
    return min(max(body.count(b"--" + boundary) - 1, 1), most)
