"""Compares the server under load with ``mlflow models serve`` and with LitServe, which serve the same network.

    python -m benchmarks.serve_load --model artifacts/export/model.onnx
    python -m benchmarks.serve_load --model artifacts/export/model.onnx --litserve /srv/litserve/bin/python

The model is registered in a new registry in a temporary folder. Each server is a process of its own and listens on
loopback. This process is all clients: each client has one connection and sends its next request when the answer to
the last one is there, also when that answer is a refusal. The servers take turns, ``--repeats`` times, so that other
work on the machine affects all, and each is compared with ours in the same turn. The processor time of each server is
measured too, because other processes change it less. A run ends after ``--requests`` requests; a run of requests
with 32 pictures each, of which many are refused, ends after ``--seconds``.

``--litserve`` names a Python interpreter with litserve, onnxruntime and numpy, which the project does not need otherwise.
The result is benchmarks/results/serving-8x8.md, for images of that size.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil

from benchmarks._load_client import send_all
from benchmarks._serve_report import OURS, Run, Target, report
from stages.plumbing.starting import ready

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
CLIENTS = (1, 8, 64, 256)
MANY = 32  # pictures in a large request, as many as the server takes by default
NAME = "load"


def main() -> int:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="ONNX file that meets the contract (docs/serving.md)"
    )
    parser.add_argument("--requests", type=int, default=400, help="requests per run (default: 400)")
    parser.add_argument("--repeats", type=int, default=3, help="runs per case (default: 3)")
    parser.add_argument(
        "--seconds", type=float, default=10, help=f"of a run with {MANY} pictures per request (default: 10)"
    )
    parser.add_argument("--litserve", metavar="PYTHON", help="an interpreter that has litserve")
    parser.add_argument(
        "--output",
        type=Path,
        help=f"default: {RESULTS.relative_to(REPOSITORY)}/serving-8x8.md, for images of that size",
    )
    options = parser.parse_args()
    if not options.model.is_file():
        print(f"--model: {options.model} is missing; `make repro` makes a model", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="msdarts-load-") as name, ExitStack() as stack:
        folder = Path(name)
        shape = register(options.model, folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        targets = started(stack, folder, options, image)
        answers = [answer(target) for target in targets]
        assert all(rows == answers[0] for rows in answers), "the servers answer differently"
        runs = measure(targets, options.requests, options.repeats)
        large = Target(
            f"{MANY} PNG files", targets[0].port, request("/v1/predict", *as_files([image] * MANY))
        )
        goodput = measure_goodput(large, options.seconds, options.repeats)
    output = options.output or RESULTS / f"serving-{shape[0]}x{shape[1]}.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(report(runs, goodput, targets, options, shape), encoding="utf-8")
    print(output.read_text(encoding="utf-8"))
    return 0


def started(stack: ExitStack, folder: Path, options: argparse.Namespace, image: np.ndarray) -> list[Target]:
    """Starts all servers until ``stack`` is closed. Ours comes first."""
    module = (sys.executable, "-m")
    ours = stack.enter_context(running(folder, *module, "serving", "--name", NAME, "--port", "{port}"))
    theirs = stack.enter_context(
        running(folder, *module, "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@champion",
                "--env-manager", "local", "--port", "{port}", "--host", "127.0.0.1")
    )  # fmt: skip
    pixels = image.tolist()
    inputs = as_json({"inputs": [pixels]})
    targets = [
        Target(OURS, ours, request("/v1/predict", *as_json([pixels]))),
        Target("this server, PNG file", ours, request("/v1/predict", *as_files([image]))),
        Target("mlflow models serve, JSON", theirs, request("/invocations", *inputs)),
    ]
    if options.litserve:
        app = str(REPOSITORY / "benchmarks" / "_litserve_app.py")
        port = stack.enter_context(
            running(folder, options.litserve, app, str(options.model.resolve()), "{port}")
        )
        targets.append(Target("LitServe, JSON", port, request("/predict", *inputs)))
    return targets


def register(model: Path, folder: Path) -> tuple[int, ...]:
    """Makes a registry in ``folder`` with the model as its champion. Returns the shape of an image."""
    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.onnx import log_model
    from mlflow.types import Schema, TensorSpec

    proto = onnx.load(model)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    shape = tuple(dim.dim_value for dim in dims[1:])
    classes = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment(NAME, (folder / "artifacts").as_uri()))
    with mlflow.start_run():
        log_model(
            proto,
            name="model",
            signature=ModelSignature(
                Schema([TensorSpec(np.dtype("uint8"), (-1, *shape), "image")]),
                Schema([TensorSpec(np.dtype("float32"), (-1, classes), "probabilities")]),
            ),
            save_as_external_data=False,
            pip_requirements=["onnxruntime"],
            registered_model_name=NAME,
        )
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    return shape


@contextmanager
def running(folder: Path, *words: str) -> Iterator[int]:
    """Runs a server in a process of its own within the block, and gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [word.format(port=port) for word in words]
    title = Path(words[2] if words[1] == "-m" else words[1]).stem
    # mlflow looks for uvicorn on the path, which has no virtual environment unless one was activated.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / f"{title}.log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        log.seek(0)
                        raise SystemExit(f"{title} did not start:\n{log.read()[-2000:]}") from None
                    time.sleep(0.2)
            yield port
        finally:
            # The whole session, because mlflow starts its server as a child.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


