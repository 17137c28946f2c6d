"""Weights in every storage form that is met: halves, bytes, blocks, constants, copies, sharing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from .models import Register
from .writer import Built, Writer

MODELS = Register("storage")

MICROSOFT = "com.microsoft"


def _scaled(array: np.ndarray, top: int = 127, axis: int | None = None) -> tuple[np.ndarray, ...]:
    """Round to integers in [-top, top]; the scale is per index of `axis`, or one."""
    over = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
    scale = np.max(np.abs(array), axis=over, keepdims=axis is not None).astype(np.float32) / top
    rounded = np.clip(np.round(array / scale), -top, top).astype(np.int8)
    return rounded, np.asarray(scale.reshape(-1) if axis is not None else scale, np.float32)


@MODELS.add(is_float=False, quick=True)
def halves_cast_to_float() -> Built:
    """float16 weights, each followed by Cast: half the size of the file."""
    w = Writer("halves_cast_to_float", 13)
    x = w.input("x", ("batch", 192), w.normal(2, 192))
    for inputs, outputs in ((192, 256), (256, 192), (192, 64)):
        half = w.const(w.normal(inputs, outputs, scale=0.06).astype(np.float16), "weight")
        x = w.node("Relu", w.node("MatMul", x, w.node("Cast", half, to=TensorProto.FLOAT)))
    w.output(x, ("batch", 64))
    return w.build()


@MODELS.add(is_float=False, quick=True)
def bytes_cast_and_multiplied() -> Built:
    """int8 weights, Cast, times a scale per column; int8 table, Cast, times a scale per row."""
    w = Writer("bytes_cast_and_multiplied", 14)
    ids = w.input("ids", ("batch", "length"), w.integers(600, 2, 5))
    rounded, scale = _scaled(w.normal(600, 96), axis=0)
    rows = w.node("Cast", w.node("Gather", w.const(rounded, "table"), ids), to=TensorProto.FLOAT)
    rows = w.node("Mul", rows, w.over_axes("Unsqueeze", w.node("Gather", w.const(scale), ids), 2))
    for inputs, outputs in ((96, 192), (192, 96)):
        rounded, scale = _scaled(w.normal(inputs, outputs, scale=0.1), axis=1)
        real = w.node("Cast", w.const(rounded, "weight_q"), to=TensorProto.FLOAT)
        rows = w.node("Tanh", w.node("MatMul", rows, w.node("Mul", real, w.const(scale))))
    w.output(rows, ("batch", "length", 96))
    return w.build()


@MODELS.add(is_float=False)
def bytes_minus_zero_point() -> Built:
    """uint8 minus a zero point, times a scale, then Reshape: written by hand in torch."""
    w = Writer("bytes_minus_zero_point", 15)
    x = w.input("x", ("batch", 16, "time"), w.normal(2, 16, 20))
    weight = w.normal(64, 16, 5, scale=0.1)
    stored = np.clip(np.round(weight / 0.004) + 128, 0, 255).astype(np.uint8)
    real = w.node("Cast", w.const(stored.reshape(64, -1), "packed"), to=TensorProto.FLOAT)
    real = w.node("Mul", w.node("Sub", real, w.const(128.0)), w.const(0.004))
    kernel = w.node("Reshape", real, w.ints(64, 16, 5))
    value = w.node("Relu", w.node("Conv", x, kernel, pads=[2, 2]))
    rounded, scale = _scaled(w.normal(96, 64, 3, scale=0.1), axis=0)
    real = w.node("DequantizeLinear", w.const(rounded), w.const(scale), axis=0)
    w.output(w.node("Conv", value, real, pads=[1, 1]), ("batch", 96, "time"))
    return w.build()


@MODELS.add(is_float=False, quick=True)
def weights_dequantized() -> Built:
    """DequantizeLinear before Conv and MatMul, nothing quantized at run time."""
    w = Writer("weights_dequantized", 13)
    x = w.input("x", ("batch", 8, 16, 16), w.normal(2, 8, 16, 16))
    rounded, scale = _scaled(w.normal(64, 8, 3, 3, scale=0.1), axis=0)
    zero = w.const(np.zeros(64, np.int8))
    kernel = w.node("DequantizeLinear", w.const(rounded), w.const(scale), zero, axis=0)
    value = w.node("Relu", w.node("Conv", x, kernel, w.bias(64), strides=[2, 2]))
    value = w.node("Reshape", value, w.ints(0, 3136))
    rounded, scale = _scaled(w.normal(3136, 32, scale=0.02))
    weight = w.node("DequantizeLinear", w.const(rounded), w.const(scale))
    w.output(w.node("MatMul", value, weight), ("batch", 32))
    return w.build()


@MODELS.add(is_float=False)
def weights_dequantized_in_blocks() -> Built:
    """int4 in blocks of 32 (opset 21)."""
    w = Writer("weights_dequantized_in_blocks", 21)
    x = w.input("x", ("batch", 256), w.normal(2, 256))
    for inputs, outputs in ((256, 256), (256, 128)):
        weight = w.normal(inputs, outputs, scale=0.06)
        blocks = weight.reshape(inputs // 32, 32, outputs)
        scale = (np.abs(blocks).max(axis=1) / 7).astype(np.float32)
        stored = np.clip(np.round(blocks / scale[:, None]), -7, 7).reshape(inputs, outputs)
        tensor = numpy_helper.from_array(stored.astype(ml_dtypes.int4))
        real = w.node("DequantizeLinear", w.tensor(tensor, "packed"), w.const(scale), axis=0,
                      block_size=32)  # fmt: skip
        x = w.node("Relu", w.node("MatMul", x, real))
    w.output(x, ("batch", 128))
    return w.build()


def _fake_quantized(w: Writer, value: str, scale: float) -> str:
    parts = (w.const(scale), w.const(np.asarray(128, np.uint8)))
    return w.node("DequantizeLinear", w.node("QuantizeLinear", value, *parts), *parts)


@MODELS.add(is_float=False, quick=True)
def trained_with_quantization() -> Built:
    """QDQ around every product: activations and weights, as training with fakes leaves."""
    w = Writer("trained_with_quantization", 13)
    x = w.input("x", ("batch", 3, 24, 24), w.normal(2, 3, 24, 24).clip(-3, 3))
    value, inputs = _fake_quantized(w, x, 0.025), 3
    for outputs in (48, 64):
        rounded, scale = _scaled(w.normal(outputs, inputs, 3, 3, scale=0.1), top=63, axis=0)
        kernel = w.node(
            "DequantizeLinear",
            w.const(rounded),
            w.const(scale),
            w.const(np.zeros(outputs, np.int8)),
            axis=0,
        )
        value = w.node("Relu", w.node("Conv", value, kernel, w.bias(outputs), strides=[2, 2]))
        value, inputs = _fake_quantized(w, value, 0.02), outputs
    rounded, scale = _scaled(w.normal(1600, 20, scale=0.03), top=63)
    weight = w.node(
        "DequantizeLinear", w.const(rounded), w.const(scale), w.const(np.asarray(0, np.int8))
    )
    flat = w.node("Reshape", value, w.ints(0, 1600))
    w.output(w.node("MatMul", flat, weight), ("batch", 20))
    return w.build()


@MODELS.add(quick=True)
def weights_rounded_at_run_time() -> Built:
    """Trained with fakes and left so: float weights in front of their own QuantizeLinear."""
    w = Writer("weights_rounded_at_run_time", 13)
    x = w.input("x", ("batch", 3, 20, 20), w.normal(2, 3, 20, 20).clip(-3, 3))
    value, inputs = _fake_quantized(w, x, 0.025), 3
    for outputs in (32, 48):
        scale = w.const(np.full(outputs, 0.003, np.float32))
        zero = w.const(np.zeros(outputs, np.int8))
        codes = w.node("QuantizeLinear", w.kernel(outputs, inputs, 3, 3), scale, zero, axis=0)
        kernel = w.node("DequantizeLinear", codes, scale, zero, axis=0)
        value = w.node("Relu", w.node("Conv", value, kernel, w.bias(outputs), strides=[2, 2]))
        value, inputs = _fake_quantized(w, value, 0.02), outputs
    step, none = w.const(0.002), w.const(np.asarray(0, np.int8))
    codes = w.node("QuantizeLinear", w.matrix(768, 60), step, none)
    flat = w.node("Reshape", value, w.ints(0, 768))
    w.output(w.node("MatMul", flat, w.node("DequantizeLinear", codes, step, none)), ("batch", 60))
    return w.build()


@MODELS.add(is_float=False)
def operators_on_bytes() -> Built:
    """QLinearConv and QLinearMatMul: the runtime's old tool in operator form."""
    w = Writer("operators_on_bytes", 11)
    x = w.input("x", (1, 8, 16, 16), w.normal(1, 8, 16, 16))
    zero, zero_w = w.const(np.asarray(120, np.uint8)), w.const(np.asarray(0, np.int8))
    s = [w.const(v) for v in (0.03, 0.002, 0.02, 0.001, 0.05)]
    q = w.node("QuantizeLinear", x, s[0], zero)
    kernel = w.const(np.clip(w.normal(64, 8, 3, 3, scale=20), -63, 63).astype(np.int8))
    q = w.node("QLinearConv", q, s[0], zero, kernel, s[1], zero_w, s[2], zero, strides=[2, 2])
    flat = w.node("Reshape", q, w.ints(1, 3136))
    weight = w.const(np.clip(w.normal(3136, 24, scale=20), -63, 63).astype(np.int8))
    q = w.node("QLinearMatMul", flat, s[2], zero, weight, s[3], zero_w, s[4], zero)
    w.output(w.node("DequantizeLinear", q, s[4], zero), (1, 24))
    return w.build()


