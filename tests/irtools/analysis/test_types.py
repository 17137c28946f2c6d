"""Element types that no file declares, output by output."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from irtools.analysis.types import element_type

FLOAT, INT64, BOOL, HALF = (
    ir.DataType.FLOAT,
    ir.DataType.INT64,
    ir.DataType.BOOL,
    ir.DataType.FLOAT16,
)


def outputs(
    op: str, count: int, *inputs: ir.DataType | None, opset: int = 20, **attributes: object
) -> list[ir.DataType | None]:
    """Types of the outputs of one node whose inputs have these types; None: absent."""
    values = [
        None if kind is None else ir.val(f"x{i}", kind, ir.Shape(["n", 4]))
        for i, kind in enumerate(inputs)
    ]
    node = ir.node(op, values, attributes, num_outputs=count)  # type: ignore[arg-type]
    for index, output in enumerate(node.outputs):
        output.name = f"y{index}"
    given = [value for value in values if value is not None]
    ir.Graph(given, node.outputs, nodes=[node], opset_imports={"": opset} if opset else {})
    return [element_type(output) for output in node.outputs]


@pytest.mark.parametrize(
    ("op", "inputs", "found"),
    [
        ("Dropout", (HALF, FLOAT, BOOL), [HALF, BOOL]),
        ("LayerNormalization", (HALF, HALF), [HALF, None, None]),
        ("MaxPool", (FLOAT,), [FLOAT, INT64]),
        ("TopK", (HALF, INT64), [HALF, INT64]),
        ("Unique", (INT64,), [INT64, INT64, INT64, INT64]),
        ("BatchNormalization", (HALF, FLOAT, FLOAT, FLOAT, FLOAT), [HALF, FLOAT, FLOAT]),
        ("LSTM", (FLOAT, FLOAT, FLOAT), [FLOAT, FLOAT, FLOAT]),
        ("GRU", (HALF, HALF, HALF), [HALF, HALF]),
        ("Split", (HALF, INT64), [HALF, HALF, HALF]),
        ("DynamicQuantizeLinear", (FLOAT,), [ir.DataType.UINT8, FLOAT, ir.DataType.UINT8]),
        ("Where", (BOOL, HALF, HALF), [HALF]),
        ("Gather", (HALF, INT64), [HALF]),
        ("OneHot", (INT64, INT64, HALF), [HALF]),
        ("Shape", (HALF,), [INT64]),
        ("Equal", (HALF, HALF), [BOOL]),
        ("MatMulInteger", (ir.DataType.UINT8, ir.DataType.INT8), [ir.DataType.INT32]),
        ("CastLike", (INT64, HALF), [HALF]),
        ("DequantizeLinear", (ir.DataType.INT8, HALF), [HALF]),
        ("ArgMax", (FLOAT,), [INT64]),
        ("Clip", (HALF,), [HALF]),
    ],
)
def test_types_by_output(
    op: str, inputs: tuple[ir.DataType, ...], found: list[ir.DataType | None]
) -> None:
    assert outputs(op, len(found), *inputs) == found


@pytest.mark.parametrize(
    ("op", "attributes", "found"),
    [
        ("Cast", {"to": 10}, HALF),
        ("EyeLike", {"dtype": 11}, ir.DataType.DOUBLE),
        ("EyeLike", {}, INT64),
        ("ConstantOfShape", {}, FLOAT),
        ("RandomNormalLike", {"dtype": 10}, HALF),
    ],
)
def test_types_by_attribute(op: str, attributes: dict[str, object], found: object) -> None:
    assert outputs(op, 1, INT64, **attributes) == [found]


def test_normalization_takes_the_type_that_the_standard_says() -> None:
    assert outputs("RMSNormalization", 1, FLOAT, HALF, opset=23) == [HALF]


def test_an_old_mask_is_of_the_type_of_its_data() -> None:
    assert outputs("Dropout", 2, FLOAT, opset=7) == [FLOAT, FLOAT]


def test_where_no_opset_is_known_only_what_all_versions_agree_on() -> None:
    """Graphs of branches do not say their opset."""
    assert outputs("Dropout", 2, FLOAT, opset=0) == [FLOAT, None]
    assert outputs("Clip", 1, HALF, opset=0) == [HALF]
    assert outputs("Split", 2, HALF, opset=0) == [HALF, HALF]


def test_an_input_without_a_type_is_followed_back() -> None:
    x = ir.val("x", HALF, ir.Shape(["n"]))
    first = ir.node("Relu", [x])
    second = ir.node("Add", [first.outputs[0], first.outputs[0]])
    ir.Graph([x], second.outputs, nodes=[first, second], opset_imports={"": 20})
    assert element_type(second.outputs[0]) == HALF
