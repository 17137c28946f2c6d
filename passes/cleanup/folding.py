"""Computing at compile time what does not depend on inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import Editor, constant_of
from irtools.model import nested_graphs
from irtools.operators import Fold, find_op
from irtools.passes.cleanup.determinism import is_deterministic
from irtools.passes.cleanup.fold_budget import Choice, Results, choose
from irtools.passes.cleanup.sizes import initializer_bytes, node_bytes
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option

__all__ = ["FoldConstants", "LiftConstants"]

MAX_BYTES = 1 << 20
"""A result is computed up to this size, or that of the constants that it is computed from.

What is written is bounded by what the file loses by it: see `fold_budget`.
"""

_FEW_ELEMENTS = 64
"""Constants of no more elements are sizes, axes and scalars; results of them are not weights."""

_MAX_SWEEPS = 4

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
    counters: ClassVar = {"num-lifted-constants": "Constant nodes turned into initializers"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        editor = Editor(model, self.name)
        lifted = 0
        for node in model.graph:
            tensor = constant_of(node.outputs[0]) if node.op_type == "Constant" else None
            if tensor is not None and not node.outputs[0].is_graph_output():
                output = node.outputs[0]
                if initializer_bytes(output.name, tensor) > node_bytes(node):
                    continue  # A list of small integers: it takes a byte each, a tensor eight.
                _replace_by_constant(editor, output, tensor, in_main=True)
                editor.remove(node)
                lifted += 1
        preserved = frozenset({SymbolicShapes})
        return PassResult(lifted > 0, {"num-lifted-constants": lifted}, preserved=preserved)


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose result does not depend on inputs by that result.

    Also folds Shape and the arithmetic on it where the sizes are fixed. The file never grows by
    it: a result may be as large as the nodes and constants that it frees, and larger only where
    other results have made room; its size is known before it is computed. What is stored in fewer
    bytes than what is computed from it stays stored so: 8-bit integers after Cast and Mul,
    half precision after Cast, indices of a codebook, one row after Expand. Weights that training
    left in float32 in front of a QuantizeLinear become the integers that it makes of them. Never
    folds random operators, DequantizeLinear (it is the quantization), weights that a caller may
    override, nodes of foreign domains, or outputs of the model. Constants that nothing reads any
    more go. Works in the main graph and in nested subgraphs.

    Values come from onnx's reference implementations, which no deployment uses: operators
    with one right answer (data movement, integers, correctly rounded arithmetic) are folded
    always, the others (Exp, MatMul ...) only where the last bit may change.
    """

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    counters: ClassVar = {"num-folded-nodes": "nodes replaced by their constant result"}

    exact: bool = option(False, "fold only where every bit of the result is certain")

    @property
    def promise(self) -> Exactness:
        return Exactness.EXACT if self.exact else self.exactness

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        editor = Editor(model, self.name)
        folded = 0
        for _ in range(_MAX_SWEEPS):
            folder = _Folder(ctx.analysis(SymbolicShapes, model), model.opset_imports.get("", 0))
            for graph in nested_graphs(model.graph):
                for node in graph:
                    if self._folds(node) and is_deterministic(node):
                        folder.visit(node)
            choice = choose(folder.results, model.graph)
            _fold(editor, choice, folder.results)
            folded += len(choice.nodes)
            if not (choice.trimmed and choice.nodes):
                # What stays may be worth folding once what it was weighed with is gone.
                break
        preserved = frozenset({SymbolicShapes})
        return PassResult(folded > 0, {"num-folded-nodes": folded}, preserved=preserved)

    def _folds(self, node: ir.Node) -> bool:
        op = find_op(node.domain, node.op_type)
        return op is not None and (op.fold is Fold.EXACT or (bool(op.fold) and not self.exact))


def _fold(editor: Editor, choice: Choice, results: Results) -> None:
    """Put constants in the place of nodes, and remove the constants that only they read."""
    for value in choice.values:
        node = value.producer()
        assert node is not None
        array = np.array(results[node][node.outputs.index(value)], order="C")
        _replace_by_constant(editor, value, ir.tensor(array), in_main=node.graph is editor.graph)
    read = [value for node in choice.nodes for value in node.inputs]
    editor.remove(*choice.nodes)
    editor.drop_unread(*(value for value in read if constant_of(value) is not None))


