"""Removing what nothing reads any more."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["drop_unread"]


def drop_unread(items: Iterable[ir.Node | ir.Value | None]) -> None:
    """Remove nodes and values that nothing reads; see `Editor.drop_unread`."""
    pending = list(dict.fromkeys(items))
    while pending:
        item = pending.pop()
        if isinstance(item, ir.Value):
            if not item.is_graph_output() and _drop_readers(item):
                pending.append(item.producer())
                _drop_initializer(item)
        elif item is not None and item.graph is not None and _is_dead(item):
            inputs = dict.fromkeys(value for value in item.inputs if value is not None)
            item.graph.remove(item, safe=True)
            pending += [value for value in inputs if not _is_read(value)]


def _drop_readers(value: ir.Value) -> bool:
    """Remove the nodes that read a value, where nothing reads any of them; whether that was so."""
    readers = dict.fromkeys(use.node for use in value.uses())
    if not all(map(_is_dead, readers)):
        return False
    for reader in readers:
        assert reader.graph is not None
        reader.graph.remove(reader, safe=True)
    return True


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _is_dead(node: ir.Node) -> bool:
    return not any(map(_is_read, node.outputs))


def _drop_initializer(value: ir.Value) -> None:
    graph = value.graph
    if value.is_initializer() and not value.is_graph_input() and isinstance(graph, ir.Graph):
        del graph.initializers[value.name or ""]
