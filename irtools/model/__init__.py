"""Models: reading, checking, printing and writing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irtools.model.digest import (
        place_of,
        release_tensor,
        tensor_bytes,
        tensor_digest,
        tensor_size,
    )
    from irtools.model.exact_blocks import ask_for_exact_activations, has_exact_activations
    from irtools.model.glance import may_use, weight_files
    from irtools.model.grids import note_grids, noted_grids
    from irtools.model.inference import infer_shapes
    from irtools.model.interface import Interface, ValueInfo, dtype_text
    from irtools.model.model import Model, SavedModel
    from irtools.model.naming import FreshNames
    from irtools.model.nf4 import NF4_LEVELS
    from irtools.model.operators import find_schema
    from irtools.model.opset import OpsetChange, first_change, opset_of, raise_opset
    from irtools.model.padded import PaddedOutput, note_padded_outputs, padded_outputs
    from irtools.model.printer import print_model
    from irtools.model.single_text import (
        ONE_TEXT,
        OneText,
        is_token_flags,
        mark_token_flags,
        note_one_text,
        one_text,
    )
    from irtools.model.sizes import with_sizes
    from irtools.model.verifier import verify
    from irtools.model.versions import MAX_OPSET
    from irtools.model.walk import (
        attribute_tensors,
        count_listed,
        iter_graphs,
        iter_nodes,
        nested_graphs,
        subgraphs,
        tensor_of,
    )
    from irtools.model.writer import EXTERNAL_ABOVE, WeightStore, planned_size

from irtools.lazy import lazy_names

# A child process that runs a file asks what is in it, and needs no IR for that.
_HOMES = {
    "EXTERNAL_ABOVE": "irtools.model.writer",
    "FreshNames": "irtools.model.naming",
    "Interface": "irtools.model.interface",
    "MAX_OPSET": "irtools.model.versions",
    "Model": "irtools.model.model",
    "NF4_LEVELS": "irtools.model.nf4",
    "ONE_TEXT": "irtools.model.single_text",
    "OneText": "irtools.model.single_text",
    "OpsetChange": "irtools.model.opset",
    "PaddedOutput": "irtools.model.padded",
    "SavedModel": "irtools.model.model",
    "ValueInfo": "irtools.model.interface",
    "WeightStore": "irtools.model.writer",
    "ask_for_exact_activations": "irtools.model.exact_blocks",
    "attribute_tensors": "irtools.model.walk",
    "count_listed": "irtools.model.walk",
    "dtype_text": "irtools.model.interface",
    "find_schema": "irtools.model.operators",
    "first_change": "irtools.model.opset",
    "has_exact_activations": "irtools.model.exact_blocks",
    "infer_shapes": "irtools.model.inference",
    "is_token_flags": "irtools.model.single_text",
    "iter_graphs": "irtools.model.walk",
    "iter_nodes": "irtools.model.walk",
    "mark_token_flags": "irtools.model.single_text",
    "may_use": "irtools.model.glance",
    "nested_graphs": "irtools.model.walk",
    "note_grids": "irtools.model.grids",
    "note_one_text": "irtools.model.single_text",
    "note_padded_outputs": "irtools.model.padded",
    "noted_grids": "irtools.model.grids",
    "one_text": "irtools.model.single_text",
    "opset_of": "irtools.model.opset",
    "padded_outputs": "irtools.model.padded",
    "place_of": "irtools.model.digest",
    "planned_size": "irtools.model.writer",
    "print_model": "irtools.model.printer",
    "raise_opset": "irtools.model.opset",
    "release_tensor": "irtools.model.digest",
    "subgraphs": "irtools.model.walk",
    "tensor_bytes": "irtools.model.digest",
    "tensor_digest": "irtools.model.digest",
    "tensor_of": "irtools.model.walk",
    "tensor_size": "irtools.model.digest",
    "verify": "irtools.model.verifier",
    "weight_files": "irtools.model.glance",
    "with_sizes": "irtools.model.sizes",
}

__all__ = [
    "EXTERNAL_ABOVE",
    "FreshNames",
    "Interface",
    "MAX_OPSET",
    "Model",
    "NF4_LEVELS",
    "ONE_TEXT",
    "OneText",
    "OpsetChange",
    "PaddedOutput",
    "SavedModel",
    "ValueInfo",
    "WeightStore",
    "ask_for_exact_activations",
    "attribute_tensors",
    "count_listed",
    "dtype_text",
    "find_schema",
    "first_change",
    "has_exact_activations",
    "infer_shapes",
    "is_token_flags",
    "iter_graphs",
    "iter_nodes",
    "mark_token_flags",
    "may_use",
    "nested_graphs",
    "note_grids",
    "note_one_text",
    "note_padded_outputs",
    "noted_grids",
    "one_text",
    "opset_of",
    "padded_outputs",
    "place_of",
    "planned_size",
    "print_model",
    "raise_opset",
    "release_tensor",
    "subgraphs",
    "tensor_bytes",
    "tensor_digest",
    "tensor_of",
    "tensor_size",
    "verify",
    "weight_files",
    "with_sizes",
]

__getattr__ = lazy_names(__name__, _HOMES)
