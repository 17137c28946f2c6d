"""Small random ONNX models, the same for the same seed.

Each model is a chain of blocks over values of known shape: what exporters write (linear layers,
GELU and layer normalization in parts, attention, Conv with BatchNormalization, lookups, shape
arithmetic) and what they rarely write (equal nodes, dead ones, casts there and back, constants
everywhere, branches and loops that capture, odd names, outputs in the middle, inputs that are
weights, weights that are inputs). Sizes are symbolic in two axes. Every operator is one that the
runtime answers with finite numbers, and none amplifies: so that errors stay in proportion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .exported import ExportedBlocks
from .rare import RareBlocks
from .values import SIZES, VOCABULARY, Arrays

__all__ = ["RandomModel", "random_model"]


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


class _Writer(ExportedBlocks, RareBlocks):
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
