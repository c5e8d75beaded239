"""All settings of the server, with defaults, bounds and purposes: the section ``serve`` of params.yaml."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from serving.errors import StartError

API_KEY_VARIABLE = "MSDARTS_API_KEY"
MIB = 2**20


class ServeSettings(BaseModel):
    """Settings, in the units that their names state.

    Each has an option on the command line, except the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path | None = Field(None, description="serve this ONNX file instead of a registered model")
    name: str = Field(
        "msdarts",
        min_length=1,
        description="registered model to serve; registry.name in --params replaces this default",
    )
    alias: str = Field("champion", min_length=1, description="alias to serve and to watch")
    precision: Literal["float32", "int8"] = Field(
        "float32", description="network of a registered version to serve; has no effect on a file"
    )
    watch_seconds: float = Field(5, gt=0, description="seconds between two lookups of the alias")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free port")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="names under which clients may ask, separated by commas, or *; always allowed are loopback names,"
        " host itself, and all addresses unless host is a loopback address",
    )
    # The key is not an option, because every user of the machine can read command lines.
    api_key: SecretStr | None = Field(
        None, description=f"key that clients must send; prefer {API_KEY_VARIABLE}"
    )

    # One core stays free for HTTP and for decoding.
    threads: int = Field(max(1, (os.cpu_count() or 1) - 1), ge=1, description="threads per inference")
    max_batch: int = Field(32, ge=1, description="most images or series per inference")
    batch_wait_ms: float = Field(
        2, ge=0, le=1000, description="longest time a batch waits for requests that are being read"
    )
    queue_size: int = Field(
        256, ge=1, description="most images or series that are read or wait for the network"
    )
    queue_seconds: float = Field(
        1, ge=0, description="longest time that a request waits for room in the queue; then it gets 503"
    )

    max_images: int = Field(32, ge=1, description="most images per request")
    max_series: int = Field(32, ge=1, description="most series per request")
    max_pixels: int = Field(25_000_000, ge=1, description="most pixels per request, all images together")
    max_rows: int = Field(
        1024,
        ge=1,
        description="most rows per request to a network that takes neither pictures nor series: product of the sizes it does not fix",
    )
    max_body_mib: float = Field(16, gt=0, description="largest request")
    max_json_mib: float = Field(
        2, gt=0, description="largest JSON request; JSON is slower to read than files"
    )
    max_memory_mib: float = Field(256, gt=0, description="memory for all requests that are being received")
    max_connections: int = Field(
        500, ge=1, description="most connections; more get 503, except for health checks"
    )
    head_seconds: float = Field(
        10, gt=0, description="most seconds that a client may take for the head of a request"
    )
    body_seconds: float = Field(
        30, gt=0, description="most seconds that a client may take for the body of a request"
    )
    write_seconds: float = Field(
        10, gt=0, description="a client must read 16 KiB of its answer, or all, in so many seconds"
    )
    decode_threads: int = Field(2, ge=1, description="threads that read small requests")
    decode_seconds: float = Field(
        3, gt=0, description="most seconds of processor time for decoding a request; then it gets 422"
    )
    decode_mib: float = Field(150, gt=0, description="most memory for decoding a request")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        )


def read_settings(options: Mapping[str, Any], params: Path | None = None) -> ServeSettings:
    """Merges all sources: ``options`` override MSDARTS_API_KEY, which overrides section ``serve``.

    ``params`` is the file with that section. If no source gives a name, its ``registry.name`` is used,
    the name under which models are registered. Raises StartError if a value or the file is wrong.
    """
    content = _content(params) if params else {}
    environment = {"api_key": key} if (key := os.environ.get(API_KEY_VARIABLE)) else {}
    given = {**_section(content, "serve"), **environment, **options}
    if "name" not in given:
        given |= _registered_name(content)
    try:
        settings = ServeSettings.model_validate(given)
    except ValidationError as error:
        raise StartError(_sentence(error)) from None
    if settings.api_key is not None and not settings.api_key.get_secret_value().isascii():
        raise StartError(
            f"serve.api_key: must be ASCII, because it is sent in a header; choose another {API_KEY_VARIABLE}"
        )
    return settings


def _content(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise StartError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise StartError(f"{path}: must be a mapping of sections, got {content!r:.80}")
    return content


def _section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = content.get(name, {})
    if not isinstance(section, dict):
        raise StartError(f"{name}: must be a mapping of settings, got {section!r:.80}")
    return section


def _registered_name(content: Mapping[str, Any]) -> dict[str, Any]:
    section = _section(content, "registry")
    if "name" not in section:
        return {}
    if not isinstance(name := section["name"], str) or not name:
        raise StartError(f"registry.name: must be the name of a registered model, got {name!r:.80}")
    return {"name": name}


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, ServeSettings.model_fields, n=1)
        return f"serve.{key} is unknown; " + (f"did you mean serve.{near[0]}?" if near else "see --help")
    value = "" if key == "api_key" else f", got {first['input']!r}"
    return f"serve.{key}: {first['msg'][0].lower()}{first['msg'][1:]}{value}"
