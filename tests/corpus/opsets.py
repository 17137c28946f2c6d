"""One little network at every opset from 7 to 26, each written as that opset requires it."""

from __future__ import annotations

from functools import partial

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("opsets")

QUICK = (7, 9, 13, 18, 23, 26)


def little_network(opset: int) -> Built:
    """Conv with batch norm, Clip, Pad, pooling, enlarging, TopK, Slice, Split, Dropout, Softmax.

    Up to opset 8 (IR 3) the weights are inputs as well.
    """
    w = Writer(f"little_network_{opset}", opset)
    x = w.input("data", ("batch", 3, 16, 16), w.normal(2, 3, 16, 16))
    value = _clipped(w, w.batch_norm(w.conv(_padded(w, x), 3, 32, 3, 3), 32))
    value = w.conv(value, 32, 64, 3, 3, pads=[1] * 4, activation="Relu")
    value = w.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = _enlarged(w, value)
    pooled = w.over_axes("ReduceMean", value, 2, 3, keepdims=0)
    hidden = _dropped(w, w.node("Relu", w.node("Gemm", pooled, w.matrix(64, 192), w.bias(192))))
    hidden = w.linear(hidden, 192, 128)
    if opset >= 13:
        left, right = w.split("Split", hidden, w.ints(64, 64), outputs=2, axis=1)
    else:
        left, right = w.split("Split", hidden, outputs=2, axis=1, split=[64, 64])
    gated = w.node("Mul", w.node("Sigmoid", left), w.node("Tanh", right))
    best = w.node("Softmax", _cut(w, w.linear(gated, 64, 40)), axis=1)
    if opset >= 10:
        k = w.ints(5)
        top, place = w.split("TopK", best, k, outputs=2, axis=1)
    else:
        top, place = w.split("TopK", best, outputs=2, axis=1, k=5)
    w.named_output("scores", best, ("batch", 30))
    w.named_output("best", top, ("batch", 5))
    w.named_output("classes", place, ("batch", 5), np.int64)
    return w.build()


def _padded(w: Writer, value: str) -> str:
    pads = (0, 0, 1, 1, 0, 0, 1, 1)
    if w.opset >= 11:
        return w.node("Pad", value, w.ints(*pads), w.const(0.0))
    return w.node("Pad", value, pads=pads, value=0.0)


def _clipped(w: Writer, value: str) -> str:
    if w.opset >= 11:
        return w.node("Clip", value, w.const(0.0), w.const(6.0))
    return w.node("Clip", value, min=0.0, max=6.0)


def _enlarged(w: Writer, value: str) -> str:
    scales = [1.0, 1.0, 2.0, 2.0]
    if w.opset < 9:
        return w.node("Upsample", value, mode="nearest", scales=scales)
    if w.opset == 9:
        return w.node("Upsample", value, w.const(scales), mode="nearest")
    if w.opset == 10:
        return w.node("Resize", value, w.const(scales), mode="nearest")
    regions = w.const([]) if w.opset < 13 else ""
    return w.node("Resize", value, regions, w.const(scales), mode="nearest",
                  coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip


def _dropped(w: Writer, value: str) -> str:
    if w.opset >= 12:
        return w.node("Dropout", value, w.const(0.3))
    return w.node("Dropout", value, ratio=0.3)


def _cut(w: Writer, value: str) -> str:
    """[B, 40] -> [B, 30]."""
    if w.opset >= 10:
        return w.node("Slice", value, w.ints(5), w.ints(35), w.ints(1))
    return w.node("Slice", value, starts=[5], ends=[35], axes=[1])


for _opset in range(7, 27):
    MODELS.add(name=f"opset-{_opset}", quick=_opset in QUICK, chosen=("best", "classes"))(
        partial(little_network, _opset)
    )
