"""Parts of formulas that several fusions look for, from an anchor on."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.editing import (
    Var,
    Veto,
    array_of,
    bind,
    bind_user,
    equal,
    expect,
    expect_user,
    number,
    only_user,
    op,
    other_input,
    require,
    scalar_of,
)

__all__ = [
    "last_axis",
    "mean_square",
    "quotient",
    "require_float",
    "scaled_by",
    "shifted_by",
    "times",
    "uncentred",
    "without_casts",
]

_X = Var("x")
_CENTRED = _X - op("ReduceMean", _X, name="mean", more=True)
_MEAN_SQUARE = op("ReduceMean", _X**2 | _X * _X, name="mean", more=True) + number(name="epsilon")


def mean_square(
    root: ir.Node, facts: SymbolicShapes, *, centred: bool = True
) -> tuple[ir.Value, dict[str, float]]:
    """Return d of sqrt(mean(d^2) + eps), the mean over the last axis; and axis and epsilon.

    Args:
        root: The Sqrt.
        facts: Shapes.
        centred: d may be x - mean(x), whose root mean square is the deviation of x.

    Raises:
        Veto: Not that; named where it is the root of a mean square over other axes.
    """
    bound = expect(_MEAN_SQUARE, root.inputs[0], "not the root of a mean square", named=False)
    d, epsilon = bound["x"], scalar_of(bound["epsilon"])
    assert epsilon is not None
    on_last = last_axis(bound["mean"], facts.rank(d))
    require(on_last, "the variance is not over the last axis alone")
    require(centred or bind(_CENTRED, d) is None, "a layer normalization", named=False)
    return d, {"axis": -1, "epsilon": epsilon}


def uncentred(value: ir.Value, facts: SymbolicShapes) -> ir.Value:
    """Return x of x - mean(x), the mean over the last axis.

    Raises:
        Veto: Not that; named where it is the mean over other axes.
    """
    bound = expect(_CENTRED, value, "not the variance of x - mean(x)", named=False)
    on_last = last_axis(bound["mean"], facts.rank(bound["x"]))
    require(on_last, "the mean is not over the last axis alone")
    return bound["x"]


def quotient(dividend: ir.Value, divisor: ir.Value, reason: str) -> ir.Value:
    """Return dividend / divisor: as Div, or a product with the reciprocal.

    Raises:
        Veto: The one is not divided by the other, with this reason.
    """
    top, bottom = equal(dividend), equal(divisor)
    if (found := bind_user(top / bottom, divisor)) is not None:
        return found["result"]
    inverse = expect_user(op("Reciprocal", bottom) | 1 / bottom, divisor, reason)["result"]
    return expect_user(top * equal(inverse), inverse, reason)["result"]


def scaled_by(normal: ir.Value, x: ir.Value, facts: SymbolicShapes) -> tuple[ir.Value, ir.Value]:
    """Return normal * gamma, and gamma.

    Raises:
        Veto: No product follows, or gamma is not of the size of the last axis of x.
    """
    product = equal(normal) * Var("gamma")
    found = expect_user(product, normal, "no product with gamma follows")
    size = (facts.shape(x) or (None,))[-1]
    fits = facts.shape(found["gamma"]) == (size,)
    require(fits, "gamma is not of the size of the last axis")
    return found["result"], found["gamma"]


def shifted_by(
    scaled: ir.Value, gamma: ir.Value, facts: SymbolicShapes
) -> tuple[ir.Value, list[ir.Value]]:
    """Return scaled + beta and [beta], where a sum with a beta of gamma's shape follows."""
    found = bind_user(equal(scaled) + Var("beta"), scaled)
    if found is None or facts.shape(found["beta"]) != facts.shape(gamma):
        return scaled, []
    return found["result"], [found["beta"]]


def without_casts(x: ir.Value, result: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return x before it was widened to float32, and a result after it was narrowed again."""
    widened, narrowed = bind(op("Cast", Var("x")), x), bind_user(op("Cast", equal(result)), result)
    if widened is None or narrowed is None or element_type(x) != ir.DataType.FLOAT:
        return x, result
    if element_type(widened["x"]) != element_type(narrowed["result"]):
        return x, result
    return widened["x"], narrowed["result"]


def times(value: ir.Value, x: ir.Value) -> ir.Value:
    """Return what is `value * x * 0.5`, in whatever order and however it is bracketed.

    Raises:
        Veto: Something else follows, or something else is a factor.
    """
    missing = {"x", "half"}
    while missing:
        node = only_user(value)
        if node is None:
            raise Veto("an intermediate result is used elsewhere too")
        if node.domain != "" or node.op_type not in ("Mul", "Div"):
            raise Veto("{} follows, expected a product with x and 0.5", node.op_type)
        found = _factors(node, value, x)
        require(found and found <= missing, "a factor is neither x nor 0.5")
        missing -= found
        value = node.outputs[0]
    return value


def _factors(node: ir.Node, value: ir.Value, x: ir.Value) -> set[str]:
    if node.op_type == "Div":
        return {"half"} if bind(equal(value) / 2, node.outputs[0]) is not None else set()
    other = other_input(node, value)
    half_of_x = equal(x) * 0.5 | equal(x) / 2
    forms = ((equal(x), {"x"}), (number(0.5), {"half"}), (half_of_x, {"x", "half"}))
    return next((found for form, found in forms if bind(form, other) is not None), set())


def last_axis(result: ir.Value, rank: int | None) -> bool:
    """Whether a reduction with kept dimensions, or a Softmax, is over the last axis alone."""
    axes: Sequence[int]
    node = result.producer()
    assert node is not None
    if node.op_type == "Softmax":
        axes = [node.attributes.get_int("axis", _default_axis(node))]
    elif not node.attributes.get_int("keepdims", 1):
        return False
    else:
        axes = _axes(node)
    return len(axes) == 1 and (axes[0] == -1 or (rank is not None and axes[0] == rank - 1))


def _default_axis(node: ir.Node) -> int:
    """Of Softmax: 1 before opset 13, where it also took all axes from there on together."""
    version = None if node.graph is None else node.graph.opset_imports.get("")
    return -1 if version is not None and version >= 13 else 1


def _axes(node: ir.Node) -> Sequence[int]:
    """Axes of a reduction, an attribute or an input; empty where they are not constant."""
    if "axes" in node.attributes:
        return node.attributes["axes"].as_ints()
    array = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return [] if array is None else [int(axis) for axis in array.reshape(-1)]


def require_float(x: ir.Value, *, gamma: ir.Value | None = None) -> None:
    """Raise a Veto unless x, and a gamma like x, are of a type that the fused kernels take."""
    known = element_type(x) in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    require(known, "x is not known to be a float32 or float16 tensor")
    same = gamma is None or element_type(gamma) == element_type(x)
    require(same, "gamma is not of the type of x")