@MODELS.add(is_float=False, quick=True)
def quantized_at_run_time() -> Built:
    """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: the runtime's dynamic tool."""
    w = Writer("quantized_at_run_time", 12)
    value, inputs = w.input("x", ("batch", "length", 160), w.normal(2, 5, 160)), 160
    for outputs in (256, 64):
        rounded, scale = _scaled(w.normal(inputs, outputs, scale=0.08), top=63)
        q, step, zero = w.split("DynamicQuantizeLinear", value, outputs=3)
        product = w.node("MatMulInteger", q, w.const(rounded, "weight_quantized"), zero,
                         w.const(np.asarray(0, np.int8)))  # fmt: skip
        both = w.node("Mul", step, w.const(scale, "weight_scale"))
        value = w.node("Mul", w.node("Cast", product, to=TensorProto.FLOAT), both)
        value, inputs = w.node("Relu", w.node("Add", value, w.bias(outputs))), outputs
    w.output(value, ("batch", "length", 64))
    return w.build()


@MODELS.add(is_float=False)
def recurrent_quantized_at_run_time() -> Built:
    """DynamicQuantizeLSTM of the runtime, and a float layer after it.

    No sum of two products leaves 16 bits: the original has one result on every CPU.
    """
    w = Writer("recurrent_quantized_at_run_time", 13)
    x = w.input("x", ("time", 1, 64), w.normal(6, 1, 64))
    wq, ws = _scaled(w.normal(1, 64, 4 * 96, scale=0.1), top=63)
    rq, rs = _scaled(w.normal(1, 96, 4 * 96, scale=0.1), top=63)
    zero = np.asarray([0], np.int8)
    y = w.node(
        "DynamicQuantizeLSTM", x, w.const(wq), w.const(rq), w.const(w.normal(1, 768, scale=0.1)),
        "", "", "", "", w.const(ws.reshape(1)), w.const(zero), w.const(rs.reshape(1)),
        w.const(zero), domain=MICROSOFT, hidden_size=96, direction="forward",
    )  # fmt: skip
    w.output(w.linear(w.over_axes("Squeeze", y, 1), 96, 40), ("time", 1, 40))
    return w.build()


