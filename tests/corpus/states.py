"""Streaming models: caches and states as inputs, rates and time steps without an axis."""

from __future__ import annotations

import numpy as np

from .models import Register
from .recurrent import add_recurrent
from .writer import Built, Writer

MODELS = Register("states")


@MODELS.add(quick=True)
def voice_detector_with_rate() -> Built:
    """Samples, a state [2, batch, 128] and a sampling rate of rank 0."""
    w = Writer("voice_detector_with_rate", 15)
    x = w.input("input", ("batch", "sequence"), w.normal(2, 512, scale=0.1))
    state = w.input("state", (2, "batch", 128), w.normal(2, 2, 128))
    rate = w.input("sr", (), np.asarray(16000, np.int64))
    scaled = w.node("Mul", x, w.node("Div", w.node("Cast", rate, to=1), w.const(16000.0)))
    padded = w.node("Pad", w.over_axes("Unsqueeze", scaled, 1), w.ints(0, 0, 0, 0, 0, 64),
                    mode="reflect")  # fmt: skip
    value = w.conv(padded, 1, 64, 256, strides=[128], activation="Relu")
    value = w.conv(value, 64, 128, 3, pads=[1, 1], activation="Relu")
    value = w.node("Transpose", value, perm=[2, 0, 1])
    h, c = (w.node("Slice", state, w.ints(k), w.ints(k + 1), w.ints(0)) for k in range(2))
    y, hn, cn = add_recurrent(w, "LSTM", value, 128, 128, states=(h, c), outputs="xxx")
    last = w.node("Gather", w.over_axes("Squeeze", y, 1), w.const(np.asarray(-1)), axis=0)
    w.named_output("output", w.linear(last, 128, 1, "Sigmoid"), ("batch", 1))
    w.named_output("stateN", w.node("Concat", hn, cn, axis=0), (2, "batch", 128))
    return w.build({"input": w.normal(1, 256), "state": w.normal(2, 1, 128),
                    "sr": np.asarray(8000, np.int64)})  # fmt: skip


@MODELS.add(quick=True)
def convolution_with_cache() -> Built:
    """A causal convolution that is handed its last two frames: cache [1, channels, 2]."""
    w = Writer("convolution_with_cache", 13)
    x = w.input("frames", (1, 80, "time"), w.normal(1, 80, 8))
    cache = w.input("cache", (1, 80, 2), w.normal(1, 80, 2))
    joined = w.node("Concat", cache, x, axis=2)
    value = w.conv(joined, 80, 128, 3, activation="Relu")
    value = w.conv(value, 128, 128, 1, activation="Tanh")
    w.named_output("y", value, (1, 128, "time"))
    tail = w.node("Slice", joined, w.ints(-2), w.ints(2**62), w.ints(2))
    w.named_output("new_cache", tail, (1, 80, 2))
    return w.build()


@MODELS.add()
def layers_of_states() -> Built:
    """h and c as [layers, batch, width], cut by layer and stacked again."""
    w = Writer("layers_of_states", 14)
    value = w.input("x", ("time", "batch", 64), w.normal(3, 2, 64))
    h0 = w.input("h", (3, "batch", 64), w.normal(3, 2, 64))
    c0 = w.input("c", (3, "batch", 64), w.normal(3, 2, 64))
    last: list[list[str]] = []
    for layer in range(3):
        states = tuple(
            w.node("Slice", s, w.ints(layer), w.ints(layer + 1), w.ints(0)) for s in (h0, c0)
        )
        y, h, c = add_recurrent(w, "LSTM", value, 64, 64, states=states, outputs="xxx")
        value = w.over_axes("Squeeze", y, 1)
        last.append([h, c])
    w.named_output("y", w.linear(value, 64, 40), ("time", "batch", 40))
    for name, values in zip(("hn", "cn"), zip(*last, strict=True), strict=True):
        w.named_output(name, w.node("Concat", *values, axis=0), (3, "batch", 64))
    return w.build()


@MODELS.add()
def transducer_prediction_network() -> Built:
    """int32 targets, their length, and states without a batch of their own."""
    w = Writer("transducer_prediction_network", 13)
    targets = w.input("targets", ("batch", "length"), w.integers(128, 2, 4, dtype=np.int32))
    length = w.input("target_length", ("batch",), np.asarray([4, 4], np.int32))
    h = w.input("states.1", (1, "batch", 96), w.normal(1, 2, 96))
    c = w.input("onnx::LSTM_3", (1, "batch", 96), w.normal(1, 2, 96))
    value = w.node("Gather", w.const(w.normal(129, 96), "embed.weight"), targets)
    value = w.node("Transpose", value, perm=[1, 0, 2])
    y, hn, cn = add_recurrent(w, "LSTM", value, 96, 96, states=(h, c), outputs="xxx")
    out = w.node("Transpose", w.over_axes("Squeeze", y, 1), perm=[1, 2, 0])
    w.named_output("outputs", out, ("batch", 96, "length"))
    w.named_output("prednet_lengths", length, ("batch",), np.int32)
    w.named_output("states", hn, (1, "batch", 96))
    w.named_output("74", cn, (1, "batch", 96))
    return w.build()


