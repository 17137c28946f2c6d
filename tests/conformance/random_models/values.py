"""Values, weights, nodes and choices of a random model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

__all__ = ["SIZES", "VOCABULARY", "WIDTHS", "Arrays", "Dims", "Values"]

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


@dataclass
class Values:
    """A model in the making; all that is drawn follows from the seed."""

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

    def _cast(self, x: ir.Value, to: ir.DataType) -> ir.Value:
        return self._node("Cast", [x], self._dims_of(x), to, to=to.value)
