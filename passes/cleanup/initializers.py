"""Weights that are stored twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import release_tensor, tensor_bytes
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["DeduplicateInitializers"]

_SAMPLES = 64


@dataclass(frozen=True)
class DeduplicateInitializers(Pass):
    """Join weights of the main graph that are equal bit by bit; the first name stays.

    Weights that are graph inputs or outputs stay. A pass that edits one use of a shared weight
    makes a copy for it. Compares a sample of the elements first, so large weights that differ
    are not read: hashing all of BERT-base, as onnx-ir's pass does, costs seconds.
    """

    name: ClassVar[str] = "deduplicate-initializers"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-joined-initializers": "weights joined with an equal one"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        # Most weights are alone in type and shape or differ early: few bytes are ever read.
        candidates = _grouped(model.graph.initializers.values(), _kind)
        alike = (group for rivals in candidates for group in _grouped(rivals, _sample))
        editor = Editor(model, self.name)
        joined = sum(_join(editor, group) for group in alike)
        preserved = frozenset({SymbolicShapes})
        return PassResult(joined > 0, {"num-joined-initializers": joined}, preserved=preserved)


def _grouped(
    values: Iterable[ir.Value], key_of: Callable[[ir.Value], Hashable | None]
) -> list[list[ir.Value]]:
    """Values with one key, where there are two of them or more."""
    groups: dict[Hashable, list[ir.Value]] = defaultdict(list)
    for value in values:
        if (key := key_of(value)) is not None:
            groups[key].append(value)
    return [group for group in groups.values() if len(group) > 1]


def _join(editor: Editor, values: Sequence[ir.Value]) -> int:
    kept: list[ir.Value] = []
    for value in values:
        twin = next((v for v in kept if _is_equal(v, value)), None)
        if twin is None:
            kept.append(value)
            continue
        editor.forward(value, twin)
        editor.drop_unread(value)
    return len(values) - len(kept)


def _kind(value: ir.Value) -> Hashable | None:
    """Type and shape of a weight; None where it must stay as it is."""
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return None
    if tensor.dtype == ir.DataType.STRING:
        return None
    return (tensor.dtype, tuple(tensor.shape.numpy()))


def _sample(value: ir.Value) -> Hashable:
    """Some of the elements of a weight, as bytes."""
    assert value.const_value is not None
    flat = value.const_value.numpy().reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLES)].tobytes()
    release_tensor(value.const_value)
    return sample


def _is_equal(a: ir.Value, b: ir.Value) -> bool:
    left, right = a.const_value, b.const_value
    assert left is not None and right is not None
    if left is right:
        return True
    equal = tensor_bytes(left) == tensor_bytes(right)
    release_tensor(left)
    release_tensor(right)
    return equal
