"""Type and shape rules against what the runtime returns for the node tests of the onnx package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.operators import Kind, find_op

from .node_tests import Case, with_constant_inputs


def read(proto: onnx.ModelProto) -> ir.Model:
    """Read a model and forget what it declares of its results."""
    model = ir.from_proto(proto)
    for value in (*model.graph.outputs, *(o for node in model.graph for o in node.outputs)):
        value.type, value.shape = None, None
    return model


def with_named_sizes(case: Case) -> tuple[ir.Model, Mapping[str, int]]:
    """The same model with a name for every size of its inputs, and what the names stand for."""
    model, sizes = read(case.model), {}
    for value in model.graph.inputs:
        if value.name in case.feeds and str(value.name).isidentifier():
            shape = case.feeds[value.name].shape
            names = [f"{value.name}_{axis}" for axis in range(len(shape))]
            sizes |= dict(zip(names, shape, strict=True))
            value.shape = ir.Shape(names)
    return model, sizes


def number(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    """A size in numbers, None where it is not known."""
    if isinstance(dim, int):
        return dim
    if any(name not in sizes for names, _ in dim.terms for name in names):
        return None
    return sum(factor * math.prod(sizes[n] for n in names) for names, factor in dim.terms)


def faults(model: ir.Model, sizes: Mapping[str, int], outputs: Sequence[object]) -> list[str]:
    """What is claimed of the results and is not so."""
    facts, found = SymbolicShapes.of(model), []
    for value, output in zip(model.graph.outputs, outputs, strict=True):
        if output is None or isinstance(output, list):
            continue  # Absent, or a sequence.
        array, shape, dtype = np.asarray(output), facts.shape(value), element_type(value)
        if shape is not None:
            claimed = [number(dim, sizes) for dim in shape]
            fits = len(claimed) == array.ndim and all(
                c in (None, size) for c, size in zip(claimed, array.shape, strict=True)
            )
            if not fits:
                found.append(f"shape {claimed} of {value.name}, in truth {array.shape}")
        if dtype not in (None, ir.DataType.STRING) and ir.DataType.from_numpy(array.dtype) != dtype:
            found.append(f"type {dtype} of {value.name}, in truth {array.dtype}")
    return found


@pytest.mark.parametrize("form", ["inputs", "constants", "named sizes"])
def test_no_rule_claims_what_is_not_so(cases: list[Case], form: str) -> None:
    wrong, checked = [], 0
    for case in cases:
        sizes: Mapping[str, int] = {}
        if form == "named sizes":
            model, sizes = with_named_sizes(case)
        else:
            proto = case.model if form == "inputs" else with_constant_inputs(case)
            if proto is None:
                continue
            model = read(proto)
        checked += 1
        wrong += [f"{case.name}: {fault}" for fault in faults(model, sizes, case.outputs)]
    assert not wrong
    assert checked > 1300


def test_every_operator_that_is_run_has_a_type_and_a_rank(cases: list[Case]) -> None:
    """With its inputs as constants; control flow and sequences may be open until they run."""
    unknown, known = set(), set()
    for case in cases:
        proto = with_constant_inputs(case)
        model = None if proto is None else read(proto)
        nodes = [] if model is None else [n for n in model.graph if n.op_type != "Identity"]
        if model is None or len(nodes) != 1 or nodes[0].domain != "":
            continue
        op = find_op("", nodes[0].op_type)
        assert op is not None
        if op.kind in (Kind.CONTROL, Kind.SEQUENCE):
            continue
        facts, value = SymbolicShapes.of(model), nodes[0].outputs[0]
        is_known = facts.rank(value) is not None and element_type(value) is not None
        (known if is_known else unknown).add(op.name)
    assert unknown <= known
    assert len(known) > 140
