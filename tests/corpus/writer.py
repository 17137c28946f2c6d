"""Writes a small ONNX model node by node, in the names and at the opset of some maker.

Nothing here knows the compiler: the models are made with `onnx.helper` alone, as an exporter
would, and come with inputs on which they run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["FROM_OPSET", "PLAIN", "Arrays", "Built", "Names", "Writer"]

Arrays = dict[str, np.ndarray]
Dims = Sequence[int | str | None]

FROM_OPSET = {
    **dict.fromkeys((7, 8), 3),
    9: 4,
    10: 5,
    11: 6,
    **dict.fromkeys((12, 13, 14), 7),
    **dict.fromkeys((15, 16, 17, 18), 8),
    **dict.fromkeys((19, 20), 9),
    **dict.fromkeys((21, 22), 10),
    23: 11,
    24: 12,
    25: 13,
    26: 13,
}
"""IR version that came with an opset."""

_INPUTS_SINCE = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13, "Split": 13, "ReduceMean": 18}
"""First opset at which the axes (or sizes) are an input and not an attribute."""


@dataclass(frozen=True)
class Names:
    """How a maker names things: templates with {op}, {role} and {i}."""

    node: str = "{op}_{i}"
    value: str = "/{op}_{i}_output_0"
    weight: str = "layer{i}.{role}"
    producer: str = "pytorch"


PLAIN = Names()


@dataclass(frozen=True)
class Built:
    """A model, and inputs on which it runs."""

    proto: onnx.ModelProto
    feeds: tuple[Arrays, ...]


@dataclass
class Writer:
    """A graph under construction; values are named by their names.

    Attributes:
        name: Name of the graph, and what its random numbers follow from.
        opset: Of ai.onnx.
        names: Naming style.
        constants: Weights become Constant nodes, as some makers write them.
        parent: The graph around this one, where this is a body.
    """

    name: str
    opset: int = 17
    names: Names = PLAIN
    constants: bool = False
    parent: Writer | None = None
    domains: dict[str, int] = field(default_factory=dict)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    feeds: Arrays = field(default_factory=dict)
    rng: np.random.Generator = field(init=False)
    numbers: count[int] = field(init=False)

    def __post_init__(self) -> None:
        # Children go on with the numbers of their parent: names are unique in the whole model.
        self.rng = self.parent.rng if self.parent else np.random.default_rng([*self.name.encode()])
        self.numbers = self.parent.numbers if self.parent else count()

    # Inputs and outputs.

    def input(self, name: str, dims: Dims, feed: np.ndarray) -> str:
        """Declare an input; its type is that of the feed."""
        feed = np.asarray(feed)
        self.inputs.append(_declare(name, feed.dtype, dims))
        self.feeds[name] = feed
        return name

    def formal(self, dims: Dims | None, dtype: type | np.dtype = np.float32) -> str:
        """Declare an input of a body."""
        name = self._name(self.names.value, "in")
        self.inputs.append(_declare(name, np.dtype(dtype), dims))
        return name

    def output(
        self, value: str, dims: Dims | None = None, dtype: type | np.dtype = np.float32
    ) -> str:
        self.outputs.append(_declare(value, np.dtype(dtype), dims))
        return value

    def named_output(
        self, name: str, value: str, dims: Dims, dtype: type | np.dtype = np.float32
    ) -> str:
        """Make a value an output under another name."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{name}_identity"))
        return self.output(name, dims, dtype)

    # Random numbers.

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def integers(self, below: int, *shape: int, dtype: type = np.int64) -> np.ndarray:
        return self.rng.integers(0, below, shape).astype(dtype)

    # Weights and nodes.

    def const(
        self, array: np.ndarray | float | Sequence[float], role: str = "const", name: str = ""
    ) -> str:
        """Add a constant as it is; Python numbers become float32."""
        if not isinstance(array, (np.ndarray, np.generic)):
            array = np.asarray(array, np.float32)
        return self.tensor(numpy_helper.from_array(np.asarray(array)), role, name)

    def tensor(self, tensor: onnx.TensorProto, role: str = "const", name: str = "") -> str:
        name = name or self._name(self.names.weight, role, role)
        if self.constants:
            self.nodes.append(
                helper.make_node("Constant", [], [name], name=f"Constant_{name}", value=tensor)
            )
        else:
            tensor.name = name
            self.weights.append(tensor)
        return name

    def ints(self, *numbers: int) -> str:
        return self.const(np.asarray(numbers, np.int64), "shape")

    def matrix(self, rows: int, columns: int) -> str:
        return self.const(self.normal(rows, columns, scale=1 / math.sqrt(rows)), "weight")

    def kernel(self, *shape: int) -> str:
        """A weight [outputs, inputs, ...] of Conv."""
        return self.const(self.normal(*shape, scale=1 / math.sqrt(math.prod(shape[1:]))), "weight")

    def bias(self, size: int) -> str:
        return self.const(self.normal(size, scale=0.1), "bias")

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        return self.split(op, *inputs, outputs=1, domain=domain, **attributes)[0]

    def split(
        self, op: str, *inputs: str, outputs: int | str, domain: str = "", **attributes: object
    ) -> list[str]:
        """Add a node with several outputs; a text of x and . says which are there."""
        wanted = "x" * outputs if isinstance(outputs, int) else outputs
        number = next(self.numbers)
        made = [
            self.names.value.format(op=op, role=op, i=f"{number}_{k}" if k else number)
            if flag == "x"
            else ""
            for k, flag in enumerate(wanted)
        ]
        name = self.names.node.format(op=op, role=op, i=number)
        self.nodes.append(
            helper.make_node(op, inputs, made, name=name, domain=domain, **attributes)
        )
        if domain:
            self.domains.setdefault(domain, 1)
        return made

    def over_axes(self, op: str, value: str, *axes: int, **attributes: object) -> str:
        """Squeeze, ReduceMean and the like: axes are where the opset requires them."""
        if self.opset >= _INPUTS_SINCE[op]:
            return self.node(op, value, self.ints(*axes), **attributes)
        return self.node(op, value, axes=axes, **attributes)

    def _name(self, template: str, op: str, role: str = "") -> str:
        return template.format(op=op, role=role or op, i=next(self.numbers))

    # Layers that many models have.

    def linear(self, value: str, inputs: int, outputs: int, activation: str = "") -> str:
        added = self.node("Add", self.node("MatMul", value, self.matrix(inputs, outputs)),
                          self.bias(outputs))  # fmt: skip
        return self.node(activation, added) if activation else added

    def conv(
        self, value: str, inputs: int, outputs: int, *kernel: int, activation: str = "",
        group: int = 1, **attributes: object,
    ) -> str:  # fmt: skip
        weight = self.kernel(outputs, inputs // group, *kernel)
        made = self.node("Conv", value, weight, self.bias(outputs), kernel_shape=kernel,
                         group=group, **attributes)  # fmt: skip
        return self.node(activation, made) if activation else made

    def batch_norm(self, value: str, channels: int) -> str:
        one = np.ones(channels, np.float32)
        return self.node(
            "BatchNormalization", value,
            self.const(one + self.normal(channels, scale=0.1), "bn_scale"), self.bias(channels),
            self.const(self.normal(channels, scale=0.1), "bn_mean"),
            self.const(one + np.abs(self.normal(channels, scale=0.1)), "bn_var"), epsilon=1e-5,
        )  # fmt: skip

    def layer_norm(self, value: str, width: int) -> str:
        scale = self.const(1 + self.normal(width, scale=0.1), "gamma")
        if self.opset >= 17:
            return self.node("LayerNormalization", value, scale, self.bias(width), axis=-1)
        centred = self.node("Sub", value, self.over_axes("ReduceMean", value, -1, keepdims=1))
        variance = self.over_axes(
            "ReduceMean", self.node("Pow", centred, self.const(2.0)), -1, keepdims=1
        )
        deviation = self.node("Sqrt", self.node("Add", variance, self.const(1e-5)))
        scaled = self.node("Mul", self.node("Div", centred, deviation), scale)
        return self.node("Add", scaled, self.bias(width))

    # Ends.

    def body(self, name: str) -> Writer:
        """Return a writer for a graph inside this one: it may use the names of this one."""
        return Writer(name, self.opset, self.names, self.constants, parent=self)

    def graph(self) -> onnx.GraphProto:
        return helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)

    def build(self, *more_feeds: Arrays, ir_version: int | None = None) -> Built:
        """Return the finished model.

        Args:
            more_feeds: Inputs of other sizes on which it runs, too.
            ir_version: Before 4 the weights are inputs as well, as that IR requires them.
        """
        ir_version = ir_version or FROM_OPSET[self.opset]
        graph = self.graph()
        if ir_version < 4:
            graph.input.extend(
                helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in self.weights
            )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(*one) for one in self.domains.items()]
        proto = helper.make_model(
            graph, producer_name=self.names.producer, ir_version=ir_version,
            opset_imports=opsets, functions=self.functions,
        )  # fmt: skip
        return Built(proto, (self.feeds, *more_feeds))


def _declare(name: str, dtype: np.dtype, dims: Dims | None) -> onnx.ValueInfoProto:
    code = onnx.TensorProto.STRING if dtype.kind in "UO" else helper.np_dtype_to_tensor_dtype(dtype)
    return helper.make_tensor_value_info(name, code, None if dims is None else list(dims))
