"""Operators of classical machine learning: one row of results for each row of features."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import Rule, int_attribute

__all__ = ["classifier", "extracted", "one_hot", "regressor", "vectorized"]

_MATRIX = 2
_LABELS = (
    *("classlabels_ints", "classlabels_int64s", "classlabels_strings"),
    *("cats_int64s", "cats_strings"),
)
"""Attributes that list classes or categories."""


def regressor(targets: str | None) -> Rule:
    """Return the rule of [N, F] -> [N, targets], with the attribute that counts them.

    Args:
        targets: Name of the attribute; None: there is one target.
    """

    def rule(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
        rows = _rows(node, facts)
        count = 1 if targets is None else int_attribute(node, targets, 1)
        return [None if rows is None else (rows, count)]

    return rule


def classifier(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[N, F] -> labels [N] and scores [N, classes]."""
    rows, classes = _rows(node, facts), _listed(node)
    if rows is None:
        return [None, None]
    return [(rows,), (rows, classes) if classes else None]


def one_hot(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[...] -> [..., categories]."""
    shape, count = facts.shape(node.inputs[0]), _listed(node)
    return [None if shape is None or not count else (*shape, count)]


def extracted(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[..., F] and places [1, K] or [K] -> [..., K]; of a vector [1, K]."""
    shape, places = (facts.shape(value) for value in node.inputs[:2])
    if not shape or not places:
        return [None]
    return [(*(shape[:-1] or (1,)), places[-1])]


def vectorized(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Features of each input, one after the other: [N, sum of `inputdimensions`]."""
    rows = _rows(node, facts)
    sizes = node.attributes.get_ints("inputdimensions") or ()
    return [None if rows is None or not sizes else (rows, sum(sizes))]


def _rows(node: ir.Node, facts: ShapeFacts) -> Dim | None:
    """Return the number of rows of [N, F]; a vector [F] is one row."""
    shape = facts.shape(node.inputs[0])
    if not shape or len(shape) > _MATRIX:
        return None
    return shape[0] if len(shape) == _MATRIX else 1


def _listed(node: ir.Node) -> int:
    """Count the labels or categories that a node lists."""
    for name in _LABELS:
        attribute = node.attributes.get(name)
        if attribute is not None and not attribute.is_ref() and attribute.value:
            return len(attribute.value)
    return 0
