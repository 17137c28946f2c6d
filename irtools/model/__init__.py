"""Models: reading, checking, printing and writing them."""

from __future__ import annotations

from irtools.model.digest import place_of, release_tensor, tensor_bytes, tensor_digest, tensor_size
from irtools.model.grids import note_grids, noted_grids
from irtools.model.inference import infer_shapes
from irtools.model.interface import Interface, ValueInfo, dtype_text
from irtools.model.model import Model, SavedModel
from irtools.model.naming import FreshNames
from irtools.model.nf4 import NF4_LEVELS
from irtools.model.operators import find_schema
from irtools.model.opset import OpsetChange, first_change, opset_of, raise_opset
from irtools.model.printer import print_model
from irtools.model.sizes import with_sizes
from irtools.model.verify import verify
from irtools.model.versions import MAX_OPSET
from irtools.model.walk import attribute_tensors, iter_graphs, iter_nodes, nested_graphs, subgraphs
from irtools.model.writer import EXTERNAL_ABOVE, WeightStore, planned_size

__all__ = [
    "EXTERNAL_ABOVE",
    "FreshNames",
    "Interface",
    "MAX_OPSET",
    "Model",
    "NF4_LEVELS",
    "OpsetChange",
    "SavedModel",
    "ValueInfo",
    "WeightStore",
    "attribute_tensors",
    "dtype_text",
    "find_schema",
    "first_change",
    "infer_shapes",
    "iter_graphs",
    "iter_nodes",
    "nested_graphs",
    "note_grids",
    "noted_grids",
    "opset_of",
    "place_of",
    "planned_size",
    "print_model",
    "raise_opset",
    "release_tensor",
    "subgraphs",
    "tensor_bytes",
    "tensor_digest",
    "tensor_size",
    "verify",
    "with_sizes",
]
