"""LSTM layers with weights of 8 bits, in the kernel that multiplies them as integers.

    LSTM(x, Cast(W) * s_w, Cast(R) * s_r, ..)  ->  DynamicQuantizeLSTM(x, W^T, R^T, .., s_w, s_r)

W [D, 4H, I] and R [D, 4H, H] are turned to [D, I, 4H] and [D, H, 4H], scales are [D, 4H]. The
kernel quantizes x once and the hidden state at each step. Measured on 1.31, one thread, against
the float LSTM in turns: H=128 1.2 times as fast, H=256 2, with a batch of 8 6, H=512 (whose
float weights leave the cache) 3 to 15, at 38 to 40 dB with random weights and inputs.

On CPUs without VNNI pairs of u8 x s8 products may saturate. Weights are shifted to u8 with the zero
point 128 there, the same numbers in an exact kernel (with VNNI 1.2 to 2 times as slow as s8).
There is no such kernel for GRU and RNN: their weights are expanded when the model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor, Rule, Veto, array_of, constant_of, producer_of, require

__all__ = ["Int8Lstm"]

_KEPT = frozenset(
    {
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "hidden_size",
        "input_forget",
    }
)


@dataclass(frozen=True)
class _Gates:
    """A stored weight of an LSTM: integers [D, 4H, I] and scales [D, 4H]."""

    integers: np.ndarray
    scale: np.ndarray
    name: str


class Int8Lstm(Rule["tuple[_Gates, _Gates]"]):
    """LSTM(x, Cast(W) * s_w, Cast(R) * s_r, ..)  ->  DynamicQuantizeLSTM(x, W^T, R^T, ..)

    Args:
        unsigned: Weights as u8 around 128.
    """

    name = "DynamicQuantizeLSTM"
    anchors = ("LSTM",)

    def __init__(self, *, unsigned: bool) -> None:
        self._unsigned = unsigned

    def find(self, anchor: ir.Node) -> tuple[_Gates, _Gates]:
        require(anchor.attributes.get_int("layout", 0) != 1, "batches come first", named=False)
        weights = [_gates(value) for value in anchor.inputs[1:3]]
        first, second = weights
        if first is None or second is None:
            raise Veto("its weights are not stored in 8 bits", named=False)
        return first, second

    def build(self, editor: Editor, anchor: ir.Node, found: tuple[_Gates, _Gates]) -> None:
        old = anchor.inputs[1:3]
        inputs = [anchor.inputs[0]]
        parameters: list[ir.Value | None] = []
        for gates in found:
            integers = np.ascontiguousarray(gates.integers.transpose(0, 2, 1))
            zero = np.zeros(gates.scale.shape, np.int8)
            if self._unsigned:
                integers, zero = _shifted(integers), _shifted(zero)
            inputs.append(editor.constant(f"{gates.name}_turned", integers))
            parameters.append(editor.constant(f"{gates.name}_steps", gates.scale))
            parameters.append(editor.constant(f"{gates.name}_zero", zero))
        rest = [*anchor.inputs[3:], *[None] * 8][:5]
        attributes = {name: a for name, a in anchor.attributes.items() if name in _KEPT}
        editor.replace(
            anchor, self.name, [*inputs, *rest, *parameters], attributes, domain="com.microsoft"
        )
        editor.drop_unread(*old)


def _gates(value: ir.Value | None) -> _Gates | None:
    product = producer_of(value, "Mul")
    if product is None:
        return None
    stored = product.inputs[0]
    # Possibly by way of int32.
    while (cast := producer_of(stored, "Cast")) is not None:
        stored = cast.inputs[0]
    tensor = constant_of(stored)
    scale = array_of(product.inputs[1])
    if (
        stored is None
        or tensor is None
        or tensor.dtype != ir.DataType.INT8
        or len(tensor.shape) != 3
    ):
        return None
    if scale is None or scale.dtype != np.float32:
        return None
    integers = tensor.numpy()
    rows = (*integers.shape[:2], 1)
    if scale.ndim > 3 or np.broadcast_shapes(scale.shape, rows) != rows:
        return None
    spread = np.ascontiguousarray(np.broadcast_to(scale, rows)[:, :, 0])
    return _Gates(integers, spread, stored.name or "weight")


def _shifted(integers: np.ndarray) -> np.ndarray:
    return (integers.view(np.uint8) ^ 0x80).astype(np.uint8)
