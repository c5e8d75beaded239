"""``python -m serving``: load the model, then listen."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn

from serving.app import create_app
from serving.errors import ModelError, StartError
from serving.model import read_file
from serving.protocol import ConnectionLimits, bounded
from serving.registry import Registry
from serving.settings import API_KEY_VARIABLE, ServeSettings, read_settings
from serving.starting import ready

log = logging.getLogger("serving")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line: one option per setting except the key, plus --params and --debug."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description=f"Serves an ONNX network that classifies images or forecasts series. Clients must send a key if {API_KEY_VARIABLE} is set.",
    )
    for name, field in ServeSettings.model_fields.items():
        if name != "api_key":
            default = "" if field.default in (None, ()) else f" (default: {field.default})"
            parser.add_argument(
                f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=f"{field.description}{default}"
            )
    parser.add_argument(
        "--params", type=Path, help="YAML file with settings in its section serve; options override them"
    )
    parser.add_argument("--debug", action="store_true", help="log more and show tracebacks")
    return parser.parse_args(arguments)


def serve(settings: ServeSettings) -> None:
    """Serves until interrupted. Raises ModelError if there is no model to start with."""
    if settings.model is not None:
        registry, model = None, read_file(settings.model, settings.threads)
    else:
        registry = Registry(settings.name, settings.alias, settings.threads, settings.precision)
        model = registry.load(registry.current())
    log.info(
        "serving %s version %s in %s, SHA-256 %s", model.name, model.version, model.precision, model.sha256
    )
    log.info("origin of %s version %s: %s", model.name, model.version, model.origin.source)
    if settings.api_key is None and settings.host not in ("127.0.0.1", "::1", "localhost"):
        log.warning(
            "everyone who can reach %s can use this server; set %s to require a key",
            settings.host,
            API_KEY_VARIABLE,
        )
    config = uvicorn.Config(
        create_app(model, registry, settings),
        http=bounded(
            ConnectionLimits(settings.max_connections, settings.head_seconds, settings.write_seconds)
        ),
        ws="none",
        timeout_graceful_shutdown=10,
        access_log=False,
        proxy_headers=False,  # the server never uses the client's address
        server_header=False,
        log_config=None,
    )
    # Everything loaded so far stays in memory, so the garbage collector should not scan it again for every
    # few large request bodies.
    gc.collect()
    gc.freeze()
    # uvicorn raises the interrupt again after it has shut down cleanly.
    with _listen(settings) as socket_, contextlib.suppress(KeyboardInterrupt):
        host, port = socket_.getsockname()[:2]
        ready()
        log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        uvicorn.Server(config).run(sockets=[socket_])


def _listen(settings: ServeSettings) -> socket.socket:
    where = f"serve.host, serve.port: cannot listen on {settings.host} port {settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # asyncio turns off Nagle's algorithm only if the socket has a protocol number; with Nagle, answers
        # take 40 ms.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        return listener
    except OSError as error:
        raise StartError(
            f"{where} ({error.strerror}); choose another host or port with --host, --port"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 after a user's mistake, which is reported in one line."""
    options: dict[str, Any] = vars(parse(arguments))
    params, debug = options.pop("params"), options.pop("debug")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name, level in {
        "alembic": logging.WARNING,
        "urllib3": logging.ERROR,
        "uvicorn": logging.WARNING,
    }.items():
        logging.getLogger(name).setLevel(level)  # their errors are also raised, and the server reports them
    if debug:
        log.setLevel(logging.DEBUG)
    try:
        serve(read_settings(options, params))
    except (StartError, ModelError) as error:
        if debug:
            raise
        print(f"serving: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
