"""Writing into a graph: fresh names, types, the right place, and where each node comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, Unpack

import numpy as np
import onnx_ir as ir

from irtools.editing.dead import drop_unread
from irtools.editing.provenance import MAKER, provenance
from irtools.model import FreshNames

__all__ = ["Editor"]

Outputs: TypeAlias = "Mapping[str, ir.DataType | None] | int"
"""Wanted name and element type of every output; or how many there are."""


class NodeForm(TypedDict, total=False):
    """What may be said of a new node besides operator, inputs and attributes; see `Editor.node`."""

    domain: str
    name: str
    outputs: Outputs
    shape: ir.Shape | None


class Editor:
    """Edits one model. Every node that it makes says which rule made it.

    Names are free in all graphs of the model; they are read when the first one is needed.
    Constants are data: what made them is known as long as the model is in memory (`maker_of`).

    Args:
        model: Edited in place.
        rule: What the pass is called.
        adopt: Called with a new value and the old one whose place it takes, so that an analysis
            may keep up (`SymbolicShapes.adopt`).

    Attributes:
        graph: The main graph.
        rule: What new nodes name as their maker.
        made: What `Place` shares between rewrites.
    """

    def __init__(
        self,
        model: ir.Model,
        rule: str,
        *,
        adopt: Callable[[ir.Value, ir.Value], None] | None = None,
    ) -> None:
        self.graph = model.graph
        self.rule = rule
        self.made: dict[Hashable, ir.Value] = {}
        self._adopt = adopt
        self._names = FreshNames(model)
        self._order: dict[ir.Node, int] = {}

    def by(self, rule: str) -> Editor:
        """Return the same editor under the name of another rule."""
        other = copy.copy(self)
        other.rule = rule
        return other

    def fresh(self, stem: str) -> str:
        """Return `stem`, or the next name made of it that is free, and take it."""
        return self._names.make(stem)

    def first(self, nodes: Iterable[ir.Node]) -> ir.Node:
        """Return the node of the main graph that comes before the others."""
        return self.in_order(nodes)[0]

    def in_order(self, nodes: Iterable[ir.Node]) -> list[ir.Node]:
        """Return nodes of the main graph in their order there."""
        found = list(nodes)
        if not all(node in self._order for node in found):
            # Nodes are only added in between, so the order of those that were there stays.
            self._order.clear()
            self._order.update((node, index) for index, node in enumerate(self.graph))
        return sorted(found, key=self._order.__getitem__)

    def constant(
        self,
        stem: str,
        content: np.ndarray | ir.TensorProtocol,
        *,
        graph: ir.Graph | None = None,
        before: ir.Node | None = None,
    ) -> ir.Value:
        """Add a constant under a fresh name.

        Args:
            stem: Its name, or the start of it.
            content: An array, or a tensor, which may be shared: it is not written into.
            graph: Whose initializer it becomes; the main graph's by default.
            before: Where it becomes a Constant node instead: in subgraphs and functions, where not
                every runtime reads initializers.
        """
        return self.named_constant(self.fresh(stem), content, graph=graph, before=before)

    def named_constant(
        self,
        name: str | None,
        content: np.ndarray | ir.TensorProtocol,
        *,
        graph: ir.Graph | None = None,
        before: ir.Node | None = None,
    ) -> ir.Value:
        """Add a constant under a name that its last owner has given up; see `constant`."""
        if isinstance(content, np.ndarray | np.generic):
            content = ir.Tensor(np.asarray(content, order="C"), name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(content.dtype), shape=ir.Shape(content.shape.numpy())
        )
        value.meta[MAKER] = self.rule
        if before is None:
            value.const_value = content
            (graph or self.graph).register_initializer(value)
        else:
            node = ir.node("Constant", [], {"value": content}, outputs=[value])
            _graph_of(before).insert_before(before, node)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        name: str = "",
        outputs: Outputs = 1,
        shape: ir.Shape | None = None,
        origin: ir.Node | None = None,
        replaces: Sequence[ir.Node] = (),
    ) -> ir.Node:
        """Make a node that is in no graph yet.

        Args:
            op_type: Its operator.
            inputs: Its inputs.
            attributes: Its attributes: numbers, strings, lists, tensors, graphs or `ir.Attr`.
            domain: Of the operator; the model is made to import it.
            name: The start of its name; after the first output, else after `origin` by default.
            outputs: Names and types, or a count; counted ones are named after the node.
            shape: Of the first output, where it is known.
            origin: The node that it grows out of.
            replaces: The nodes whose work it does.
        """
        names = [] if isinstance(outputs, int) else list(outputs)
        if not name:
            name = f"{names[0]}/{op_type}" if names else _sibling(origin, op_type)
        name = self.fresh(name)
        node = ir.node(
            op_type,
            inputs,
            dict(attributes or {}),
            domain=domain,
            name=name,
            num_outputs=outputs if isinstance(outputs, int) else len(outputs),
            metadata_props=provenance(self.rule, name, origin, replaces),
        )
        for index, value in enumerate(node.outputs):
            value.name = self.fresh(names[index] if names else f"{node.name}_output")
        if not isinstance(outputs, int):
            for value, dtype in zip(node.outputs, outputs.values(), strict=True):
                value.type = None if dtype is None else ir.TensorType(dtype)
        if shape is not None:
            node.outputs[0].shape = shape.copy()
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        return node

    def before(
        self,
        anchor: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        **form: Unpack[NodeForm],
    ) -> ir.Value:
        """Add a node in front of `anchor` and return its first output; see `node`."""
        node = self.node(op_type, inputs, attributes, origin=anchor, **form)
        _graph_of(anchor).insert_before(anchor, node)
        return node.outputs[0]

    def after(
        self,
        value: ir.Value,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        **form: Unpack[NodeForm],
    ) -> ir.Value:
        """Add a node right after the producer of `value` and return its first output; see `node`.

        It has the shape of `value` by default. After an input or a weight means: at the front of
        its graph.
        """
        producer = value.producer()
        if form.get("shape") is None:
            form["shape"] = value.shape
        node = self.node(op_type, inputs, attributes, origin=producer, **form)
        if producer is not None:
            _graph_of(producer).insert_after(producer, node)
        else:
            graph = value.graph or self.graph
            graph.insert_before(graph[0], node)
        return node.outputs[0]

    def append(
        self,
        graph: ir.Graph,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        **form: Unpack[NodeForm],
    ) -> ir.Value:
        """Add a node at the end of a graph and return its first output; see `node`."""
        node = self.node(op_type, inputs, attributes, **form)
        graph.append(node)
        return node.outputs[0]

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None], suffix: str) -> ir.Node:
        """Return a copy of a node with other inputs, in no graph yet.

        Names get a suffix; types stay, and shapes are left open.
        """
        twin = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            overload=node.overload,
            num_outputs=len(node.outputs),
            name=self.fresh(f"{node.name or node.op_type}{suffix}"),
            metadata_props={**node.metadata_props, **provenance(self.rule, None, None)},
        )
        for old, new in zip(node.outputs, twin.outputs, strict=True):
            new.name = self.fresh(f"{old.name}{suffix}") if old.name else old.name
            new.type = old.type
        return twin

    def replace(
        self,
        old: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        name: str | None = None,
        outputs: int | None = None,
        origin: ir.Node | None = None,
    ) -> ir.Node:
        """Put another node in the place of `old`, whose outputs it takes over by name.

        Args:
            old: Goes.
            op_type: Operator of the new node.
            inputs: Its inputs.
            attributes: Its attributes.
            domain: Of the operator.
            name: The start of its name; the name of `origin` by default.
            outputs: How many outputs it has; as many as `old` by default. Nothing may read those
                that are left out.
            origin: The node that it grows out of; `old` by default.
        """
        source = origin or old
        name = source.name if name is None else self.fresh(name)
        replaced = tuple(dict.fromkeys((source, old)))
        new = ir.node(
            op_type,
            inputs,
            dict(attributes or {}),
            domain=domain,
            name=name,
            num_outputs=len(old.outputs) if outputs is None else outputs,
            metadata_props=provenance(self.rule, name, source, replaced),
        )
        _graph_of(old).insert_before(old, new)
        for output, made in zip(old.outputs, new.outputs, strict=False):
            made.metadata_props.update(output.metadata_props)
            self.substitute(output, made)
        _graph_of(old).remove(old, safe=True)
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        return new

    def substitute(self, old: ir.Value, new: ir.Value) -> None:
        """Let a new value take over the name, type, shape and readers of an old one."""
        if self._adopt is not None:
            self._adopt(new, old)
        name, old.name = old.name, None
        new.name, new.type, new.shape = name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def forward(self, old: ir.Value, new: ir.Value) -> None:
        """Let the readers of `old` read `new`, which was there before and keeps its name.

        Where `old` is a graph output, `new` takes over its public name; `can_forward` must hold.
        The old node stays, unread.
        """
        if old.is_graph_output():
            self.take_name(new, old)
            new.type = new.type if old.type is None else old.type
            new.shape = new.shape if old.shape is None else old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def replace_output(self, old: ir.Value, new: ir.Value, left: str = "") -> None:
        """Let `new` be the graph output that `old` was, under its name; other readers stay.

        Args:
            old: Output of a graph.
            new: Its successor.
            left: The start of the name that `old` gets; it has none by default.
        """
        graph = old.graph
        assert graph is not None
        places = [index for index, output in enumerate(graph.outputs) if output is old]
        self.take_name(new, old, left)
        for index in places:
            graph.outputs[index] = new

    def take_name(self, new: ir.Value, old: ir.Value, left: str = "") -> None:
        """Give a value the name, and what is noted at it, of another one.

        Args:
            new: Gets the name.
            old: Gives it up.
            left: The start of the name that `old` gets; it has none by default.
        """
        name, old.name = old.name, self.fresh(left) if left else None
        new.name = name
        new.metadata_props.update(old.metadata_props)

    def remove(self, *nodes: ir.Node) -> None:
        """Remove nodes that nothing reads, the last first; what they read stays for the clean-up.

        Raises:
            ValueError: An output is still read.
        """
        for node in reversed(nodes):
            _graph_of(node).remove(node, safe=True)

    def drop_unread(self, *items: ir.Node | ir.Value | None) -> None:
        """Remove what nothing reads any more, and then whatever was read by it alone.

        A value goes with the nodes that read it, where nothing reads those either. Weights go too,
        but for those that a caller may override.
        """
        drop_unread(items)


def _sibling(origin: ir.Node | None, op_type: str) -> str:
    """`/layer.0/self/Softmax` -> `/layer.0/self/Attention`; `node_3` -> `node_3_Attention`."""
    if origin is None:
        return op_type
    name = origin.name or origin.op_type
    path, slash, _ = name.rpartition("/")
    return f"{path}/{op_type}" if slash else f"{name}_{op_type}"


def _graph_of(node: ir.Node) -> ir.Graph | ir.Function:
    assert node.graph is not None
    return node.graph
