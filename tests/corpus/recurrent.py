"""Recurrent models: taggers, text readers, cells with states, clips and odd activations."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("recurrent")


def add_recurrent(
    w: Writer, op: str, value: str, inputs: int, hidden: int, *, both: bool = False,
    bias: bool = True, length: str = "", states: tuple[str, ...] = (), extra: tuple[str, ...] = (),
    outputs: str = "x", **attributes: object,
) -> list[str]:  # fmt: skip
    """Add an RNN, GRU or LSTM with weights [directions, gates x hidden, *]."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    directions = 2 if both else 1
    scale = 1 / np.sqrt(hidden)
    weights = [w.const(w.normal(directions, gates * hidden, n, scale=scale), role)
               for n, role in ((inputs, "W"), (hidden, "R"))]  # fmt: skip
    bias_name = w.const(w.normal(directions, 2 * gates * hidden, scale=0.1), "B") if bias else ""
    attributes.setdefault("direction", "bidirectional" if both else "forward")
    inputs_given = [value, *weights, bias_name, length, *states, *extra]
    while not inputs_given[-1]:
        inputs_given.pop()
    return w.split(op, *inputs_given, outputs=outputs, hidden_size=hidden, **attributes)


def _joined(w: Writer, value: str, hidden: int, directions: int = 2) -> str:
    """[T, D, B, H] -> [T, B, D*H], as torch writes it."""
    turned = w.node("Transpose", value, perm=[0, 2, 1, 3])
    return w.node("Reshape", turned, w.ints(0, 0, directions * hidden))


@MODELS.add(quick=True)
def lstm_bidirectional_with_states() -> Built:
    w = Writer("lstm_bidirectional_with_states", 14)
    x = w.input("x", ("time", "batch", 40), w.normal(9, 3, 40))
    h0 = w.input("h0", (2, "batch", 64), w.normal(2, 3, 64))
    c0 = w.input("c0", (2, "batch", 64), w.normal(2, 3, 64))
    y, h, c = add_recurrent(w, "LSTM", x, 40, 64, both=True, states=(h0, c0), outputs="xxx")
    w.named_output("logits", w.linear(_joined(w, y, 64), 128, 50), ("time", "batch", 50))
    w.named_output("hn", h, (2, "batch", 64))
    w.named_output("cn", c, (2, "batch", 64))
    return w.build()


@MODELS.add(quick=True)
def gru_linear_before_reset() -> Built:
    w = Writer("gru_linear_before_reset", 13)
    x = w.input("features", ("batch", "time", 80), w.normal(2, 12, 80))
    turned = w.node("Transpose", x, perm=[1, 0, 2])
    y = add_recurrent(w, "GRU", turned, 80, 96, linear_before_reset=1)[0]
    last = w.over_axes("Squeeze", y, 1)
    back = w.node("Transpose", last, perm=[1, 0, 2])
    w.output(w.linear(back, 96, 32, "Sigmoid"), ("batch", "time", 32))
    return w.build()


@MODELS.add()
def rnn_reverse_relu() -> Built:
    w = Writer("rnn_reverse_relu", 11)
    x = w.input("x", ("time", 1, 64), w.normal(20, 1, 64))
    y = add_recurrent(w, "RNN", x, 64, 256, direction="reverse", activations=["Tanh"])[0]
    w.output(w.linear(w.over_axes("Squeeze", y, 1), 256, 10), ("time", 1, 10))
    return w.build()


@MODELS.add()
def lstm_peepholes_and_lengths() -> Built:
    w = Writer("lstm_peepholes_and_lengths", 12)
    x = w.input("x", (16, "batch", 48), w.normal(16, 2, 48))
    lengths = w.input("lengths", ("batch",), np.asarray([16, 7], np.int32))
    p = w.const(w.normal(1, 3 * 80, scale=0.1), "P")
    y, h = add_recurrent(
        w, "LSTM", x, 48, 80, length=lengths, states=("", ""), extra=(p,), outputs="xx"
    )
    w.named_output("sequence", w.over_axes("Squeeze", y, 1), (16, "batch", 80))
    w.named_output("last", w.linear(w.over_axes("Squeeze", h, 0), 80, 12), ("batch", 12))
    return w.build()


@MODELS.add()
def lstm_only_the_cell_is_read() -> Built:
    """`Y` and `Y_h` are left out: the first outputs have no name."""
    w = Writer("lstm_only_the_cell_is_read", 15)
    x = w.input("x", ("time", "batch", 64), w.normal(6, 2, 64))
    c = add_recurrent(w, "LSTM", x, 64, 128, outputs="..x")[2]
    w.output(w.linear(w.over_axes("Squeeze", c, 0), 128, 64, "Tanh"), ("batch", 64))
    return w.build()


