"""Which ONNX Runtime an exported file needs."""

from __future__ import annotations

# The oldest of the tried ONNX Runtimes that reads files of this opset, or of a higher one, as they are written here
# (benchmarks/results/runtimes.md).
FIRST_RUNTIME = {
    13: "1.7",
    **dict.fromkeys((14, 15), "1.10"),
    **dict.fromkeys((16, 17), "1.12"),
    18: "1.14",
    19: "1.16",
    **dict.fromkeys((20, 21), "1.18"),
    **dict.fromkeys((22, 23), "1.32"),
}


def first_runtime(opset: int) -> str:
    """The runtime that a file of this opset needs, in words."""
    return f"ONNX Runtime {FIRST_RUNTIME[opset]}"
