"""What layer and RMS normalization share: the root of a mean square."""

from __future__ import annotations

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.passes.fusion._pattern import (
    Veto,
    is_op,
    last_axis,
    only_user,
    other_input,
    require,
    scalar,
)

__all__ = ["is_float", "mean_square", "scaled_by_gamma", "squared"]


def mean_square(root: ir.Node, facts: SymbolicShapes) -> tuple[ir.Value, float]:
    """d and eps of sqrt(mean(d^2) + eps), the mean over the last axis.

    Raises:
        Veto: Not that; named where it is the root of a mean square over other axes.
    """
    addition = is_op(root.inputs[0], "Add")
    require(addition, "not the root of a variance", named=False)
    assert addition is not None
    for index in (1, 0):
        epsilon = scalar(addition.inputs[index])
        mean = is_op(addition.inputs[1 - index], "ReduceMean")
        if epsilon is not None and mean is not None:
            d = squared(mean.inputs[0])
            require(last_axis(mean, facts.rank(d)), "the variance is not over the last axis alone")
            return d, epsilon
    raise Veto("not the root of a variance", named=False)


def squared(value: ir.Value | None) -> ir.Value:
    """d of d^2 or d * d."""
    if (power := is_op(value, "Pow")) is not None and scalar(power.inputs[1]) == 2.0:
        base = power.inputs[0]
    elif (product := is_op(value, "Mul")) is not None and product.inputs[0] is product.inputs[1]:
        base = product.inputs[0]
    else:
        base = None
    if base is None:
        raise Veto("not the mean of a square", named=False)
    return base


def scaled_by_gamma(
    normal: ir.Value, x: ir.Value, facts: SymbolicShapes
) -> tuple[ir.Node, ir.Value]:
    """The product with gamma that follows, and gamma.

    Raises:
        Veto: No product follows, or gamma is not of the size of the last axis of x.
    """
    scaled = only_user(normal)
    require(scaled is not None and scaled.op_type == "Mul", "no product with gamma follows")
    assert scaled is not None
    gamma = other_input(scaled, normal)
    size = (facts.shape(x) or (None,))[-1]
    require(facts.shape(gamma) == (size,), "gamma is not of the size of the last axis")
    assert gamma is not None
    return scaled, gamma


def is_float(value: ir.Value) -> bool:
    """Whether a tensor is known to be of a type that the fused kernels take."""
    return element_type(value) in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
