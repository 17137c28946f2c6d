"""Computing at compile time what does not depend on inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx.reference.ops
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes, constant_of
from irtools.analysis.types import element_type
from irtools.model import nested_graphs
from irtools.passes.cleanup._edit import is_deterministic
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option

__all__ = ["FoldConstants", "LiftConstants"]

MAX_BYTES = 1 << 20
"""A folded result may be this large, or as large as the constants that it replaces."""

_EXACT_OPS = frozenset(
    {"Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil"}
    | {"Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten", "Floor"}
    | {"Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "IsInf"}
    | {"IsNaN", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "Range"}
    | {"ReduceMax", "ReduceMin", "Reshape", "ScatterND", "Shape", "Sign", "Size", "Slice"}
    | {"Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze"}
    | {"Where", "Xor"}
)
"""Operators that move data, count, or round correctly by IEEE 754: one right answer each."""

_ROUNDING_OPS = frozenset(
    {"Cos", "Cosh", "CumSum", "Erf", "Exp", "Log", "MatMul", "Pow", "Reciprocal", "ReduceMean"}
    | {"ReduceProd", "ReduceSum", "Round", "Sigmoid", "Sin", "Sinh", "Softmax", "Sum", "Tan"}
    | {"Tanh"}
)
"""Operators whose last bits depend on who computes them; of Sum the sign of -0.0 + -0.0."""

_MOVING_OPS = frozenset(
    {"Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"}
    | {"Identity", "Reshape", "ScatterND", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
    | {"Trilu", "Unsqueeze", "Where"}
)
"""All that is folded of half precision: runtimes compute it in float32 and round at will."""

_FOLDABLE_TYPES = frozenset(
    {ir.DataType.BOOL, ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
    | {ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64}
    | {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)
_EVALUATION_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the reference implementations raise on input they do not take."""


