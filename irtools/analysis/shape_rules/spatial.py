"""Windows over [batch, channels, spatial...]: convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from irtools.analysis.dims import Dim, add, divide, floor_divide, multiply
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    input_at,
    int_attribute,
    ints_attribute,
    numbers,
    unknown,
    unknown_shape,
)
from irtools.operators import weight_port

__all__ = ["conv", "conv_transpose", "global_pool", "max_unpool", "pool", "roi_pool"]


def conv(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """X [N, C, ...], W [M, C/group, kernel...] -> [N, M, ...]."""
    port = weight_port(node)
    place = 1 if port is None else port.input
    x, w = facts.shape(node.inputs[0]), facts.shape(input_at(node, place))
    if w is None or int_attribute(node, "channels_last", 0):
        return [None]
    if x is None:
        return [(unknown(node, 0), w[0], *unknown_shape(node, len(w))[2:])]
    return [(x[0], w[0], *_windows(node, x[2:], w[2:]))]


def pool(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Kernel, strides and pads are attributes; the indices of MaxPool have the same shape."""
    x = facts.shape(node.inputs[0])
    if x is None or len(x) < 2:
        return [None]
    kernel = ints_attribute(node, "kernel_shape") or ()
    spatial = _windows(node, x[2:], kernel)
    return [(*x[:2], *spatial)] * len(node.outputs)


def global_pool(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    x = facts.shape(node.inputs[0])
    return [None if x is None or len(x) < 2 else (*x[:2], *(1,) * (len(x) - 2))]


def _windows(node: ir.Node, sizes: Sequence[Dim], kernel: Sequence[Dim]) -> list[Dim]:
    """How many windows fit along each spatial axis."""
    rank = len(sizes)
    strides = ints_attribute(node, "strides") or (1,) * rank
    dilations = ints_attribute(node, "dilations") or (1,) * rank
    pads = ints_attribute(node, "pads") or (0,) * (2 * rank)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    upwards = bool(int_attribute(node, "ceil_mode", 0))
    dims: list[Dim] = []
    for axis, size in enumerate(sizes):
        length = kernel[axis] if axis < len(kernel) else None
        found: Dim | None = None
        if isinstance(length, int):
            reach = dilations[axis] * (length - 1) + 1
            around = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
            if auto.startswith("SAME"):
                found = floor_divide(add(size, strides[axis] - 1), strides[axis])
            else:
                found = _count(add(size, around - reach), strides[axis], upwards)
        dims.append(unknown(node, axis + 2) if found is None else found)
    return dims


def _count(room: Dim, stride: int, upwards: bool) -> Dim | None:
    """Windows with so much room to move. Where a last one would lean out, runtimes disagree."""
    if upwards and divide(room, stride) is None:
        return None
    return add(floor_divide(room, stride), 1)


def conv_transpose(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """X [N, C, ...], W [C, M/group, kernel...] -> [N, M, ...]."""
    x, w = (facts.shape(value) for value in node.inputs[:2])
    if w is None:
        return [None]
    rank = len(w) - 2
    channels = multiply(w[1], int_attribute(node, "group", 1))
    sizes = (unknown(node, axis + 2) for axis in range(rank)) if x is None else x[2:]
    grow = _grown(node, rank)
    batch = unknown(node, 0) if x is None else x[0]
    spatial = [
        grow(axis, size, kernel)
        for axis, (size, kernel) in enumerate(zip(sizes, w[2:], strict=False))
    ]
    return [(batch, channels, *spatial)]


def _grown(node: ir.Node, rank: int) -> Callable[[int, Dim, Dim], Dim]:
    strides = ints_attribute(node, "strides") or (1,) * rank
    dilations = ints_attribute(node, "dilations") or (1,) * rank
    pads = ints_attribute(node, "pads") or (0,) * (2 * rank)
    extra = ints_attribute(node, "output_padding") or (0,) * rank
    wanted = ints_attribute(node, "output_shape")
    auto = node.attributes.get_string("auto_pad", "NOTSET")

    def grow(axis: int, size: Dim, kernel: Dim) -> Dim:
        if wanted is not None:
            return wanted[axis - rank]
        if not isinstance(size, int) or not isinstance(kernel, int):
            return unknown(node, axis + 2)
        if auto.startswith("SAME"):
            return size * strides[axis]
        around = 0 if auto == "VALID" else pads[axis] + pads[axis + rank]
        reach = dilations[axis] * (kernel - 1) + 1
        return strides[axis] * (size - 1) + extra[axis] + reach - around

    return grow


def max_unpool(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    x = facts.shape(node.inputs[0])
    if x is None or len(x) < 2:
        return [None]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return [numbers(node.inputs[2], facts) or unknown_shape(node, len(x))]
    rank = len(x) - 2
    kernel = ints_attribute(node, "kernel_shape") or (1,) * rank
    strides = ints_attribute(node, "strides") or (1,) * rank
    pads = ints_attribute(node, "pads") or (0,) * (2 * rank)
    dims: list[Dim] = [
        strides[axis] * (size - 1) + kernel[axis] - pads[axis] - pads[axis + rank]
        if isinstance(size, int)
        else unknown(node, axis + 2)
        for axis, size in enumerate(x[2:])
    ]
    return [(*x[:2], *dims)]


def roi_pool(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """One window per region: RoiAlign says its size in two attributes, MaxRoiPool in one."""
    x, rois = (facts.shape(value) for value in node.inputs[:2])
    if x is None or rois is None:
        return [unknown_shape(node, 4)]
    size = ints_attribute(node, "pooled_shape")
    if size is None:
        size = tuple(int_attribute(node, f"output_{side}", 1) for side in ("height", "width"))
    return [(rois[0], x[1], *size)]