@MODELS.add(quick=True)
def lstm_states_by_shape_arithmetic() -> Built:
    """Zero states of the batch's size, as torch's TorchScript exporter writes them; two layers."""
    w = Writer("lstm_states_by_shape_arithmetic", 11)
    x = w.input("input", ("batch", "time", 32), w.normal(3, 8, 32))
    value, width = w.node("Transpose", x, perm=[1, 0, 2]), 32
    for _ in range(2):
        batch = w.node("Gather", w.node("Shape", value), w.const(np.asarray(1)), axis=0)
        shape = w.node("Concat", w.ints(1), w.over_axes("Unsqueeze", batch, 0), w.ints(72), axis=0)
        zero = w.node("ConstantOfShape", shape)
        value = w.over_axes(
            "Squeeze", add_recurrent(w, "LSTM", value, width, 72, states=(zero, zero))[0], 1
        )
        width = 72
    w.output(w.linear(value, 72, 20), ("time", "batch", 20))
    return w.build()


@MODELS.add()
def gru_clip_and_activations() -> Built:
    w = Writer("gru_clip_and_activations", 14)
    x = w.input("x", ("time", 2, 56), w.normal(10, 2, 56))
    y = add_recurrent(
        w, "GRU", x, 56, 72, both=True, clip=3.0,
        activations=["HardSigmoid", "Tanh", "Sigmoid", "Softsign"],
        activation_alpha=[0.2], activation_beta=[0.5],
    )[0]  # fmt: skip
    w.output(_joined(w, y, 72), ("time", 2, 144))
    return w.build()


@MODELS.add(quick=True)
def text_reader_crnn() -> Built:
    """Convolutions, two bidirectional LSTM and a softmax over characters: scene text."""
    w = Writer("text_reader_crnn", 12)
    x = w.input("images", ("batch", 1, 32, "width"), w.normal(2, 1, 32, 64))
    value = w.conv(x, 1, 32, 3, 3, pads=[1] * 4, activation="Relu")
    value = w.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = w.conv(value, 32, 64, 3, 3, pads=[1] * 4, activation="Relu")
    value = w.node("MaxPool", value, kernel_shape=[16, 2], strides=[16, 2])
    value = w.node("Transpose", w.over_axes("Squeeze", value, 2), perm=[2, 0, 1])
    for width in (64, 96):
        value = _joined(w, add_recurrent(w, "LSTM", value, width, 48, both=True)[0], 48)
    w.output(w.node("LogSoftmax", w.linear(value, 96, 97), axis=2), ("time", "batch", 97))
    wider = {"images": w.normal(1, 1, 32, 100)}
    return w.build(wider)


@MODELS.add()
def tagger_embedding_gru() -> Built:
    """Words, two directions of GRU, scores of tags, and the best tag of each word."""
    w = Writer("tagger_embedding_gru", 13)
    ids = w.input("word_ids", ("batch", "length"), w.integers(900, 2, 11))
    table = w.const(w.normal(900, 64), "embedding.weight")
    value = w.node("Transpose", w.node("Gather", table, ids), perm=[1, 0, 2])
    value = _joined(w, add_recurrent(w, "GRU", value, 64, 64, both=True, bias=False)[0], 64)
    scores = w.node("Transpose", w.linear(value, 128, 57), perm=[1, 0, 2])
    w.named_output("scores", scores, ("batch", "length", 57))
    best = w.node("ArgMax", scores, axis=2, keepdims=0)
    w.named_output("tags", best, ("batch", "length"), np.int64)
    return w.build()


@MODELS.add()
def autoencoder_lstm_repeat() -> Built:
    """Encoder state, repeated over time by Expand, read by a decoder: keras' RepeatVector."""
    w = Writer("autoencoder_lstm_repeat", 15)
    x = w.input("series", ("batch", 24, 6), w.normal(4, 24, 6))
    h = add_recurrent(w, "LSTM", w.node("Transpose", x, perm=[1, 0, 2]), 6, 96, outputs=".x")[1]
    repeated = w.node(
        "Expand", h, w.node("Concat", w.ints(24), w.node("Slice", w.node("Shape", h), w.ints(1),
                                                         w.ints(3)), axis=0)
    )  # fmt: skip
    y = w.over_axes("Squeeze", add_recurrent(w, "LSTM", repeated, 96, 96)[0], 1)
    w.output(w.node("Transpose", w.linear(y, 96, 6), perm=[1, 0, 2]), ("batch", 24, 6))
    return w.build()
