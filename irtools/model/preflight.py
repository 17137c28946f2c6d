"""Our own checks of a parsed model, before any library interprets it.

Graph libraries drop or choose silently where a file contradicts itself: of two initializers with
one name `onnx_ir` takes one, and the second of two attributes wins. What they lose is checked here,
on the message; what survives in the IR is checked by `verify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from irtools.errors import ModelError, UnsupportedError
from irtools.model.functions import Operator, check_calls
from irtools.model.operators import STANDARD_DOMAINS
from irtools.model.scopes import GraphView, Named, NodeView, check_scopes, shown, shown_operator
from irtools.model.verifier import MAX_SIZE
from irtools.model.versions import (
    MAX_IR_VERSION,
    MAX_ML_OPSET,
    MAX_OPSET,
    MIN_IR_VERSION,
    MIN_OPSET,
)

__all__ = [
    "PlacedSparse",
    "PlacedTensor",
    "check_structure",
    "iter_sparse",
    "iter_tensor_types",
    "iter_typed_values",
    "iter_tensors",
]


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor message and what to call it."""

    tensor: onnx.TensorProto
    where: str
    position: int | None = None
    """Position among the initializers of the main graph, if it is one."""


@dataclass(frozen=True)
class PlacedSparse:
    """A sparse tensor message and what to call it."""

    tensor: onnx.SparseTensorProto
    where: str


def check_structure(model: onnx.ModelProto) -> None:
    """Check versions, functions, names, attributes and types of a model message.

    Raises:
        ModelError: The model is not sound; names the culprit.
        UnsupportedError: The model is sound but uses opaque types.
    """
    _check_strings(model)
    _check_versions(model)
    if not model.HasField("graph"):
        raise ModelError("the model has no graph; it may be empty, or not an ONNX model at all")
    if not model.graph.output:
        raise ModelError("the model has no outputs")
    check_scopes(_ProtoGraph(model.graph, "the graph"))
    _check_functions(model)
    for info, label in _typed_values(model):
        _check_type(info.type, f"value {shown(info.name)} of {label}")
    for graph, _ in _graphs(model):
        for node in graph.node:
            _check_attributes(node)
    for function in model.functions:
        for node in function.node:
            _check_attributes(node)


def iter_tensors(model: onnx.ModelProto) -> Iterator[PlacedTensor]:
    """Yield every dense tensor of a model, wherever it sits; parts of sparse ones not."""
    for position, tensor in enumerate(model.graph.initializer):
        yield PlacedTensor(tensor, f"initializer {shown(tensor.name)}", position)
    for graph, label in _all_graphs(model):
        if graph is not model.graph:
            for tensor in graph.initializer:
                yield PlacedTensor(tensor, f"initializer {shown(tensor.name)} of {label}")
    for attribute, where in _all_attributes(model):
        if attribute.HasField("t"):
            yield PlacedTensor(attribute.t, where)
        for tensor in attribute.tensors:
            yield PlacedTensor(tensor, where)


def iter_tensor_types(model: onnx.ModelProto) -> Iterator[onnx.TypeProto.Tensor]:
    """Yield the tensor type of every declared value; sequences and optionals not."""
    for info, _ in _typed_values(model):
        if info.type.HasField("tensor_type"):
            yield info.type.tensor_type