def request(path: str, content_type: str, body: bytes) -> bytes:
    """The bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def as_json(value: object) -> tuple[str, bytes]:
    """Content type and body."""
    return "application/json", json.dumps(value, separators=(",", ":")).encode()


def as_files(images: Sequence[np.ndarray]) -> tuple[str, bytes]:
    """Content type and body of a form with PNG files."""
    from PIL import Image

    parts = []
    for image in images:
        file = BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
        head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        parts.append(head + file.getvalue() + b"\r\n")
    return "multipart/form-data; boundary=b", b"".join(parts) + b"--b--\r\n"


def answer(target: Target) -> list[list[float]]:
    """The probabilities in a server's answer."""
    head, _, body = target.request.partition(b"\r\n\r\n")
    path = head.split()[1].decode()
    kind = re.search(rb"Content-Type: (.+?)\r", head)
    assert kind is not None
    asked = urllib.request.Request(
        f"http://127.0.0.1:{target.port}{path}", body, {"Content-Type": kind[1].decode()}
    )
    with urllib.request.urlopen(asked, timeout=60) as response:
        predictions = json.load(response)["predictions"]
    if isinstance(predictions, dict):  # mlflow: name of output -> rows
        return predictions["probabilities"]
    return [row["probabilities"] if isinstance(row, dict) else row for row in predictions]


def measure(targets: Sequence[Target], requests: int, repeats: int) -> dict[tuple[str, int], list[Run]]:
    """(title, clients) -> its runs, one per repeat."""
    runs: dict[tuple[str, int], list[Run]] = {}
    for target in targets:
        load(target, 8, requests=50)  # warm
    for repeat in range(repeats):
        for clients in CLIENTS:
            for target in targets:
                run = load(target, clients, requests=requests)
                runs.setdefault((target.title, clients), []).append(run)
                say(f"{repeat + 1}/{repeats} {clients:3} clients, {target.title}: {run.goodput:.0f}/s")
    return runs


def measure_goodput(target: Target, seconds: float, repeats: int) -> dict[int, list[Run]]:
    """Clients -> its runs of ``seconds``, one per repeat."""
    runs: dict[int, list[Run]] = {clients: [] for clients in CLIENTS}
    for repeat in range(repeats):
        for clients in CLIENTS:
            run = load(target, clients, seconds=seconds)
            runs[clients].append(run)
            say(f"{repeat + 1}/{repeats} {clients:3} clients, {target.title}: {run.goodput:.0f}/s good")
    return runs


def say(line: str) -> None:
    print(line, file=sys.stderr)


def load(target: Target, clients: int, *, requests: int | None = None, seconds: float = 0) -> Run:
    """Sends ``requests`` requests from ``clients`` clients, or as many as there are in ``seconds``."""
    session = os.getsid(listener(target.port))
    start, before = time.perf_counter(), used(session)
    left = iter(range(requests)) if requests else itertools.takewhile(
        lambda _: time.perf_counter() < start + seconds, itertools.count()
    )  # fmt: skip
    answers = asyncio.run(send_all(target.port, target.request, clients, left))
    taken = time.perf_counter() - start
    return Run(taken, used(session) - before, tuple(answers.latencies), answers.failed)


def used(session: int) -> float:
    """Seconds of processor time of all processes of a session: those of a server that was started here."""
    seconds = 0.0
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session:
                times = process.cpu_times()
                seconds += times.user + times.system
    return seconds


def listener(port: int) -> int:
    """The process that listens on a port of loopback, which may be a child of the one that was started."""
    for connection in psutil.net_connections("tcp"):
        at = getattr(connection.laddr, "port", None)
        if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
            return connection.pid
    raise SystemExit(f"no process listens on port {port}")


if __name__ == "__main__":
    ready()  # a KeyboardInterrupt ends the servers
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("serve_load: interrupted by SIGINT; nothing was written", file=sys.stderr)
        sys.exit(130)
