"""Prefect's server, with two additions: it marks runs Crashed that have fallen silent, and an outage of its own harms no run.

    python -m pipelines.server --port 4200

Takes all options of ``prefect server start``. Silence (pipelines/watch.py) and the leases of GPUs (pipelines/leases.py) count
only the time during which this server was there to listen.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence

from stages.plumbing.starting import ready

# A run sends a heartbeat every 30 s (prefect.toml); a single one may be late because the machine is busy.
SILENCE = 75.0  # seconds
PORT = 4200  # which prefect.toml names, so that every command finds this server
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # a host that means all addresses, and one of them


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the server in this process, so that whatever stops, kills or suspends it does the same to its watch."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen on ({PORT})")
    parser.add_argument("--silence", type=float, default=SILENCE, metavar="SECONDS",
                        help=f"after which a run of which nothing is heard is Crashed ({SILENCE:g})")  # fmt: skip
    options, others = parser.parse_known_args(arguments)
    # Before Prefect reads its settings. A client's address is not the server's business.
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.setdefault("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "pipelines.leases")

    from prefect.cli import app

    from pipelines.watch import watch

    host = str(_ANYWHERE.get(options.host, options.host))
    api = f"http://{f'[{host}]' if ':' in host else host}:{options.port}/api"
    threading.Thread(target=watch, args=[api, options.silence], daemon=True, name="watch").start()
    ready()
    sys.argv = ["prefect", "server", "start", "--host", options.host, "--port", str(options.port), *others]
    app()


if __name__ == "__main__":
    main()
