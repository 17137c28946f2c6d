"""Writing a rotation into the weights that read and write a stream.

    writer     W  <-  W diag(scale) C Q                 tables, last products, convolutions, biases
    reader     W  <-  Q^T diag(gain) W                  and its bias takes  offset W
    entry      x  <-  x C Q                             as a product, where no weight writes x
    exit       y  <-  y Q^T diag(gain) + offset         as a product, where no weight reads y

Weights are multiplied in float64, piece by piece, and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.orthogonal import Rotation
from irtools.editing import Editor, attribute_values, constant_of, require_array, set_contents
from irtools.passes.rotation.along import along
from irtools.passes.rotation.stream import NormReader, Stream, StreamNorm, Use, Writer

__all__ = ["rotate_stream"]

T = TypeVar("T")


def rotate_stream(editor: Editor, stream: Stream, rotation: Rotation) -> dict[str, int]:
    """Rotate a stream; returns counters."""
    for group in _groups(stream.writers, _writer_key):
        _write(editor, group, stream.centred, rotation)
    for node in stream.scales:
        _drop_scale(editor, node)
    _enter(editor, stream, rotation)
    _leave(editor, stream, rotation)
    for norm in stream.norms:
        _bias_readers(editor, norm)
    pairs = [(reader, norm) for norm in stream.norms for reader in norm.readers]
    for readers in _groups(pairs, _reader_key):
        _read(editor, [reader for reader, _ in readers], readers[0][1].gain, rotation)
    gain = editor.constant("rotated_gain", np.ones(stream.width, np.float32))
    for norm in stream.norms:
        if norm.has_exit:
            _leave_norm(editor, norm, rotation)
        _make_plain(editor, norm.node, gain)
    return {
        "num-rotated-writers": len({w.value for w in stream.writers}),
        "num-rotated-readers": len(pairs),
        "num-folded-means": len(stream.norms) if stream.centred else 0,
        "num-rotation-products": stream.products,
    }


def _write(editor: Editor, writers: list[Writer], centred: bool, rotation: Rotation) -> None:
    first = writers[0]
    turn = _entering(centred, rotation, first.scale)
    array = along(require_array(first.value), first.axis, turn)
    set_contents(editor, [(w.node, w.input) for w in writers], array, "rotated")


def _read(editor: Editor, readers: list[NormReader], gain: np.ndarray, rotation: Rotation) -> None:
    first = readers[0]
    array = along(require_array(first.value), first.axis, lambda rows: rotation.turn(rows * gain))
    places = dict.fromkeys((r.holder, r.input) for r in readers)
    set_contents(editor, list(places), array, "rotated")


def _bias_readers(editor: Editor, norm: StreamNorm) -> None:
    offset = norm.offset
    if offset is None:
        return
    for reader in norm.readers:
        rows = np.moveaxis(require_array(reader.value), reader.axis, -1)
        shift = rows.astype(np.float64) @ offset
        if reader.bias is not None:
            node, position = reader.bias
            bias = require_array(node.inputs[position]).astype(np.float64)
            set_contents(editor, [reader.bias], bias + shift, "rotated")
        else:
            _add(editor, reader.node.outputs[0], shift)


def _add(editor: Editor, value: ir.Value, shift: np.ndarray) -> None:
    """Add a vector to a value, for all who read it."""
    uses = [(use.node, use.idx) for use in value.uses()]
    bias = editor.constant(f"{value.name}_offset", shift.astype(np.float32))
    total = editor.after(
        value, "Add", [value, bias], outputs={f"{value.name}_shifted": value.dtype}
    )
    _redirect(editor, value, total, tuple(uses))


def _enter(editor: Editor, stream: Stream, rotation: Rotation) -> None:
    if not stream.entries:
        return
    turn = _entering(stream.centred, rotation, None)
    matrix = editor.constant("rotation", turn(np.eye(stream.width)).astype(np.float32))
    for value, uses in stream.entries.items():
        turned = _product(editor, value, matrix, "rotated")
        for node, position in uses:
            node.replace_input_with(position, turned)


def _leave(editor: Editor, stream: Stream, rotation: Rotation) -> None:
    if not stream.exits:
        return
    matrix = editor.constant("rotation_back", rotation.matrix.T.astype(np.float32))
    for value, uses in stream.exits.items():
        _redirect(editor, value, _product(editor, value, matrix, "turned_back"), uses)


def _leave_norm(editor: Editor, norm: StreamNorm, rotation: Rotation) -> None:
    value = norm.node.outputs[0]
    matrix = editor.constant("rotation_back", (rotation.matrix.T * norm.gain).astype(np.float32))
    back = _product(editor, value, matrix, "turned_back")
    if norm.offset is not None:
        offset = editor.constant("rotation_offset", norm.offset.astype(np.float32))
        outputs = {f"{value.name}_shifted": value.dtype}
        back = editor.after(back, "Add", [back, offset], outputs=outputs)
    _redirect(editor, value, back, norm.others)


def _product(editor: Editor, value: ir.Value, matrix: ir.Value, suffix: str) -> ir.Value:
    outputs = {f"{value.name}_{suffix}": value.dtype}
    return editor.after(value, "MatMul", [value, matrix], outputs=outputs)


def _redirect(editor: Editor, old: ir.Value, new: ir.Value, uses: tuple[Use, ...]) -> None:
    """Let some readers, and the caller of the model, read another value."""
    for node, position in uses:
        node.replace_input_with(position, new)
    if old.is_graph_output():
        editor.replace_output(old, new, f"{old.name}_rotated")


def _make_plain(editor: Editor, node: ir.Node, gain: ir.Value) -> None:
    """Let a normalization be one by the root mean square, without gain and offset."""
    attributes = attribute_values(node)
    op_type = node.op_type if node.op_type != "LayerNormalization" else "RMSNormalization"
    old = [value for value in node.inputs[1:] if value is not None]
    editor.replace(node, op_type, [node.inputs[0], gain], attributes, outputs=1)
    editor.drop_unread(*old)


def _drop_scale(editor: Editor, node: ir.Node) -> None:
    """Remove a layer scale that is in the weights before it."""
    first, second = node.inputs
    value, factor = (first, second) if constant_of(first) is None else (second, first)
    assert value is not None
    editor.forward(node.outputs[0], value)
    editor.remove(node)
    editor.drop_unread(factor)


def _entering(
    centred: bool, rotation: Rotation, scale: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    def turn(rows: np.ndarray) -> np.ndarray:
        if scale is not None:
            rows = rows * scale
        if centred:
            rows = rows - rows.mean(axis=-1, keepdims=True)
        return rotation.turn(rows)

    return turn


def _groups(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    found: dict[Hashable, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def _writer_key(writer: Writer) -> Hashable:
    scale = None if writer.scale is None else writer.scale.tobytes()
    return writer.value, writer.axis, scale


def _reader_key(pair: tuple[NormReader, StreamNorm]) -> Hashable:
    reader, norm = pair
    return reader.value, reader.axis, norm.gain.tobytes()
