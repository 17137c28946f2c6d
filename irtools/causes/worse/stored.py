"""Weights of two models against each other, dequantized."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.pairing import node_ids
from irtools.causes.facts import Facts
from irtools.editing import array_of, constant_of, producer_of
from irtools.model import dtype_text, release_tensor

__all__ = ["StoredWeight", "compared_weights", "matrix_of"]

_PORTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
_INTEGERS: Mapping[str, tuple[int, int | None, int]] = {
    "ConvInteger": (1, None, 3),
    "DynamicQuantizeMatMul": (1, 2, 3),
    "MatMulInteger": (1, None, 3),
    "MatMulIntegerToFloat": (1, 3, 5),
    "QGemm": (3, 4, 5),
    "QLinearConv": (3, 4, 5),
    "QLinearMatMul": (3, 4, 5),
}
"""Operators on integers: inputs of the weight, of its scale, where there is one, and of its zero
point."""
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
_MOST = 1 << 26
"""Elements of a weight above which it is not compared."""


@dataclass(frozen=True)
class StoredWeight:
    """One weight in both models.

    Attributes:
        node: Id of the product in the second model.
        module: Its module.
        first: Name of the weight in the first model.
        second: Name of the stored one in the second.
        form: How the second holds it (`int8, one scale`).
        is_quantized: The second holds integers.
        sqnr_db: How close it is; infinite where equal.
        spread: Largest peak of an output channel over the median.
        zeros: Share of its numbers that are zero in the second model alone.
        kept: The numbers that are not zero are those of the first model.
        same_as: Name of another weight of the first model that has all its numbers; empty: none.
    """

    node: str
    module: str
    first: str
    second: str
    form: str
    is_quantized: bool
    sqnr_db: float
    spread: float
    zeros: float = 0.0
    kept: bool = False
    same_as: str = ""

    @property
    def noise(self) -> float:
        """Noise relative to the weight."""
        return float(10.0 ** (-min(self.sqnr_db, 150.0) / 10.0))


@dataclass(frozen=True)
class _Held:
    name: str
    array: np.ndarray
    form: str
    is_quantized: bool


def compared_weights(facts: Facts) -> Iterator[StoredWeight]:
    """Yield the weights of paired products that are not equal, where their shapes are."""
    ids = tuple(
        {name: node for node, name in node_ids(one.model.ir).items()}
        for one in (facts.first, facts.second)
    )
    names: dict[str, str] = {}
    for match in facts.pairing.matches:
        pair = [_product(ids[0], match.left), _product(ids[1], match.right)]
        if pair[0] is None or pair[1] is None:
            continue
        node, held = pair[1]
        wanted = pair[0][1]
        found = _against(wanted, held)
        if found is not None:
            array, other = found
            yield StoredWeight(
                node,
                match.module,
                wanted.name,
                held.name,
                held.form,
                held.is_quantized,
                _sqnr(array, other),
                _spread(array),
                float(np.mean((other == 0) & (array != 0))),
                bool(np.array_equal(other[other != 0], array[other != 0])),
                "" if held.is_quantized else _twin(held, names or _twins(ids[0], names)),
            )


def _twins(ids: Mapping[str, ir.Node], names: dict[str, str]) -> dict[str, str]:
    """Fill in and return the weights of the first model by what they hold."""
    for node in ids.values():
        held = _held(node)
        if held is not None and not held.is_quantized:
            names.setdefault(_content(held.array), held.name)
    return names


def _twin(held: _Held, names: Mapping[str, str]) -> str:
    found = names.get(_content(held.array)) or names.get(_content(held.array.T))
    return found or ""


def _content(array: np.ndarray) -> str:
    content = np.ascontiguousarray(array)
    return f"{content.shape} {hashlib.sha256(content.tobytes()).hexdigest()}"


def matrix_of(node: ir.Node) -> np.ndarray | None:
    """Return the weight of a product with its input channels along axis 0, dequantized."""
    held = _held(node)
    if held is None or held.array.ndim < 2:
        return None
    if node.op_type in _CONVOLUTIONS:
        return np.moveaxis(held.array, 1, 0)
    return held.array.T if node.attributes.get_int("transB", 0) else held.array


def _held(node: ir.Node) -> _Held | None:
    """Return the weight of a product: of floats, dequantized, or of an operator on integers."""
    if node.op_type in _INTEGERS:
        return _of_integers(node, *_INTEGERS[node.op_type])
    port = _PORTS.get(node.op_type)
    return None if port is None or len(node.inputs) <= port else _weight(node.inputs[port])


def _product(ids: Mapping[str, ir.Node], names: tuple[str, ...]) -> tuple[str, _Held] | None:
    """Return the one product of a group and its weight."""
    found = [(name, ids[name]) for name in names if ids[name].op_type in {*_PORTS, *_INTEGERS}]
    if len(found) != 1:
        return None
    name, node = found[0]
    in_steps = _INTEGERS.get(node.op_type, (0, 0, 0))[1] is None
    held = None if in_steps else _held(node)
    return None if held is None else (name, held)


def _weight(value: ir.Value | None) -> _Held | None:
    node = producer_of(value, "Transpose")
    if node is not None:
        inner = _weight(node.inputs[0])
        if inner is None or inner.array.ndim != 2:
            return None
        return _Held(inner.name, inner.array.T, inner.form, inner.is_quantized)
    dequantizer = producer_of(value, "DequantizeLinear")
    if dequantizer is not None:
        return _dequantized(dequantizer)
    tensor = constant_of(value)
    if value is None or tensor is None or tensor.size > _MOST or len(tensor.shape) < 2:
        return None
    if tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return None
    array = tensor.numpy().astype(np.float32)
    release_tensor(tensor)
    return _Held(value.name or "", array, dtype_text(tensor.dtype), False)


def _of_integers(node: ir.Node, weight: int, scale: int | None, zero: int) -> _Held | None:
    """Return the weight of an operator on integers; without a scale in steps."""
    inputs = dict(enumerate(node.inputs))
    value, stored = inputs.get(weight), constant_of(inputs.get(weight))
    if value is None or stored is None or stored.size > _MOST or len(stored.shape) < 2:
        return None
    array = stored.numpy().astype(np.float32)
    turned = node.attributes.get_int("transB", 0) != 0
    axis = 0 if turned or node.op_type in _CONVOLUTIONS else 1
    middle = array_of(inputs.get(zero))
    factor = np.ones(1, np.float32) if scale is None else array_of(inputs.get(scale))
    if factor is None:
        return None
    if middle is not None:
        array = array - _along(middle, array, axis, 0)
    scales = "one scale" if factor.size == 1 else "a scale per channel"
    form = f"{dtype_text(stored.dtype)}, {scales}"
    return _Held(value.name or "", array * _along(factor, array, axis, 0), form, True)


def _dequantized(node: ir.Node) -> _Held | None:
    stored, scale = constant_of(node.inputs[0]), array_of(node.inputs[1])
    if stored is None or scale is None or stored.size > _MOST or len(stored.shape) < 2:
        return None
    array = stored.numpy().astype(np.float32)
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    axis = node.attributes.get_int("axis", 1) % array.ndim
    block = node.attributes.get_int("block_size", 0)
    middle = np.zeros_like(scale) if zero is None else zero.astype(np.float32)
    scale, middle = (_along(part, array, axis, block) for part in (scale, middle))
    scales = "blocks" if block else "one scale" if scale.size == 1 else "a scale per channel"
    name = node.inputs[0].name if node.inputs[0] is not None else ""
    dtype = dtype_text(stored.dtype)
    return _Held(name or "", (array - middle) * scale, f"{dtype}, {scales}", True)


def _along(part: np.ndarray, array: np.ndarray, axis: int, block: int) -> np.ndarray:
    part = part.astype(np.float32)
    if block:
        repeated = np.repeat(part, block, axis=axis)
        return np.take(repeated, np.arange(array.shape[axis]), axis=axis)
    if part.size == 1:
        return part.reshape(())
    shape = [1] * array.ndim
    shape[axis] = -1
    return part.reshape(shape)


def _against(wanted: _Held, held: _Held) -> tuple[np.ndarray, np.ndarray] | None:
    """Return both arrays in one layout; None where they are equal, or of different shapes."""
    first, second = wanted.array, held.array
    if first.shape != second.shape:
        if first.ndim != 2 or first.T.shape != second.shape:
            return None
        first = first.T
    return None if np.array_equal(first, second) else (first, second)


def _sqnr(wanted: np.ndarray, found: np.ndarray) -> float:
    signal, noise = (float(np.square(part).sum()) for part in (wanted, wanted - found))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-30) / noise))


def _spread(array: np.ndarray) -> float:
    axis = 1 if array.ndim == 2 else 0
    peaks = np.abs(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1).max(axis=1)
    middle = float(np.median(peaks))
    return float(peaks.max()) / middle if middle > 0 else 1.0
