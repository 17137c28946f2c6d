"""Handing a model in memory to ONNX Runtime.

The runtime copies weights that it is given, and then packs them into its own layout. What it finds
in a file next to the model it maps. So large weights that are mapped from files are named by their
place there and read once, by the process that runs them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.errors import UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["ModelSource"]

_SHARED_FROM = 64 * 1024
# The runtime reads shapes, axes, scales and zero points while it optimizes; those stay in the
# file. What it only multiplies with is large.

_SHARED_TYPES = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64"})

_COPIED_UP_TO = 1 << 30
# Bytes of floating-point weights that the runtime may copy. Beyond, products read them as they
# are in their file: a float32 decoder of a billion parameters takes 5 GB in place of 15. Kernels
# for blocks of codes compute otherwise without their own layout; it is left to them.

_CONTRIBUTED = "com.microsoft"
_ALIGNMENT = 64
# Of weights in a file that kernels may read in place.


@dataclass(frozen=True)
class ModelSource:
    """A model as the runtime takes it.

    Attributes:
        content: Path of a file, or a serialized model without its large weights.
        weights: Large weights by name, which the session copies.
        packs: Whether the runtime may copy weights into its own layout.
        is_large: Whether it would be a copy of gigabytes.
        folder: Folder of the files from which a serialized model reads weights, or None.
    """

    content: str | bytes
    weights: dict[str, Any] = field(default_factory=dict)
    packs: bool = True
    is_large: bool = False
    folder: Path | None = None

    @classmethod
    def of(cls, model: Model | Path, *, on_cpu: bool = False, mapped: bool = False) -> ModelSource:
        """Prepare a file or a model in memory.

        Args:
            model: The model; it is not changed.
            on_cpu: The CPU alone runs it: what it can read as stored is not transposed first.
            mapped: Weights of gigabytes in a file are read there, and not packed.
        """
        if not isinstance(model, Path):
            return cls._of_model(model.clone().ir, on_cpu=on_cpu)
        source = cls._of_file(model)
        if mapped and source.is_large:
            from irtools.model import Model

            return cls._of_model(Model.load(model).ir, on_cpu=on_cpu)
        return source

    @classmethod
    def _of_file(cls, path: Path) -> ModelSource:
        weights = path.parent.glob("*.data") if path.is_file() else ()
        size = sum(file.stat().st_size for file in weights)
        return cls(str(path), is_large=size > _COPIED_UP_TO)

    @classmethod
    def _of_model(cls, model: ir.Model, *, on_cpu: bool) -> ModelSource:
        from irtools.backends.onnxruntime.library import import_onnxruntime

        ort = import_onnxruntime()
        _drop_unread(model)
        large = _float_bytes(model) > _COPIED_UP_TO
        if large and on_cpu:
            _multiply_transposed(model)
        packs = not large or any(node.op_type.endswith("NBits") for node in model.graph)
        folder = _folder(model) if large else None
        in_files = _refer_to_files(model, folder) if folder is not None else frozenset()
        weights: dict[str, Any] = {}
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not _is_shared(tensor) or value.is_graph_input():
                continue
            if name not in in_files:
                array = np.ascontiguousarray(tensor.numpy())
                weights[name] = ort.OrtValue.ortvalue_from_numpy(array)
                value.const_value = _placed(tensor, "weights", 0)
        _read_external(model, except_for={*weights, *in_files})
        return cls(_serialize(model), weights, packs, large, folder)

    def share_weights(self, options: Any) -> None:
        """Show the weights to a session that is about to be made with `options`."""
        if self.weights:
            options.add_external_initializers(list(self.weights), list(self.weights.values()))
        if self.folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(self.folder)
            )


def _drop_unread(model: ir.Model) -> None:
    """Remove unread weights: the runtime drops them, and then does not find what it is given.

    Passes leave them to `remove-dead-code`, so a model between two passes may hold some.
    """
    initializers = model.graph.initializers
    for name, value in list(initializers.items()):
        is_visible = value.is_graph_input() or value.is_graph_output()
        if not is_visible and not any(value.uses()):
            del initializers[name]


def _multiply_transposed(model: ir.Model) -> None:
    """Let products read a transposed weight as stored.

    Without optimizations the runtime makes the transposed copy at every run: of the table of a
    decoder with tied embeddings, a gigabyte. With them it fuses the two likewise.
    """
    import onnx_ir as ir

    for node in tuple(model.graph):
        if not _turns_a_weight(node):
            continue
        weight, turned = node.inputs[0], node.outputs[0]
        readers = tuple(turned.uses())
        if turned.is_graph_output() or not all(
            use.node.op_type == "MatMul" and use.node.domain == "" and use.idx == 1
            for use in readers
        ):
            continue
        for product, index in readers:
            product.replace_input_with(index, weight)
            product.op_type, product.domain = "FusedMatMul", _CONTRIBUTED
            product.attributes["transB"] = ir.AttrInt64("transB", 1)
        model.graph.remove(node, safe=True)
        model.graph.opset_imports.setdefault(_CONTRIBUTED, 1)


def _turns_a_weight(node: ir.Node) -> bool:
    weight = node.inputs[0] if node.op_type == "Transpose" and node.domain == "" else None
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return False
    is_matrix = weight.const_value.dtype.name == "FLOAT" and len(weight.const_value.shape) == 2
    return is_matrix and list(node.attributes.get_ints("perm", [1, 0])) == [1, 0]


def _float_bytes(model: ir.Model) -> int:
    values = model.graph.initializers.values()
    tensors = [value.const_value for value in values if value.const_value is not None]
    return sum(tensor.nbytes for tensor in tensors if tensor.dtype.is_floating_point())


def _folder(model: ir.Model) -> Path | None:
    """Return the folder that most of the weights are mapped from."""
    from irtools.model import place_of

    sizes: Counter[Path] = Counter()
    for value in model.graph.initializers.values():
        place = None if value.const_value is None else place_of(value.const_value)
        if place is not None:
            file, _, length = place
            sizes[file.path.absolute().parent] += length
    return max(sizes, key=sizes.__getitem__, default=None)


def _refer_to_files(model: ir.Model, folder: Path) -> frozenset[str]:
    """Name weights by their place in files of a folder; return which."""
    from irtools.model import place_of

    found = set()
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        place = None if tensor is None else place_of(tensor)
        if tensor is None or place is None or not _is_shared(tensor) or value.is_graph_input():
            continue
        file, offset, _ = place
        here = file.path.absolute().parent == folder and file.is_named
        if here and offset % _ALIGNMENT == 0:
            value.const_value = _placed(tensor, file.path.name, offset)
            found.add(name)
    return frozenset(found)


def _is_shared(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.name in _SHARED_TYPES and tensor.nbytes >= _SHARED_FROM


def _placed(tensor: ir.TensorProtocol, file: str, offset: int) -> ir.ExternalTensor:
    import onnx_ir as ir

    return ir.ExternalTensor(
        file,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
    )


def _read_external(model: ir.Model, except_for: Container[str]) -> None:
    """Put what is still in files into the model: bytes have no folder to look in."""
    import onnx_ir as ir

    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor) and not (
                graph is model.graph and name in except_for
            ):
                value.const_value = _in_memory(value.const_value)
    for node in model.graph.all_nodes():
        for key, attribute in node.attributes.items():
            if isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[key] = ir.AttrTensor(key, _in_memory(attribute.value))


def _in_memory(tensor: ir.ExternalTensor) -> ir.Tensor:
    import onnx_ir as ir

    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def _serialize(model: ir.Model) -> bytes:
    import onnx_ir as ir

    try:
        content: bytes = ir.to_proto(model).SerializeToString()
    except ValueError as error:
        raise UnsupportedError(
            "more than 2 GB of weights are neither float nor int8 and cannot be handed to "
            "ONNX Runtime in memory; save the model with external data and run the file"
        ) from error
    return content
