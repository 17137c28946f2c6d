"""A speech encoder as TorchScript exporters write it: 3,600 nodes, 90 MB, random weights.

Conformer blocks (attention, gated and depthwise convolution, two feed-forward layers) over
features [batch, time, 80]. All shapes are computed in the graph, all numbers are Constant nodes,
norms are in parts: what a tool that cleans up has to work through.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["write_speech"]

WIDTH, HEADS, HIDDEN, BLOCKS, CLASSES = 256, 4, 576, 21, 512
OPSET, IR_VERSION = 13, 7


class _Writer:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        number = len(self.nodes)
        made = helper.make_node(op, inputs, [f"onnx::{op}_{number}"], **attributes)
        made.name = f"/encoder/{op}_{number}"
        self.nodes.append(made)
        return str(made.output[0])

    def const(self, array: float | Sequence[int] | np.ndarray) -> str:
        kind = np.float32 if isinstance(array, float) else None
        return self.node("Constant", value=numpy_helper.from_array(np.asarray(array, kind)))

    def weight(self, *shape: int, at: float = 0.0, fan: int = 0) -> str:
        array = self.rng.standard_normal(shape) / np.sqrt(fan or shape[0]) + at
        name = f"encoder.weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        product = self.node("MatMul", value, self.weight(inputs, outputs))
        return self.node("Add", self.weight(outputs), product)

    def layer_norm(self, value: str) -> str:
        centred = self.node("Sub", value, self.node("ReduceMean", value, axes=[-1]))
        power = self.node("Pow", centred, self.const(2.0))
        variance = self.node("ReduceMean", power, axes=[-1])
        deviation = self.node("Sqrt", self.node("Add", variance, self.const(1e-5)))
        scaled = self.node("Mul", self.node("Div", centred, deviation), self.weight(WIDTH, at=1.0))
        return self.node("Add", scaled, self.weight(WIDTH))

    def swish(self, value: str) -> str:
        return self.node("Mul", value, self.node("Sigmoid", value))

    def size(self, value: str, axis: int) -> str:
        found = self.node("Gather", self.node("Shape", value), self.const(np.int64(axis)), axis=0)
        return self.node("Unsqueeze", found, self.const([0]))

    def reshape(self, value: str, of: str, *last: int) -> str:
        """Reshape to [batch, time, *last] with both sizes computed, as `view` is traced."""
        parts = [self.size(of, 0), self.size(of, 1), *(self.const([n]) for n in last)]
        return self.node("Reshape", value, self.node("Concat", *parts, axis=0))

    def attention(self, value: str, mask: str) -> str:
        def heads(perm: Sequence[int]) -> str:
            rows = self.reshape(self.linear(value, WIDTH, WIDTH), value, HEADS, WIDTH // HEADS)
            return self.node("Transpose", rows, perm=perm)

        q, k, v = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
        root = self.node("Sqrt", self.const(float(WIDTH // HEADS)))
        scores = self.node("Div", self.node("MatMul", q, k), root)
        scores = self.node("Where", mask, scores, self.const(-1e4))
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        turned = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(self.reshape(turned, value, WIDTH), WIDTH, WIDTH)

    def convolution(self, value: str) -> str:
        turned = self.node("Transpose", value, perm=[0, 2, 1])
        wide = self.node("Conv", turned, self.weight(2 * WIDTH, WIDTH, 1, fan=WIDTH))
        halves = []
        for bounds in ((0, WIDTH, 1), (WIDTH, 2 * WIDTH, 1)):
            halves.append(self.node("Slice", wide, *(self.const([n]) for n in bounds)))
        gated = self.node("Mul", halves[0], self.node("Sigmoid", halves[1]))
        deep = self.node("Conv", gated, self.weight(WIDTH, 1, 15, fan=15), group=WIDTH, pads=[7, 7])
        statistics = [self.weight(WIDTH, at=1.0), self.weight(WIDTH), self.weight(WIDTH)]
        positive = self.weight(WIDTH, at=1.0)
        normed = self.node("BatchNormalization", deep, *statistics, positive)
        back = self.node("Conv", self.swish(normed), self.weight(WIDTH, WIDTH, 1, fan=WIDTH))
        return self.node("Transpose", back, perm=[0, 2, 1])

    def feed_forward(self, value: str) -> str:
        hidden = self.swish(self.linear(self.layer_norm(value), WIDTH, HIDDEN))
        return self.node("Mul", self.const(0.5), self.linear(hidden, HIDDEN, WIDTH))

    def block(self, value: str, mask: str) -> str:
        value = self.node("Add", value, self.feed_forward(value))
        value = self.node("Add", value, self.attention(self.layer_norm(value), mask))
        value = self.node("Add", value, self.convolution(self.layer_norm(value)))
        value = self.node("Add", value, self.node("Identity", self.feed_forward(value)))
        return self.layer_norm(value)


def write_speech(path: Path) -> None:
    """Write the model; the same every time."""
    w = _Writer(0)
    mask = w.node("Unsqueeze", w.node("Cast", "mask", to=TensorProto.BOOL), w.const([1, 2]))
    value = w.linear("features", 80, WIDTH)
    for _ in range(BLOCKS):
        value = w.block(value, mask)
    w.nodes.append(helper.make_node("LogSoftmax", [w.linear(value, WIDTH, CLASSES)], ["logits"]))
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", "time", 80]),
        helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch", "time"]),
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", CLASSES])
    graph = helper.make_graph(w.nodes, "speech", inputs, [output], w.weights)
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)
