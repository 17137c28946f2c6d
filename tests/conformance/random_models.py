"""Small random ONNX models, the same for the same seed.

Each model is a chain of blocks over values of known shape: what exporters write (linear layers,
GELU and layer normalization in parts, attention, Conv with BatchNormalization, lookups, shape
arithmetic) and what they rarely write (equal nodes, dead ones, casts there and back, constants
everywhere, branches and loops that capture, odd names, outputs in the middle, inputs that are
weights, weights that are inputs). Sizes are symbolic in two axes. Every operator is one that the
runtime answers with finite numbers, and none amplifies: so that errors stay in proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

__all__ = ["RandomModel", "random_model"]

Arrays = dict[str, np.ndarray]
Dims = tuple[int | str, ...]

WIDTHS = (4, 8, 16)
VOCABULARY = 12
SIZES = ({"N": 16, "S": 5}, {"N": 1, "S": 3})
"""The first serves as calibration data too."""
OPSETS = (13, 15, 17, 18, 20, 21, 22, 23)
ODD_NAMES = (
    "{}",
    "{}",
    "t/{}",
    "{}:0",
    "a b {}",
    "ä.{}",
    "onnx::{}",
    "{}_quantized",
    "x_{}",
    "7{}",
)


@dataclass(frozen=True)
class RandomModel:
    """A model, and feeds for it in several sizes."""

    seed: int
    model: ir.Model
    feeds: tuple[Arrays, ...]


def random_model(seed: int, *, smooth: bool = False) -> RandomModel:
    """Make the model of a seed.

    Args:
        seed: Decides everything.
        smooth: Leave out operators whose answer jumps (Floor, comparisons of numbers): for passes
            that change numbers a little.
    """
    return _Writer(seed, smooth).write()


@dataclass
class _Writer:
    seed: int
    smooth: bool
    rng: np.random.Generator = field(init=False)
    nodes: list[ir.Node] = field(default_factory=list)
    inputs: list[ir.Value] = field(default_factory=list)
    weights: list[ir.Value] = field(default_factory=list)
    floats: list[ir.Value] = field(default_factory=list)
    integers: list[ir.Value] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    dims: dict[ir.Value, Dims] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.opset = int(self.rng.choice(OPSETS))
        self.style = str(self.rng.choice(ODD_NAMES))
        self.as_nodes = self.rng.random() < 0.25

    def write(self) -> RandomModel:
        width = self._width()
        self.inputs.append(self._value("x", ir.DataType.FLOAT, ("N", "S", width)))
        self.inputs.append(self._value("ids", ir.DataType.INT64, ("N", "S")))
        if self.rng.random() < 0.3:
            self.inputs.append(self._value("unused", ir.DataType.FLOAT, ("N",)))
        self.floats.append(self.inputs[0])
        self.integers.append(self.inputs[1])
        with_image = self.rng.random() < 0.3
        if with_image:
            self.inputs.append(self._value("image", ir.DataType.FLOAT, ("N", 3, 6, 6)))
            self.floats.append(self._convolution(self.inputs[-1]))
        for _ in range(int(self.rng.integers(3, 9))):
            self._block()
        outputs = self._outputs()
        graph = ir.Graph(
            self.inputs,
            outputs,
            nodes=self.nodes,
            initializers=self.weights,
            opset_imports={"": self.opset},
            name="random",
        )
        return RandomModel(self.seed, ir.Model(graph, ir_version=9), self._feeds())

    def _feeds(self) -> tuple[Arrays, ...]:
        found = []
        for sizes in SIZES:
            feeds: Arrays = {}
            for value in self.inputs:
                assert value.name is not None and value.shape is not None
                shape = [d if isinstance(d, int) else sizes[str(d)] for d in value.shape]
                if value.dtype == ir.DataType.INT64:
                    feeds[value.name] = self.rng.integers(0, VOCABULARY, shape)
                elif value.const_value is None or found:
                    # A weight that is an input keeps its default once, and is overridden once.
                    feeds[value.name] = self.rng.normal(size=shape).clip(-2, 2).astype(np.float32)
            found.append(feeds)
        return tuple(found)

    # Values, weights and nodes.

    def _name(self, stem: str) -> str:
        name = self.style.format(stem)
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _value(self, stem: str, dtype: ir.DataType, dims: Dims) -> ir.Value:
        return ir.val(self._name(stem), dtype, ir.Shape(dims))

    def _constant(
        self, array: np.ndarray, stem: str = "w", *, node: bool | None = None
    ) -> ir.Value:
        """A weight, as an initializer or as a Constant node."""
        name = self._name(stem)
        tensor = ir.Tensor(np.asarray(array), name=name)
        if self.as_nodes if node is None else node:
            made = ir.node("Constant", [], {"value": tensor}, name=self._name("node"))
            made.outputs[0].name = name
            self.nodes.append(made)
            return made.outputs[0]
        value = ir.val(name, tensor.dtype, ir.Shape(array.shape), const_value=tensor)
        self.weights.append(value)
        return value

    def _scalar(self, number: float) -> ir.Value:
        shape = () if self.rng.random() < 0.7 else (1,)
        return self._constant(np.full(shape, number, np.float32), "c")

    def _ints(self, *numbers: int) -> ir.Value:
        return self._constant(np.asarray(numbers, np.int64), "i")

    def _normal(self, *shape: int) -> np.ndarray:
        scale = 1 / np.sqrt(max(1, shape[0]))
        return (self.rng.normal(size=shape) * scale).astype(np.float32)

    def _node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        dims: Dims | None = None,
        dtype: ir.DataType = ir.DataType.FLOAT,
        /,
        **attributes: object,
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes, name=self._name(op))  # type: ignore[arg-type]
        (result,) = node.outputs
        result.name = self._name(f"v{len(self.nodes)}")
        self.dims[result] = self._dims_of(inputs[0]) if dims is None else dims
        result.type = ir.TensorType(dtype)
        if self.rng.random() < 0.3:
            result.shape = ir.Shape(self.dims[result])
        self.nodes.append(node)
        return result

    def _dims_of(self, value: ir.Value | None) -> Dims:
        assert value is not None
        if value in self.dims:
            return self.dims[value]
        assert value.shape is not None
        return tuple(d if isinstance(d, int) else str(d) for d in value.shape)

    # Choices.

    def _width(self) -> int:
        return int(self.rng.choice(WIDTHS))

    def _pick(self) -> ir.Value:
        """One of the latest float values, mostly the last."""
        recent = self.floats[-4:]
        return recent[-1] if self.rng.random() < 0.6 else recent[self.rng.integers(len(recent))]

    def _block(self) -> None:
        blocks: list[Callable[[ir.Value], ir.Value]] = [
            self._unary, self._unary, self._neutral, self._with_constant, self._linear,
            self._linear, self._gemm, self._gelu, self._layer_norm, self._attention,
            self._transposes, self._reshapes, self._shape_arithmetic, self._twice, self._residual,
            self._lookup, self._branch, self._loop, self._split_and_join, self._mask, self._folded,
            self._dead,
        ]  # fmt: skip
        if not self.smooth:
            blocks += [self._jump]
        self.floats.append(blocks[self.rng.integers(len(blocks))](self._pick()))

    def _outputs(self) -> list[ir.Value]:
        """The last value, perhaps one in the middle, an input, a constant, the same again."""
        outputs = [self._own(self.floats[-1])]
        middle = self.floats[self.rng.integers(len(self.floats))]
        if self.rng.random() < 0.5 and middle.producer() is not None and middle not in outputs:
            outputs.insert(0, middle)
        if self.rng.random() < 0.2:
            outputs.append(self._node("Identity", [outputs[0]]))
        if self.rng.random() < 0.2:
            outputs.append(self._node("Identity", [self.inputs[0]]))
        if self.rng.random() < 0.15:
            constant = self._constant(self._normal(3), node=False)
            outputs.append(self._node("Neg", [constant]))
        if self.rng.random() < 0.15:
            outputs.append(self._node("Relu", [self._pick()]))
        for value in outputs:
            value.shape = ir.Shape(self._dims_of(value))
        return outputs

    def _own(self, value: ir.Value) -> ir.Value:
        return value if value.producer() is not None else self._node("Identity", [value])

    # Blocks: each takes a float value and returns one.

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
        """Reshape [N*S, K] back to the leading sizes of x, by shape arithmetic."""
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

    def _transposes(self, x: ir.Value) -> ir.Value:
        """Two or three permutations that cancel out, with something between or not."""
        dims = self._dims_of(x)
        perm = [int(axis) for axis in self.rng.permutation(len(dims))]
        y = self._node("Transpose", [x], tuple(dims[axis] for axis in perm), perm=perm)
        if self.rng.random() < 0.3:
            y = self._node("Tanh", [y])
        back = [perm.index(axis) for axis in range(len(perm))]
        return self._node("Transpose", [y], dims, perm=back)

    def _reshapes(self, x: ir.Value) -> ir.Value:
        """Apart and together again, with constant targets."""
        dims = self._dims_of(x)
        width = int(dims[-1])
        y = self._node("Reshape", [x, self._ints(0, 0, 2, width // 2)], (*dims[:2], 2, width // 2))
        if self.rng.random() < 0.4:
            y = self._node("Unsqueeze", [y, self._ints(1)], (dims[0], 1, dims[1], 2, width // 2))
            y = self._node("Squeeze", [y, self._ints(1)], (*dims[:2], 2, width // 2))
        if self.rng.random() < 0.3:
            y = self._node("Sigmoid", [y])
        target = self._ints(0, 0, width) if self.rng.random() < 0.5 else self._ints(0, -1, width)
        return self._node("Reshape", [y, target], dims)

    def _shape_arithmetic(self, x: ir.Value) -> ir.Value:
        """Expand or Reshape to a shape that is computed, from x itself or from the ids."""
        dims = self._dims_of(x)
        shape = self._node("Shape", [x], (len(dims),), ir.DataType.INT64)
        match self.rng.integers(3):
            case 0:
                return self._node("Expand", [x, shape], dims)
            case 1:
                ends = self._node(
                    "Gather", [shape, self._ints(-1)], (1,), ir.DataType.INT64, axis=0
                )
                flat = self._node("Concat", [self._ints(-1), ends], (2,), ir.DataType.INT64, axis=0)
                rows = self._node("Reshape", [x, flat], ("M", dims[-1]))
                return self._node("Reshape", [rows, shape], dims)
            case _:
                start, end = (
                    self._ints(0),
                    self._node("Gather", [shape, self._ints(1)], (1,), ir.DataType.INT64, axis=0),
                )
                return self._node("Slice", [x, start, end, self._ints(1)], dims)

    def _twice(self, x: ir.Value) -> ir.Value:
        """The same node twice, and both read."""
        dims = self._dims_of(x)
        op = str(self.rng.choice(["Tanh", "Sigmoid", "Elu"]))
        attributes: list[dict[str, object]] = [{}, {}]
        if op == "Elu":
            attributes = [{"alpha": 0.5}, {"alpha": 0.5 if self.rng.random() < 0.5 else 0.25}]
        a, b = (self._node(op, [x], dims, **given) for given in attributes)
        return self._node("Sub" if self.rng.random() < 0.3 else "Add", [a, b], dims)

    def _residual(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        same = [v for v in self.floats if self._dims_of(v) == dims]
        return self._node("Add", [x, same[self.rng.integers(len(same))]], dims)

    def _lookup(self, x: ir.Value) -> ir.Value:
        """Rows of a table, by ids or by ids after integer arithmetic that ends where it began."""
        width = self._width()
        table = self._constant(self._normal(VOCABULARY, width) * np.float32(3), "table")
        ids = self.integers[-1]
        if self.rng.random() < 0.4:
            step = self._ints(int(self.rng.integers(1, 4)))
            more = self._node("Add", [ids, step], ("N", "S"), ir.DataType.INT64)
            ids = self._node("Sub", [more, step], ("N", "S"), ir.DataType.INT64)
            self.integers.append(ids)
        rows = self._node("Gather", [table, ids], ("N", "S", width))
        return (
            rows
            if self.rng.random() < 0.7
            else self._node("Gather", [table, ids], self._dims_of(rows))
        )

    def _branch(self, x: ir.Value) -> ir.Value:
        """If: one branch computes with a captured value, the other passes it on or scales it."""
        dims = self._dims_of(x)
        weight = self._constant(self._normal(int(dims[-1])), node=False)
        largest = self._node("ReduceMax", [self.inputs[1]], (), ir.DataType.INT64, keepdims=0)
        limit = self._constant(np.asarray(VOCABULARY - 3, np.int64), "i")
        chosen = self._node("Greater", [largest, limit], (), ir.DataType.BOOL)

        def branch(op: str, operands: list[ir.Value]) -> ir.Graph:
            inner = ir.node(op, operands, name=self._name(op))
            inner.outputs[0].name = self._name("inner")
            last = ir.node("Identity", [inner.outputs[0]], name=self._name("last"))
            last.outputs[0].name = self._name("branch")
            last.outputs[0].type, last.outputs[0].shape = x.type, ir.Shape(dims)
            return ir.Graph([], last.outputs, nodes=[inner, last], name=self._name("graph"))

        other = branch("Identity", [x]) if self.rng.random() < 0.5 else branch("Tanh", [x])
        return self._node(
            "If",
            [chosen],
            dims,
            then_branch=branch("Add", [x, weight]),
            else_branch=other,
        )

    def _loop(self, x: ir.Value) -> ir.Value:
        """Loop: two rounds of state * 0.5 + captured."""
        dims = self._dims_of(x)
        half = self._constant(np.asarray(0.5, np.float32), node=False)
        turn = ir.val(self._name("turn"), ir.DataType.INT64, ir.Shape([]))
        go = ir.val(self._name("go"), ir.DataType.BOOL, ir.Shape([]))
        state = ir.val(self._name("state"), ir.DataType.FLOAT, ir.Shape(dims))
        on = ir.node("Identity", [go], name=self._name("on"))
        scaled = ir.node("Mul", [state, half], name=self._name("scaled"))
        total = ir.node("Add", [scaled.outputs[0], x], name=self._name("total"))
        for node in (on, scaled, total):
            node.outputs[0].name = self._name("body")
        on.outputs[0].type, on.outputs[0].shape = go.type, ir.Shape([])
        total.outputs[0].type, total.outputs[0].shape = state.type, ir.Shape(dims)
        body = ir.Graph(
            [turn, go, state],
            [on.outputs[0], total.outputs[0]],
            nodes=[on, scaled, total],
            name=self._name("graph"),
        )
        rounds = self._constant(np.asarray(2, np.int64), "i", node=False)
        yes = self._constant(np.asarray(True), "b", node=False)
        return self._node("Loop", [rounds, yes, x], dims, body=body)

    def _split_and_join(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        half = int(dims[-1]) // 2
        node = ir.node(
            "Split",
            [x, self._ints(half, half)],
            {"axis": len(dims) - 1},
            num_outputs=2,
            name=self._name("Split"),
        )
        for output in node.outputs:
            output.name, output.type = self._name("part"), x.type
            self.dims[output] = (*dims[:-1], half)
        self.nodes.append(node)
        a, b = node.outputs
        swapped = [b, a] if self.rng.random() < 0.5 else [a, b]
        return self._node("Concat", swapped, dims, axis=-1)

    def _mask(self, x: ir.Value) -> ir.Value:
        """Where over a condition on the ids, which are exact."""
        dims = self._dims_of(x)
        if dims[:2] != ("N", "S"):
            return self._unary(x)
        small = self._node("Less", [self.integers[-1], self._ints(6)], ("N", "S"), ir.DataType.BOOL)
        if self.rng.random() < 0.4:
            yes = self._constant(np.asarray(True), "b")
            small = self._node("And", [small, yes], ("N", "S"), ir.DataType.BOOL)
        wide = self._node("Unsqueeze", [small, self._ints(2)], ("N", "S", 1), ir.DataType.BOOL)
        return self._node("Where", [wide, x, self._scalar(0.25)], dims)

    def _folded(self, x: ir.Value) -> ir.Value:
        """Something computed from constants alone, added."""
        width = int(self._dims_of(x)[-1])
        a, b = self._constant(self._normal(width)), self._constant(self._normal(width))
        op = str(self.rng.choice(["Add", "Mul", "Sub", "Max"]))
        c = self._node(op, [a, b], (width,))
        if self.rng.random() < 0.5:
            c = self._node(str(self.rng.choice(["Neg", "Abs", "Relu"])), [c], (width,))
        return self._node("Add", [x, c], self._dims_of(x))

    def _dead(self, x: ir.Value) -> ir.Value:
        """Nodes and weights that nothing reads, and perhaps a weight that a caller may set."""
        self._node("Exp", [self._node("Neg", [x])])
        self._constant(self._normal(4), "dead", node=False)
        if self.rng.random() < 0.5:
            width = int(self._dims_of(x)[-1])
            weight = self._constant(self._normal(width), "given", node=False)
            self.inputs.append(weight)
            return self._node("Add", [x, weight], self._dims_of(x))
        return x

    def _jump(self, x: ir.Value) -> ir.Value:
        dims = self._dims_of(x)
        match self.rng.integers(3):
            case 0:
                return self._node(str(self.rng.choice(["Floor", "Ceil", "Round", "Sign"])), [x])
            case 1:
                above = self._node("Greater", [x, self._scalar(0.1)], dims, ir.DataType.BOOL)
                return self._cast(above, ir.DataType.FLOAT)
            case _:
                return self._cast(self._cast(x, ir.DataType.INT32), ir.DataType.FLOAT)

    def _cast(self, x: ir.Value, to: ir.DataType) -> ir.Value:
        return self._node("Cast", [x], self._dims_of(x), to, to=to.value)
