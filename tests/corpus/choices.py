"""Outputs whose sizes or contents the data chooses: found, counted, compressed, repeated."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("choices")


def _scores(w: Writer, width: int, rows: int = 3) -> tuple[str, str]:
    """Return features [n, 192] and scores [n, width] of them."""
    x = w.input("x", ("n", 96), w.normal(rows, 96))
    hidden = w.linear(x, 96, 192, "Relu")
    return hidden, w.linear(hidden, 192, width)


@MODELS.add(quick=True, chooses=True)
def places_above_a_threshold() -> Built:
    """NonZero, and what is gathered there."""
    w = Writer("places_above_a_threshold", 17)
    _, scores = _scores(w, 64)
    places = w.node("NonZero", w.node("Greater", scores, w.const(0.2)))
    w.named_output("places", places, (2, "found"), np.int64)
    turned = w.node("Transpose", places, perm=[1, 0])
    w.named_output("values", w.node("GatherND", scores, turned), ("found",))
    return w.build()


@MODELS.add(chooses=True)
def values_counted_once() -> Built:
    """Unique with all of its outputs."""
    w = Writer("values_counted_once", 17)
    _, scores = _scores(w, 64)
    rounded = w.node("Cast", w.node("Mul", scores, w.const(4.0)), to=7)
    names = ("values", "first", "inverse", "counts")
    for name, value in zip(names, w.split("Unique", rounded, outputs=4), strict=True):
        w.named_output(name, value, ("found",), np.int64)
    return w.build()


@MODELS.add(quick=True, chooses=True)
def as_many_best_as_are_positive() -> Built:
    """TopK whose k is counted: its places are not numbers to measure noise by."""
    w = Writer("as_many_best_as_are_positive", 17)
    _, scores = _scores(w, 200, rows=1)
    positive = w.node("Cast", w.node("Greater", scores, w.const(0.0)), to=7)
    count = w.node("Reshape", w.over_axes("ReduceSum", positive, 0, 1, keepdims=0), w.ints(1))
    best, places = w.split("TopK", scores, w.node("Min", count, w.ints(20)), outputs=2, axis=1)
    w.named_output("best", best, ("n", "k"))
    w.named_output("places", places, ("n", "k"), np.int64)
    return w.build()


@MODELS.add(chooses=True)
def rows_worth_keeping() -> Built:
    """Compress along both axes."""
    w = Writer("rows_worth_keeping", 17)
    hidden, scores = _scores(w, 24, rows=8)
    rows = w.node("Greater", w.node("ReduceMax", scores, axes=[1], keepdims=0), w.const(1.2))
    columns = w.node("Greater", w.node("ReduceMax", scores, axes=[0], keepdims=0), w.const(1.0))
    w.named_output("rows", w.node("Compress", hidden, rows, axis=0), ("kept", 192))
    w.named_output("columns", w.node("Compress", scores, columns, axis=1), ("n", "kept2"))
    return w.build()


@MODELS.add(chooses=True)
def loop_as_often_as_computed() -> Built:
    """The trip count comes from a Sigmoid; each round is one row of a scan output."""
    w = Writer("loop_as_often_as_computed", 17)
    hidden, score = _scores(w, 1, rows=1)
    length = w.node("Mul", w.node("Sigmoid", w.node("Reshape", score, w.ints())), w.const(12.0))
    trips = w.node("Add", w.node("Cast", length, to=7), w.const(np.asarray(1)))
    body = w.body("round")
    body.formal((), np.int64)
    go = body.formal((), np.bool_)
    state = body.node("Tanh", body.linear(body.formal((1, 192)), 192, 192))
    body.output(body.node("Identity", go), (), np.bool_)
    body.output(state, (1, 192))
    body.output(body.node("Identity", state), (1, 192))
    last, all_rounds = w.split(
        "Loop", trips, w.const(np.asarray(True)), hidden, outputs=2, body=body.graph()
    )
    w.named_output("last", last, (1, 192))
    w.named_output("rounds", all_rounds, ("trips", 1, 192))
    return w.build()


@MODELS.add(chooses=True)
def features_pooled_in_found_boxes() -> Built:
    """RoiAlign after NonMaxSuppression, and a head per box."""
    w = Writer("features_pooled_in_found_boxes", 16)
    x = w.input("image", (1, 3, 64, 64), w.normal(1, 3, 64, 64))
    value = w.conv(x, 3, 32, 3, 3, pads=[1] * 4, strides=[2, 2], activation="Relu")
    value = w.conv(value, 32, 32, 3, 3, pads=[1] * 4, strides=[4, 4], activation="Relu")
    rows = w.node("Reshape", w.conv(value, 32, 4, 1, 1), w.ints(1, 4, -1))
    boxes = w.node("Mul", w.node("Sigmoid", w.node("Transpose", rows, perm=[0, 2, 1])),
                   w.const(60.0))  # fmt: skip
    scores = w.node("Sigmoid", w.node("Reshape", w.conv(value, 32, 2, 1, 1), w.ints(1, 2, -1)))
    found = w.node("NonMaxSuppression", boxes, scores, w.const(np.asarray(10)),
                   w.const(0.4), w.const(0.5))  # fmt: skip
    picture, box = (w.node("Gather", found, w.const(np.asarray(k)), axis=1) for k in (0, 2))
    kept = w.node("Gather", w.over_axes("Squeeze", boxes, 0), box)
    cut = w.node("RoiAlign", value, kept, picture, output_height=5, output_width=5,
                 spatial_scale=0.125)  # fmt: skip
    hidden = w.linear(w.node("Flatten", cut), 32 * 25, 64, "Relu")
    w.named_output("classes", w.linear(hidden, 64, 12), ("found", 12))
    w.named_output("boxes", kept, ("found", 4))
    return w.build()


@MODELS.add(quick=True, chooses=True)
def peaks_kept_and_angles_turned() -> Built:
    """Equal(x, MaxPool(x)) as suppression, and angles that jump by a turn (Atan2 by parts)."""
    w = Writer("peaks_kept_and_angles_turned", 13)
    x = w.input("image", (1, 1, 48, 48), w.normal(1, 1, 48, 48))
    value = w.conv(x, 1, 32, 3, 3, pads=[1] * 4, activation="Relu")
    value = w.conv(value, 32, 32, 3, 3, pads=[1] * 4, activation="Relu")
    heat = w.node("Sigmoid", w.conv(value, 32, 1, 3, 3, pads=[1] * 4))
    top = w.node("MaxPool", heat, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    peaks = w.node("Mul", heat, w.node("Cast", w.node("Equal", heat, top), to=1))
    across, down = (w.conv(value, 32, 1, 1, 1) for _ in range(2))
    half = w.node("Mul", w.node("Sub", w.const(1.0), w.node("Sign", across)), w.const(np.pi / 2))
    turn = w.node("Mul", half, w.node("Sign", down))
    angle = w.node("Add", w.node("Atan", w.node("Div", down, across)), turn)
    w.named_output("found", w.node("Concat", peaks, angle, axis=1), (1, 2, 48, 48))
    return w.build()


@MODELS.add(chooses=True)
def words_counted_by_splitting() -> Built:
    """StringSplit, as long as the longest row has words."""
    w = Writer("words_counted_by_splitting", 20)
    texts = w.input("text", ("n",), np.array(["the quick fox", "x", "a dog"], object))
    words, counts = w.split("StringSplit", texts, outputs=2, delimiter=" ")
    value = w.node("Gather", w.matrix(8, 96), counts)
    w.named_output("scores", w.linear(value, 96, 160), ("n", 160))
    w.named_output("words", words, ("n", "most"), np.dtype(object))
    return w.build()