@MODELS.add(is_float=False)
def products_on_nibbles() -> Built:
    """MatMulNBits of the runtime: 4 bits in blocks of 32."""
    w = Writer("products_on_nibbles", 17)
    x = w.input("x", ("batch", 256), w.normal(2, 256))
    for outputs in (256, 96):
        packed = w.const(w.integers(256, outputs, 8, 16, dtype=np.uint8), "weight_Q4")
        scales = w.const(np.abs(w.normal(outputs, 8, scale=0.01)) + 0.005, "weight_scales")
        x = w.node("MatMulNBits", x, packed, scales, domain=MICROSOFT, K=256, N=outputs, bits=4,
                   block_size=32)  # fmt: skip
        x = w.node("Tanh", x)
    w.output(x, ("batch", 96))
    return w.build()


@MODELS.add(is_float=False)
def brain_floats_cast_to_float() -> Built:
    """bfloat16 weights, each followed by Cast."""
    w = Writer("brain_floats_cast_to_float", 16)
    x = w.input("x", ("batch", 160), w.normal(2, 160))
    for inputs, outputs in ((160, 256), (256, 96)):
        array = w.normal(inputs, outputs, scale=0.07).astype(ml_dtypes.bfloat16)
        stored = w.tensor(numpy_helper.from_array(array), "weight")
        x = w.node("Relu", w.node("MatMul", x, w.node("Cast", stored, to=TensorProto.FLOAT)))
    w.output(x, ("batch", 96))
    return w.build()


