"""Windows, spectra, n-grams and other single operators."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    input_at,
    int_attribute,
    ints_attribute,
    number,
    unknown,
)

__all__ = ["det", "dft", "einsum", "mel_weights", "ngrams", "stft", "window"]


def window(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    size = number(node.inputs[0], facts)
    return [(unknown(node, 0) if size is None else size,)]


def mel_weights(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[dft_length // 2 + 1, mel bins]."""
    bins, length = (number(value, facts) for value in node.inputs[:2])
    spectrum = length // 2 + 1 if isinstance(length, int) else unknown(node, 0)
    return [(spectrum, unknown(node, 1) if bins is None else bins)]


def dft(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[..., length, ..., 1 or 2]: the last axis holds the real and the imaginary part."""
    shape = facts.shape(node.inputs[0])
    if not shape:
        return [None]
    # An attribute before opset 20, and then 1 by default; an input after.
    given: Dim | None = node.attributes.get_int("axis", 1 if (node.version or 20) < 20 else -2)
    if input_at(node, 2) is not None:
        given = number(node.inputs[2], facts)
    one_sided = bool(int_attribute(node, "onesided", 0))
    inverse = bool(int_attribute(node, "inverse", 0))
    last: Dim = 1 if one_sided and inverse else 2
    if not isinstance(given, int):
        return [(*(unknown(node, axis) for axis in range(len(shape) - 1)), last)]
    axis = given % len(shape)
    length: Dim | None = shape[axis]
    if input_at(node, 1) is not None:
        length = number(node.inputs[1], facts)
    elif one_sided and inverse:
        length = 2 * (length - 1) if isinstance(length, int) else None
    if one_sided and not inverse:
        length = length // 2 + 1 if isinstance(length, int) else None
    dims = [*shape[:-1], last]
    dims[axis] = unknown(node, axis) if length is None else length
    return [tuple(dims)]


def stft(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Signal [B, L, 1 or 2] -> [B, frames, bins, 2]."""
    signal, step = facts.shape(node.inputs[0]), number(input_at(node, 1), facts)
    taps = facts.shape(input_at(node, 2))
    length: Dim | None = number(input_at(node, 3), facts)
    if length is None and taps is not None:
        length = taps[0]
    if signal is None:
        return [(*(unknown(node, axis) for axis in range(3)), 2)]
    frames: Dim = unknown(node, 1)
    if isinstance(signal[1], int) and isinstance(length, int) and isinstance(step, int) and step:
        frames = (signal[1] - length) // step + 1
    bins: Dim | None = length
    if int_attribute(node, "onesided", 1):
        bins = length // 2 + 1 if isinstance(length, int) else None
    return [(signal[0], frames, unknown(node, 2) if bins is None else bins, 2)]


def einsum(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Every label has one size; an ellipsis stands for axes that broadcast."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    sizes: dict[str, Dim] = {}
    for term, value in zip(left.split(","), node.inputs, strict=False):
        shape = facts.shape(value)
        if shape is None or "..." in term or len(term) != len(shape):
            return [_by_labels(node, result) if arrow and "..." not in result else None]
        for label, size in zip(term, shape, strict=True):
            if sizes.get(label, 1) == 1:
                sizes[label] = size
    if not arrow:
        labels = left.replace(",", "")
        result = "".join(sorted(label for label in set(labels) if labels.count(label) == 1))
    if any(label not in sizes for label in result):
        return [None]
    return [tuple(sizes[label] for label in result)]


def _by_labels(node: ir.Node, result: str) -> Shape:
    return tuple(unknown(node, axis) for axis in range(len(result)))


def det(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    return [None if shape is None else shape[:-2]]


def ngrams(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """TfIdfVectorizer: [..., words] -> [..., n-grams that are counted]."""
    shape = facts.shape(node.inputs[0])
    indexes = ints_attribute(node, "ngram_indexes")
    if shape is None or not indexes:
        return [None]
    return [(*shape[:-1], max(indexes) + 1)]
