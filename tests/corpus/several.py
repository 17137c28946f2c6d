"""Operators with several outputs, of other types and shapes than the first, or left out."""

from __future__ import annotations

import numpy as np

from .models import Register
from .recurrent import add_recurrent
from .writer import Built, Writer

MODELS = Register("several outputs")


@MODELS.add(chooses=True)
def pooling_places_and_running_means() -> Built:
    """MaxPool with places and MaxUnpool, BatchNormalization in training, TopK, Dropout's mask."""
    w = Writer("pooling_places_and_running_means", 15)
    x = w.input("x", ("n", 8, 12, 12), w.normal(2, 8, 12, 12))
    pooled, places = w.split("MaxPool", w.conv(x, 8, 16, 3, 3, pads=[1] * 4), outputs=2,
                             kernel_shape=[2, 2], strides=[2, 2])  # fmt: skip
    w.named_output("places", places, ("n", 16, 6, 6), np.int64)
    one = np.ones(16, np.float32)
    normed, mean, variance = w.split(
        "BatchNormalization", pooled, w.const(one), w.bias(16), w.const(w.normal(16)),
        w.const(one), outputs=3, training_mode=1, momentum=0.9,
    )  # fmt: skip
    w.named_output("mean", mean, (16,))
    w.named_output("variance", variance, (16,))
    wide = w.node("MaxUnpool", normed, places, kernel_shape=[2, 2], strides=[2, 2])
    scores = w.linear(w.node("Flatten", wide), 16 * 144, 48)
    best, at = w.split("TopK", scores, w.ints(5), outputs=2, axis=1)
    w.named_output("best", best, ("n", 5))
    w.named_output("at", at, ("n", 5), np.int64)
    kept, mask = w.split("Dropout", scores, outputs=2)
    w.named_output("kept", kept, ("n", 48))
    w.named_output("mask", mask, ("n", 48), np.bool_)
    return w.build()


@MODELS.add(quick=True)
def recurrent_without_the_sequence() -> Built:
    """LSTM, GRU and RNN whose first output is left out."""
    w = Writer("recurrent_without_the_sequence", 14)
    x = w.input("x", (6, 2, 40), w.normal(6, 2, 40))
    _, hidden, cell = add_recurrent(w, "LSTM", x, 40, 48, outputs=".xx")
    w.named_output("cell", w.node("Add", hidden, cell), (1, 2, 48))
    _, both = add_recurrent(w, "GRU", x, 40, 48, outputs=".x", both=True)
    w.named_output("both", both, (2, 2, 48))
    _, plain = add_recurrent(w, "RNN", x, 40, 48, outputs=".x")
    w.named_output("plain", plain, (1, 2, 48))
    return w.build()


@MODELS.add(quick=True)
def norms_that_give_their_means() -> Built:
    """LayerNormalization with mean and deviation, or with the deviation alone."""
    w = Writer("norms_that_give_their_means", 17)
    x = w.input("x", ("n", 5, 96), w.normal(2, 5, 96))
    value = w.linear(w.linear(x, 96, 160, "Relu"), 160, 96)
    one = np.ones(96, np.float32)
    normed, mean, inverse = w.split("LayerNormalization", value, w.const(one), w.bias(96),
                                    outputs=3, axis=-1)  # fmt: skip
    w.named_output("mean", mean, ("n", 5, 1))
    w.named_output("inverse", inverse, ("n", 5, 1))
    total = w.node("Add", normed, x)
    again, _, deviation = w.split("LayerNormalization", total, w.const(one), w.bias(96),
                                  outputs="x.x", axis=-1)  # fmt: skip
    w.named_output("deviation", deviation, ("n", 5, 1))
    w.named_output("again", again, ("n", 5, 96))
    w.named_output("total", total, ("n", 5, 96))
    return w.build()


@MODELS.add()
def split_whose_middle_nobody_reads() -> Built:
    """Uneven parts by number, and a quantizer whose three outputs are the model's."""
    w = Writer("split_whose_middle_nobody_reads", 18)
    x = w.input("x", ("n", 96), w.normal(3, 96))
    first, _, last = w.split("Split", w.linear(x, 96, 256), outputs=3, axis=1, num_outputs=3)
    w.named_output("first", w.node("Sigmoid", first), ("n", 86))
    scaled = w.node("Mul", w.linear(last, 84, 128), w.const(0.1))
    _, scale, _ = w.split("DynamicQuantizeLinear", scaled, outputs=3)
    w.named_output("scale", scale, ())
    return w.build()
