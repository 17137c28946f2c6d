"""Pictures: sizes that must be multiples, computed sizes, windows, groups, bytes, gathers."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("vision")


@MODELS.add(quick=True)
def unet_of_multiples_of_16() -> Built:
    """Halved four times and joined on the way up: only sizes that divide by 16 run."""
    w = Writer("unet_of_multiples_of_16", 11)
    x = w.input("input", ("batch", 3, "height", "width"), w.normal(1, 3, 32, 48))
    widths, kept, value, inputs = (16, 24, 32, 40), [], x, 3
    for width in widths:
        value = w.conv(value, inputs, width, 3, 3, pads=[1] * 4, activation="Relu")
        kept.append(value)
        value = w.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
        inputs = width
    for width, skip in zip(reversed(widths), reversed(kept), strict=True):
        weight = w.const(w.normal(inputs, width, 2, 2, scale=1 / np.sqrt(inputs)))
        value = w.node("ConvTranspose", value, weight, w.bias(width), strides=[2, 2],
                       kernel_shape=[2, 2])  # fmt: skip
        joined = w.node("Concat", value, skip, axis=1)
        value = w.conv(joined, 2 * width, width, 3, 3, pads=[1] * 4, activation="Relu")
        inputs = width
    w.output(w.node("Sigmoid", w.conv(value, 16, 1, 1, 1)), ("batch", 1, "height", "width"))
    return w.build()


@MODELS.add(quick=True)
def inverted_bottlenecks() -> Built:
    """Pointwise, depthwise, pointwise with batch norms and ReLU6, one squeeze-and-excite."""
    w = Writer("inverted_bottlenecks", 11)
    x = w.input("input", ("batch_size", 3, 32, 32), w.normal(2, 3, 32, 32))
    low, high = w.const(0.0), w.const(6.0)
    value = w.batch_norm(w.conv(x, 3, 32, 3, 3, pads=[1] * 4, strides=[2, 2]), 32)
    for _ in range(3):
        wide = w.node("Clip", w.batch_norm(w.conv(value, 32, 192, 1, 1), 192), low, high)
        deep = w.batch_norm(w.conv(wide, 192, 192, 3, 3, pads=[1] * 4, group=192), 192)
        deep = w.node("Clip", deep, low, high)
        gate = w.conv(w.node("GlobalAveragePool", deep), 192, 16, 1, 1, activation="Relu")
        gate = w.node("HardSigmoid", w.conv(gate, 16, 192, 1, 1), alpha=1 / 6, beta=0.5)
        narrow = w.batch_norm(w.conv(w.node("Mul", deep, gate), 192, 32, 1, 1), 32)
        value = w.node("Add", value, narrow)
    pooled = w.node("Flatten", w.node("GlobalAveragePool", value), axis=1)
    w.output(w.node("Gemm", pooled, w.matrix(32, 100), w.bias(100)), ("batch_size", 100))
    return w.build()


@MODELS.add()
def pyramid_with_computed_sizes() -> Built:
    """Features enlarged to each other's size: Shape, Slice, Concat, Resize."""
    w = Writer("pyramid_with_computed_sizes", 13)
    x = w.input("x", ("n", 3, "h", "w"), w.normal(1, 3, 50, 70))
    levels, value, inputs = [], x, 3
    for width in (32, 64, 96):
        value = w.conv(value, inputs, width, 3, 3, pads=[1] * 4, strides=[2, 2], activation="Relu")
        levels.append(w.conv(value, width, 48, 1, 1))
        inputs = width
    top = levels.pop()
    while levels:
        below = levels.pop()
        channels = w.node("Slice", w.node("Shape", top), w.ints(0), w.ints(2), w.ints(0))
        sizes = w.node("Slice", w.node("Shape", below), w.ints(2), w.ints(4), w.ints(0))
        both = w.node("Concat", channels, sizes, axis=0)
        larger = w.node(
            "Resize",
            top,
            "",
            "",
            both,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        top = w.conv(w.node("Add", below, larger), 48, 48, 3, 3, pads=[1] * 4)
    w.output(top, ("n", 48, "h2", "w2"))
    return w.build()


@MODELS.add(quick=True)
def windows_shifted_and_turned_back() -> Built:
    """Windows of 4 x 4, rolled by Slice and Concat, attention inside with a bias table."""
    w = Writer("windows_shifted_and_turned_back", 14)
    value = w.input("pixels", ("batch", 8, 8, 64), w.normal(2, 8, 8, 64))
    for axis in (1, 2):
        head = w.node("Slice", value, w.ints(2), w.ints(2**62), w.ints(axis))
        tail = w.node("Slice", value, w.ints(0), w.ints(2), w.ints(axis))
        value = w.node("Concat", head, tail, axis=axis)
    cut = w.node("Transpose", w.node("Reshape", value, w.ints(-1, 2, 4, 2, 4, 64)),
                 perm=[0, 1, 3, 2, 4, 5])  # fmt: skip
    rows = w.node("Reshape", cut, w.ints(-1, 16, 64))
    three = w.node("Reshape", w.linear(w.layer_norm(rows, 64), 64, 192), w.ints(-1, 16, 3, 4, 16))
    turned = w.node("Transpose", three, perm=[2, 0, 3, 1, 4])
    q, k, v = (w.node("Gather", turned, w.const(np.asarray(i)), axis=0) for i in range(3))
    scores = w.node("MatMul", w.node("Mul", q, w.const(0.25)),
                    w.node("Transpose", k, perm=[0, 1, 3, 2]))  # fmt: skip
    places = w.const(w.integers(49, 256))
    bias = w.node("Gather", w.const(w.normal(49, 4), "bias_table"), places)
    bias = w.node("Transpose", w.node("Reshape", bias, w.ints(16, 16, 4)), perm=[2, 0, 1])
    scores = w.node("Softmax", w.node("Add", scores, w.over_axes("Unsqueeze", bias, 0)), axis=-1)
    mixed = w.node("Transpose", w.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    rows = w.node("Add", rows, w.linear(w.node("Reshape", mixed, w.ints(-1, 16, 64)), 64, 64))
    w.output(w.linear(w.linear(rows, 64, 256, "Relu"), 256, 64), ("windows", 16, 64))
    return w.build()


@MODELS.add()
def patches_by_einsum() -> Built:
    """Attention and projections as Einsum with weights of rank 3, as JAX exporters write them."""
    w = Writer("patches_by_einsum", 13)
    x = w.input("image", (1, 3, 32, 32), w.normal(1, 3, 32, 32))
    patches = w.node("Reshape", w.conv(x, 3, 96, 8, 8, strides=[8, 8]), w.ints(1, 96, 16))
    rows = w.node("Transpose", patches, perm=[0, 2, 1])
    q, k, v = (
        w.node("Einsum", rows, w.const(w.normal(96, 4, 24, scale=0.1)), equation="bsd,dhk->bshk")
        for _ in range(3)
    )
    scores = w.node("Einsum", q, k, equation="bqhd,bkhd->bhqk")
    weights = w.node("Softmax", w.node("Mul", scores, w.const(0.2)), axis=-1)
    mixed = w.node("Einsum", weights, v, equation="bhqk,bkhd->bqhd")
    out = w.node("Einsum", mixed, w.const(w.normal(4, 24, 96, scale=0.1)), equation="bqhd,hdm->bqm")
    w.output(w.linear(w.node("Add", rows, out), 96, 64), (1, 16, 64))
    return w.build()


@MODELS.add()
def larger_picture_by_depth_to_space() -> Built:
    """Super-resolution: PRelu, residual blocks, DepthToSpace; fixed sizes."""
    w = Writer("larger_picture_by_depth_to_space", 13)
    x = w.input("lr", ("n", 1, 20, 30), w.normal(1, 1, 20, 30))
    first = w.conv(x, 1, 48, 5, 5, pads=[2] * 4)
    value = w.node("PRelu", first, w.const(np.full((48, 1, 1), 0.2, np.float32)))
    inner = w.conv(
        w.conv(value, 48, 48, 3, 3, pads=[1] * 4, activation="Relu"), 48, 48, 3, 3, pads=[1] * 4
    )
    value = w.conv(w.node("Add", value, inner), 48, 36, 3, 3, pads=[1] * 4)
    up = w.node("DepthToSpace", value, blocksize=3, mode="CRD")
    w.output(w.conv(up, 4, 1, 3, 3, pads=[1] * 4), ("n", 1, 60, 90))
    return w.build()


@MODELS.add()
def style_with_reflecting_borders() -> Built:
    """Reflecting padding of 4, instance norms, Upsample by Resize: needs more than 4 pixels."""
    w = Writer("style_with_reflecting_borders", 12)
    x = w.input("img", (1, 3, "height", "width"), w.normal(1, 3, 24, 40))
    padded = w.node("Pad", x, w.ints(0, 0, 4, 4, 0, 0, 4, 4), mode="reflect")
    value = w.conv(padded, 3, 32, 9, 9, strides=[2, 2])
    for inputs, outputs in ((32, 48), (48, 64)):
        scale, shift = w.const(np.ones(inputs, np.float32)), w.bias(inputs)
        value = w.node("Relu", w.node("InstanceNormalization", value, scale, shift))
        value = w.conv(value, inputs, outputs, 3, 3, pads=[1] * 4)
    value = w.node("Resize", value, w.const([]), w.const([1.0, 1.0, 2.0, 2.0]), mode="nearest",
                   coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    w.output(w.conv(value, 64, 3, 3, 3, pads=[1] * 4), (1, 3, "h2", "w2"))
    return w.build()


@MODELS.add()
def bytes_with_channels_last() -> Built:
    """uint8 [1, H, W, 3], scaled and turned inside the graph."""
    w = Writer("bytes_with_channels_last", 13)
    x = w.input("input_tensor", (1, 64, 64, 3), w.integers(256, 1, 64, 64, 3, dtype=np.uint8))
    scaled = w.node("Div", w.node("Cast", x, to=1), w.const(127.5))
    value = w.node("Transpose", w.node("Sub", scaled, w.const(1.0)), perm=[0, 3, 1, 2])
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        value = w.conv(
            value, inputs, outputs, 3, 3, pads=[0, 0, 1, 1], strides=[2, 2], activation="Relu"
        )
    w.output(w.node("Transpose", value, perm=[0, 2, 3, 1]), (1, 8, 8, 64))
    return w.build()


@MODELS.add()
def pixels_replaced_by_scatter() -> Built:
    """A masked autoencoder: rows chosen by GatherND, put back by ScatterND."""
    w = Writer("pixels_replaced_by_scatter", 13)
    x = w.input("patches", (1, 16, 96), w.normal(1, 16, 96))
    keep = w.input(
        "ids_keep", (1, 6, 2), np.asarray([[[0, i] for i in (0, 3, 5, 9, 10, 15)]], np.int64)
    )
    seen = w.node("GatherND", x, keep)
    seen = w.linear(w.linear(seen, 96, 192, "Relu"), 192, 96)
    blank = w.const(np.tile(w.normal(1, 1, 96), (1, 16, 1)), "mask_token")
    whole = w.node("ScatterND", blank, keep, seen)
    w.output(w.linear(whole, 96, 48), (1, 16, 48))
    return w.build()


@MODELS.add()
def sampled_at_computed_places() -> Built:
    """A spatial transformer: a small network says where GridSample reads."""
    w = Writer("sampled_at_computed_places", 20)
    x = w.input("x", ("batch", 3, 28, 28), w.normal(2, 3, 28, 28))
    seen = w.conv(x, 3, 32, 7, 7, strides=[4, 4], activation="Relu")
    theta = w.linear(w.node("Flatten", seen), 1152, 6, "Tanh")
    matrix = w.node("Reshape", theta, w.ints(-1, 2, 3))
    size = w.node("Shape", x)
    grid = w.node("AffineGrid", matrix, size, align_corners=0)
    read = w.node("GridSample", x, grid, mode="linear", align_corners=0)
    value = w.conv(read, 3, 64, 5, 5, strides=[2, 2], activation="Relu")
    w.output(w.linear(w.over_axes("ReduceMean", value, 2, 3, keepdims=0), 64, 10), ("batch", 10))
    return w.build()


@MODELS.add()
def volumes_in_three_axes() -> Built:
    """3-D convolutions over a scan [1, 1, depth, height, width], average pooling, dropout."""
    w = Writer("volumes_in_three_axes", 10)
    x = w.input("scan", (1, 1, 16, 24, 24), w.normal(1, 1, 16, 24, 24))
    value = w.conv(x, 1, 24, 3, 3, 3, pads=[1] * 6, activation="Relu")
    value = w.node("AveragePool", value, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    value = w.conv(value, 24, 64, 3, 3, 3, pads=[1] * 6, strides=[2, 2, 2], activation="Relu")
    pooled = w.node("Flatten", w.node("GlobalMaxPool", value))
    w.output(w.node("Gemm", w.node("Dropout", pooled), w.matrix(64, 5), w.bias(5)), (1, 5))
    return w.build()
