"""Blocks as exporters rarely write them: hazards for whoever rewrites graphs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .values import VOCABULARY, Values

__all__ = ["RareBlocks"]


class RareBlocks(Values):
    """Layout chains, shape arithmetic, equal and dead nodes, branches and loops that capture."""

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
        """If: one branch computes with a captured value, the other hands it on or scales it."""
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
