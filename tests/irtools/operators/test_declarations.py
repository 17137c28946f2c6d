"""What is declared of operators, against the standard and the runtime."""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from irtools.analysis.cost_rules import COST
from irtools.analysis.coverage import COLUMNS, coverage, phrases
from irtools.analysis.shape_rules import SHAPE
from irtools.analysis.types import type_source
from irtools.model.versions import MAX_OPSET
from irtools.operators import Kind, Op, Port, RuleTable, all_ops, find_op, weight_port
from irtools.operators.classical import CLASSICAL
from irtools.operators.contrib import CONTRIB
from irtools.operators.op import RULES
from irtools.operators.standard import STANDARD

_DROPPED = {"Scatter", "Upsample"}


@functools.cache
def standard_names() -> set[str]:
    """Operators of the default domain at the newest opset that we read."""
    names = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""}
    found = set()
    for name in names:
        try:
            schema = onnx.defs.get_schema(name, MAX_OPSET, "")
        except onnx.defs.SchemaError:
            continue  # Of a later opset.
        if not schema.deprecated:
            found.add(name)
    return found


def run_on_floats() -> set[str]:
    """Operators of the newest opset for which ONNX Runtime's CPU has a kernel on float tensors."""
    found = set()
    for kernel in ort_state.get_all_opkernel_def():
        if kernel.provider != "CPUExecutionProvider" or kernel.domain != "":
            continue
        if kernel.op_name not in standard_names():
            continue
        first, last = kernel.version_range
        since = onnx.defs.get_schema(kernel.op_name, MAX_OPSET, "").since_version
        takes_float = any("tensor(float)" in ts for ts in kernel.type_constraints.values())
        if takes_float and first <= since <= last:
            found.add(kernel.op_name)
    return found


def test_the_whole_standard_is_declared_and_each_operator_once() -> None:
    assert {op.name for op in STANDARD} == standard_names() | _DROPPED
    keys = [op.key for op in (*STANDARD, *CLASSICAL, *CONTRIB)]
    assert len(keys) == len(set(keys))


def test_what_the_runtime_computes_on_floats_has_type_shape_and_cost() -> None:
    names = run_on_floats()
    assert len(names) > 150
    ops = [find_op("", name) for name in sorted(names)]
    lacking = {
        op.name: [
            word
            for word, known in (
                ("type", type_source(op)),
                ("shape", SHAPE.find(op)),
                ("cost", COST.find(op)),
            )
            if known is None
        ]
        for op in ops
        if op is not None
    }
    assert {name: words for name, words in lacking.items() if words} == {}


def test_all_of_classical_machine_learning_has_shape_and_cost() -> None:
    schemas = onnx.defs.get_all_schemas_with_history()
    assert {op.name for op in CLASSICAL} == {s.name for s in schemas if s.domain == "ai.onnx.ml"}
    assert all(SHAPE.find(op) and COST.find(op) for op in CLASSICAL)


def test_weights_and_biases_are_inputs_that_the_schema_has() -> None:
    for op in STANDARD:
        for port in (op.weight, op.bias):
            if port is not None:
                schema = onnx.defs.get_schema(op.name, MAX_OPSET, "")
                assert port.input < len(schema.inputs), op.name


def test_operators_of_a_kind_that_has_a_weight_say_where() -> None:
    kinds = (Kind.PRODUCT, Kind.CONVOLUTION, Kind.RECURRENT)
    assert not [op.key for op in all_ops().values() if op.kind in kinds and op.weight is None]


def test_every_rule_of_a_name_is_of_a_declared_operator() -> None:
    known = set(all_ops())
    for row in coverage():
        assert set(row.answers) == set(COLUMNS)
    from irtools.analysis.coverage import TABLES, load_rules

    assert tuple(TABLES) == RULES
    for name, place in TABLES.items():
        table = load_rules(place)
        assert table.name == name and set(table.by_name) <= known
    assert all(phrases().values())


@pytest.mark.parametrize(
    ("op", "found"),
    [
        (Op("Softplus", kind=Kind.UNARY), "by kind"),
        (Op("Conv", kind=Kind.UNARY), "by name"),
        (Op("Conv", "acme", kind=Kind.UNARY), "by kind"),
        (Op("Conv", kind=Kind.UNARY, rules={"question": lambda: "its own"}), "its own"),
        (Op("Softplus", weight=Port(1)), None),
    ],
)
def test_the_nearest_rule_holds(op: Op, found: str | None) -> None:
    table = RuleTable(
        "question", "asked", {"Conv": lambda: "by name"}, {Kind.UNARY: lambda: "by kind"}
    )
    rule = table.find(op)
    assert (None if rule is None else rule()) == found


@pytest.mark.parametrize(
    ("op", "attributes", "axes"),
    [
        ("MatMul", {}, (-2, -1)),
        ("Gemm", {}, (0, 1)),
        ("Gemm", {"transB": 1}, (1, 0)),
        ("Conv", {}, (1, 0)),
        ("ConvTranspose", {}, (0, 1)),
    ],
)
def test_the_axes_of_a_weight(op: str, attributes: dict[str, int], axes: tuple[int, int]) -> None:
    port = weight_port(ir.node(op, [None, None], attributes))
    assert port is not None and (port.in_axis, port.out_axis) == axes
    assert weight_port(ir.node("Relu", [None])) is None
