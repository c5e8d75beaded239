"""Compares the server under load with ``mlflow models serve`` of the same registered model.

    python -m benchmarks.serve_load --model artifacts/export/model.onnx

The model is registered in a new registry in a temporary folder. Each server is a process of its own and listens on
loopback. This process is all clients: each client has one connection and sends its next request when the answer to
the last one is there. The servers take turns, ``--repeats`` times, so that other work on the machine affects both. The
processor time of each server is measured too, because other processes change it less. A run ends after
``--requests`` requests. The result is benchmarks/results/serving-8x8.md, for images of that size.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.metadata
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil

from benchmarks._machine import processor
from stages.plumbing.starting import ready

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
CLIENTS = (1, 8, 64)
NAME = "load"


@dataclass(frozen=True)
class Target:
    """A server with one request for it."""

    title: str
    port: int
    request: bytes


@dataclass(frozen=True)
class Run:
    """The measurements of one run of ``--requests`` requests."""

    seconds: float
    processor_seconds: float  # the server's, all its threads
    latencies: tuple[float, ...]
    failed: int


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
        ours = stack.enter_context(running(folder, "serving", "--name", NAME, "--port", "{port}"))
        theirs = stack.enter_context(
            running(folder, "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@champion",
                    "--env-manager", "local", "--port", "{port}", "--host", "127.0.0.1")
        )  # fmt: skip
        pixels = image.tolist()
        targets = (
            Target(
                "mlflow models serve, JSON", theirs, request("/invocations", *as_json({"inputs": [pixels]}))
            ),
            Target("this server, JSON", ours, request("/v1/predict", *as_json([pixels]))),
            Target("this server, PNG file", ours, request("/v1/predict", *as_file(image))),
        )
        answers = [answer(target) for target in targets]
        assert answers[0] == answers[1] == answers[2], "the servers answer differently"
        runs = measure(targets, options.requests, options.repeats)
    output = options.output or RESULTS / f"serving-{shape[0]}x{shape[1]}.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(report(runs, targets, options, shape), encoding="utf-8")
    print(output.read_text(encoding="utf-8"))
    return 0


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
def running(folder: Path, module: str, *arguments: str) -> Iterator[int]:
    """Runs a server in a process of its own within the block, and gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *(argument.format(port=port) for argument in arguments)]
    # mlflow looks for uvicorn on the path, which has no virtual environment unless one was activated.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (folder / f"{module}.log").open("w+") as log:
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
                        raise SystemExit(f"{module} did not start:\n{log.read()[-2000:]}") from None
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


def as_file(image: np.ndarray) -> tuple[str, bytes]:
    """Content type and body of a form with a PNG file."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    return "multipart/form-data; boundary=b", head + file.getvalue() + b"\r\n--b--\r\n"


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
    return [row["probabilities"] for row in predictions]


def measure(targets: Sequence[Target], requests: int, repeats: int) -> dict[tuple[str, int], list[Run]]:
    """(title, clients) -> its runs."""
    runs: dict[tuple[str, int], list[Run]] = {}
    for target in targets:
        asyncio.run(load(target, 8, 50))  # warm
    for repeat in range(repeats):
        for clients in CLIENTS:
            for target in targets:
                run = asyncio.run(load(target, clients, requests))
                runs.setdefault((target.title, clients), []).append(run)
                rate = requests / run.seconds
                print(
                    f"{repeat + 1}/{repeats} {clients:3} clients, {target.title}: {rate:.0f}/s",
                    file=sys.stderr,
                )
    return runs


async def load(target: Target, clients: int, requests: int) -> Run:
    """Sends ``requests`` requests from ``clients`` clients."""
    left = iter(range(requests))
    server = listener(target.port)
    latencies: list[float] = []
    failed = 0

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        for _ in left:
            start = time.perf_counter()
            writer.write(target.request)
            async with asyncio.timeout(60):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                assert length is not None
                await reader.readexactly(int(length[1]))
            latencies.append(time.perf_counter() - start)
            failed += not head.startswith(b"HTTP/1.1 200 ")
        writer.close()

    start, before = time.perf_counter(), server.cpu_times()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds, after = time.perf_counter() - start, server.cpu_times()
    used = after.user + after.system - before.user - before.system
    return Run(seconds, used, tuple(latencies), failed)


def listener(port: int) -> psutil.Process:
    """The process that listens on a port of loopback. mlflow's server is a child of the process that was started."""
    for connection in psutil.net_connections("tcp"):
        at = getattr(connection.laddr, "port", None)
        if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
            return psutil.Process(connection.pid)
    raise SystemExit(f"no process listens on port {port}")