@MODELS.add(quick=True)
def denoiser_with_time_step() -> Built:
    """Latent image, a time step of rank 0, and a text's hidden states: diffusion."""
    w = Writer("denoiser_with_time_step", 17)
    x = w.input("sample", ("batch", 4, "height", "width"), w.normal(1, 4, 16, 16))
    step = w.input("timestep", (), np.asarray(981.0, np.float32))
    text = w.input("encoder_hidden_states", ("batch", "sequence", 96), w.normal(1, 7, 96))
    angles = w.node("Mul", step, w.const(np.exp(-np.arange(32, dtype=np.float32) / 4)))
    code = w.node("Concat", w.node("Sin", angles), w.node("Cos", angles), axis=0)
    code = w.linear(w.over_axes("Unsqueeze", code, 0), 64, 64, "Tanh")
    value = w.conv(x, 4, 64, 3, 3, pads=[1] * 4)
    value = w.node("Add", value, w.over_axes("Unsqueeze", code, 2, 3))
    shape = w.node("Shape", value)
    rows = w.node("Transpose", w.node("Reshape", value, w.ints(0, 64, -1)), perm=[0, 2, 1])
    keys, values = w.linear(text, 96, 64), w.linear(text, 96, 64)
    scores = w.node("MatMul", w.linear(rows, 64, 64), w.node("Transpose", keys, perm=[0, 2, 1]))
    scores = w.node("Softmax", w.node("Mul", scores, w.const(0.125)), axis=-1)
    rows = w.node("Add", rows, w.linear(w.node("MatMul", scores, values), 64, 64))
    value = w.node("Reshape", w.node("Transpose", rows, perm=[0, 2, 1]), shape)
    value = w.conv(w.node("Relu", value), 64, 4, 3, 3, pads=[1] * 4)
    w.named_output("out_sample", value, ("batch", 4, "height", "width"))
    return w.build()


@MODELS.add()
def fixed_batch_and_a_scalar() -> Built:
    """A first axis of 2 that is not a batch, and a threshold of rank 0."""
    w = Writer("fixed_batch_and_a_scalar", 18)
    x = w.input("pair", (2, 160), w.normal(2, 160))
    threshold = w.input("threshold", (), np.asarray(0.1, np.float32))
    hidden = w.linear(x, 160, 160, "Relu")
    kept = w.node("Where", w.node("Greater", hidden, threshold), hidden, w.const(0.0))
    first, second = w.split("Split", w.linear(kept, 160, 64), w.ints(1, 1), outputs=2, axis=0)
    w.output(w.over_axes("ReduceSum", w.node("Mul", first, second), 1, keepdims=0), (1,))
    return w.build()


@MODELS.add()
def speech_enhancer_with_buffers() -> Built:
    """A spectrum [1, 257, 1, 2], a convolution cache of rank 5 and a GRU cache of rank 4."""
    w = Writer("speech_enhancer_with_buffers", 11)
    mix = w.input("mix", (1, 257, 1, 2), w.normal(1, 257, 1, 2))
    cache = w.input("conv_cache", (2, 1, 16, 2, 128), w.normal(2, 1, 16, 2, 128))
    h0 = w.input("inter_cache", (2, 1, 1, 128), w.normal(2, 1, 1, 128))
    power = w.node("ReduceSum", w.node("Mul", mix, mix), axes=[3], keepdims=0)
    value = w.node("Log", w.node("Add", power, w.const(1e-6)))
    value = w.linear(w.node("Transpose", value, perm=[0, 2, 1]), 257, 128, "Tanh")
    first = w.node("Gather", cache, w.const(np.asarray(0)), axis=0)
    tail = w.node("ReduceMean", first, axes=[1, 2], keepdims=0)
    value = w.node("Add", value, tail)
    state = w.node("Gather", h0, w.const(np.asarray(0)), axis=0)
    y, hn = add_recurrent(w, "GRU", value, 128, 128, states=(state,), outputs="xx",
                          linear_before_reset=1)  # fmt: skip
    mask = w.linear(w.over_axes("Squeeze", y, 1), 128, 257, "Sigmoid")
    turned = w.over_axes("Unsqueeze", w.node("Transpose", mask, perm=[0, 2, 1]), 3)
    w.named_output("enh", w.node("Mul", mix, turned), (1, 257, 1, 2))
    w.named_output("conv_cache_out", w.node("Tanh", cache), (2, 1, 16, 2, 128))
    w.named_output(
        "inter_cache_out",
        w.node(
            "Concat",
            w.over_axes("Unsqueeze", hn, 0),
            w.node("Slice", h0, w.ints(1), w.ints(2), w.ints(0)),
            axis=0,
        ),
        (2, 1, 1, 128),
    )
    return w.build()


