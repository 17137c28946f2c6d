"""Operators that multiply by 8-bit weights, and whether a file may have any."""

from __future__ import annotations

from pathlib import Path

from irtools.model import may_use

__all__ = ["INTEGER_OPERATORS", "may_multiply_int8"]

_MICROSOFT = "com.microsoft"

INTEGER_OPERATORS = {
    ("", "MatMulInteger"): (1,),
    ("", "QLinearMatMul"): (3,),
    ("", "QLinearConv"): (3,),
    (_MICROSOFT, "QLinearConv"): (3,),
    (_MICROSOFT, "QGemm"): (3,),
    (_MICROSOFT, "MatMulIntegerToFloat"): (1,),
    (_MICROSOFT, "DynamicQuantizeMatMul"): (1,),
    (_MICROSOFT, "QAttention"): (1,),
    (_MICROSOFT, "DynamicQuantizeLSTM"): (1, 2),
}
"""Operators on integers, and which of their inputs are weights."""


def may_multiply_int8(path: Path) -> bool:
    """Whether an ONNX file may have products by 8-bit weights; costs milliseconds.

    Raises:
        FileError: The file is not there or cannot be read.
        ModelError: It is not an ONNX file.
    """
    names = {name for _, name in INTEGER_OPERATORS}
    return may_use(path, {*names, "DequantizeLinear"})
