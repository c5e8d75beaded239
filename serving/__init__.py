"""The server: one ONNX network behind HTTP, and a page to try it.

Reads the contract of ``model.onnx`` (docs/serving.md) and nothing else of this project: neither torch nor the
other rooms.
"""