@MODELS.add(quick=True)
def keys_and_values_of_all_layers_in_one() -> Built:
    """A decoder's cache [layers, 2, batch, heads, past, width]."""
    w = Writer("keys_and_values_of_all_layers_in_one", 17)
    layers, heads, width = 2, 4, 16
    ids = w.input("ids", ("batch", "new"), w.integers(90, 2, 1))
    dims = (layers, 2, "batch", heads, "past", width)
    cache = w.input("cache", dims, w.normal(layers, 2, 2, heads, 5, width))
    value, kept = w.node("Gather", w.matrix(90, 64), ids), []

    def parts(part: str) -> str:
        return w.node(
            "Transpose", w.node("Reshape", part, w.ints(0, 0, heads, width)), perm=[0, 2, 1, 3]
        )

    for layer in range(layers):
        past = w.node("Gather", cache, w.const(np.asarray(layer)), axis=0)
        query = parts(w.linear(value, 64, 64))
        joined = [
            w.node(
                "Concat",
                w.node("Gather", past, w.const(np.asarray(which)), axis=0),
                parts(w.linear(value, 64, 64)),
                axis=2,
            )
            for which in range(2)
        ]
        scores = w.node("MatMul", query, w.node("Transpose", joined[0], perm=[0, 1, 3, 2]))
        weights = w.node("Softmax", w.node("Mul", scores, w.const(0.25)), axis=-1)
        mixed = w.node("Transpose", w.node("MatMul", weights, joined[1]), perm=[0, 2, 1, 3])
        value = w.node("Add", value, w.linear(w.node("Reshape", mixed, w.ints(0, 0, 64)), 64, 64))
        pair = [w.over_axes("Unsqueeze", part, 0) for part in joined]
        kept.append(w.over_axes("Unsqueeze", w.node("Concat", *pair, axis=0), 0))
    w.named_output("logits", w.linear(value, 64, 90), ("batch", "new", 90))
    w.named_output("cache_out", w.node("Concat", *kept, axis=0), (*dims[:4], "total", width))
    return w.build()


@MODELS.add()
def frames_before_batch() -> Built:
    """[time, batch, width] with lengths [batch], a fixed batch of 4."""
    w = Writer("frames_before_batch", 13)
    x = w.input("frames", (5, 4, 64), w.normal(5, 4, 64))
    state = w.input("hidden", (1, 4, 96), w.normal(1, 4, 96))
    lengths = w.input("lengths", (4,), np.asarray([5, 3, 2, 4], np.int32))
    y, last = add_recurrent(w, "GRU", x, 64, 96, states=(state,), length=lengths, outputs="xx")
    w.named_output("hidden_out", last, (1, 4, 96))
    w.named_output("y", w.linear(w.over_axes("Squeeze", y, 1), 96, 12), (5, 4, 12))
    return w.build()


@MODELS.add(quick=True)
def states_of_one_stream() -> Built:
    """States [32] without any batch next to frames with open axes."""
    w = Writer("states_of_one_stream", 18)
    x = w.input("input", ("input_dim_0", "input_dim_1"), w.normal(6, 40))
    states = [w.input(name, (32,), w.normal(32)) for name in ("hidden_in", "cell_in")]
    wide = [w.over_axes("Unsqueeze", state, 0, 1) for state in states]
    y, hidden, cell = add_recurrent(w, "LSTM", w.over_axes("Unsqueeze", x, 1), 40, 32,
                                    states=tuple(wide), outputs="xxx")  # fmt: skip
    rows = w.over_axes("Squeeze", y, 1, 2)
    w.named_output("beats", w.linear(rows, 32, 24, "Sigmoid"), ("frames", 24))
    for name, value in (("hidden_out", hidden), ("cell_out", cell)):
        w.named_output(name, w.node("Squeeze", value), (32,))
    return w.build()
