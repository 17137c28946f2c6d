"""Weights that are stored twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
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
    statistics: ClassVar = {"num-joined-initializers": "weights joined with an equal one"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        groups: dict[Hashable, list[ir.Value]] = defaultdict(list)
        joined = 0
        for value in list(model.graph.initializers.values()):
            if (key := _sample(value)) is None:
                continue
            twin = next((v for v in groups[key] if _is_equal(v, value)), None)
            if twin is None:
                groups[key].append(value)
                continue
            value.replace_all_uses_with(twin)
            assert value.name is not None
            del model.graph.initializers[value.name]
            joined += 1
        preserved = frozenset({SymbolicShapes})
        return PassResult(joined > 0, {"num-joined-initializers": joined}, preserved=preserved)


def _sample(value: ir.Value) -> Hashable | None:
    """Type, shape and some bytes of a weight; None where it must stay as it is."""
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output():
        return None
    if tensor.dtype == ir.DataType.STRING:
        return None
    flat = tensor.numpy().reshape(-1)
    step = max(1, flat.size // _SAMPLES)
    return (tensor.dtype, tuple(tensor.shape.numpy()), flat[::step].tobytes())


def _is_equal(a: ir.Value, b: ir.Value) -> bool:
    assert a.const_value is not None and b.const_value is not None
    if a.const_value is b.const_value:
        return True
    left, right = (np.ascontiguousarray(v.const_value.numpy()) for v in (a, b))
    return np.array_equal(
        left.view(np.uint8) if left.ndim else left.tobytes(),
        right.view(np.uint8) if right.ndim else right.tobytes(),
    )
