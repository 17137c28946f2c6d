"""The constants of a model: how large they are, who reads them, which are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from irtools.analysis.pairing import node_ids
from irtools.model import dtype_text, iter_graphs, release_tensor, tensor_digest

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["Constant", "by_type", "copies", "weights_of"]

_LARGE = 1 << 14
"""Bytes from which a weight is compared with others."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant.

    Attributes:
        name: Its name.
        dtype: Element type.
        bytes: Its size.
        reader: Id of the first node that reads it; empty where none does.
        uses: How many times it is read.
        tensor: The numbers.
    """

    name: str
    dtype: str
    bytes: int
    reader: str
    uses: int
    tensor: ir.TensorProtocol


def weights_of(model: Model) -> list[Constant]:
    """Return initializers and constants of all graphs, each tensor once."""
    return list(_weights(model, node_ids(model.ir)))


def by_type(weights: list[Constant]) -> Mapping[str, int]:
    """Return bytes by element type, the most first."""
    found: Counter[str] = Counter()
    for weight in weights:
        found[weight.dtype] += weight.bytes
    return dict(found.most_common())


def copies(weights: list[Constant]) -> list[list[Constant]]:
    """Return groups of large weights that hold the same, as they are or transposed."""
    found: dict[str, list[Constant]] = {}
    for weight in weights:
        if weight.bytes >= _LARGE:
            found.setdefault(_digest(weight), []).append(weight)
            release_tensor(weight.tensor)
    return [group for group in found.values() if len(group) > 1]


def _weights(model: Model, ids: Mapping[ir.Node, str]) -> Iterator[Constant]:
    seen: set[int] = set()
    for graph in iter_graphs(model.ir):
        for name, value in graph.initializers.items():
            if value.const_value is not None and id(value.const_value) not in seen:
                seen.add(id(value.const_value))
                yield _weight(name, value, value.const_value, ids)
        for node in graph:
            if node.op_type == "Constant" and "value" in node.attributes and not node.domain:
                value = node.outputs[0]
                yield _weight(value.name or "", value, node.attributes["value"].as_tensor(), ids)


def _weight(
    name: str, value: ir.Value, tensor: ir.TensorProtocol, ids: Mapping[ir.Node, str]
) -> Constant:
    uses = [use.node for use in value.uses()]
    reader = ids.get(uses[0], "") if uses else ""
    return Constant(name, dtype_text(tensor.dtype), tensor.nbytes, reader, len(uses), tensor)


def _digest(weight: Constant) -> str:
    """Return a hash that a matrix shares with its transpose."""
    own = tensor_digest(weight.tensor)
    if len(weight.tensor.shape) != 2:
        return own
    import onnx_ir as ir

    array = weight.tensor.numpy()
    turned = tensor_digest(ir.tensor(np.ascontiguousarray(array.T)))
    return min(own, turned)
