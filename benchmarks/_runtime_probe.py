"""Runs ONNX files with the runtime that is installed beside this Python (3.8 or newer), and prints what happened.

``python _runtime_probe.py onnxruntime|openvino FOLDER`` prints JSON: for each FOLDER/*.onnx the largest difference from
the answers in FOLDER/expected.npz, or the words with which the runtime refused the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def with_onnxruntime(path, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


def with_openvino(path, images):
    try:
        from openvino import Core  # pyright: ignore[reportMissingImports]: in a folder of its own
    except ImportError:  # up to 2023
        from openvino.runtime import Core  # pyright: ignore[reportMissingImports]

    # On the CPU, OpenVINO computes in bfloat16 where the processor can, unless told otherwise.
    model = Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return next(iter(model({"image": images}).values()))


def main(runtime, folder):
    run = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}[runtime]
    given, found = np.load(folder / "expected.npz"), {}
    for path in sorted(folder.glob("*.onnx")):
        try:
            answer = run(path, given["images"])
            found[path.stem] = float(np.abs(answer - given[path.stem]).max())
        except Exception as error:  # each runtime and version has its own
            found[path.stem] = " ".join(str(error).replace(f"{folder}/", "").split())[:300]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
