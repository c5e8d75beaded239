"""A LitServe server of an ONNX network, for ``benchmarks/serve_load.py``: JSON in, JSON out, batches as this project's server.

    PYTHON _litserve_app.py MODEL PORT

Runs with an interpreter that has litserve, onnxruntime and numpy, which are not needed otherwise, so this file imports nothing
of the project.
"""

from __future__ import annotations

import sys

import litserve  # pyright: ignore[reportMissingImports]
import numpy as np
import onnxruntime

MAX_BATCH, WAIT = 32, 0.002  # images and seconds, the defaults of this project's server


class Network(litserve.LitAPI):
    """Answers {"inputs": [image]} with {"predictions": [probabilities]}."""

    def __init__(self, model: str):
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=WAIT)
        self.model = model

    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.model, options)

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["inputs"], np.uint8)[0]

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.session.run(None, {"image": x})[0])

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict:
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    server = litserve.LitServer(Network(sys.argv[1]), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        generate_client_file=False,
        log_level="warning",
        pretty_logs=False,
    )
