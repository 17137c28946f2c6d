"""Reading a model: checks first, then the IR, with weights mapped from their files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from irtools.errors import LimitError, ModelError, VerificationError
from irtools.model.declared import mark_declared
from irtools.model.digest import keep_place
from irtools.model.external import ExternalFiles, TensorPlace
from irtools.model.files import MappedFile, check_is_onnx
from irtools.model.listed import drop_listed_weights
from irtools.model.maps import keep_map_types, take_map_types
from irtools.model.order import sort_nodes
from irtools.model.preflight import (
    PlacedTensor,
    check_structure,
    iter_sparse,
    iter_tensor_types,
    iter_tensors,
)
from irtools.model.scopes import shown
from irtools.model.sparse import mark_read_sparse, take_sparse_mark, to_dense
from irtools.model.stale import drop_stale_shapes
from irtools.model.tensors import check_data, num_bytes
from irtools.model.verifier import verify
from irtools.model.walk import count_listed, iter_graphs, tensor_of
from irtools.model.wire import Skeleton, cut_weights

__all__ = ["TRAINING", "ReadModel", "read_file", "read_proto"]

_MAX_FILE = 2**31
"""A protobuf message has no more bytes than this."""
_MAX_INLINE = 256 * 2**20
_MANY_LISTED = 1_000_000
_COPIED = 4096

TRAINING = "irtools.training"
"""Key in a model's `meta` of its training part, serialized; `onnx_ir` does not hold it."""


@dataclass(frozen=True)
class ReadModel:
    """A model, the files that its weights are mapped from, the model file first, and notes."""

    model: ir.Model
    files: tuple[MappedFile, ...]
    notes: tuple[str, ...] = ()


def read_file(path: Path) -> ReadModel:
    """Read an ONNX file.

    Raises:
        FileError: The file is not there or cannot be read.
        ModelError: It is not a sound model; says what, where, and what to do.
        LimitError: Something in it is too large to be believed.
    """
    file = MappedFile.open(path)
    check_is_onnx(bytes(file.data[:512]), path)
    if len(file.data) >= _MAX_FILE:
        raise ModelError(
            f"{shown(path)} has {len(file.data)} bytes; an ONNX file holds less than 2 GiB, "
            "weights beyond go into external data"
        )
    try:
        skeleton = cut_weights(file.data)
        proto = onnx.ModelProto()
        proto.ParseFromString(skeleton.message)
        return _Reader(proto, path, file, skeleton).read()
    except DecodeError as error:
        raise ModelError(
            f"{shown(path)} cannot be parsed: damaged, nested too deeply, or not an ONNX model"
        ) from error
    except (ModelError, LimitError) as error:
        raise type(error)(f"{shown(path)}: {error}") from error


