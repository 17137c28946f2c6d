"""Blocks as exporters write them. Each takes a float value and returns one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .values import Dims, Values

__all__ = ["ExportedBlocks"]


class ExportedBlocks(Values):
    """Layers, activations, normalization and attention in parts, Conv with BatchNormalization."""

    def _unary(self, x: ir.Value) -> ir.Value:
        op = self.rng.choice(
            ["Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Identity", "Dropout", "Softmax",
             "Softplus", "HardSigmoid", "LeakyRelu", "Elu", "Sin"]
        )  # fmt: skip
        return self._node(str(op), [x])

    def _neutral(self, x: ir.Value) -> ir.Value:
        dims, rank = self._dims_of(x), len(self._dims_of(x))
        match self.rng.integers(8):
            case 0:
                return self._node("Mul", [self._scalar(1.0), x], dims)
            case 1:
                return self._node("Div", [x, self._scalar(1.0)])
            case 2:
                return self._node(
                    "Sub", [x, self._scalar(-0.0 if self.rng.random() < 0.5 else 0.0)]
                )
            case 3:
                return self._node("Cast", [x], dims, to=ir.DataType.FLOAT.value)
            case 4:
                wide = self._node(
                    "Cast", [x], dims, ir.DataType.DOUBLE, to=ir.DataType.DOUBLE.value
                )
                return self._node("Cast", [wide], dims, to=ir.DataType.FLOAT.value)
            case 5:
                return self._node("Transpose", [x], dims, perm=list(range(rank)))
            case 6:
                return self._node("Concat", [x], dims, axis=-1)
            case _:
                return self._node("Max", [x], dims)

    def _with_constant(self, x: ir.Value) -> ir.Value:
        """A binary operator with a constant of any shape that does not widen x, or does."""
        dims = self._dims_of(x)
        last = dims[-1]
        assert isinstance(last, int)
        shapes: list[tuple[int, ...]] = [(), (1,), (last,), (1, last), (1,) * len(dims)]
        shape = shapes[self.rng.integers(len(shapes))]
        array = self.rng.choice([0.0, -0.0, 1.0, 0.5, -1.0, 2.0], shape).astype(np.float32)
        if self.rng.random() < 0.5:
            array = self.rng.normal(size=shape).astype(np.float32)
        op = str(self.rng.choice(["Add", "Sub", "Mul", "Max", "Min"]))
        operands = [x, self._constant(np.asarray(array))]
        if self.rng.random() < 0.5:
            operands.reverse()
        return self._node(op, operands, dims)

    def _linear(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        assert isinstance(dims[-1], int)
        weight, width = self._matrix(dims[-1])
        y = self._node("MatMul", [x, weight], (*dims[:-1], width))
        if self.rng.random() < 0.7:
            bias = self._constant(self._normal(width) * np.float32(np.sqrt(width)), "bias")
            operands = [y, bias] if self.rng.random() < 0.7 else [bias, y]
            y = self._node("Add", operands, self._dims_of(y))
        return y

    def _matrix(self, rows: int) -> tuple[ir.Value, int]:
        """A weight [rows, width]: a new one, one that is used already, or a transposed one."""
        if self.rng.random() < 0.3:
            old = [w for w in self.weights if self._dims_of(w)[:1] == (rows,)]
            old = [w for w in old if len(self._dims_of(w)) == 2 and w.dtype == ir.DataType.FLOAT]
            if old:
                weight = old[self.rng.integers(len(old))]
                return weight, int(self._dims_of(weight)[1])
        width = self._width()
        if self.rng.random() < 0.25:
            stored = self._constant(np.ascontiguousarray(self._normal(rows, width).T))
            return self._node("Transpose", [stored], (rows, width), perm=[1, 0]), width
        return self._constant(self._normal(rows, width)), width

    def _gemm(self, x: ir.Value) -> ir.Value:
        """A Gemm over [N*S, K], with what its attributes allow."""
        dims = self._dims_of(x)
        rows = int(dims[-1])
        width, turned = self._width(), bool(self.rng.random() < 0.5)
        flat = self._node("Reshape", [x, self._ints(-1, rows)], ("M", rows))
        array = self._normal(rows, width)
        weight = self._constant(np.ascontiguousarray(array.T) if turned else array)
        inputs = [flat, weight]
        if self.rng.random() < 0.8:
            bias = self.rng.normal(size=[(width,), (1, width), (1,), ()][self.rng.integers(4)])
            inputs.append(self._constant(np.asarray(bias, np.float32), "bias"))
        attributes: dict[str, object] = {"transB": 1} if turned else {}
        if self.rng.random() < 0.3:
            attributes |= {"alpha": 0.5, "beta": 2.0}
        y = self._node("Gemm", inputs, ("M", width), **attributes)
        if self.rng.random() < 0.4:
            y = self._batch_norm(y, width)
        return self._like(y, x, (*dims[:-1], width))

    def _like(self, y: ir.Value, x: ir.Value, dims: Dims) -> ir.Value:
        """Bring [N*S, K] back to the leading sizes of x, by shape arithmetic."""
        lead = self._node(
            "Slice",
            [
                self._node("Shape", [x], (len(dims),), ir.DataType.INT64),
                self._ints(0),
                self._ints(-1),
            ],
            (len(dims) - 1,),
            ir.DataType.INT64,
        )
        target = self._node(
            "Concat", [lead, self._ints(int(dims[-1]))], (len(dims),), ir.DataType.INT64, axis=0
        )
        return self._node("Reshape", [y, target], dims)

    def _batch_norm(self, y: ir.Value, channels: int) -> ir.Value:
        scale, shift, mean = (self.rng.normal(size=channels).astype(np.float32) for _ in range(3))
        variance = (self.rng.random(channels) + 0.5).astype(np.float32)
        inputs = [y, *(self._constant(a, "bn") for a in (scale, shift, mean, variance))]
        return self._node("BatchNormalization", inputs, self._dims_of(y), epsilon=1e-3)

    def _convolution(self, image: ir.Value) -> ir.Value:
        """Conv, perhaps BatchNormalization and Relu or Clip, twice; then [N, 1, channels]."""
        y, channels = image, 3
        for _ in range(int(self.rng.integers(1, 3))):
            groups = channels if channels > 3 and self.rng.random() < 0.5 else 1
            out = channels if groups > 1 else self._width()
            inputs = [y, self._constant(self._normal(out, channels // groups, 3, 3), "kernel")]
            if self.rng.random() < 0.5:
                inputs.append(self._constant(self._normal(out), "bias"))
            y = self._node("Conv", inputs, ("N", out, 6, 6), group=groups, pads=[1, 1, 1, 1])
            channels = out
            if self.rng.random() < 0.6:
                y = self._batch_norm(y, channels)
            if self.rng.random() < 0.6:
                y = self._node("Relu", [y])
        pooled = self._node("GlobalAveragePool", [y], ("N", channels, 1, 1))
        flat = self._node("Flatten", [pooled], ("N", channels))
        return self._node("Reshape", [flat, self._ints(0, 1, channels)], ("N", 1, channels))

    def _gelu(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        root, one, half = (self._scalar(n) for n in (2**0.5, 1.0, 0.5))
        e = self._node("Erf", [self._node("Div", [x, root], dims)], dims)
        a = self._node("Add", [e, one] if self.rng.random() < 0.5 else [one, e], dims)
        order = [x, half] if self.rng.random() < 0.5 else [half, x]
        for factor in order:
            a = self._node("Mul", [a, factor], dims)
        return a

    def _mean(self, x: ir.Value) -> ir.Value:
        dims = (*self._dims_of(x)[:-1], 1)
        if self.opset >= 18:
            return self._node("ReduceMean", [x, self._ints(-1)], dims)
        return self._node("ReduceMean", [x], dims, axes=[-1])

    def _layer_norm(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        width = int(dims[-1])
        gamma = self._constant((1 + 0.2 * self.rng.normal(size=width)).astype(np.float32), "gamma")
        beta = self._constant(self._normal(width), "beta")
        if self.opset >= 17 and self.rng.random() < 0.4:
            return self._node("LayerNormalization", [x, gamma, beta], dims, epsilon=1e-2)
        centred = self._node("Sub", [x, self._mean(x)], dims)
        square = self._node("Pow", [centred, self._scalar(2.0)], dims)
        # A large epsilon: without one, errors over a constant row would grow without bound.
        root = self._node("Add", [self._mean(square), self._scalar(1e-2)], (*dims[:-1], 1))
        normal = self._node("Div", [centred, self._node("Sqrt", [root])], dims)
        return self._node("Add", [self._node("Mul", [normal, gamma], dims), beta], dims)

    def _attention(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        width = int(dims[-1])
        heads, each = 2, width // 2
        first = ("N", heads, dims[1], each)
        split = self._ints(0, 0, heads, each)
        last = ("N", heads, each, dims[1])
        parts = []
        for perm, to in (([0, 2, 1, 3], first), ([0, 2, 3, 1], last), ([0, 2, 1, 3], first)):
            weight = self._constant(self._normal(width, width))
            flat = self._node("MatMul", [x, weight], dims)
            four = self._node("Reshape", [flat, split], ("N", dims[1], heads, each))
            parts.append(self._node("Transpose", [four], to, perm=perm))
        q, k, v = parts
        scores = self._node("MatMul", [q, k], ("N", heads, dims[1], dims[1]))
        scaled = self._node("Mul", [scores, self._scalar(each**-0.5)])
        weights = self._node("Softmax", [scaled], self._dims_of(scores), axis=-1)
        context = self._node("MatMul", [weights, v], first)
        turned = self._node("Transpose", [context], ("N", dims[1], heads, each), perm=[0, 2, 1, 3])
        return self._node("Reshape", [turned, self._ints(0, 0, width)], dims)
