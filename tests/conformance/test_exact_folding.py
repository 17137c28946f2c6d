"""What is folded "exactly" against the runtime, on the values where implementations part.

NaN, infinities, zeros of both signs, subnormals and the ends of integer ranges, in every type that
is folded. A result may stay unfolded; if it is folded, every bit is the runtime's (NaNs are one).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passes.cleanup import Cleanup
from irtools.passmanager import PassContext

from .node_tests import RUNTIME_ERRORS, run_in_ort

FLOATS = [0.0, -0.0, 1.5, -2.5, 0.5, 1e-45, -1e-40, 3.4e38, np.inf, -np.inf, np.nan, 7.0, 0.1]
WHOLE = [0, 1, 2, 3, 7, 100, 127]
SIGNED = [*WHOLE, -1, -7, -128]

TYPES = {
    "float32": FLOATS,
    "float64": FLOATS,
    "int32": [*SIGNED, 2**31 - 1, -(2**31)],
    "int64": [*SIGNED, 2**63 - 1, -(2**63)],
    "int8": SIGNED,
    "uint8": [*WHOLE, 255],
    "bool": [False, True],
}

UNARY = ("Abs", "Neg", "Ceil", "Floor", "Sqrt", "Sign", "IsNaN", "IsInf", "Not", "BitwiseNot")
BINARY = (
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip


def weight(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    return ir.val(name, tensor.dtype, ir.Shape(array.shape), const_value=tensor)


def model(op: str, arrays: list[np.ndarray], **attributes: int) -> ir.Model:
    """op of constants, and its result twice: what makes an output is not folded itself."""
    weights = [weight(f"w{index}", array) for index, array in enumerate(arrays)]
    node = ir.node(op, weights, attributes, name="op")
    node.outputs[0].name = "inner"
    last = ir.node("Concat", [node.outputs[0]] * 2, {"axis": 0}, name="last")
    last.outputs[0].name = "y"
    graph = ir.Graph(
        [], last.outputs, nodes=[node, last], initializers=weights, opset_imports={"": 20}
    )
    return ir.Model(graph, ir_version=10)


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of an array, all NaNs alike."""
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.asarray(np.nan, array.dtype), array)
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


@pytest.fixture
def same(make_context: Callable[..., PassContext]) -> Callable[..., bool | None]:
    """Whether a model was folded; compares the answers. None where the runtime cannot run it."""

    def compare(op: str, *arrays: np.ndarray, **attributes: int) -> bool | None:
        made = model(op, list(arrays), **attributes)
        try:
            (expected,) = run_in_ort(ir.to_proto(made), {})
        except RUNTIME_ERRORS:
            return None
        after = made.clone()
        Cleanup(exact=True).run(after, make_context())
        (found,) = run_in_ort(ir.to_proto(after), {})
        assert isinstance(expected, np.ndarray) and isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_array_equal(bits(found), bits(expected), f"{op} {attributes}")
        return op not in [node.op_type for node in after.graph]

    return compare


@pytest.mark.parametrize("dtype", TYPES)
def test_elementwise(dtype: str, same: Callable[..., bool | None]) -> None:
    values = np.array(TYPES[dtype], dtype)
    left = np.repeat(values, len(values))
    right = np.tile(values, len(values))
    folded = [same(op, values) for op in UNARY]
    folded += [same(op, left, right) for op in BINARY if op != "Div" or dtype[0] == "f"]
    if dtype[0] != "f" and dtype != "bool":
        # Division of the lowest integer by -1, or by 0, ends a process.
        folded.append(same("Div", left[(right > 0)], right[right > 0]))
    assert folded.count(True) >= 5


@pytest.mark.parametrize("dtype", TYPES)
def test_selection(dtype: str, same: Callable[..., bool | None]) -> None:
    values = np.array(TYPES[dtype], dtype)
    condition = np.arange(len(values)) % 2 == 0
    folded = [
        same("Where", condition, values, values[::-1].copy()),
        same("Clip", values, np.asarray(values[1]), np.asarray(values[-2])),
        same("Trilu", np.tile(values, (len(values), 1)), upper=0),
        same("Gather", values, np.array([0, 1, 1, -1])),
    ]
    assert folded.count(True) >= 2


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("dtype", TYPES)
def test_reduction(dtype: str, op: str, same: Callable[..., bool | None]) -> None:
    values = np.array(TYPES[dtype], dtype)
    finite = values[~np.isnan(values)] if dtype[0] == "f" else values
    axes = np.array([1])
    assert same(op, finite.reshape(1, -1), axes, keepdims=0)
    assert same(op, np.stack([finite, finite[::-1]], axis=1), axes, keepdims=0)
    if dtype[0] == "f":
        assert same(op, values.reshape(1, -1), axes, keepdims=0) is False


@pytest.mark.parametrize("to", TYPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_cast(dtype: str, to: str, same: Callable[..., bool | None]) -> None:
    target = ir.DataType.from_numpy(np.dtype(to)).value
    for value in TYPES[dtype]:
        same("Cast", np.array([value], dtype), to=target)


RANGES = [(0.0, 1.0, 0.1), (0.1, 2.0, 0.1), (1.0, 0.0, -0.3), (0.0, 1e6, 33333.3), (3.0, 3.0, 1.0)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("bounds", [*RANGES, (0, 10, 3), (10, -3, -4)])
def test_range(
    bounds: tuple[float, float, float], dtype: str, same: Callable[..., bool | None]
) -> None:
    if not int(bounds[2]) and dtype[0] == "i":
        bounds = (bounds[0], bounds[1], 1)
    same("Range", *(np.array(number, dtype) for number in bounds))
