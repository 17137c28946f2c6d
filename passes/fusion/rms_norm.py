"""RMS normalization in single operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.analysis.types import element_type
from irtools.model import FreshNames
from irtools.passes.fusion._driver import Fusion, FusionPass, Rewriter
from irtools.passes.fusion._pattern import (
    Source,
    Veto,
    is_op,
    make_node,
    only_user,
    other_input,
    remove_dead,
    require,
    scalar,
)
from irtools.passes.fusion._variance import is_float, mean_square, scaled_by_gamma

__all__ = ["FuseRmsNorm"]


@dataclass(frozen=True)
class FuseRmsNorm(FusionPass):
    """Turn RMS normalization over the last axis into RMSNormalization (opset 23).

        x / sqrt(mean(x^2) + eps) * gamma  ->  RMSNormalization(x, gamma)

    (Zhang and Sennrich 2019, as in Llama and T5) with the square as Pow or Mul and the division
    as Div, through Reciprocal, or as a product with 1 / root. A half-precision model that
    normalizes in float32 keeps doing so: the operator's `stash_type` is float32. Gamma must have
    the size of the last axis. Raises the opset to 23. Main graph and nested subgraphs.
    """

    name: ClassVar[str] = "fuse-rms-norm"
    statistics: ClassVar = {
        "num-fused-rms-norm": "RMS normalizations fused",
        "num-unfused-rms-norm": "RMS normalizations that stayed, each named with its reason",
    }
    fusion: ClassVar[Fusion] = Fusion("rms-norm", "RMSNormalization", 23, ("Sqrt",))

    def rewriter(self, facts: SymbolicShapes, names: FreshNames) -> Rewriter:
        return _RmsNormRewriter(facts, names)


@dataclass(frozen=True)
class _RmsNorm:
    x: ir.Value
    gamma: ir.Value
    epsilon: float
    output: ir.Value


class _RmsNormRewriter(Rewriter):
    def match(self, anchor: ir.Node) -> _RmsNorm:
        x, epsilon = mean_square(anchor, self.facts)
        require(not _is_centred(x), "a layer normalization", named=False)
        normal = _quotient(anchor.outputs[0], x)
        x, normal = _without_casts(x, normal)
        scaled, gamma = scaled_by_gamma(normal, x, self.facts)
        require(is_float(x), "x is not known to be a float32 or float16 tensor")
        require(element_type(gamma) == element_type(x), "gamma is not of the type of x")
        return _RmsNorm(x, gamma, epsilon, scaled.outputs[0])

    def rewrite(self, anchor: ir.Node, found: object) -> None:
        assert isinstance(found, _RmsNorm)
        last, graph = found.output.producer(), anchor.graph
        assert last is not None and graph is not None
        source = Source("fuse-rms-norm", last, (anchor, last))
        attributes: dict[str, object] = {"axis": -1, "epsilon": found.epsilon, "stash_type": 1}
        inputs = [found.x, found.gamma]
        fused = make_node("RMSNormalization", inputs, source, self.names, attributes)
        graph.insert_before(last, fused)
        self.replace(found.output, fused.outputs[0])
        remove_dead([last])


def _is_centred(x: ir.Value) -> bool:
    """Whether x is y - mean(y), so that its root mean square is the deviation of y."""
    difference = is_op(x, "Sub")
    mean = None if difference is None else is_op(difference.inputs[1], "ReduceMean")
    return difference is not None and mean is not None and mean.inputs[0] is difference.inputs[0]


def _quotient(root: ir.Value, x: ir.Value) -> ir.Value:
    """x / root."""
    user = only_user(root)
    if user is not None and user.op_type == "Div" and user.inputs[0] is x:
        return user.outputs[0]
    inverts = user is not None and (
        user.op_type == "Reciprocal" or (user.op_type == "Div" and scalar(user.inputs[0]) == 1.0)
    )
    if user is not None and inverts:
        inverse = user.outputs[0]
        product = only_user(inverse)
        if product is not None and product.op_type == "Mul" and other_input(product, inverse) is x:
            return product.outputs[0]
    raise Veto("x is not divided by the root of its mean square")


def _without_casts(x: ir.Value, normal: ir.Value) -> tuple[ir.Value, ir.Value]:
    """x before it was widened to float32, and the quotient after it was narrowed again."""
    widened, narrowed = is_op(x, "Cast"), only_user(normal)
    if widened is None or narrowed is None or narrowed.op_type != "Cast":
        return x, normal
    source = widened.inputs[0]
    if source is None or element_type(x) != ir.DataType.FLOAT:
        return x, normal
    if element_type(source) != element_type(narrowed.outputs[0]):
        return x, normal
    return source, narrowed.outputs[0]
