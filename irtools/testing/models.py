"""Models of a few nodes that run, one for each kind of graph that a pass may meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from irtools.model import Model

__all__ = ["TINY_MODELS", "read_model"]


def read_model(source: str, weights: Mapping[str, np.ndarray] | None = None) -> Model:
    """Read a model in ONNX text.

        <ir_version: 10, opset_import: ["" : 20]>
        agraph (float[batch, 4] x, float[4, 2] w) => (float[batch, 2] y) { y = MatMul (x, w) }

    Args:
        source: The text.
        weights: Inputs of the text that become initializers, with their values.
    """
    model = ir.from_onnx_text(source)
    inputs = {value.name: value for value in model.graph.inputs}
    for name, array in (weights or {}).items():
        value = inputs[name]
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.initializers.add(value)
    return Model(model)


def mlp() -> Model:
    """Two layers, dynamic batch, an Identity and dead weight to clean up."""
    return read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        mlp (
          float[batch, 32] x, float[32, 64] w1, float[64] b1, float[64, 8] w2, float[4, 4] dead
        ) => (float[batch, 8] logits) {
          product = MatMul (x, w1)
          sum = Add (product, b1)
          active = Relu (sum)
          same = Identity (active)
          logits = MatMul (same, w2)
        }
        """,
        {
            "w1": _normal(0, 32, 64),
            "b1": _normal(1, 64),
            "w2": _normal(2, 64, 8),
            "dead": _normal(3, 4, 4),
        },
    )


def convnet() -> Model:
    """Conv, BatchNormalization, Relu, pooling and a Gemm."""
    return read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        convnet (
          float[batch, 3, 16, 16] pixel_values, float[16, 3, 3, 3] w, float[16] scale,
          float[16] shift, float[16] mean, float[16] var, float[16, 5] fc, float[5] bias
        ) => (float[batch, 5] logits) {
          filtered = Conv <pads = [1, 1, 1, 1]> (pixel_values, w)
          normed = BatchNormalization (filtered, scale, shift, mean, var)
          active = Relu (normed)
          pooled = GlobalAveragePool (active)
          flat = Flatten (pooled)
          logits = Gemm (flat, fc, bias)
        }
        """,
        {
            "w": _normal(0, 16, 3, 3, 3),
            "scale": np.ones(16, np.float32),
            "shift": np.zeros(16, np.float32),
            "mean": _normal(1, 16),
            "var": np.ones(16, np.float32),
            "fc": _normal(2, 16, 5),
            "bias": _normal(3, 5),
        },
    )


def embedder() -> Model:
    """Token ids through a table, a LayerNormalization and a head; dynamic batch and length."""
    return read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        embedder (
          int64[batch, sequence] input_ids, float[50, 16] table, float[16] scale,
          float[16] shift, int64[1] axes, float[16, 6] w
        ) => (float[batch, 6] logits) {
          embedded = Gather <axis = 0> (table, input_ids)
          normed = LayerNormalization <axis = -1> (embedded, scale, shift)
          pooled = ReduceMean <keepdims = 0> (normed, axes)
          logits = MatMul (pooled, w)
        }
        """,
        {
            "table": _normal(0, 50, 16),
            "scale": np.ones(16, np.float32),
            "shift": np.zeros(16, np.float32),
            "axes": np.array([1], np.int64),
            "w": _normal(1, 16, 6),
        },
    )


def branches() -> Model:
    """An If whose branches read an outer value, and so a weight."""
    return read_model(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        branches (float[batch, 8] x, float[8, 8] w, float zero) => (float[batch, 8] logits) {
          hidden = MatMul (x, w)
          total = ReduceSum <keepdims = 0> (hidden)
          positive = Greater (total, zero)
          logits = If (positive) <
            then_branch = then_graph () => (float[batch, 8] then) { then = Relu (hidden) },
            else_branch = else_graph () => (float[batch, 8] else) { else = Neg (hidden) }
          >
        }
        """,
        {"w": _normal(0, 8, 8), "zero": np.array(0, np.float32)},
    )


def _normal(seed: int, *shape: int) -> np.ndarray:
    """Return seeded weights of the size that keeps activations around one."""
    drawn = np.random.default_rng(seed).standard_normal(shape) / shape[0] ** 0.5
    return np.asarray(drawn, np.float32)


TINY_MODELS: Mapping[str, Callable[[], Model]] = {
    "mlp": mlp,
    "convnet": convnet,
    "embedder": embedder,
    "branches": branches,
}
"""By name, what makes a fresh model. Outputs are called `logits`, batch sizes are dynamic."""
