"""Audio: transforms as convolutions, dilated stacks, vocoders, lengths computed from the data."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("audio")


def _basis(size: int) -> np.ndarray:
    """Windowed Fourier basis as a kernel [2 * (size/2 + 1), 1, size]."""
    time, bins = np.arange(size), np.arange(size // 2 + 1)[:, None]
    angle, window = 2 * np.pi * bins * time / size, np.hanning(size)
    return np.concatenate([np.cos(angle), -np.sin(angle)])[:, None].astype(np.float32) * window[
        None, None
    ].astype(np.float32)


@MODELS.add(quick=True)
def spectrum_by_convolution() -> Built:
    """Reflecting padding, Fourier basis as Conv, mel filters, two convolutions, pooling."""
    w = Writer("spectrum_by_convolution", 13)
    x = w.input("audio", ("batch", "samples"), w.normal(2, 4000, scale=0.1))
    image = w.over_axes("Unsqueeze", x, 1)
    padded = w.node("Pad", image, w.ints(0, 0, 128, 0, 0, 128), mode="reflect")
    spectrum = w.node("Conv", padded, w.const(_basis(256), "stft.basis"), strides=[100])
    real, imaginary = w.split("Split", spectrum, w.ints(129, 129), outputs=2, axis=1)
    power = w.node("Add", w.node("Mul", real, real), w.node("Mul", imaginary, imaginary))
    filters = w.const(np.abs(w.normal(40, 129)), "mel.weight")
    mel = w.node("Log", w.node("Add", w.node("MatMul", filters, power), w.const(1e-5)))
    value = w.conv(mel, 40, 96, 3, pads=[1, 1], activation="Relu")
    value = w.conv(value, 96, 96, 3, pads=[1, 1], activation="Relu")
    w.output(w.linear(w.over_axes("ReduceMean", value, 2, keepdims=0), 96, 12), ("batch", 12))
    return w.build()


@MODELS.add(quick=True)
def dilated_residual_stack() -> Built:
    """A temporal network: gated, dilated 1, 2, 4, 8, causal by Pad and Slice."""
    w = Writer("dilated_residual_stack", 11)
    x = w.input("x", ("batch", 32, "time"), w.normal(2, 32, 50))
    value = w.conv(x, 32, 48, 1)
    for dilation in (1, 2, 4, 8):
        padded = w.node("Pad", value, w.ints(0, 0, 2 * dilation, 0, 0, 0), w.const(0.0))
        gate = w.node("Sigmoid", w.conv(padded, 48, 48, 3, dilations=[dilation]))
        main = w.node("Tanh", w.conv(padded, 48, 48, 3, dilations=[dilation]))
        value = w.node("Add", value, w.conv(w.node("Mul", gate, main), 48, 48, 1))
    w.output(w.conv(value, 48, 20, 1), ("batch", 20, "time"))
    return w.build()


@MODELS.add(quick=True)
def vocoder_transposed_convolutions() -> Built:
    """Frames to samples by ConvTranspose, one of them in groups, with dilated residual blocks."""
    w = Writer("vocoder_transposed_convolutions", 14)
    x = w.input("mel", ("batch", 40, "frames"), w.normal(1, 40, 12))
    value = w.conv(x, 40, 96, 7, pads=[3, 3])
    for inputs, outputs, group in ((96, 64, 1), (64, 64, 4)):
        weight = w.const(w.normal(inputs, outputs // group, 8, scale=1 / np.sqrt(inputs * 4)))
        value = w.node("LeakyRelu", value, alpha=0.1)
        value = w.node("ConvTranspose", value, weight, w.bias(outputs), strides=[4], pads=[2, 2],
                       kernel_shape=[8], group=group)  # fmt: skip
        inner = w.conv(w.node("LeakyRelu", value, alpha=0.1), outputs, outputs, 3, pads=[3, 3],
                       dilations=[3])  # fmt: skip
        value = w.node("Add", value, inner)
    w.output(w.node("Tanh", w.conv(value, 64, 1, 7, pads=[3, 3])), ("batch", 1, "samples"))
    return w.build()


@MODELS.add()
def keyword_spotter_separable() -> Built:
    """Depthwise and pointwise convolutions with batch norms over 49 x 40 features."""
    w = Writer("keyword_spotter_separable", 9)
    x = w.input("mfcc", (1, 1, 49, 40), w.normal(1, 1, 49, 40))
    value = w.node("Relu", w.batch_norm(w.conv(x, 1, 128, 10, 4, strides=[2, 2]), 128))
    for _ in range(3):
        deep = w.conv(value, 128, 128, 3, 3, pads=[1] * 4, group=128)
        value = w.node("Relu", w.batch_norm(deep, 128))
        value = w.node("Relu", w.batch_norm(w.conv(value, 128, 128, 1, 1), 128))
    pooled = w.node("Flatten", w.node("GlobalAveragePool", value))
    w.output(
        w.node("Softmax", w.node("Gemm", pooled, w.matrix(128, 12), w.bias(12)), axis=1), (1, 12)
    )
    return w.build()


@MODELS.add()
def waveform_encoder_group_norm() -> Built:
    """Strided convolutions on samples, GroupNorm as InstanceNormalization, positions by groups."""
    w = Writer("waveform_encoder_group_norm", 14)
    x = w.input("input_values", ("batch", "samples"), w.normal(1, 2000))
    value = w.conv(w.over_axes("Unsqueeze", x, 1), 1, 64, 10, strides=[5])
    one, zero = w.const(np.ones(64, np.float32)), w.const(np.zeros(64, np.float32))
    value = w.node("InstanceNormalization", value, one, zero)
    for _ in range(2):
        value = w.conv(w.node("Relu", value), 64, 64, 3, strides=[2])
    rows = w.linear(w.node("Transpose", value, perm=[0, 2, 1]), 64, 96)
    turned = w.node("Transpose", rows, perm=[0, 2, 1])
    place = w.conv(turned, 96, 96, 16, pads=[8, 8], group=8)
    cut = w.node("Slice", place, w.ints(0), w.ints(-1), w.ints(2))
    rows = w.node("Add", rows, w.node("Transpose", cut, perm=[0, 2, 1]))
    w.output(w.linear(w.layer_norm(rows, 96), 96, 32), ("batch", "frames", 32))
    return w.build()


@MODELS.add()
def spectrum_by_stft_operator() -> Built:
    """The operator STFT of opset 17, its window a weight, and a classifier on magnitudes."""
    w = Writer("spectrum_by_stft_operator", 17)
    x = w.input("signal", ("batch", "samples"), w.normal(2, 2048))
    window = w.const(np.hanning(256).astype(np.float32), "window")
    step = w.const(np.asarray(128, np.int64))
    length = w.const(np.asarray(256, np.int64))
    parts = w.node("STFT", x, step, window, length, onesided=1)
    power = w.over_axes("ReduceSum", w.node("Mul", parts, parts), 3, keepdims=0)
    value = w.linear(w.node("Sqrt", w.node("Add", power, w.const(1e-6))), 129, 160, "Relu")
    w.output(w.linear(w.node("ReduceMax", value, axes=[1], keepdims=0), 160, 10), ("batch", 10))
    return w.build()


@MODELS.add(quick=True, chooses=True)
def text_to_speech_with_durations() -> Built:
    """Each symbol is repeated as often as the model says: the length comes from the data."""
    w = Writer("text_to_speech_with_durations", 15)
    ids = w.input("input", (1, "phonemes"), w.integers(80, 1, 9))
    scales = w.input("scales", (3,), np.asarray([0.667, 1.0, 0.8], np.float32))
    value = w.node("Gather", w.const(w.normal(80, 96), "emb.weight"), ids)
    turned = w.conv(
        w.node("Transpose", value, perm=[0, 2, 1]), 96, 96, 3, pads=[1, 1], activation="Relu"
    )
    rate = w.node("Gather", scales, w.const(np.asarray(1)), axis=0)
    raw = w.node("Mul", w.node("Exp", w.node("Tanh", w.conv(turned, 96, 1, 1))), rate)
    times = w.node("Cast", w.node("Ceil", w.over_axes("Squeeze", raw, 0, 1)), to=7)
    ends = w.node("CumSum", times, w.const(np.asarray(0, np.int64)))
    total = w.node("ReduceMax", ends, keepdims=0)
    frames = w.node(
        "Range", w.const(np.asarray(0, np.int64)), total, w.const(np.asarray(1, np.int64))
    )
    later = w.node(
        "GreaterOrEqual", w.over_axes("Unsqueeze", frames, 1), w.over_axes("Unsqueeze", ends, 0)
    )
    symbol = w.over_axes("ReduceSum", w.node("Cast", later, to=7), 1, keepdims=0)
    long = w.node("Gather", turned, symbol, axis=2)
    value = w.conv(long, 96, 64, 5, pads=[2, 2], activation="Relu")
    w.named_output("output", w.node("Tanh", w.conv(value, 64, 20, 3, pads=[1, 1])), (1, 20, "time"))
    return w.build()


@MODELS.add(random=True)
def noise_in_the_graph() -> Built:
    """A flow with RandomNormalLike: no two runs are equal."""
    w = Writer("noise_in_the_graph", 13)
    x = w.input("z", ("batch", 128), w.normal(2, 128))
    noise = w.node("Mul", w.node("RandomNormalLike", x), w.const(0.001))
    value = w.linear(w.node("Add", x, noise), 128, 128, "Tanh")
    w.output(w.linear(value, 128, 64), ("batch", 64))
    return w.build()
