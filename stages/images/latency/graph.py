"""Writes the ONNX graph of a network in milliseconds, where torch's exporter takes seconds.

The network runs once, and every operation of torch on something that depends on the image becomes one node. What does
not depend on it, such as a weight less its outer taps, is a constant. ONNX Runtime makes the same optimized graph of
the result as of torch's exporter's (tests/stages/test_latency_graph.py), so both take the same time. It knows the
operations that networks of cells are made of, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from stages.opsets import LOWEST_EXPORTED, written_for

_aten = torch.ops.aten
_IR_VERSION = 10  # as in the files of torch's exporter, so that as many runtimes read them


def graph_of(network: nn.Module, image_shape: Sequence[int], classes: int, opset: int) -> onnx.ModelProto:
    """The graph of a network in evaluation mode that turns images uint8 (B, H, W, C) into probabilities (B, classes).

    Input ``image``, output ``probabilities``, dynamic batch: the contract of the stage export.
    """
    assert not network.training
    recorder = _Recorder()
    image = torch.zeros((1, *image_shape), dtype=torch.uint8)
    recorder.names[image] = "image"
    with recorder:  # with gradients enabled, because the network takes other ways where only numbers count
        probabilities = network.requires_grad_(False)(image)
    nodes = _needed(recorder.nodes, recorder.names[probabilities])
    nodes[-1].output[0] = "probabilities"
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *image_shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [constant for constant in recorder.constants.values() if constant.name in used],
        value_info=[shape for shape in recorder.shapes if shape.name in used],
    )
    imports = [helper.make_opsetid("", max(opset, LOWEST_EXPORTED))]
    return written_for(helper.make_model(graph, opset_imports=imports, ir_version=_IR_VERSION), opset)


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that the output depends on; the last one computes it."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


class _Recorder(TorchDispatchMode):
    """Runs operations, and writes down as nodes those that depend on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.names = WeakIdKeyDictionary()  # tensor -> its name in the graph, if it depends on the image
        self.constants: dict[str, TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: list[onnx.ValueInfoProto] = []  # which ONNX Runtime cannot infer of what is expanded
        self._constant_names = WeakIdKeyDictionary()
        self._contents: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [part for arg in args for part in (arg if isinstance(arg, (list, tuple)) else [arg])]
        traced = any(isinstance(value, Tensor) and value in self.names for value in inputs)
        # What is expanded, the pattern that stands for noise, is a constant that takes the size of the batch.
        if traced or func is _aten.expand.default:
            assert func in _NODES, f"{func} has no ONNX node here; add it"
            first = result[0] if isinstance(result, tuple) else result
            self.names[first] = name = _NODES[func](self, *args)
            shape = ["batch", *first.shape[1:]]
            self.shapes.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return result

    def node(self, kind: str, *inputs: Tensor | str | Sequence[int], **attributes: Any) -> str:
        """Adds a node and returns the name of its output. Inputs that are no tensors are names, or whole numbers."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.name(x) for x in inputs], [output], **attributes))
        return output

    def name(self, value: Tensor | str | Sequence[int]) -> str:
        """The name of an input; constants join the graph under a new one."""
        if isinstance(value, str):
            return value
        if not isinstance(value, Tensor):
            return self._constant(np.array(value, dtype=np.int64))
        if value in self.names:
            return self.names[value]
        if value not in self._constant_names:
            self._constant_names[value] = self._constant(value.detach().numpy())
        return self._constant_names[value]

    def _constant(self, value: np.ndarray) -> str:
        """Equal constants are one, as in the files of torch's exporter, so that equal nodes become one, too."""
        value = np.ascontiguousarray(value)
        content = (str(value.dtype), value.shape, value.tobytes())
        if content not in self._contents:
            self._contents[content] = name = f"constant_{len(self._contents)}"
            self.constants[name] = numpy_helper.from_array(value, name)
        return self._contents[content]


def _scalar(value: Tensor | float) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _pads(padding: Sequence[int]) -> list[int]:
    return [*padding, *padding]


def _convolution(
    graph: _Recorder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    _transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
) -> str:
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return graph.node(
        "Conv", *inputs, strides=list(stride), pads=_pads(padding), dilations=list(dilation), group=groups,
        kernel_shape=list(weight.shape[2:]),
    )  # fmt: skip


def _batch_norm(
    graph: _Recorder, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, *rest: Any
) -> str:
    return graph.node("BatchNormalization", x, scale, shift, mean, variance, epsilon=rest[-1])


def _max_pool(
    graph: _Recorder, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> str:
    return graph.node("MaxPool", x, kernel_shape=list(kernel), strides=list(stride), pads=_pads(padding))


def _average_pool(
    graph: _Recorder,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> str:
    return graph.node(
        "AveragePool", x, kernel_shape=list(kernel), strides=list(stride or kernel), pads=_pads(padding),
        ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad),
    )  # fmt: skip


def _pad(graph: _Recorder, x: Tensor, padding: Sequence[int], *_: Any) -> str:
    """Torch counts the dimensions from the last one, before and after; ONNX all befores, then all afters."""
    before, after = [*padding[::2]][::-1], [*padding[1::2]][::-1]
    others = [0] * (x.dim() - len(before))
    return graph.node("Pad", x, [*others, *before, *others, *after])


def _expand(graph: _Recorder, x: Tensor, size: Sequence[int], **_: Any) -> str:
    batch = graph.node("Shape", "image", start=0, end=1)
    shape = graph.node("Concat", batch, *([[1]] * (len(size) - 1)), axis=0)
    return graph.node("Expand", x, shape)


def _zeros_like(graph: _Recorder, x: Tensor, **_: Any) -> str:
    return graph.node("Expand", torch.tensor(0.0), graph.node("Shape", x))


_NODES: Mapping[Any, Callable[..., str]] = {
    _aten._to_copy.default: lambda graph, x: graph.node("Cast", x, to=TensorProto.FLOAT),
    _aten.div.Tensor: lambda graph, x, y: graph.node("Div", x, _scalar(y)),
    _aten.sub.Tensor: lambda graph, x, y: graph.node("Sub", x, _scalar(y)),
    _aten.add.Tensor: lambda graph, x, y: graph.node("Add", x, y),
    _aten.permute.default: lambda graph, x, order: graph.node("Transpose", x, perm=list(order)),
    _aten.relu.default: lambda graph, x: graph.node("Relu", x),
    _aten.relu_.default: lambda graph, x: graph.node("Relu", x),
    _aten.convolution.default: _convolution,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.avg_pool2d.default: _average_pool,
    _aten.cat.default: lambda graph, parts, axis: graph.node("Concat", *parts, axis=axis),
    _aten.constant_pad_nd.default: _pad,
    _aten.mean.dim: lambda graph, x, axes: graph.node("ReduceMean", x, list(axes), keepdims=0),
    _aten.addmm.default: lambda graph, bias, x, weight: graph.node("Gemm", x, weight, bias),
    _aten._softmax.default: lambda graph, x, axis, _: graph.node("Softmax", x, axis=axis),
    _aten.zeros_like.default: _zeros_like,
    _aten.expand.default: _expand,
}