@dataclass(frozen=True)
class _Folder:
    """Computes one node at a time, in order, so that a chain of constants is computed in one walk.

    Attributes:
        facts: Shapes, and the integers of shape arithmetic.
        opset: Version of the operators.
        results: What was computed, by node.
    """

    facts: SymbolicShapes
    opset: int
    results: dict[ir.Node, Sequence[np.ndarray]] = field(default_factory=dict)
    _tensors: dict[ir.Value, ir.TensorProtocol] = field(default_factory=dict)
    _stored: dict[ir.Value, frozenset[ir.Value]] = field(default_factory=dict)
    _evaluators: dict[str, Any] = field(default_factory=dict)

    def visit(self, node: ir.Node) -> None:
        if any(output.is_graph_output() for output in node.outputs):
            return
        results = self._fixed_integers(node)
        stored: frozenset[ir.Value] = frozenset()
        if results is None:
            stored = self._large_constants(node)
            results = self._evaluate(node, stored)
        if results is None:
            return
        self.results[node] = results
        for output, array in zip(node.outputs, results, strict=True):
            self._tensors[output] = ir.tensor(array)
            self._stored[output] = stored

    def _constant(self, value: ir.Value | None) -> ir.TensorProtocol | None:
        """The tensor of a value that never changes, as stored or as computed so far."""
        if value is None:
            return None
        found = self._tensors.get(value)
        return constant_of(value) if found is None else found

    def _large_constants(self, node: ir.Node) -> frozenset[ir.Value]:
        """The tensors of the file, shape arithmetic aside, that a node's result depends on."""
        found: set[ir.Value] = set()
        for value in node.inputs:
            if value is None:
                continue
            if value in self._stored:
                found |= self._stored[value]
            elif (tensor := constant_of(value)) is not None and tensor.size > _FEW_ELEMENTS:
                found.add(value)
        return frozenset(found)

    def _fixed_integers(self, node: ir.Node) -> Sequence[np.ndarray] | None:
        """The result of shape arithmetic in which every size is a number."""
        output = node.outputs[0]
        values = self.facts.integers(output)
        if values is None or element_type(output) != ir.DataType.INT64:
            return None
        if not all(type(item) is int for item in values.reshape(-1)):
            return None
        return [values.astype(np.int64)]

    def _evaluate(self, node: ir.Node, stored: frozenset[ir.Value]) -> Sequence[np.ndarray] | None:
        tensors = [self._constant(value) for value in node.inputs]
        for value, tensor in zip(node.inputs, tensors, strict=True):
            if value is not None and (tensor is None or tensor.dtype not in _FOLDABLE_TYPES):
                return None
        size = self._result_bytes(node)
        if size is None or not _is_defined(node, tensors):
            return None
        if size > max(MAX_BYTES, sum(t.nbytes for t in tensors if t is not None)):
            return None
        if stored and size > self._stored_bytes(node, stored):
            # The file stores it in fewer bytes: int8 and a scale, a codebook, one row of a table.
            return None
        halves = any(t is not None and t.dtype == ir.DataType.FLOAT16 for t in tensors)
        op = find_op(node.domain, node.op_type)
        if halves and not (op is not None and op.only_moves):
            # Runtimes compute half precision in float32 and round at will.
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
            # A view of an input, such as a turned weight, is copied where it is chosen.
            array = np.asarray(result)
            if array.dtype == object or self.facts.shape(output) != array.shape:
                return None
            if output.dtype is not None and output.dtype != ir.DataType.from_numpy(array.dtype):
                return None
            arrays.append(array)
        return arrays

    def _evaluator(self, op_type: str) -> Any:
        if op_type not in self._evaluators:
            from onnx.reference.ops import load_op

            try:
                found = load_op("", op_type, self.opset)
            except _EVALUATION_ERRORS:
                found = None
            self._evaluators[op_type] = found
        return self._evaluators[op_type]

    def _stored_bytes(self, node: ir.Node, stored: frozenset[ir.Value]) -> int:
        """Return the bytes of all that a node's result is computed from."""
        small = [v for v in node.inputs if v is not None and not self._stored.get(v, v in stored)]
        tensors = [constant_of(value) for value in stored]
        tensors += [self._constant(value) for value in small]
        return sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)

    def _result_bytes(self, node: ir.Node) -> int | None:
        """Return the size of a node's results before they are computed; None: it is not known."""
        total = 0
        for output in node.outputs:
            shape = self.facts.shape(output)
            if shape is None or not all(isinstance(dim, int) for dim in shape):
                return None
            elements = 1
            for dim in shape:
                assert isinstance(dim, int)
                elements *= dim
            total += elements * _item_bytes(node)
        return total


def _replace_by_constant(
    editor: Editor, output: ir.Value, tensor: ir.TensorProtocol, *, in_main: bool
) -> None:
    """Let the readers of an output read a constant of its name; its node is not read any more."""
    name, output.name = output.name, None
    before = None if in_main else output.producer()
    editor.forward(output, editor.named_constant(name, tensor, before=before))


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
