"""Names and idioms of the makers: one small network each, as their exporters write it."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Names, Writer

MODELS = Register("makers")

_TF = "StatefulPartitionedCall/functional_1/"


@MODELS.add(quick=True)
def tf2onnx_channels_last() -> Built:
    """Colons in names, Transpose around every Conv, Squeeze and Unsqueeze for 1-D."""
    names = Names("model/layer_{i}/{op}", "model/layer_{i}/{op}:0", "model/layer_{i}/{role}/Read:0",
                  "tf2onnx")  # fmt: skip
    w = Writer("tf2onnx", 15, names)
    value = w.input("input_1:0", ("unk__7", 64, 20), w.normal(2, 64, 20))
    for inputs, outputs in ((20, 64), (64, 96)):
        turned = w.node("Transpose", value, perm=[0, 2, 1])
        image = w.over_axes("Unsqueeze", turned, 2)
        found = w.conv(image, inputs, outputs, 1, 5, pads=[0, 2, 0, 2], strides=[1, 1])
        value = w.node(
            "Relu", w.node("Transpose", w.over_axes("Squeeze", found, 2), perm=[0, 2, 1])
        )
    flat = w.node("Reshape", w.node("ReduceMax", value, axes=[1], keepdims=1), w.ints(-1, 96))
    w.named_output("Identity:0", w.linear(flat, 96, 64, "Sigmoid"), ("unk__7", 64))
    return w.build()


@MODELS.add(quick=True)
def keras_functional() -> Built:
    names = Names(_TF + "dense_{i}/{op}", _TF + "dense_{i}/{op}:0",
                  _TF + "dense_{i}/{op}/Read:0;other/name_{i}", "keras2onnx")  # fmt: skip
    w = Writer("keras", 12, names)
    value = w.input("serving_default_input_2:0", ("N", 100), w.normal(3, 100))
    for inputs, outputs in ((100, 200), (200, 120)):
        value = w.batch_norm(w.linear(value, inputs, outputs, "Relu"), outputs)
    w.named_output("StatefulPartitionedCall:0", w.linear(value, 120, 10), ("N", 10))
    return w.build()


@MODELS.add(quick=True)
def paddle_hard_swish() -> Built:
    """Every number a Constant node, -1 for sizes unknown, HardSwish in parts, dots in names."""
    names = Names("p2o.{op}.{i}", "p2o.{op}.{i}.out", "conv2d_{i}.{role}_0", "PaddlePaddle")
    w = Writer("paddle", 11, names, constants=True)
    dims = ("p2o.DynamicDimension.0", 3, "p2o.DynamicDimension.1", "p2o.DynamicDimension.2")
    value = w.input("x", dims, w.normal(1, 3, 32, 48))
    for inputs, outputs in ((3, 48), (48, 96)):
        found = w.batch_norm(
            w.conv(value, inputs, outputs, 3, 3, pads=[1] * 4, strides=[2, 2]), outputs
        )
        raised = w.node("Add", found, w.const(3.0))
        inside = w.node(
            "Clip",
            raised,
            w.const(np.asarray(0.0, np.float32)),
            w.const(np.asarray(6.0, np.float32)),
        )
        value = w.node("Div", w.node("Mul", found, inside), w.const(6.0))
    pooled = w.node("GlobalAveragePool", value)
    flat = w.node("Reshape", pooled, w.ints(0, -1))
    w.named_output(
        "fetch_name_0",
        w.node("Softmax", w.linear(flat, 96, 40), axis=1),
        ("p2o.DynamicDimension.0", 40),
    )
    return w.build()


@MODELS.add()
def torch_1_numbers() -> Built:
    """Numbers for names, nodes without any, Constant nodes, Shape-Gather-Unsqueeze-Concat."""
    w = Writer("torch_1", 11, Names("", "{i}", "{i}", "pytorch"))
    x = w.input("input.1", ("batch", 3, 32, 32), w.normal(2, 3, 32, 32))
    value = w.conv(x, 3, 32, 3, 3, strides=[2, 2], activation="Relu")
    value = w.conv(value, 32, 64, 3, 3, strides=[2, 2], activation="Relu")
    batch = w.node("Gather", w.node("Shape", value), w.const(np.asarray(0)), axis=0)
    shape = w.node("Concat", w.node("Unsqueeze", batch, axes=[0]), w.ints(-1), axis=0)
    flat = w.node("Reshape", value, shape)
    hidden = w.node("Gemm", flat, w.const(w.normal(32, 3136, scale=0.02)), w.bias(32), transB=1)
    w.named_output("logits", hidden, ("batch", 32))
    return w.build()


@MODELS.add()
def torch_dynamo_values() -> Built:
    """`val_12`, scoped node names, weights transposed once by Transpose, symbols s0."""
    names = Names("node_{op}_{i}", "val_{i}", "blocks.{i}.mlp.{role}", "pytorch")
    w = Writer("dynamo", 20, names)
    value = w.input("x", ("s0", "s77", 96), w.normal(2, 5, 96))
    for _ in range(2):
        normed = w.layer_norm(value, 96)
        weight = w.node("Transpose", w.const(w.normal(192, 96, scale=0.1), "weight"), perm=[1, 0])
        hidden = w.node("Gelu", w.node("MatMul", normed, weight), approximate="tanh")
        value = w.node("Add", value, w.linear(hidden, 192, 96))
    w.named_output("layer_norm_1", value, ("s0", "s77", 96))
    return w.build()


@MODELS.add()
def sklearn_pipeline() -> Built:
    """Scaler and a multilayer perceptron; Cast, ArgMax, ArrayFeatureExtractor, two outputs."""
    w = Writer("sklearn", 15, Names("N{i}", "variable{i}", "coef{i}", "skl2onnx"))
    w.domains["ai.onnx.ml"] = 1
    x = w.input("float_input", (None, 30), w.normal(4, 30))
    value = w.node("Scaler", x, domain="ai.onnx.ml", offset=[0.1] * 30, scale=[0.9] * 30)
    for inputs, outputs in ((30, 300), (300, 100)):
        value = w.linear(value, inputs, outputs, "Relu")
    scores = w.node("Softmax", w.linear(value, 100, 5), axis=1)
    best = w.node("ArgMax", scores, axis=1, keepdims=0)
    labels = w.const(np.arange(10, 15, dtype=np.int64))
    found = w.node("ArrayFeatureExtractor", labels, best, domain="ai.onnx.ml")
    label = w.node("Reshape", found, w.ints(-1))
    w.named_output("output_label", label, (None,), np.int64)
    w.named_output("output_probability", scores, (None, 5))
    return w.build()


@MODELS.add()
def spox_with_inlined_branch() -> Built:
    """Trailing underscores and numbers, axes called by number alone, a branch inlined."""
    w = Writer("spox", 18, Names("{op}_{i}_", "{op}_{i}_output", "Initializer_{i}_arg", "spox"))
    x = w.input("input", ("0", "1"), w.normal(2, 128))
    wide = w.node("Less", w.node("Size", x), w.const(np.asarray(1000, np.int64)))
    b, c = w.body("Inline__then"), w.body("Inline__else")
    b.output(b.linear(x, 128, 160), ("0", 160))
    c.output(c.node("Neg", c.linear(x, 128, 160)), ("0", 160))
    value = w.node("If", wide, then_branch=b.graph(), else_branch=c.graph())
    w.named_output("output", w.linear(w.node("Tanh", value), 160, 64), ("0", 64))
    return w.build()


@MODELS.add()
def core_ml_pictures() -> Built:
    """Fixed sizes, names with slashes and blanks, preprocessing as Mul and Add, Flatten."""
    names = Names("{op} {i}", "{op}/{i} out", "W {role}/{i}", "WinMLTools")
    w = Writer("coreml", 8, names)
    x = w.input("input image", (1, 3, 28, 28), w.normal(1, 3, 28, 28))
    scaled = w.node(
        "Add", w.node("Mul", x, w.const(0.017)), w.const([[[-2.0]], [[-1.9]], [[-1.7]]])
    )
    value = w.conv(scaled, 3, 48, 5, 5, strides=[2, 2], activation="LeakyRelu")
    value = w.conv(value, 48, 64, 3, 3, strides=[2, 2], activation="LeakyRelu")
    flat = w.node("Flatten", value)
    w.named_output(
        "class probabilities",
        w.node("Softmax", w.node("Gemm", flat, w.matrix(1600, 10), w.bias(10))),
        (1, 10),
    )
    return w.build()


@MODELS.add()
def mxnet_with_bracketed_names() -> Built:
    """Names as MXNet writes them, Gemm with transposed weights, BatchNormalization without use."""
    names = Names("hybridsequential0_{op}{i}_fwd", "{op}{i}[0]", "conv{i}_{role}", "mxnet")
    w = Writer("mxnet", 9, names)
    x = w.input("data", (None, 3, 32, 32), w.normal(2, 3, 32, 32))
    value = w.node("Relu", w.batch_norm(w.conv(x, 3, 32, 3, 3, pads=[1] * 4), 32))
    skip = w.conv(value, 32, 64, 1, 1, strides=[2, 2])
    main = w.batch_norm(w.conv(value, 32, 64, 3, 3, pads=[1] * 4, strides=[2, 2]), 64)
    value = w.node("Relu", w.node("Add", main, skip))
    flat = w.node("Flatten", w.node("GlobalAveragePool", value))
    w.output(w.node("Gemm", flat, w.const(w.normal(100, 64)), w.bias(100), transB=1), (None, 100))
    return w.build()


@MODELS.add()
def matlab_time_first() -> Built:
    """Sequence [time, batch, features], Flatten and Reshape by MATLAB, names with parentheses."""
    names = Names("{op}_{i} (fc)", "{op}_{i}(y)", "{role}_W_{i}'", "MATLAB Deep Learning Toolbox")
    w = Writer("matlab", 10, names)
    x = w.input("sequenceinput", ("time", 1, 90), w.normal(8, 1, 90))
    value = w.node("Sub", x, w.const(w.normal(90)))
    for inputs, outputs in ((90, 200), (200, 100)):
        value = w.linear(value, inputs, outputs, "Elu")
    w.named_output("softmax", w.node("Softmax", w.linear(value, 100, 6), axis=2), ("time", 1, 6))
    return w.build()
