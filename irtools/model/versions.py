"""The ONNX versions that can be read."""

from __future__ import annotations

__all__ = ["MAX_IR_VERSION", "MAX_ML_OPSET", "MAX_OPSET", "MIN_IR_VERSION", "MIN_OPSET"]

# ONNX Runtime 1.31, the oldest that is supported, reads at most these.
MIN_IR_VERSION = 3
MAX_IR_VERSION = 13
MIN_OPSET = 7
MAX_OPSET = 26
MAX_ML_OPSET = 5