def iter_typed_values(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """Yield every declared value of all graphs and functions that run."""
    yield from (info for info, _ in _typed_values(model))


def iter_sparse(model: onnx.ModelProto) -> Iterator[PlacedSparse]:
    """Yield every sparse tensor of a model, wherever it sits."""
    for graph, label in _all_graphs(model):
        for sparse in graph.sparse_initializer:
            yield PlacedSparse(sparse, f"sparse initializer {shown(sparse.values.name)} of {label}")
    for attribute, where in _all_attributes(model):
        if attribute.HasField("sparse_tensor"):
            yield PlacedSparse(attribute.sparse_tensor, where)
        for sparse in attribute.sparse_tensors:
            yield PlacedSparse(sparse, where)


class _ProtoGraph:
    """A graph or function message as the name check sees it. A value's key is its name."""

    def __init__(self, graph: onnx.GraphProto | onnx.FunctionProto, label: str) -> None:
        self._graph = graph
        self.label = label

    @property
    def inputs(self) -> Sequence[Named]:
        return _named(self._names("input"))

    @property
    def outputs(self) -> Sequence[Named]:
        return _named(self._names("output"))

    @property
    def initializers(self) -> Sequence[Named]:
        if isinstance(self._graph, onnx.FunctionProto):
            return ()
        dense = [tensor.name for tensor in self._graph.initializer]
        return _named(dense + [sparse.values.name for sparse in self._graph.sparse_initializer])

    def nodes(self) -> Iterable[NodeView]:
        return map(_view, self._graph.node)

    def _names(self, field: str) -> list[str]:
        items = getattr(self._graph, field)
        return list(
            items if isinstance(self._graph, onnx.FunctionProto) else (i.name for i in items)
        )


def _view(node: onnx.NodeProto) -> NodeView:
    nested: list[GraphView] = []
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            label = f"a subgraph of {_label(node)}"
            graphs = [attribute.g] if attribute.HasField("g") else []
            nested += [_ProtoGraph(graph, label) for graph in (*graphs, *attribute.graphs)]
    return NodeView(lambda: _label(node), _named(node.input), _named(node.output), nested)


def _named(names: Iterable[str]) -> list[Named]:
    return [(name, name) for name in names]


def _label(node: onnx.NodeProto) -> str:
    return f"{shown_operator(node.op_type)} node {shown(node.name or next(iter(node.output), ''))}"


def _check_strings(model: onnx.ModelProto) -> None:
    """Check that all names are text: a parser returns broken UTF-8 as bytes."""
    pending: list[Any] = [model]
    while pending:
        message = pending.pop()
        for field, value in message.ListFields():
            values = value if field.is_repeated else (value,)
            if field.type == field.TYPE_MESSAGE:
                pending.extend(values)
            elif field.type == field.TYPE_STRING:
                for text in values:
                    if not isinstance(text, str):
                        raise ModelError(
                            f"the model has {text[:80]!r} as {field.full_name}, which is not "
                            "UTF-8; the file is damaged"
                        )


def _check_versions(model: onnx.ModelProto) -> None:
    if not model.ir_version and not model.opset_import:
        raise ModelError("this is not an ONNX model: it has neither an IR version nor opsets")
    if not MIN_IR_VERSION <= model.ir_version <= MAX_IR_VERSION:
        raise ModelError(
            f"the model has IR version {model.ir_version}, this version of irtools reads "
            f"{MIN_IR_VERSION} to {MAX_IR_VERSION}"
            + ("; export it with an older IR version" if model.ir_version > MAX_IR_VERSION else "")
        )
    if not model.opset_import:
        raise ModelError("the model imports no opset; the file may end early")
    _check_imports(model.opset_import, "the model")
    for function in model.functions:
        _check_imports(function.opset_import, f"function {shown(function.name)}")


def _check_imports(imports: Iterable[onnx.OperatorSetIdProto], where: str) -> None:
    seen: dict[str, int] = {}
    ranges = {"": (MIN_OPSET, MAX_OPSET), "ai.onnx.ml": (1, MAX_ML_OPSET)}
    for item in imports:
        domain = STANDARD_DOMAINS.get(item.domain, item.domain)
        # Converters that merge models may list an import twice; that says nothing new.
        if seen.setdefault(domain, item.version) != item.version:
            raise ModelError(
                f"{where} imports domain {shown(domain or 'ai.onnx')} in two opsets, "
                f"{seen[domain]} and {item.version}"
            )
        low, high = ranges.get(domain, (1, 2**31))
        if not low <= item.version <= high:
            raise ModelError(
                f"{where} has opset {item.version} of {shown(domain or 'ai.onnx')}, this version "
                f"of irtools reads {low} to {high}"
                + ("; export it with an older opset" if item.version > high else "")
            )


def _check_functions(model: onnx.ModelProto) -> None:
    seen: set[tuple[str, str, str]] = set()
    for function in model.functions:
        label = f"function {shown('::'.join((function.domain, function.name)))}"
        identifier = (function.domain, function.name, function.overload)
        if not function.name:
            raise ModelError("the model has a function without a name")
        if identifier in seen:
            raise ModelError(f"{label} is defined twice")
        seen.add(identifier)
        check_scopes(_ProtoGraph(function, label))
    bodies = {(f.domain, f.name, f.overload): _operators(f.node) for f in model.functions}
    check_calls(_operators(model.graph.node), bodies)


def _operators(nodes: Iterable[onnx.NodeProto]) -> list[Operator]:
    """Return the operators of nodes and of their subgraphs."""
    found: list[Operator] = []
    pending = [nodes]
    while pending:
        for node in pending.pop():
            found.append((node.domain, node.op_type, node.overload))
            pending.extend(graph.node for graph, _ in _carried(node))
    return found


def _check_attributes(node: onnx.NodeProto) -> None:
    seen: set[str] = set()
    for attribute in node.attribute:
        where = f"attribute {shown(attribute.name)} of {_label(node)}"
        if not attribute.name or attribute.name in seen:
            fault = "is there twice" if attribute.name else "has no name"
            raise ModelError(f"{where} {fault}")
        seen.add(attribute.name)
        _check_attribute(attribute, where)


_VALUE_FIELDS = {
    "f": onnx.AttributeProto.FLOAT,
    "i": onnx.AttributeProto.INT,
    "s": onnx.AttributeProto.STRING,
    "t": onnx.AttributeProto.TENSOR,
    "g": onnx.AttributeProto.GRAPH,
    "sparse_tensor": onnx.AttributeProto.SPARSE_TENSOR,
    "tp": onnx.AttributeProto.TYPE_PROTO,
    "floats": onnx.AttributeProto.FLOATS,
    "ints": onnx.AttributeProto.INTS,
    "strings": onnx.AttributeProto.STRINGS,
    "tensors": onnx.AttributeProto.TENSORS,
    "graphs": onnx.AttributeProto.GRAPHS,
    "sparse_tensors": onnx.AttributeProto.SPARSE_TENSORS,
    "type_protos": onnx.AttributeProto.TYPE_PROTOS,
}


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:
    used = [_VALUE_FIELDS[f.name] for f, _ in attribute.ListFields() if f.name in _VALUE_FIELDS]
    kind = attribute.type
    if kind == onnx.AttributeProto.UNDEFINED and not attribute.ref_attr_name:
        raise ModelError(f"{where} does not say its type")
    if attribute.ref_attr_name and used:
        raise ModelError(f"{where} has a value and refers to a function's attribute")
    if len(used) > 1 or (used and used[0] != kind):
        raise ModelError(
            f"{where} says it is {onnx.AttributeProto.AttributeType.Name(kind)} but holds "
            f"{' and '.join(onnx.AttributeProto.AttributeType.Name(k) for k in used)}"
        )
    singular = (onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH)
    if not used and not attribute.ref_attr_name and kind in singular:
        raise ModelError(f"{where} has no value")


def _typed_values(model: onnx.ModelProto) -> Iterator[tuple[onnx.ValueInfoProto, str]]:
    """Yield the values that declare a type, each with the label of its graph or function."""
    for graph, label in _graphs(model):
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield info, label
    for function in model.functions:
        for info in function.value_info:
            yield info, f"function {shown(function.name)}"


def _check_type(kind: onnx.TypeProto, where: str) -> None:
    while True:
        match kind.WhichOneof("value"):
            case "sequence_type":
                kind = kind.sequence_type.elem_type
            case "optional_type":
                kind = kind.optional_type.elem_type
            case "map_type":
                kind = kind.map_type.value_type
            case "opaque_type":
                raise UnsupportedError(
                    f"{where} is of an opaque type, which is not supported; expected tensors, "
                    "sequences, maps or optionals"
                )
            case "tensor_type":
                return _check_tensor_type(kind.tensor_type, where)
            case "sparse_tensor_type":
                return _check_tensor_type(kind.sparse_tensor_type, where)
            case _:
                return None


def _check_tensor_type(kind: onnx.TypeProto.Tensor, where: str) -> None:
    if kind.elem_type not in onnx.TensorProto.DataType.values():
        raise ModelError(f"{where} has the element type {kind.elem_type}, which is unknown")
    for dim in kind.shape.dim:
        # Paddle and others write -1 where a size is dynamic; runtimes take it as that.
        if not -1 <= dim.dim_value <= MAX_SIZE:
            raise ModelError(f"{where} has a size of {dim.dim_value}, expected 0 to 2^40")


def _graphs(model: onnx.ModelProto) -> Iterator[tuple[onnx.GraphProto, str]]:
    """Yield the graphs that run, with labels: main, nested, those inside functions."""
    yield from _nested(model.graph, "the graph")
    for function in model.functions:
        for node in function.node:
            yield from _in_node(node)


def _all_graphs(model: onnx.ModelProto) -> Iterator[tuple[onnx.GraphProto, str]]:
    """Yield the graphs that run and those of the training part."""
    yield from _graphs(model)
    for part in model.training_info:
        yield from _nested(part.initialization, "the training part")
        yield from _nested(part.algorithm, "the training part")


def _nested(graph: onnx.GraphProto, label: str) -> Iterator[tuple[onnx.GraphProto, str]]:
    pending = [(graph, label)]
    while pending:
        current, name = pending.pop()
        yield current, name
        for node in current.node:
            pending.extend(_carried(node))


def _in_node(node: onnx.NodeProto) -> Iterator[tuple[onnx.GraphProto, str]]:
    for graph, label in _carried(node):
        yield from _nested(graph, label)


def _carried(node: onnx.NodeProto) -> Iterator[tuple[onnx.GraphProto, str]]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g, f"a subgraph of {_label(node)}"
        for graph in attribute.graphs:
            yield graph, f"a subgraph of {_label(node)}"


def _all_attributes(model: onnx.ModelProto) -> Iterator[tuple[onnx.AttributeProto, str]]:
    bodies: list[Iterable[onnx.NodeProto]] = [graph.node for graph, _ in _all_graphs(model)]
    for function in model.functions:
        bodies.append(function.node)
        for attribute in function.attribute_proto:
            yield attribute, f"attribute {shown(attribute.name)} of function {shown(function.name)}"
    for body in bodies:
        for node in body:
            for attribute in node.attribute:
                yield attribute, f"attribute {shown(attribute.name)} of {_label(node)}"
