"""Heads of detectors and trackers: suppression, best k, sizes as inputs, regions, tiny outputs."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("detection")


def _backbone(w: Writer, x: str, channels: int = 64) -> str:
    """[B, 3, H, W] -> [B, channels, H/4, W/4]."""
    value = w.conv(x, 3, 32, 3, 3, pads=[1] * 4, strides=[2, 2], activation="Relu")
    return w.conv(value, 32, channels, 3, 3, pads=[1] * 4, strides=[2, 2], activation="Relu")


def _rows(w: Writer, value: str, channels: int) -> str:
    """[B, C, H, W] -> [B, H*W, C]."""
    return w.node("Transpose", w.node("Reshape", value, w.ints(0, channels, -1)), perm=[0, 2, 1])


@MODELS.add(quick=True, chooses=True)
def boxes_after_suppression() -> Built:
    """NonMaxSuppression in the graph: how many boxes come out is in the data."""
    w = Writer("boxes_after_suppression", 12)
    x = w.input("image", (1, 3, 64, 64), w.normal(1, 3, 64, 64))
    value = w.conv(_backbone(w, x), 64, 64, 3, 3, pads=[1] * 4, activation="Relu")
    corner = w.node("Sigmoid", _rows(w, w.conv(value, 64, 2, 1, 1), 2))
    size = w.node("Sigmoid", _rows(w, w.conv(value, 64, 2, 1, 1), 2))
    boxes = w.node("Concat", corner, w.node("Add", corner, size), axis=2)
    scores = w.node("Transpose", w.node("Sigmoid", _rows(w, w.conv(value, 64, 5, 1, 1), 5)),
                    perm=[0, 2, 1])  # fmt: skip
    chosen = w.node("NonMaxSuppression", boxes, scores, w.ints(20), w.const([0.5]), w.const([0.4]))
    number = w.node("Gather", chosen, w.const(np.asarray(2, np.int64)), axis=1)
    found = w.node("Gather", w.over_axes("Squeeze", boxes, 0), number, axis=0)
    w.named_output("boxes", found, ("found", 4))
    w.named_output(
        "classes", w.node("Gather", chosen, w.const(np.asarray(1)), axis=1), ("found",), np.int64
    )
    return w.build()


@MODELS.add(quick=True, chooses=True)
def best_boxes_by_topk() -> Built:
    """The best 30 cells by score, their boxes gathered: no suppression."""
    w = Writer("best_boxes_by_topk", 16)
    x = w.input("images", ("batch", 3, 64, 64), w.normal(2, 3, 64, 64))
    value = w.conv(_backbone(w, x), 64, 64, 3, 3, pads=[1] * 4, activation="Relu")
    scores = w.node("Sigmoid", _rows(w, w.conv(value, 64, 10, 1, 1), 10))
    boxes = _rows(w, w.conv(value, 64, 4, 1, 1), 4)
    best = w.node("ReduceMax", scores, axes=[2], keepdims=0)
    top, place = w.split("TopK", best, w.ints(30), outputs=2, axis=1)
    repeated = w.node("Tile", w.over_axes("Unsqueeze", place, 2), w.ints(1, 1, 4))
    w.named_output("scores", top, ("batch", 30))
    w.named_output("boxes", w.node("GatherElements", boxes, repeated, axis=1), ("batch", 30, 4))
    return w.build()


@MODELS.add(quick=True)
def boxes_in_the_size_of_the_picture() -> Built:
    """A transformer head; `orig_target_sizes` [batch, 2] scales its boxes."""
    w = Writer("boxes_in_the_size_of_the_picture", 16)
    x = w.input("images", ("N", 3, 64, 64), w.normal(2, 3, 64, 64))
    sizes = w.input("orig_target_sizes", ("N", 2), np.asarray([[640, 480], [320, 200]], np.int64))
    memory = _rows(w, _backbone(w, x, 96), 96)
    queries = w.const(w.normal(1, 20, 96), "query_embed.weight")
    scores = w.node(
        "MatMul",
        w.linear(queries, 96, 96),
        w.node("Transpose", w.linear(memory, 96, 96), perm=[0, 2, 1]),
    )
    read = w.node("MatMul", w.node("Softmax", scores, axis=-1), w.linear(memory, 96, 96))
    hidden = w.layer_norm(w.node("Add", read, queries), 96)
    logits, boxes = w.linear(hidden, 96, 80, "Sigmoid"), w.linear(hidden, 96, 4, "Sigmoid")
    twice = w.node("Concat", sizes, sizes, axis=1)
    scale = w.over_axes("Unsqueeze", w.node("Cast", twice, to=1), 1)
    w.named_output("labels", w.node("ArgMax", logits, axis=2, keepdims=0), ("N", 20), np.int64)
    w.named_output("boxes", w.node("Mul", boxes, scale), ("N", 20, 4))
    w.named_output("scores", w.node("ReduceMax", logits, axes=[2], keepdims=0), ("N", 20))
    return w.build()


@MODELS.add()
def one_picture_and_its_size() -> Built:
    """No batch: `image` [3, height, width] and `im_shape` [2]; resized inside to that size."""
    w = Writer("one_picture_and_its_size", 13)
    x = w.input("image", (3, "height", "width"), w.normal(3, 40, 56))
    wanted = w.input("im_shape", (2,), np.asarray([64.0, 96.0], np.float32))
    sizes = w.node("Concat", w.ints(1, 3), w.node("Cast", wanted, to=7), axis=0)
    image = w.node("Resize", w.over_axes("Unsqueeze", x, 0), "", "", sizes, mode="linear")
    value = w.conv(_backbone(w, image), 64, 96, 3, 3, pads=[1] * 4, activation="Relu")
    rows = w.over_axes("Squeeze", _rows(w, w.conv(value, 96, 6, 1, 1), 6), 0)
    w.output(rows, ("cells", 6))
    return w.build()


@MODELS.add(quick=True)
def scores_near_a_millionth() -> Built:
    """Objectness times class score of an untrained detector: outputs of 1e-6 and less."""
    w = Writer("scores_near_a_millionth", 11)
    x = w.input("images", (1, 3, 96, 96), np.abs(w.normal(1, 3, 96, 96)))
    value = w.batch_norm(w.conv(_backbone(w, x), 64, 64, 3, 3, pads=[1] * 4), 64)
    value = w.node("Mul", value, w.node("Sigmoid", value))
    raw = _rows(w, w.conv(value, 64, 8, 1, 1), 8)
    shifted = w.node("Sub", raw, w.const(7.0))
    object_, classes = w.split("Split", w.node("Sigmoid", shifted), outputs=2, axis=2, split=[1, 7])
    w.output(w.node("Mul", object_, classes), (1, 576, 7))
    return w.build()


@MODELS.add()
def regions_cut_from_features() -> Built:
    """RoiAlign: rois [n, 4] and the number of the picture that each belongs to."""
    w = Writer("regions_cut_from_features", 16)
    x = w.input("image", ("batch", 3, 64, 64), w.normal(2, 3, 64, 64))
    corners = w.rng.uniform(0, 30, (5, 2))
    rois = w.input("rois", ("n", 4), np.hstack([corners, corners + 20]).astype(np.float32))
    number = w.input("batch_indices", ("n",), np.asarray([0, 0, 1, 1, 1], np.int64))
    features = _backbone(w, x)
    cut = w.node(
        "RoiAlign",
        features,
        rois,
        number,
        output_height=4,
        output_width=4,
        sampling_ratio=2,
        spatial_scale=0.25,
    )
    flat = w.node("Reshape", cut, w.ints(-1, 1024))
    w.output(w.linear(w.linear(flat, 1024, 64, "Relu"), 64, 21), ("n", 21))
    return w.build()


@MODELS.add(chooses=True)
def peaks_of_a_heat_map() -> Built:
    """Local maxima by MaxPool and Equal, then NonZero: points, keypoints, hands."""
    w = Writer("peaks_of_a_heat_map", 13)
    x = w.input("input", (1, 3, "h", "w"), w.normal(1, 3, 64, 64))
    value = w.conv(_backbone(w, x), 64, 96, 3, 3, pads=[1] * 4, activation="Relu")
    heat = w.node("Sigmoid", w.conv(value, 96, 4, 1, 1))
    largest = w.node("MaxPool", heat, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
    peak = w.node("And", w.node("Equal", heat, largest), w.node("Greater", heat, w.const(0.6)))
    places = w.node("Transpose", w.node("NonZero", peak), perm=[1, 0])
    w.named_output("heat", heat, (1, 4, "h4", "w4"))
    w.named_output("places", places, ("found", 4), np.int64)
    w.named_output("strength", w.node("GatherND", heat, places), ("found",))
    return w.build()


@MODELS.add()
def tracker_with_two_pictures() -> Built:
    """Template and search area of unlike sizes; one's features are the other's kernel."""
    w = Writer("tracker_with_two_pictures", 11)
    z = w.input("template", (1, 3, 63, 63), w.normal(1, 3, 63, 63))
    x = w.input("search", (1, 3, 127, 127), w.normal(1, 3, 127, 127))
    first, second = w.kernel(48, 3, 5, 5), w.kernel(96, 48, 3, 3)
    found = []
    for image in (z, x):
        value = w.node("Relu", w.node("Conv", image, first, strides=[4, 4]))
        found.append(w.node("Conv", value, second, strides=[2, 2]))
    kernel = w.node("Reshape", found[0], w.ints(96, 1, 7, 7))
    answer = w.node("Conv", found[1], kernel, group=96)
    w.output(w.conv(answer, 96, 6, 1, 1), (1, 6, 9, 9))
    return w.build()
