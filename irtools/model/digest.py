"""What tensors hold: their bytes, sizes and digests, and releasing them."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from irtools.model.files import MappedFile

__all__ = [
    "keep_place",
    "place_of",
    "release_tensor",
    "tensor_bytes",
    "tensor_digest",
    "tensor_size",
]

_KEY = "irtools.digest"
_PLACE = "irtools.place"


def tensor_digest(tensor: ir.TensorProtocol) -> str:
    """Return the SHA-256 of a tensor's type, shape and bytes, in hexadecimal.

    The digest is kept in the tensor's `meta`, which clones of a model share, so that a weight is
    hashed once in its life. This holds because nothing writes into a tensor.
    """
    cached = tensor.meta.get(_KEY)
    if cached is None:
        digest = hashlib.sha256(f"{tensor.dtype.name}{tuple(tensor.shape.numpy())}".encode())
        digest.update(tensor_bytes(tensor))
        release_tensor(tensor)
        cached = tensor.meta[_KEY] = digest.hexdigest()
    assert isinstance(cached, str)
    return cached


def tensor_size(tensor: ir.TensorProtocol) -> int:
    """Return how many bytes a tensor takes in a file; reads no data but strings."""
    if tensor.dtype == ir.DataType.STRING:
        return len(tensor_bytes(tensor))
    return int(tensor.nbytes)


def tensor_bytes(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """Return a tensor's bytes as ONNX stores them, without a copy where memory already has them.

    Strings are given as length-prefixed UTF-8.
    """
    if tensor.dtype == ir.DataType.STRING:
        items = [bytes(item) for item in np.asarray(tensor.numpy()).reshape(-1).tolist()]
        return b"".join(len(item).to_bytes(8, "little") + item for item in items)
    if tensor.dtype.bitwidth < 8 or not isinstance(tensor, ir.Tensor):
        return tensor.tobytes()
    array = tensor.numpy()
    if not array.flags.c_contiguous or array.dtype.byteorder == ">":
        return tensor.tobytes()
    return array.reshape(-1).view(np.uint8).data


def keep_place(tensor: ir.TensorProtocol, file: MappedFile, offset: int, length: int) -> None:
    """Note in a tensor, which clones of a model share, where in a file its elements are mapped."""
    tensor.meta[_PLACE] = (file, offset, length)


def place_of(tensor: ir.TensorProtocol) -> tuple[MappedFile, int, int] | None:
    """Return the file that a tensor is mapped from, the offset and the length; None: it is not."""
    found: tuple[MappedFile, int, int] | None = tensor.meta.get(_PLACE)
    return found


def release_tensor(tensor: ir.TensorProtocol) -> None:
    """Release the memory of a weight that is mapped from a file, after it has been read.

    It can be read again at any time. Code that goes through all weights of a model calls this after
    each, so that what is resident is one weight and not the model. Other tensors stay as they are.
    """
    place = place_of(tensor)
    if place is not None:
        file, offset, length = place
        file.release(offset, length)
