"""Writing a model: one file or a file and its weights, whole or not at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from irtools.errors import CheckError, FileError, IrtoolsError, LimitError
from irtools.model.atomic import NewFile, OutputFolder
from irtools.model.declared import forget_undeclared, paired_graphs
from irtools.model.digest import (
    release_tensor,
    tensor_bytes,
    tensor_digest,
    tensor_size,
)
from irtools.model.files import MappedFile, reason
from irtools.model.light import kept_tensors
from irtools.model.maps import put_map_types
from irtools.model.reader import TRAINING, read_file
from irtools.model.same import is_same_model
from irtools.model.scopes import shown
from irtools.model.sparse import is_marked_sparse, sparsify
from irtools.model.walk import attribute_tensors, iter_graphs
from irtools.model.wire import LARGE, Bytes, insert_weights

__all__ = [
    "EXTERNAL_ABOVE",
    "SavedModel",
    "WeightStore",
    "planned_size",
    "to_proto",
    "write_model",
]

EXTERNAL_ABOVE = 1_500_000_000
"""Weights of more bytes than this go into a file of their own; a message ends at 2 GiB."""
_EXTERNAL_TENSOR = 1024
"""Smaller tensors stay in the model file: shapes and scalars are read before the weights."""
_ALIGNMENT, _PAGE = 64, 4096


@dataclass(frozen=True)
class SavedModel:
    """What a save wrote.

    Attributes:
        files: The model first.
        size: Bytes of the model and of all its weights, those that were there already too.
    """

    files: tuple[Path, ...]
    size: int


class WeightStore:
    """Weights that the models of one folder share: what one has written the next refers to.

    For models of gigabytes that differ in a few weights. A folder has one store, and nothing
    removes files from it while models in it are in use.
    """

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, int]] = {}
        """Digest of a tensor to the name of its file and the offset in it."""


def write_model(
    model: ir.Model,
    path: Path,
    external_data: bool | None,
    sources: Sequence[MappedFile],
    store: WeightStore | None = None,
    *,
    scratch: bool = False,
    compared: bool = False,
) -> SavedModel:
    """Write a model atomically: see `Model.save`.

    Weights go under a name that no file has yet, so that renaming the model file is the one moment
    at which the old pair of files becomes the new one. No weight file is ever overwritten.
    """
    try:
        with OutputFolder(path.parent, scratch=scratch) as folder:
            folder.remove_abandoned(path.name)
            with kept_tensors(model):
                written = _write(model, folder, path, external_data, store or WeightStore())
            for source in sources:
                source.check_unchanged()
            return _publish(written, model if compared else None, folder, path)
    except (OSError, ValueError) as error:
        if isinstance(error, IrtoolsError):
            raise
        raise FileError(
            f"cannot write {shown(path)}: {reason(error)}; nothing was changed"
        ) from error


@dataclass
class _Written:
    """Files that are written and have no names yet.

    Attributes:
        file: The model.
        placed: Its weights outside that file.
        store: Where these are noted.
    """

    file: NewFile
    placed: _Placed
    store: WeightStore


def _write(
    model: ir.Model,
    folder: OutputFolder,
    path: Path,
    external_data: bool | None,
    store: WeightStore,
) -> _Written:
    """Write the files; initializers of `model` that are written elsewhere say so afterwards."""
    tensors = list(_weights(model))
    if external_data is None:
        external_data = sum(map(tensor_size, tensors)) > EXTERNAL_ABOVE
    placed = _Placed(None, {}, 0)
    if external_data:
        placed = _write_weights(model, folder, path.name, store.places)
    file = folder.create(path.name)
    for part in _serialize(model, path):
        file.write(part)
    file.finish()
    for tensor in tensors:
        release_tensor(tensor)
    return _Written(file, placed, store)


def _publish(
    written: _Written, expected: ir.Model | None, folder: OutputFolder, path: Path
) -> SavedModel:
    """Give the files their names, when the model file reads back as a sound model.

    Raises:
        CheckError: It is another model than the one that is expected.
    """
    file, weights = written.file, written.placed.file
    outdated = _own_weights(path, keep="" if weights is None else weights.name)
    if weights is not None:
        weights.publish()
    try:
        assert file.temporary is not None
        if not folder.scratch:
            found = read_file(path.parent / file.temporary)
            if expected is not None and not is_same_model(expected, found.model):
                raise CheckError(f"{shown(path)} does not read back as the model that was written")
        folder.sync()
        file.publish()
    except BaseException:
        if weights is not None:
            weights.retract()
        raise
    written.store.places |= written.placed.new
    # The new file is in place and whole; what fails from here on is not a reason to say otherwise.
    with contextlib.suppress(OSError):
        folder.sync()
        for name in outdated:
            folder.remove(name)
    files = (file,) if weights is None else (file, weights)
    size = file.size + written.placed.size
    return SavedModel(tuple(path.parent / f.name for f in files), size)


def planned_size(model: ir.Model) -> int:
    """Return how many bytes a model takes in files, without writing it.

    Of one with external data gaps between weights are not counted, some kB each at most.
    """
    with kept_tensors(model):
        if sum(map(tensor_size, _weights(model))) <= EXTERNAL_ABOVE:
            return sum(map(len, _serialize(model, Path("model"))))
        sizes: dict[str, int] = {}
        for value in _large_initializers(model):
            tensor = value.const_value
            assert tensor is not None
            sizes[tensor_digest(tensor)] = tensor.nbytes
            value.const_value = _elsewhere(value, "", 0)
        return int(to_proto(model).ByteSize()) + sum(sizes.values())


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as a message, nothing lost that was read with it."""
    proto = ir.serde.serialize_model(model)
    forget_undeclared(model, proto)
    put_map_types(model, proto)
    for part in model.meta.get(TRAINING, ()):
        proto.training_info.add().ParseFromString(part)
    return proto


