"""How much of a model each module of its source holds."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.provenance import module_of
from irtools.model import dtype_text, iter_nodes

__all__ = ["ModuleSize", "module_sizes"]

_UNRECORDED = "_empty_nn_module_stack"
"""What torch writes where it does not know the module."""


@dataclass(frozen=True)
class ModuleSize:
    """A module without the modules in it.

    Attributes:
        nodes: How many.
        bytes: Of the weights that its nodes read; a weight that several modules read counts once.
        types: Element types of these weights, that with the most bytes first.
    """

    nodes: int
    bytes: int
    types: tuple[str, ...]


def module_sizes(model: ir.Model) -> dict[str, ModuleSize]:
    """Return the size of each module, in the order of the graph.

    Nodes whose module the exporter did not record are under the empty name.
    """
    nodes: dict[str, int] = {}
    weights: dict[str, dict[str, int]] = {}
    seen: set[int] = set()
    for node in iter_nodes(model):
        module = module_of(node)
        if module.startswith(_UNRECORDED):
            module = ""
        nodes[module] = nodes.get(module, 0) + 1
        types = weights.setdefault(module, {})
        for value in node.inputs:
            tensor = None if value is None else value.const_value
            if tensor is not None and id(value) not in seen:
                seen.add(id(value))
                name = dtype_text(tensor.dtype)
                types[name] = types.get(name, 0) + tensor.nbytes
    return {
        name: ModuleSize(count, sum(weights[name].values()), _largest_first(weights[name]))
        for name, count in nodes.items()
    }


def _largest_first(types: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(types, key=lambda name: -types[name]))