@MODELS.add(is_float=False, quick=True)
def computed_in_halves() -> Built:
    """float16 throughout, with float32 at both ends: a converter's result."""
    w = Writer("computed_in_halves", 14)
    x = w.input("x", ("batch", 160), w.normal(2, 160))
    value = w.node("Cast", x, to=TensorProto.FLOAT16)
    for inputs, outputs in ((160, 256), (256, 96)):
        weight = w.const(w.normal(inputs, outputs, scale=0.07).astype(np.float16), "weight")
        value = w.node("Tanh", w.node("MatMul", value, weight))
    w.output(w.node("Cast", value, to=TensorProto.FLOAT), ("batch", 96))
    return w.build()


@MODELS.add(quick=True)
def doubles() -> Built:
    """float64 throughout: what scientists export."""
    w = Writer("doubles", 13)
    value, inputs = w.input("x", ("batch", 96), w.normal(2, 96).astype(np.float64)), 96
    for outputs in (160, 96, 12):
        weight = w.const(w.normal(inputs, outputs, scale=0.1).astype(np.float64), "weight")
        value, inputs = w.node("Tanh", w.node("MatMul", value, weight)), outputs
    w.output(value, ("batch", 12), np.float64)
    return w.build()


@MODELS.add(quick=True)
def weights_as_constant_nodes() -> Built:
    """No initializer at all: every weight is the output of a Constant node."""
    w = Writer("weights_as_constant_nodes", 12, constants=True)
    x = w.input("x", ("batch", 3, 24, 24), w.normal(2, 3, 24, 24))
    value = w.node("Relu", w.batch_norm(w.conv(x, 3, 48, 3, 3, strides=[2, 2]), 48))
    value = w.node("Relu", w.batch_norm(w.conv(value, 48, 64, 3, 3, strides=[2, 2]), 64))
    flat = w.node("Reshape", value, w.ints(0, 1600))
    hidden = w.node("Gemm", flat, w.matrix(1600, 48), w.bias(48))
    w.output(w.linear(w.node("Relu", hidden), 48, 10), ("batch", 10))
    return w.build()


@MODELS.add(quick=True)
def weights_listed_as_inputs() -> Built:
    """As PyTorch 1.2 wrote them at IR 4, counters of batch normalization included."""
    w = Writer("weights_listed_as_inputs", 9)
    x = w.input("input.1", (2, 3, 24, 24), w.normal(2, 3, 24, 24))
    w.const(np.asarray(70, np.int64), name="backbone.bn.num_batches_tracked")
    value = w.batch_norm(w.conv(x, 3, 32, 3, 3, strides=[2, 2], pads=[1] * 4), 32)
    value = w.conv(w.node("Relu", value), 32, 64, 3, 3, pads=[1] * 4, activation="Relu")
    pooled = w.node("Flatten", w.node("GlobalAveragePool", value))
    w.named_output("537", w.node("Gemm", pooled, w.matrix(64, 128), w.bias(128)), (2, 128))
    built = w.build()
    built.proto.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in built.proto.graph.initializer
    )
    return built


@MODELS.add(quick=True)
def one_weight_for_several_nodes() -> Built:
    """Two MatMul and a transposed third read one matrix: a shared layer and a tied head."""
    w = Writer("one_weight_for_several_nodes", 13)
    x = w.input("x", ("batch", 192), w.normal(2, 192))
    shared = w.matrix(192, 192)
    value = w.node("Relu", w.node("MatMul", w.node("Tanh", w.node("MatMul", x, shared)), shared))
    w.output(w.node("MatMul", value, w.node("Transpose", shared, perm=[1, 0])), ("batch", 192))
    return w.build()


