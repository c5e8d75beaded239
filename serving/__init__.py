"""The server: one ONNX network behind HTTP, and a page to try it with.

The server knows this project only by the contract of ``model.onnx`` (docs/serving.md). It imports neither
torch nor any other package of this repository.
"""

from serving.starting import end_at_once

end_at_once()
