"""The verifier: what must hold of a model after every pass. Near-linear; reads no weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import onnx_ir as ir

from irtools.errors import IrtoolsError, LimitError, VerificationError
from irtools.model.functions import check_calls
from irtools.model.interface import Interface, ValueInfo
from irtools.model.operators import STANDARD_DOMAINS, find_schema, node_fault
from irtools.model.scopes import GraphView, Named, NodeView, check_scopes, shown, shown_operator
from irtools.model.versions import MAX_IR_VERSION, MAX_OPSET, MIN_IR_VERSION, MIN_OPSET
from irtools.model.walk import attribute_tensors, iter_graphs, nested_graphs, subgraphs

__all__ = ["MAX_SIZE", "verify"]

_MIXED_DOMAINS = frozenset({*STANDARD_DOMAINS, "com.microsoft"})
"""Domains in which a model may have functions next to operators that others define."""

MAX_SIZE = 2**40
"""Largest size of a dimension that is believed."""


def verify(model: ir.Model, *, interface: Interface | None = None) -> None:
    """Check that a model is sound, beyond what `onnx.checker` checks.

    Names have one producer and are used after it; outputs exist and differ; every domain is
    imported and every standard operator known, with the inputs and attributes it takes; functions
    exist, do not call themselves and stay small when inlined; tensors are what their values
    declare; versions are readable.

    Args:
        model: The model.
        interface: What the interface must still be: names, order, types, symbolic sizes,
            overridable weights and metadata.

    Raises:
        VerificationError: A rule is broken; names the culprit.
        LimitError: Inlined, the functions make more than a million nodes.
    """
    _check_versions(model)
    if not model.graph.outputs:
        raise VerificationError("the model has no outputs")
    check_scopes(_IrGraph(model.graph, "the graph"), VerificationError)
    for function in model.functions.values():
        label = f"function {shown('::'.join(function.identifier()[:2]))}"
        check_scopes(_IrGraph(function.graph, label), VerificationError)
    _check_functions(model)
    _check_nodes(model)
    for graph in iter_graphs(model):
        _check_initializers(graph)
        for node in graph:
            for tensor in attribute_tensors(node):
                _check_tensor(tensor, f"attribute of {_label(node)}")
    if interface is not None:
        _check_interface(interface, Interface.of(model))


class _IrGraph:
    """An `onnx_ir` graph as the name check sees it."""

    def __init__(self, graph: ir.Graph, label: str) -> None:
        self._graph = graph
        self.label = label

    @property
    def inputs(self) -> Sequence[Named]:
        return _named(self._graph.inputs)

    @property
    def outputs(self) -> Sequence[Named]:
        return _named(self._graph.outputs)

    @property
    def initializers(self) -> Sequence[Named]:
        return [(name, value) for name, value in self._graph.initializers.items()]

    def nodes(self) -> Iterable[NodeView]:
        return (self._view(node) for node in self._graph)

    def _view(self, node: ir.Node) -> NodeView:
        nested: tuple[GraphView, ...] = tuple(
            _IrGraph(inner, f"a subgraph of {_label(node)}") for inner in subgraphs(node)
        )
        inputs = [("", None) if v is None else (v.name or "", v) for v in node.inputs]
        return NodeView(lambda: _label(node), inputs, _named(node.outputs), nested)


def _named(values: Iterable[ir.Value]) -> list[Named]:
    return [(value.name or "", value) for value in values]


def _label(node: ir.Node) -> str:
    output = next((v.name for v in node.outputs if v.name), "")
    return f"{shown_operator(node.op_type)} node {shown(node.name or output)}"


def _check_versions(model: ir.Model) -> None:
    if not MIN_IR_VERSION <= model.ir_version <= MAX_IR_VERSION:
        raise VerificationError(
            f"the model has IR version {model.ir_version}, expected {MIN_IR_VERSION} to "
            f"{MAX_IR_VERSION}"
        )
    opset = model.graph.opset_imports.get("")
    if opset is not None and not MIN_OPSET <= opset <= MAX_OPSET:
        raise VerificationError(f"the model has opset {opset}, expected {MIN_OPSET} to {MAX_OPSET}")


def _check_functions(model: ir.Model) -> None:
    calls = {
        identifier: [n.op_identifier() for g in nested_graphs(function.graph) for n in g]
        for identifier, function in model.functions.items()
    }
    main = [n.op_identifier() for g in nested_graphs(model.graph) for n in g]
    try:
        check_calls(main, calls)
    except LimitError:
        raise
    except IrtoolsError as error:
        raise VerificationError(str(error)) from error


def _check_nodes(model: ir.Model) -> None:
    local = {domain for domain, _, _ in model.functions} - _MIXED_DOMAINS
    bodies = [(model.graph, model.graph.opset_imports)]
    bodies += [(function.graph, function.opset_imports) for function in model.functions.values()]
    for body, imports in bodies:
        for graph in nested_graphs(body):
            for node in graph:
                if any(value is not None and not value.name for value in node.inputs):
                    # A file would say that the input is absent.
                    raise VerificationError(f"{_label(node)} reads a value without a name")
                if node.op_identifier() not in model.functions:
                    _check_node(node, imports, local)
                elif node.domain not in imports:
                    raise VerificationError(_not_imported(node))


def _check_node(node: ir.Node, imports: Mapping[str, int], local: Set[str]) -> None:
    version = imports.get(node.domain)
    if version is None:
        raise VerificationError(_not_imported(node))
    if node.domain in local:
        raise VerificationError(
            f"{_label(node)} calls a function that the model does not have: "
            f"{shown('::'.join(node.op_identifier()[:2]))}"
        )
    if node.domain not in STANDARD_DOMAINS:
        return
    schema = find_schema(node.domain, node.op_type, version)
    if schema is None:
        raise VerificationError(
            f"{_label(node)}: domain {node.domain or 'ai.onnx'} has no operator "
            f"{shown(node.op_type)} in opset {version}"
        )
    attributes = [(name, int(a.type)) for name, a in node.attributes.items()]
    fault = node_fault(schema, len(node.inputs), _num_outputs(node), attributes)
    if fault:
        raise VerificationError(f"{_label(node)} {fault}")


def _num_outputs(node: ir.Node) -> int:
    count = len(node.outputs)
    while count and not node.outputs[count - 1].name:
        count -= 1
    return count


def _not_imported(node: ir.Node) -> str:
    return f"{_label(node)} is of domain {shown(node.domain)}, which the model does not import"


def _check_initializers(graph: ir.Graph) -> None:
    for name, value in graph.initializers.items():
        where = f"initializer {shown(name)}"
        if name != value.name:
            raise VerificationError(f"{where} is registered under another name than {value.name!r}")
        tensor = value.const_value
        if tensor is None:
            raise VerificationError(f"{where} has no tensor")
        _check_tensor(tensor, where)
        if value.dtype is not None and value.dtype != tensor.dtype:
            raise VerificationError(
                f"{where} is declared {value.dtype.name} but its tensor is {tensor.dtype.name}"
            )
        if value.shape is not None and not _fits(value.shape, tensor.shape):
            raise VerificationError(
                f"{where} is declared {value.shape} but its tensor is {tensor.shape}"
            )


def _check_tensor(tensor: ir.TensorProtocol, where: str) -> None:
    sizes = tensor.shape.numpy()
    if any(not 0 <= size <= MAX_SIZE for size in sizes):
        raise VerificationError(f"{where} has the shape {sizes}; a size is out of range")
    if isinstance(tensor, ir.Tensor) and tuple(tensor.raw.shape) != tuple(sizes):
        raise VerificationError(
            f"{where} says its shape is {sizes}, but its data has {tuple(tensor.raw.shape)}"
        )


def _fits(declared: ir.Shape, actual: ir.ShapeProtocol) -> bool:
    return len(declared) == len(actual) and all(
        not isinstance(size, int) or size == other
        for size, other in zip(declared, actual, strict=True)
    )


def _check_interface(before: Interface, after: Interface) -> None:
    _check_values("input", before.inputs, after.inputs)
    _check_values("output", before.outputs, after.outputs)
    if before.overridable != after.overridable:
        changed = sorted(set(before.overridable) ^ set(after.overridable))
        raise VerificationError(f"inputs with a default changed: {', '.join(map(shown, changed))}")
    for key, value in before.metadata.items():
        if after.metadata.get(key) != value:
            raise VerificationError(f"the metadata property {shown(key)} was changed or lost")


def _check_values(what: str, before: Sequence[ValueInfo], after: Sequence[ValueInfo]) -> None:
    names, now = [v.name for v in before], [v.name for v in after]
    if names != now:
        raise VerificationError(f"the {what}s were {_list(names)}, now they are {_list(now)}")
    for old, new in zip(before, after, strict=True):
        if old != new:
            raise VerificationError(f"{what} {old} became {new}")


def _list(names: Sequence[str]) -> str:
    text = ", ".join(shown(name) for name in names[:8])
    return f"{text} and {len(names) - 8} more" if len(names) > 8 else text or "none"
