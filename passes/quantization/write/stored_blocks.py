"""Weights in blocks as tensors of a model, made piece by piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.measure.cpu import cpu_quota
from irtools.passes.quantization.ranges.blocks import Blocks, Rounding, pack_codes, slabs
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.passes.quantization.sites.uses import Weight

__all__ = ["StoredBlocks", "first_reader", "store_blocks"]


@dataclass(frozen=True, eq=False)
class StoredBlocks:
    """A weight in blocks as it is in the model.

    Attributes:
        codes: [K, N] or [V, H].
        scale: [K / block, N] or [V, H / block].
        zero_point: Of the scale's shape and the codes' type, or None.
        minimum: Of the scale's shape, or None.
    """

    codes: ir.Tensor | ir.PackedTensor
    scale: np.ndarray
    zero_point: ir.Tensor | ir.PackedTensor | None
    minimum: np.ndarray | None


def first_reader(editor: Editor, weight: Weight) -> ir.Node:
    """Return the node in front of which a weight must be expanded."""
    return editor.first(use.transpose or use.node for use in weight.uses)


def store_blocks(
    array: np.ndarray, axis: int, spec: BlockSpec, rounding: Rounding, *, turned: bool
) -> StoredBlocks:
    """Quantize a matrix piece by piece.

    Args:
        axis: Its output-channel axis.
        turned: Store [K, N], else [N, K].
    """
    channels, inner = array.shape[axis], array.shape[1 - axis]
    codes = _Collector(spec.dtype, channels, inner, turned=turned)
    zeros = _Collector(spec.dtype, channels, inner // spec.block, turned=turned)
    scales: list[np.ndarray] = []
    minima: list[np.ndarray] = []
    for cut, blocks in _rounded(slabs(array, axis), spec, rounding):
        codes.put(cut, blocks.codes)
        scales.append(blocks.scale)
        minima += [] if blocks.minimum is None else [blocks.minimum]
        if blocks.zero_point is not None:
            zeros.put(cut, blocks.zero_point)
    return StoredBlocks(
        codes.tensor(),
        _joined(scales, turned=turned),
        zeros.tensor() if spec.scheme == "affine" else None,
        _joined(minima, turned=turned) if minima else None,
    )


def _joined(parts: list[np.ndarray], *, turned: bool) -> np.ndarray:
    whole = np.concatenate(parts)
    return np.ascontiguousarray(whole.T) if turned else whole


def _rounded(
    pieces: Iterator[tuple[slice, np.ndarray]], spec: BlockSpec, rounding: Rounding
) -> Iterator[tuple[slice, Blocks]]:
    """Quantize pieces in order, as many at a time as there are CPUs, none of them far ahead."""
    workers = cpu_quota()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[slice, Future[Blocks]]] = deque()
        for cut, rows in pieces:
            waiting.append((cut, pool.submit(rounding, rows, spec)))
            if len(waiting) > workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for cut, future in waiting:
            yield cut, future.result()


class _Collector:
    """Puts rows of codes [R, K] into one tensor [N, K] or [K, N], packed where it can as it goes.

    A row of codes below 8 bits may end inside a byte; such a tensor is packed at the end.
    """

    def __init__(self, dtype: ir.DataType, channels: int, inner: int, *, turned: bool) -> None:
        self._dtype, self._turned = dtype, turned
        self._shape = (inner, channels) if turned else (channels, inner)
        self._each = 8 // int(dtype.bitwidth)
        self._packs = self._each > 1 and self._shape[1] % self._each == 0
        width = self._shape[1] // self._each if self._packs else self._shape[1]
        kind = np.uint8 if self._packs else np.int8
        self._stored = np.empty((self._shape[0], width), kind)

    def put(self, cut: slice, codes: np.ndarray) -> None:
        piece = codes.T if self._turned else codes
        if self._packs:
            bits, each = int(self._dtype.bitwidth), self._each
            piece = pack_codes(np.ascontiguousarray(piece), bits).reshape(len(piece), -1)
            cut = slice(cut.start // each, -(-cut.stop // each)) if self._turned else cut
        if self._turned:
            self._stored[:, cut] = piece.view(self._stored.dtype)
        else:
            self._stored[cut] = piece.view(self._stored.dtype)

    def tensor(self) -> ir.Tensor | ir.PackedTensor:
        if self._dtype.bitwidth == 8:
            return ir.Tensor(self._stored.view(self._dtype.numpy()), self._dtype)
        bits = int(self._dtype.bitwidth)
        packed = self._stored.reshape(-1) if self._packs else pack_codes(self._stored, bits)
        return ir.PackedTensor(packed, self._dtype, shape=self._shape)
