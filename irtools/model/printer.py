"""The canonical text of a model: what golden tests compare and what `modified` is judged by.

    ir 10, opset 17, com.microsoft 1
    graph (x: float32[batch, 3]) -> (y: float32[batch, 4])
      w: float32[3, 4] = sha256:6b86b273ff34
      b: float32[4] = [0.5, 1.0, 1.5, 2.0]
      h = MatMul(x, w)  "encoder/fc"
      y = Add(h, b)

Left out are what readers of the graph do not run (documentation and metadata of nodes and values,
quantization annotations) and, unless asked for, the types of inner values, which shape inference
may add without changing what a model computes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.model.digest import tensor_digest
from irtools.model.interface import ValueInfo, dtype_text, quote_name
from irtools.model.walk import tensor_of

__all__ = ["print_model", "print_structure"]

_INLINE = 16
"""Tensors of at most so many elements are printed in full."""
_INLINE_LIST = 256
"""The same of lists of numbers in attributes."""
_LISTS = frozenset({ir.AttributeType.FLOATS, ir.AttributeType.INTS})


def print_model(model: ir.Model, *, types: bool = False, digest_length: int = 12) -> str:
    """Print a model as text: the same text if and only if it is the same model.

    Args:
        model: The model.
        types: Print the types of inner values too.
        digest_length: Hexadecimal digits of each large tensor's SHA-256; 64 prints all.
    """

    def contents(tensor: ir.TensorProtocol) -> str:
        return f"sha256:{tensor_digest(tensor)[:digest_length]}"

    return "\n".join(_Printer(types, contents).model(model)) + "\n"


def print_structure(model: ir.Model) -> tuple[str, list[ir.TensorProtocol]]:
    """Print a model with numbers for its large tensors; return the text and these tensors.

    Two models are the same if texts and tensors are, which costs less to see than to hash.
    """
    tensors: list[ir.TensorProtocol] = []

    def contents(tensor: ir.TensorProtocol) -> str:
        tensors.append(tensor)
        return f"tensor {len(tensors)}"

    return "\n".join(_Printer(False, contents).model(model)) + "\n", tensors


class _Printer:
    """Args: whether types of inner values are printed, and what to print of a large tensor."""

    def __init__(self, types: bool, contents: Callable[[ir.TensorProtocol], str]) -> None:
        self._types = types
        self._contents = contents

    def model(self, model: ir.Model) -> Iterator[str]:
        yield f"ir {model.ir_version}, {_opsets(model.graph.opset_imports)}"
        for key in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            if value := getattr(model, key):
                yield f"{key} {json.dumps(value)}"
        yield from _properties("metadata", model.metadata_props)
        yield from self.graph(model.graph, "graph", 0)
        for identifier in sorted(model.functions):
            yield from self.function(model.functions[identifier])

    def function(self, function: ir.Function) -> Iterator[str]:
        names = ":".join(quote_name(part) for part in function.identifier() if part)
        defaults = [self.attribute(a) for a in function.attributes.values() if a.value is not None]
        required = [quote_name(a.name) for a in function.attributes.values() if a.value is None]
        attributes = ", ".join(required + defaults)
        head = f"function {names}<{attributes}>, {_opsets(function.opset_imports)}"
        yield from _properties("metadata", function.metadata_props)
        yield from self.graph(function.graph, head, 0)

    def graph(self, graph: ir.Graph, head: str, depth: int) -> Iterator[str]:
        pad = "  " * depth
        inputs = ", ".join(str(ValueInfo.of(value)) for value in graph.inputs)
        outputs = ", ".join(str(ValueInfo.of(value)) for value in graph.outputs)
        yield f"{pad}{head} ({inputs}) -> ({outputs})"
        for value in graph.initializers.values():
            yield f"{pad}  {quote_name(value.name or '')}: {self.tensor(value.const_value)}"
        for node in graph:
            yield from self.node(node, depth + 1)

    def node(self, node: ir.Node, depth: int) -> Iterator[str]:
        results = list(node.outputs)
        while results and not results[-1].name:
            results.pop()
        outputs = ", ".join(self.result(value) for value in results)
        inputs = ", ".join(
            "_" if value is None else quote_name(value.name or "") for value in node.inputs
        )
        graphs = {k: a for k, a in node.attributes.items() if _is_graph(a)}
        plain = (self.attribute(a) for k, a in sorted(node.attributes.items()) if k not in graphs)
        attributes = ", ".join(plain)
        op = "::".join(quote_name(part) for part in (node.domain, node.op_type) if part)
        op += f":{quote_name(node.overload)}" if node.overload else ""
        op += f"<{attributes}>" if attributes else ""
        label = f"  {json.dumps(node.name)}" if node.name else ""
        yield f"{'  ' * depth}{outputs} = {op}({inputs}){label}"
        for key, attribute in sorted(graphs.items()):
            single = attribute.type == ir.AttributeType.GRAPH
            for graph in [attribute.as_graph()] if single else attribute.as_graphs():
                yield from self.graph(graph, f"{quote_name(key)}:", depth + 1)

    def result(self, value: ir.Value) -> str:
        return (
            str(ValueInfo.of(value))
            if self._types
            else quote_name(value.name)
            if value.name
            else "_"
        )

    def attribute(self, attribute: ir.Attr) -> str:
        if attribute.is_ref():
            return f"{quote_name(attribute.name)}=@{quote_name(attribute.ref_attr_name or '')}"
        return f"{quote_name(attribute.name)}={self.attribute_value(attribute)}"

    def attribute_value(self, attribute: ir.Attr) -> str:
        match attribute.type:
            case ir.AttributeType.TENSOR:
                return self.tensor(tensor_of(attribute))
            case ir.AttributeType.TENSORS:
                return "[" + ", ".join(self.tensor(t) for t in attribute.as_tensors()) + "]"
            case ir.AttributeType.FLOAT:
                return str(np.float32(attribute.value))
            case kind if kind in _LISTS and len(attribute.value) > _INLINE_LIST:
                return _digest_of(attribute.value)
            case ir.AttributeType.FLOATS:
                return "[" + ", ".join(str(np.float32(x)) for x in attribute.value) + "]"
            case ir.AttributeType.STRING | ir.AttributeType.STRINGS:
                return json.dumps(attribute.value, default=repr)
            case ir.AttributeType.INTS:
                return str([int(x) for x in attribute.value])
            case ir.AttributeType.TYPE_PROTO:
                return _declared(attribute.value)
            case ir.AttributeType.TYPE_PROTOS:
                return "[" + ", ".join(map(_declared, attribute.value)) + "]"
            case _:
                return str(attribute.value)

    def tensor(self, tensor: ir.TensorProtocol | None) -> str:
        if tensor is None:
            return "missing"
        head = f"{dtype_text(tensor.dtype)}{[int(n) for n in tensor.shape.numpy()]}"
        if tensor.size > _INLINE:
            return f"{head} = {self._contents(tensor)}"
        array = np.asarray(tensor.numpy())
        items = [
            json.dumps(item.decode(errors="backslashreplace"))
            if isinstance(item, bytes)
            else str(item)
            for item in array.reshape(-1)
        ]
        return f"{head} = {items[0]}" if array.ndim == 0 else f"{head} = [{', '.join(items)}]"


def _digest_of(numbers: Sequence[Any]) -> str:
    """Return a long list, such as the thresholds of a forest, by its length and content."""
    digest = hashlib.sha256(np.asarray(numbers).tobytes()).hexdigest()
    return f"[{len(numbers)}] = sha256:{digest}"


def _declared(declared: ir.TypeAndShape) -> str:
    value = ir.Value(name="type", type=declared.type, shape=declared.shape)
    return str(ValueInfo.of(value)).removeprefix("type: ")


def _is_graph(attribute: ir.Attr) -> bool:
    return not attribute.is_ref() and attribute.type in (
        ir.AttributeType.GRAPH,
        ir.AttributeType.GRAPHS,
    )


def _opsets(imports: Mapping[str, int]) -> str:
    return ", ".join(
        f"{quote_name(domain or 'opset')} {imports[domain]}" for domain in sorted(imports)
    )


def _properties(title: str, properties: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(properties):
        yield f"{title} {json.dumps(key)}: {json.dumps(properties[key])}"
