"""Half precision as arithmetic: a float16 or bfloat16 graph behind a float32 interface.

Operators that are declared safe (`Op.half_safe`) compute in 16 bits; a Cast stands wherever a value
crosses. Everything else stays in float32: normalizations, softmax, exponentials and sums over many
elements (they overflow or lose too much), and those of which nothing is declared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from irtools.analysis.types import element_type
from irtools.editing import Editor, constant_of, require_array
from irtools.model import infer_shapes
from irtools.operators import find_op, op_key
from irtools.passes.precision.limits import Misfit, misfit, to_half
from irtools.passes.precision.storage import divides

__all__ = ["HalfGraph", "compute_in_half"]

# Their results are bounded whatever goes in, so a value beyond 65504 ends with them.
_BOUNDED = frozenset({"Softmax", "Sigmoid", "Tanh", "LayerNormalization", "IsNaN", "IsInf", "Clip"})


_SCALING = frozenset({"Conv", "ConvTranspose", "Div", "Gemm", "MatMul", "Mul"})


@dataclass(frozen=True)
class HalfGraph:
    """What `compute_in_half` did.

    Attributes:
        nodes: Nodes that compute in 16 bits now.
        kept: Float32 nodes that stay so.
        too_large: Names of constants with finite values that 16 bits cannot hold.
        too_small: Names of constants that lose more than 1 % in 16 bits.
        other_types: Names of constants of floating types that stay, such as float64.
        unjudged: Float32 nodes by operator, where nothing says whether 16 bits are enough.
    """

    nodes: int
    kept: int
    too_large: tuple[str, ...]
    too_small: tuple[str, ...] = ()
    other_types: tuple[str, ...] = ()
    unjudged: Mapping[str, int] = field(default_factory=dict)


def compute_in_half(model: ir.Model, dtype: ir.DataType) -> HalfGraph:
    """Move what is safe into 16 bits, in the main graph.

    Args:
        model: Changed in place. Types are inferred first; what has none even then stays as it is.
        dtype: FLOAT16 or BFLOAT16.
    """
    infer_shapes(model)
    _declare_types(model.graph)
    return _Converter(model, dtype).run()


def _declare_types(graph: ir.Graph) -> None:
    """Fill in what ONNX's inference leaves open from the first foreign operator on."""
    for node in graph:
        for output in node.outputs:
            if output.type is None and (dtype := element_type(output)) is not None:
                output.type = ir.TensorType(dtype)


class _Converter:
    def __init__(self, model: ir.Model, dtype: ir.DataType) -> None:
        self._graph = model.graph
        self._dtype = dtype
        self._editor = Editor(model, dtype.name.lower())
        self._misfits: dict[ir.Value, Misfit | None] = {}
        self._halves: dict[ir.Value, ir.Value] = {}
        self._unjudged: Counter[str] = Counter()

    def run(self) -> HalfGraph:
        chosen = self._choose()
        floats = sum(any(_is_float(o) for o in node.outputs) for node in self._graph)
        for node in chosen:
            for index, value in enumerate(node.inputs):
                if value is not None and _is_float(value):
                    node.replace_input_with(index, self._half(value))
            for output in node.outputs:
                if _is_float(output):
                    self._narrow(output, chosen)
        self._editor.drop_unread(*(value for value in self._halves if value.is_initializer()))
        others = (
            value.name or "?"
            for value in self._graph.initializers.values()
            if value.dtype == ir.DataType.DOUBLE
        )
        left = floats - len(chosen)
        return HalfGraph(
            len(chosen),
            left,
            self._named("large"),
            self._named("small"),
            tuple(others),
            self._unjudged,
        )

    def _named(self, why: Misfit) -> tuple[str, ...]:
        return tuple(value.name or "?" for value, found in self._misfits.items() if found == why)

    def _choose(self) -> dict[ir.Node, None]:
        """Return the nodes that compute in 16 bits, in graph order."""
        chosen: dict[ir.Node, None] = {}
        large: set[ir.Value] = set()
        for node in self._graph:
            misfits = {self._misfit(value) for value in node.inputs}
            is_large = any(value in large for value in node.inputs) or "large" in misfits
            # What is scaled by tiny numbers is tiny or huge from there on; a sum hardly is.
            is_large |= "small" in misfits and node.op_type in _SCALING
            if is_large and node.op_type not in _BOUNDED:
                large.update(node.outputs)
            typed = all(v is None or v.dtype is not None for v in (*node.inputs, *node.outputs))
            fits = not is_large and "small" not in misfits
            if not any(_is_float(o) for o in node.outputs):
                continue
            if typed and fits and self._is_safe(node):
                chosen[node] = None
        return chosen

    def _is_safe(self, node: ir.Node) -> bool:
        """Whether the operator is declared safe, and takes the type at the model's opset."""
        op = find_op(node.domain, node.op_type)
        if op is None or op.half_safe is None:
            self._unjudged[op_key(node.domain, node.op_type)] += 1
            return False
        return op.half_safe and self._admits(node)

    def _admits(self, node: ir.Node) -> bool:
        version = self._graph.opset_imports.get(node.domain, 0)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        except onnx.defs.SchemaError:
            return node.domain != ""
        return f"tensor({self._dtype.name.lower()})" in schema.outputs[0].types

    def _misfit(self, value: ir.Value | None) -> Misfit | None:
        if value is None or not _is_float(value):
            return None
        if value not in self._misfits:
            tensor = constant_of(value) or value.const_value
            self._misfits[value] = (
                None
                if tensor is None
                else misfit(tensor.numpy(), self._dtype, divides=divides(value))
            )
        return self._misfits[value]

    def _half(self, value: ir.Value) -> ir.Value:
        """Return a float32 value in 16 bits: a new initializer, or one shared Cast."""
        found = self._halves.get(value)
        if found is not None:
            return found
        if value.is_initializer() and not value.is_graph_input():
            found = self._constant(value)
        else:
            found = self._cast(value, self._dtype, f"{value.name}_{self._dtype.name.lower()}")
        self._halves[value] = found
        return found

    def _constant(self, value: ir.Value) -> ir.Value:
        half = to_half(require_array(value), self._dtype)
        return self._editor.constant(f"{value.name}_{self._dtype.name.lower()}", half)

    def _narrow(self, output: ir.Value, chosen: dict[ir.Node, None]) -> None:
        """Make an output 16 bits wide, with a Cast for those who read it in float32."""
        outside = [(node, index) for node, index in output.uses() if node not in chosen]
        output.type = ir.TensorType(self._dtype)
        # Readers inside find it here; nothing has to be cast for them.
        self._halves[output] = output
        if not outside and not output.is_graph_output():
            return
        wide = self._cast(output, ir.DataType.FLOAT, f"{output.name}_float")
        for node, index in outside:
            node.replace_input_with(index, wide)
        if output.is_graph_output():
            self._editor.replace_output(output, wide, f"{output.name}_{self._dtype.name.lower()}")

    def _cast(self, value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
        return self._editor.after(value, "Cast", [value], {"to": to.value}, outputs={name: to})


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT
