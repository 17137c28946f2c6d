"""Layer normalization in single operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.model import FreshNames
from irtools.passes.fusion._driver import Fusion, FusionPass, Rewriter
from irtools.passes.fusion._pattern import (
    Source,
    Veto,
    is_op,
    last_axis,
    make_node,
    only_user,
    other_input,
    remove_dead,
    require,
)
from irtools.passes.fusion._variance import is_float, mean_square, scaled_by_gamma

__all__ = ["FuseLayerNorm"]


@dataclass(frozen=True)
class FuseLayerNorm(FusionPass):
    """Turn layer normalization over the last axis into LayerNormalization (opset 17).

        d = x - mean(x)
        d / sqrt(mean(d^2) + eps) * gamma + beta  ->  LayerNormalization(x, gamma, beta)

    with the square as Pow or Mul, the division as Div or through Reciprocal, beta or not.
    Gamma and beta must have the size of the last axis. Main graph and nested subgraphs.
    """

    name: ClassVar[str] = "fuse-layer-norm"
    statistics: ClassVar = {
        "num-fused-layer-norm": "layer normalizations fused",
        "num-unfused-layer-norm": "layer normalizations that stayed, each named with its reason",
    }
    fusion: ClassVar[Fusion] = Fusion("layer-norm", "LayerNormalization", 17, ("Sqrt",))

    def rewriter(self, facts: SymbolicShapes, names: FreshNames) -> Rewriter:
        return _LayerNormRewriter(facts, names)


@dataclass(frozen=True)
class _LayerNorm:
    x: ir.Value
    gamma: ir.Value
    beta: ir.Value | None
    epsilon: float
    output: ir.Value


class _LayerNormRewriter(Rewriter):
    def match(self, anchor: ir.Node) -> _LayerNorm:
        difference, epsilon = mean_square(anchor, self.facts)
        x = self._centred(difference)
        normal = _quotient(anchor.outputs[0], difference)
        scaled, gamma = scaled_by_gamma(normal, x, self.facts)
        output, beta = scaled.outputs[0], None
        shifted = only_user(output)
        if shifted is not None and shifted.op_type == "Add" and shifted.domain == "":
            addend = other_input(shifted, output)
            if self.facts.shape(addend) == self.facts.shape(gamma):
                output, beta = shifted.outputs[0], addend
        require(is_float(x), "x is not known to be a float32 or float16 tensor")
        return _LayerNorm(x, gamma, beta, epsilon, output)

    def rewrite(self, anchor: ir.Node, found: object) -> None:
        assert isinstance(found, _LayerNorm)
        last, graph = found.output.producer(), anchor.graph
        assert last is not None and graph is not None
        source = Source("fuse-layer-norm", last, (anchor, last))
        inputs = [found.x, found.gamma] + ([] if found.beta is None else [found.beta])
        attributes: dict[str, object] = {"axis": -1, "epsilon": found.epsilon}
        fused = make_node("LayerNormalization", inputs, source, self.names, attributes)
        graph.insert_before(last, fused)
        self.replace(found.output, fused.outputs[0])
        remove_dead([last])

    def _centred(self, difference: ir.Value) -> ir.Value:
        """x of x - mean(x)."""
        subtraction = is_op(difference, "Sub")
        mean = None if subtraction is None else is_op(subtraction.inputs[1], "ReduceMean")
        if subtraction is None or mean is None or mean.inputs[0] is not subtraction.inputs[0]:
            raise Veto("not the variance of x - mean(x)", named=False)
        x = subtraction.inputs[0]
        assert x is not None
        require(last_axis(mean, self.facts.rank(x)), "the mean is not over the last axis alone")
        return x


def _quotient(deviation: ir.Value, difference: ir.Value) -> ir.Value:
    """difference / deviation."""
    user = only_user(deviation)
    if user is not None and user.op_type == "Reciprocal":
        inverse = user.outputs[0]
        user = only_user(inverse)
        if user is not None and user.op_type == "Mul" and other_input(user, inverse) is difference:
            return user.outputs[0]
    elif user is not None and user.op_type == "Div" and user.inputs[0] is difference:
        return user.outputs[0]
    raise Veto("x - mean(x) is not divided by its deviation")
