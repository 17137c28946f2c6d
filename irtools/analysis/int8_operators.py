"""Operators that multiply by 8-bit weights, and whether a file may have any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from irtools.model import may_use

__all__ = ["INTEGER_OPERATORS", "IntegerPorts", "may_multiply_int8"]

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class IntegerPorts:
    """Inputs of an operator on integers.

    Attributes:
        weights: Each weight with its zero point.
        activation: The zero point of the activations; None: it quantizes them itself, to u8.
    """

    weights: tuple[tuple[int, int], ...]
    activation: int | None


INTEGER_OPERATORS = {
    ("", "MatMulInteger"): IntegerPorts(((1, 3),), 2),
    ("", "QLinearMatMul"): IntegerPorts(((3, 5),), 2),
    ("", "QLinearConv"): IntegerPorts(((3, 5),), 2),
    (_MICROSOFT, "QLinearConv"): IntegerPorts(((3, 5),), 2),
    (_MICROSOFT, "QGemm"): IntegerPorts(((3, 5),), 2),
    (_MICROSOFT, "MatMulIntegerToFloat"): IntegerPorts(((1, 5),), 4),
    (_MICROSOFT, "DynamicQuantizeMatMul"): IntegerPorts(((1, 3),), None),
    (_MICROSOFT, "QAttention"): IntegerPorts(((1, 7),), 6),
    (_MICROSOFT, "DynamicQuantizeLSTM"): IntegerPorts(((1, 9), (2, 11)), None),
}
"""ConvInteger is not among them: its kernel widens before it adds."""


def may_multiply_int8(path: Path) -> bool:
    """Whether an ONNX file may have products by 8-bit weights; costs milliseconds.

    Raises:
        FileError: The file is not there or cannot be read.
        ModelError: It is not an ONNX file.
    """
    names = {name for _, name in INTEGER_OPERATORS}
    return may_use(path, {*names, "DequantizeLinear"})