def read_proto(proto: onnx.ModelProto, path: Path | None) -> ReadModel:
    """Read a model message; external data is looked for next to `path`. The message is not kept."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return _Reader(copy, path, None, Skeleton(b"", {})).read()


class _Reader:
    def __init__(
        self,
        proto: onnx.ModelProto,
        path: Path | None,
        file: MappedFile | None,
        skeleton: Skeleton,
    ) -> None:
        self._proto = proto
        self._file = file
        self._spans = skeleton.spans
        self._external = ExternalFiles(path)
        self._places: list[TensorPlace] = []

    def read(self) -> ReadModel:
        notes = sort_nodes(self._proto)
        check_structure(self._proto)
        for body in (self._proto, *self._proto.functions):
            for item in body.opset_import:
                # `onnx_ir` gives the nodes of this domain the other spelling, and only them.
                item.domain = "" if item.domain == "ai.onnx" else item.domain
        for sparse in iter_sparse(self._proto):
            for part in (sparse.tensor.values, sparse.tensor.indices):
                self._load_inline(PlacedTensor(part, f"part of {sparse.where}"))
        for placed in iter_tensors(self._proto):
            self._check_tensor(placed)
        self._write_out_sparse()
        notes += drop_listed_weights(self._proto)
        training = [part.SerializeToString() for part in self._take_training()]
        _forget_negative_sizes(self._proto)
        maps = take_map_types(self._proto)
        model = self._deserialize()
        keep_map_types(model, maps)
        self._map_weights(model)
        if training:
            model.meta[TRAINING] = tuple(training)
        mark_declared(model, self._proto)
        try:
            verify(model)
        except VerificationError as error:
            raise ModelError(str(error)) from error
        own = () if self._file is None else (self._file,)
        notes += drop_stale_shapes(model, self._proto)
        notes += _note_of_lists(model)
        return ReadModel(model, own + self._external.files, notes)

    def _check_tensor(self, placed: PlacedTensor) -> None:
        tensor = placed.tensor
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self._check_external(placed)
            return
        del tensor.external_data[:]
        span = None if placed.position is None else self._spans.get(placed.position)
        check_data(tensor, placed.where, None if span is None else span[1])
        if span is not None:
            assert self._file is not None
            self._redirect(tensor, TensorPlace(self._file, *span))

    def _check_external(self, placed: PlacedTensor) -> None:
        tensor = placed.tensor
        fields = ("raw_data", *_TYPED_FIELDS)
        if any(len(getattr(tensor, field)) for field in fields):
            raise ModelError(f"{placed.where} has data inside the file and outside it")
        if tensor.data_type == onnx.TensorProto.STRING:
            raise ModelError(f"{placed.where} holds strings, which cannot be external data")
        size = num_bytes(tensor, placed.where)
        self._redirect(tensor, self._external.find(tensor, placed.where, size))

    def _redirect(self, tensor: onnx.TensorProto, place: TensorPlace) -> None:
        """Make a tensor name its place by number instead of by path."""
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=str(len(self._places)))
        self._places.append(place)

    def _load_inline(self, placed: PlacedTensor) -> None:
        """Load an external tensor into the message."""
        tensor = placed.tensor
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            size = num_bytes(tensor, placed.where)
            place = self._external.find(tensor, placed.where, size)
            if size > _MAX_INLINE:
                raise LimitError(f"{placed.where} has {size} bytes, the limit is {_MAX_INLINE}")
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.raw_data = bytes(place.file.data[place.offset : place.offset + size])

    def _write_out_sparse(self) -> None:
        """Replace sparse tensors, which `onnx_ir` drops, by dense ones of the same value."""
        bodies = [self._proto.graph, *self._proto.functions]
        while bodies:
            body = bodies.pop()
            if isinstance(body, onnx.GraphProto):
                for sparse in body.sparse_initializer:
                    where = f"sparse initializer {shown(sparse.values.name)}"
                    body.initializer.append(mark_read_sparse(to_dense(sparse, where)))
                del body.sparse_initializer[:]
            for node in body.node:
                for attribute in node.attribute:
                    if attribute.HasField("sparse_tensor"):
                        _densify_constant(node, attribute)
                    if attribute.HasField("g"):
                        bodies.append(attribute.g)
                    bodies.extend(attribute.graphs)

    def _take_training(self) -> Iterator[onnx.TrainingInfoProto]:
        for part in self._proto.training_info:
            for graph in (part.initialization, part.algorithm):
                for tensor in graph.initializer:
                    self._restore(tensor)
            yield part
        self._proto.ClearField("training_info")

    def _restore(self, tensor: onnx.TensorProto) -> None:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = self._places[int(tensor.external_data[0].value)]
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(place.file.data[place.offset : place.offset + place.length])

    def _deserialize(self) -> ir.Model:
        with _quiet("onnx_ir"):
            try:
                return ir.serde.deserialize_model(self._proto)
            except ir.serde.SerdeError as error:
                cause: BaseException = error
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                raise ModelError(f"the model cannot be read: {cause}") from error

    def _map_weights(self, model: ir.Model) -> None:
        for graph in iter_graphs(model):
            for value in graph.initializers.values():
                if value.const_value is not None:
                    value.const_value = self._mapped(value.const_value)
            for node in graph:
                for name, attribute in node.attributes.items():
                    if attribute.is_ref():
                        continue
                    if attribute.type == ir.AttributeType.TENSOR:
                        tensor = self._mapped(tensor_of(attribute))
                        if tensor is not attribute.value:
                            node.attributes[name] = ir.AttrTensor(
                                name, tensor, doc_string=attribute.doc_string
                            )
                    elif attribute.type == ir.AttributeType.TENSORS:
                        tensors = [self._mapped(t) for t in attribute.as_tensors()]
                        node.attributes[name] = ir.AttrTensors(
                            name, tensors, doc_string=attribute.doc_string
                        )

    def _mapped(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """Return a tensor over the mapped file, or over a copy made once, or itself if small."""
        if isinstance(tensor, ir.ExternalTensor):
            place = self._places[int(str(tensor.location))]
            window = place.file.data[place.offset : place.offset + place.length]
            mapped = _over(window, tensor)
            keep_place(mapped, place.file, place.offset, place.length)
            return mapped
        large = isinstance(tensor, ir.TensorProtoTensor) and tensor.nbytes > _COPIED
        # A message's own tensor writes its metadata twice when it is serialized.
        if large or (tensor.metadata_props and isinstance(tensor, ir.TensorProtoTensor)):
            copy = _over(memoryview(tensor.tobytes()), tensor)
            take_sparse_mark(copy)
            return copy
        return tensor


_TYPED_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)


def _over(window: memoryview, tensor: ir.TensorProtocol) -> ir.Tensor | ir.PackedTensor:
    """Return a tensor like `tensor` whose elements are these bytes, which are not copied."""
    shape = ir.Shape(tensor.shape.numpy())
    about: dict[str, Any] = {
        "name": tensor.name,
        "doc_string": tensor.doc_string,
        "metadata_props": dict(tensor.metadata_props) or None,
    }
    if tensor.dtype.bitwidth < 8:
        packed = np.frombuffer(window, np.uint8)
        return ir.PackedTensor(packed, tensor.dtype, shape=shape, **about)
    dtype = np.dtype(tensor.dtype.numpy())
    array = np.frombuffer(window, dtype.newbyteorder("<") if dtype.kind in "iufc" else dtype)
    return ir.Tensor(array.reshape(shape.numpy()), tensor.dtype, shape=shape, **about)


def _note_of_lists(model: ir.Model) -> tuple[str, ...]:
    """Say why reading and every pass take long: numbers in lists are objects, one by one."""
    found: Counter[str] = Counter()
    for graph in iter_graphs(model):
        for node in graph:
            found[node.op_type] += count_listed(node)
    if found.total() < _MANY_LISTED:
        return ()
    [(operator, _)] = found.most_common(1)
    return (
        f"{found.total() / 1e6:.1f} million numbers are in attributes of nodes ({operator}), not "
        "in tensors: reading and writing such a model takes long, in every pass",
    )


def _forget_negative_sizes(model: onnx.ModelProto) -> None:
    """Leave a size of -1 open, as runtimes do: Paddle and others write it for "any"."""
    for kind in iter_tensor_types(model):
        for dim in kind.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _densify_constant(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    where = f"attribute {shown(attribute.name)} of node {shown(node.name or node.output[0])}"
    if node.op_type != "Constant" or attribute.name != "sparse_value":
        raise ModelError(f"{where} is a sparse tensor, which only Constant nodes may have")
    dense = mark_read_sparse(to_dense(attribute.sparse_tensor, where))
    attribute.Clear()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    attribute.t.CopyFrom(dense)


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Silence a library's warnings about what our own checks report."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