@dataclass(frozen=True)
class LiftConstants(Pass):
    """Turn Constant nodes of the main graph into initializers, where all passes look for weights.

    Subgraphs keep theirs: not every runtime reads initializers there. So do functions, which
    have none, and model outputs.
    """

    name: ClassVar[str] = "lift-constants"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    statistics: ClassVar = {"num-lifted-constants": "Constant nodes turned into initializers"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        lifted = 0
        for node in model.graph:
            tensor = constant_of(node.outputs[0]) if node.op_type == "Constant" else None
            if tensor is not None and not node.outputs[0].is_graph_output():
                _replace_by_constants(node, [tensor], in_main=True)
                lifted += 1
        preserved = frozenset({SymbolicShapes})
        return PassResult(lifted > 0, {"num-lifted-constants": lifted}, preserved=preserved)


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose result does not depend on inputs by that result.

    Also folds Shape and the arithmetic on it where the sizes are fixed. A result is kept to
    1 MiB, or to the size of the constants that it frees, and its size is known before it is
    computed. Never folds random operators, QuantizeLinear and DequantizeLinear (they are the
    quantization), weights that a caller may override, nodes of foreign domains, or outputs of
    the model. Works in the main graph and in nested subgraphs.

    Values come from onnx's reference implementations, which are nobody's runtime: operators
    with one right answer (data movement, integers, correctly rounded arithmetic) are folded
    always, the others (Exp, MatMul ...) only where the last bit may change.
    """

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    statistics: ClassVar = {"num-folded-nodes": "nodes replaced by their constant result"}

    exact: bool = option(False, "fold only where every bit of the result is certain")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        folder = _Folder(ctx.analysis(SymbolicShapes, model), model.opset_imports.get("", 0))
        foldable = _EXACT_OPS if self.exact else _EXACT_OPS | _ROUNDING_OPS
        folded = 0
        for graph in nested_graphs(model.graph):
            for node in graph:
                if node.op_type in foldable and is_deterministic(node):
                    folded += folder.fold(node, in_main=graph is model.graph)
        preserved = frozenset({SymbolicShapes})
        return PassResult(folded > 0, {"num-folded-nodes": folded}, preserved=preserved)


@dataclass(frozen=True)
class _Folder:
    """Folds one node at a time, in order, so that a chain of constants folds in one walk."""

    facts: SymbolicShapes
    opset: int
    _evaluators: dict[str, Any] = field(default_factory=dict)

    def fold(self, node: ir.Node, *, in_main: bool) -> bool:
        if any(output.is_graph_output() for output in node.outputs):
            return False
        results = self._fixed_integers(node)
        if results is None:
            results = self._evaluate(node)
        if results is None:
            return False
        _replace_by_constants(node, [ir.tensor(a) for a in results], in_main=in_main)
        return True

    def _fixed_integers(self, node: ir.Node) -> Sequence[np.ndarray] | None:
        """The result of shape arithmetic in which every size is a number."""
        output = node.outputs[0]
        values = self.facts.integers(output)
        if values is None or element_type(output) != ir.DataType.INT64:
            return None
        if not all(type(item) is int for item in values.reshape(-1)):
            return None
        return [values.astype(np.int64)]

    def _evaluate(self, node: ir.Node) -> Sequence[np.ndarray] | None:
        tensors = [None if value is None else constant_of(value) for value in node.inputs]
        for value, tensor in zip(node.inputs, tensors, strict=True):
            if value is not None and (tensor is None or tensor.dtype not in _FOLDABLE_TYPES):
                return None
        if not self._is_small(node) or not _is_defined(node, tensors):
            return None
        halves = any(t is not None and t.dtype == ir.DataType.FLOAT16 for t in tensors)
        if halves and node.op_type not in _MOVING_OPS:
            return None
        evaluator = self._evaluator(node.op_type)
        if evaluator is None:
            return None
        attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
        arrays = [None if tensor is None else tensor.numpy() for tensor in tensors]
        try:
            with np.errstate(all="ignore"):
                found = evaluator.eval(*arrays, **attributes)
        except _EVALUATION_ERRORS:
            return None
        results = list(found) if isinstance(found, tuple | list) else [found]
        return self._checked(node, results)

    def _checked(self, node: ir.Node, results: Sequence[Any]) -> Sequence[np.ndarray] | None:
        if len(results) != len(node.outputs):
            return None
        arrays = []
        for output, result in zip(node.outputs, results, strict=True):
            # Reference implementations may return scalars, and views of their inputs.
            array = np.array(result, order="C")
            if array.dtype == object or self.facts.shape(output) != array.shape:
                return None
            if output.dtype is not None and output.dtype != ir.DataType.from_numpy(array.dtype):
                return None
            arrays.append(array)
        return arrays

    def _evaluator(self, op_type: str) -> Any:
        if op_type not in self._evaluators:
            try:
                found = onnx.reference.ops.load_op("", op_type, self.opset)
            except _EVALUATION_ERRORS:
                found = None
            self._evaluators[op_type] = found
        return self._evaluators[op_type]

    def _is_small(self, node: ir.Node) -> bool:
        """Whether the result is known to be small, or no larger than what it frees."""
        total = 0
        for output in node.outputs:
            shape = self.facts.shape(output)
            if shape is None or not all(isinstance(dim, int) for dim in shape):
                return False
            elements = 1
            for dim in shape:
                assert isinstance(dim, int)
                elements *= dim
            total += elements * _item_bytes(node)
        freed = sum(
            value.const_value.nbytes
            for value in set(node.inputs)
            if value is not None and value.const_value is not None and len(value.consumers()) == 1
        )
        return total <= max(MAX_BYTES, freed)


def _replace_by_constants(
    node: ir.Node, tensors: Sequence[ir.TensorProtocol], *, in_main: bool
) -> None:
    """Give the outputs of a node constant values under their own names and drop the node."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for output, tensor in zip(node.outputs, tensors, strict=True):
        name, output.name = output.name, None
        if in_main:
            constant = _initializer(graph, name, tensor)
        else:
            maker = ir.node("Constant", [], {"value": tensor}, outputs=[ir.val(name)])
            graph.insert_before(node, maker)
            constant = maker.outputs[0]
        output.replace_all_uses_with(constant)
    graph.remove(node, safe=True)


def _initializer(graph: ir.Graph, name: str | None, tensor: ir.TensorProtocol) -> ir.Value:
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _item_bytes(node: ir.Node) -> int:
    """Bytes per element of the result, or the most it can be."""
    dtype = element_type(node.outputs[0])
    return 8 if dtype is None else max(1, dtype.bitwidth // 8)


def _is_defined(node: ir.Node, tensors: Sequence[ir.TensorProtocol | None]) -> bool:
    """Whether every implementation must give the same answer for these values."""
    first = tensors[0] if tensors else None
    if first is None or node.op_type not in ("Cast", "Div", "ReduceMax", "ReduceMin"):
        return True
    if node.op_type not in ("Cast", "Div"):
        # Whether NaN counts in a maximum, runtimes do not agree.
        return not (first.dtype.is_floating_point() and np.isnan(first.numpy()).any())
    if node.op_type == "Cast":
        target = ir.DataType(node.attributes["to"].as_int())
        if target not in _FOLDABLE_TYPES or target == ir.DataType.FLOAT16:
            return False
        if first.dtype.is_floating_point() and target.is_integer():
            # C leaves conversions outside the range undefined, and runtimes do differ.
            values, limits = first.numpy(), np.iinfo(target.numpy())
            return bool(np.all((values > limits.min) & (values < limits.max)))
        return True
    divisor = tensors[1]
    if divisor is None or not first.dtype.is_integer():
        return True
    return bool(np.all(first.numpy() >= 0) and np.all(divisor.numpy() > 0))


def _plain(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.to_proto(attribute.as_tensor())
    return attribute.value