@MODELS.add(quick=True)
def constants_shared_through_identity() -> Built:
    """Equal weights written once and passed on by Identity, as torch 2 deduplicates them."""
    w = Writer("constants_shared_through_identity", 14)
    value = w.input("x", ("batch", 144), w.normal(2, 144))
    weight, bias = w.matrix(144, 144), w.bias(144)
    for _ in range(4):
        again = [w.node("Identity", one) for one in (weight, bias)]
        value = w.node("Tanh", w.node("Add", w.node("MatMul", value, again[0]), again[1]))
    w.output(value, ("batch", 144))
    return w.build()


@MODELS.add()
def equal_weights_written_twice() -> Built:
    """Copies of one matrix under several names: what a file without sharing holds."""
    w = Writer("equal_weights_written_twice", 13)
    value = w.input("x", ("batch", 144), w.normal(2, 144))
    array = w.normal(144, 144, scale=0.08)
    for _ in range(3):
        value = w.node("Tanh", w.node("MatMul", value, w.const(array.copy(), "weight")))
    w.output(value, ("batch", 144))
    return w.build()


@MODELS.add(quick=True)
def weights_turned_at_run_time() -> Built:
    """Transpose, Reshape, Concat and Expand of constants that were not folded."""
    w = Writer("weights_turned_at_run_time", 11)
    x = w.input("x", ("batch", 128), w.normal(2, 128))
    turned = w.node("Transpose", w.matrix(192, 128), perm=[1, 0])
    halves = w.node("Concat", w.matrix(96, 96), w.matrix(96, 96), axis=0)
    kernel = w.node("Reshape", w.const(w.normal(96 * 64, scale=0.1), "flat"), w.ints(96, 64))
    wide = w.node("Expand", w.const(w.normal(1, 64)), w.ints(256, 64))
    value = w.node("Relu", w.node("MatMul", x, turned))
    value = w.node("MatMul", w.node("Relu", w.node("MatMul", value, halves)), kernel)
    w.output(w.node("MatMul", value, w.node("Transpose", wide, perm=[1, 0])), ("batch", 256))
    return w.build()


@MODELS.add(quick=True)
def small_rules_for_large_constants() -> Built:
    """ConstantOfShape, Range, Tile and EyeLike of large sizes: folding them makes a file grow."""
    w = Writer("small_rules_for_large_constants", 13)
    x = w.input("x", ("batch", 256), w.normal(2, 256))
    ones = w.node(
        "ConstantOfShape", w.ints(256, 256), value=helper.make_tensor("v", 1, [1], [0.01])
    )
    line = w.node(
        "Range",
        w.const(np.asarray(0.0, np.float32)),
        w.const(np.asarray(256.0, np.float32)),
        w.const(np.asarray(1.0, np.float32)),
    )
    tiled = w.node("Tile", w.const(w.normal(1, 256)), w.ints(256, 1))
    eye = w.node("EyeLike", ones)
    whole = w.node("Add", w.node("Add", ones, tiled), w.node("Mul", eye, w.const(2.0)))
    value = w.node("Tanh", w.node("MatMul", w.node("Add", x, w.node("Sin", line)), whole))
    w.output(w.linear(value, 256, 128), ("batch", 128))
    return w.build()


@MODELS.add()
def numbers_in_typed_fields() -> Built:
    """`float_data` and `int64_data` instead of raw bytes, as the first exporters wrote."""
    w = Writer("numbers_in_typed_fields", 9)
    x = w.input("x", (1, 192), w.normal(1, 192))
    for inputs, outputs in ((192, 160), (160, 64)):
        array = w.normal(inputs, outputs, scale=0.07)
        tensor = helper.make_tensor("t", TensorProto.FLOAT, array.shape, array.ravel().tolist())
        x = w.node("Relu", w.node("MatMul", x, w.tensor(tensor, "weight")))
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [8, 8])
    w.output(w.node("Reshape", x, w.tensor(shape)), (8, 8))
    return w.build()


@MODELS.add()
def zeros_left_out() -> Built:
    """A sparse initializer: values and places of a matrix that is nine tenths zero."""
    w = Writer("zeros_left_out", 13)
    x = w.input("x", ("batch", 160), w.normal(2, 160))
    dense = w.node("Relu", w.linear(x, 160, 160))
    places = np.sort(w.rng.choice(160 * 64, 1000, replace=False)).astype(np.int64)
    values = numpy_helper.from_array(w.normal(1000), "sparse_weight")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [160, 64])
    w.output(w.node("MatMul", dense, "sparse_weight"), ("batch", 64))
    built = w.build()
    built.proto.graph.sparse_initializer.append(sparse)
    return built
