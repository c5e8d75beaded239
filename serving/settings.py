"""Every setting of the server: default, bounds, and what it is for. The section ``serve`` of params.yaml."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from serving.errors import StartError

API_KEY_VARIABLE = "MSDARTS_API_KEY"
MIB = 2**20


class ServeSettings(BaseModel):
    """Settings in the units that their names say. The command line has an option for each, except the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path | None = Field(None, description="serve this ONNX file instead of a registered model")
    name: str = Field(
        "msdarts",
        min_length=1,
        description="registered model to serve; registry.name in --params sets it too",
    )
    alias: str = Field("champion", min_length=1, description="alias that is served and watched")
    precision: Literal["float32", "int8"] = Field(
        "float32", description="which network of a registered version is served; a file is served as it is"
    )
    watch_seconds: float = Field(5, gt=0, description="how often the alias is looked up")

    host: str = Field("127.0.0.1", description="address to listen on; loopback unless told otherwise")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    # Not an option of the command line: every user of the machine can read that.
    api_key: SecretStr | None = Field(None, description=f"key clients must send; better: {API_KEY_VARIABLE}")

    # One core is left to everything else: the network, decoding, the answers.
    threads: int = Field(max(1, (os.cpu_count() or 1) - 1), ge=1, description="threads of one inference")
    max_batch: int = Field(32, ge=1, description="most images in one inference")
    batch_wait_ms: float = Field(
        2, ge=0, le=1000, description="longest wait for images that are being decoded"
    )
    queue_size: int = Field(256, ge=1, description="most images waiting, then 503")

    max_images: int = Field(32, ge=1, description="most images in one request")
    max_pixels: int = Field(25_000_000, ge=1, description="most pixels in one request, all images together")
    max_body_mib: float = Field(16, gt=0, description="largest request")
    max_json_mib: float = Field(
        2, gt=0, description="largest JSON request; JSON is slow to read, files are not"
    )
    max_memory_mib: float = Field(256, gt=0, description="memory for all requests being received together")
    max_connections: int = Field(500, ge=1, description="most connections, then 503")
    head_seconds: float = Field(
        10, gt=0, description="longest time a client may take for the head of a request"
    )
    body_seconds: float = Field(
        30, gt=0, description="longest time a client may take for the body of a request"
    )
    decode_threads: int = Field(2, ge=1, description="threads that decode images")


def read_settings(options: Mapping[str, Any], params: Path | None = None) -> ServeSettings:
    """Settings from ``options``, else the key's variable, else the section ``serve`` of ``params``.

    A name that none of them gives is ``registry.name`` of ``params``, where registration puts its models.
    """
    content = _content(params) if params else {}
    environment = {"api_key": key} if (key := os.environ.get(API_KEY_VARIABLE)) else {}
    try:
        settings = ServeSettings.model_validate(
            {**_registered_name(content), **_section(content, "serve"), **environment, **options}
        )
    except ValidationError as error:
        raise StartError(_sentence(error)) from None
    if settings.api_key is not None and not settings.api_key.get_secret_value().isascii():
        raise StartError(
            f"serve.api_key: must be ASCII to fit in a header; choose another {API_KEY_VARIABLE}"
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