def report(
    runs: dict[tuple[str, int], list[Run]],
    targets: Sequence[Target],
    options: argparse.Namespace,
    shape: tuple[int, ...],
) -> str:
    """The result as Markdown."""
    rates = {case: [len(run.latencies) / run.seconds for run in of_case] for case, of_case in runs.items()}
    rows = []
    for clients in CLIENTS:
        for target in targets:
            case = (target.title, clients)
            latencies = np.array([latency for run in runs[case] for latency in run.latencies]) * 1000
            slowest, fastest = min(rates[case]), max(rates[case])
            factor = statistics.median(rates[case]) / statistics.median(rates[targets[0].title, clients])
            rows.append(
                f"| {clients} | {target.title} | {statistics.median(rates[case]):.0f} ({slowest:.0f}..{fastest:.0f}) "
                f"| {factor:.1f} | {np.percentile(latencies, 50):.1f} | {np.percentile(latencies, 99):.1f} "
                f"| {processor_ms(runs[case]):.2f} | {sum(run.failed for run in runs[case])} |"
            )
    packages = ("onnxruntime", "mlflow", "fastapi", "uvicorn", "pillow", "numpy")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    size = options.model.stat().st_size / 1e6
    return "\n".join(
        [
            "# The server under load",
            "",
            "Made by `benchmarks/serve_load.py`: one image per request; each client has one connection and sends its next",
            f"request when the answer to the last one is there; {options.requests} requests per run, {options.repeats} runs per",
            "case, the servers in turn. Throughput is the median over the runs (slowest..fastest). Percentiles are over all",
            "requests of all runs. Before the first run, all three gave the same probabilities, bit for bit.",
            "",
            "CPU is the server's processor time per request. On a busy machine it says more than the other columns.",
            "",
            "| clients | server | requests/s | times mlflow | p50 ms | p99 ms | CPU ms | failed |",
            "|---:|---|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"- Model: ONNX, {size:.1f} MB, images {' x '.join(map(str, shape))}, float32, on the CPU; one image alone",
            f"  takes {inference_ms(options.model, shape):.1f} ms in ONNX Runtime with one thread.",
            f"- Machine: {os.cpu_count()} cores, {processor()}. Servers, clients and other processes shared it, so absolute",
            f"  numbers are low. Load average at the end: {os.getloadavg()[0]:.1f}.",
            f"- {datetime.date.today()}, Python {platform.python_version()}, {versions}.",
            "",
        ]
    )


def processor_ms(runs: Sequence[Run]) -> float:
    """Milliseconds of the server's processor time per request, over all runs of a case."""
    return 1000 * sum(run.processor_seconds for run in runs) / sum(len(run.latencies) for run in runs)


def inference_ms(model: Path, shape: tuple[int, ...]) -> float:
    """The median milliseconds for one image without any server."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    image = np.zeros((1, *shape), np.uint8)
    times = []
    for _ in range(100):
        start = time.perf_counter()
        session.run(None, {"image": image})
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    ready()  # a KeyboardInterrupt ends the servers
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("serve_load: interrupted by SIGINT; nothing was written", file=sys.stderr)
        sys.exit(130)