def _serialize(model: ir.Model, path: Path) -> list[Bytes]:
    """Return the file in parts. Large weights are taken from where they are, not copied."""
    large: dict[str, Bytes] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        if isinstance(tensor, ir.ExternalTensor) or is_marked_sparse(tensor):
            continue
        if _is_large(tensor, LARGE):
            large[name] = tensor_bytes(tensor)
            value.const_value = _elsewhere(value, "", 0)
    proto = to_proto(model)
    for graph, message in paired_graphs(model, proto):
        sparsify(graph, message)
    weights: dict[int, Bytes] = {}
    for position, item in enumerate(proto.graph.initializer):
        if item.name in large:
            weights[position] = large[item.name]
            del item.external_data[:]
            item.ClearField("data_location")
    limit = 2**31 - sum(map(len, weights.values()))
    try:
        message = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        message = b""
        limit = 0
    if len(message) >= limit:
        raise LimitError(f"{shown(path)} would be larger than 2 GiB; save it with external data")
    return insert_weights(memoryview(message), weights)


def _is_large(tensor: ir.TensorProtocol, limit: int) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes > limit


def _elsewhere(value: ir.Value, file: str, offset: int) -> ir.ExternalTensor:
    """Return a tensor that says that the data of an initializer is in a file."""
    tensor = value.const_value
    assert tensor is not None
    return ir.ExternalTensor(
        file,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in iter_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            yield from attribute_tensors(node)


@dataclass
class _Placed:
    """Where the large weights of a model are.

    Attributes:
        file: The file that was written for it; None where there was nothing to write.
        new: Digest to place of what is in that file.
        size: Bytes of all its weights outside the model file.
    """

    file: NewFile | None
    new: dict[str, tuple[str, int]]
    size: int


def _write_weights(
    model: ir.Model, folder: OutputFolder, name: str, known: Mapping[str, tuple[str, int]]
) -> _Placed:
    """Write the large initializers into a file and make the model refer to it.

    Equal tensors are written once, and those at a known place not at all.
    """
    placed = _Placed(None, {}, 0)
    counted: set[str] = set()
    for value in _large_initializers(model):
        tensor = value.const_value
        assert tensor is not None
        digest = tensor_digest(tensor)
        if digest not in counted:
            counted.add(digest)
            placed.size += tensor.nbytes
        if digest not in known and digest not in placed.new:
            placed.file = placed.file or folder.create(_free_name(folder, name))
            placed.size += _append(placed.file, tensor)
            placed.new[digest] = (placed.file.name, placed.file.size - tensor.nbytes)
        value.const_value = _elsewhere(value, *(known.get(digest) or placed.new[digest]))
    if placed.file is not None:
        placed.file.finish()
    return placed


def _append(file: NewFile, tensor: ir.TensorProtocol) -> int:
    """Write a tensor after what is in a file; return the bytes left free between the two."""
    step = _PAGE if tensor.nbytes >= 2**20 else _ALIGNMENT
    gap = -file.size % step
    file.write(bytes(gap))
    file.write(tensor_bytes(tensor))
    release_tensor(tensor)
    return gap


def _large_initializers(model: ir.Model) -> Iterator[ir.Value]:
    for graph in iter_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None and _is_large(value.const_value, _EXTERNAL_TENSOR):
                yield value


def _free_name(folder: OutputFolder, name: str) -> str:
    candidate, count = f"{name}.data", 0
    while folder.exists(candidate):
        count += 1
        candidate = f"{name}.{count}.data"
    return candidate


def _own_weights(path: Path, keep: str) -> list[str]:
    """Return the weight files that an earlier save of ours wrote for the file at `path`."""
    if not path.is_file():
        return []
    try:
        files = read_file(path).files[1:]
    except IrtoolsError:
        return []
    pattern = re.compile(re.escape(path.name) + r"(\.[0-9]+)?\.data")
    names = {file.path.name for file in files if file.path.parent == path.absolute().parent}
    return sorted(n for n in names if pattern.fullmatch(n) and n != keep)
