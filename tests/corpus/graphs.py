"""Graph networks, sets, tables, towers: inputs that share no batch axis."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from .models import Register
from .writer import Built, Writer

MODELS = Register("graphs")


def _edges(w: Writer, nodes: int, edges: int) -> np.ndarray:
    return w.integers(nodes, 2, edges)


def _row(w: Writer, edges: str, number: int) -> str:
    """One of the two rows of an edge list [2, E]."""
    return w.node("Gather", edges, w.const(np.asarray(number, np.int64)), axis=0)


@MODELS.add(quick=True)
def convolution_over_edges() -> Built:
    """Messages are gathered by source and added by target: edge_index [2, E]."""
    w = Writer("convolution_over_edges", 16)
    x = w.input("x", ("nodes", 64), w.normal(10, 64))
    edges = w.input("edge_index", (2, "edges"), _edges(w, 10, 24))
    value = x
    for inputs, outputs in ((64, 96), (96, 96)):
        source, target = _row(w, edges, 0), _row(w, edges, 1)
        message = w.node("Gather", w.linear(value, inputs, outputs), source, axis=0)
        empty = w.node("Mul", w.linear(value, inputs, outputs), w.const(0.0))
        places = w.over_axes("Unsqueeze", target, 1)
        summed = w.node("ScatterND", empty, places, message, reduction="add")
        value = w.node("Relu", summed)
    w.output(w.linear(value, 96, 8), ("nodes", 8))
    return w.build({"x": w.normal(4, 64), "edge_index": _edges(w, 4, 3)})


@MODELS.add()
def attention_over_edges() -> Built:
    """Scores per edge, ScatterElements to add them up: graph attention without a softmax."""
    w = Writer("attention_over_edges", 18)
    x = w.input("node_feat", ("N", 48), w.normal(12, 48))
    edges = w.input("edge_index", (2, "E"), _edges(w, 12, 30))
    features = w.input("edge_feat", ("E", 16), w.normal(30, 16))
    source, target = _row(w, edges, 0), _row(w, edges, 1)
    hidden = w.linear(x, 48, 128, "Relu")
    pairs = w.node("Concat", w.node("Gather", hidden, source, axis=0),
                   w.node("Gather", hidden, target, axis=0), features, axis=1)  # fmt: skip
    score = w.node("Exp", w.node("Tanh", w.linear(pairs, 272, 1)))
    message = w.node("Mul", w.linear(pairs, 272, 64), score)
    shape = w.node("Shape", message)
    places = w.node("Expand", w.over_axes("Unsqueeze", target, 1), shape)
    base = w.node("Mul", w.linear(x, 48, 64), w.const(0.0))
    summed = w.node("ScatterElements", base, places, message, axis=0, reduction="add")
    w.output(w.linear(summed, 64, 32), ("N", 32))
    return w.build()


@MODELS.add(quick=True)
def molecules_in_one_batch() -> Built:
    """Atoms of several molecules in one axis, `batch` says whose they are; sums per molecule."""
    w = Writer("molecules_in_one_batch", 16)
    atoms = w.input("atoms", ("num_atoms", 2), w.integers(20, 9, 2))
    owner = w.input("batch", ("num_atoms",), np.asarray([0, 0, 0, 1, 1, 1, 1, 2, 2], np.int64))
    slots = w.input("graph_slots", ("num_graphs",), np.zeros(3, np.float32))
    table = w.const(w.normal(20, 96), "atom_embedding")
    both = w.node("Gather", table, atoms)
    value = w.linear(w.over_axes("ReduceMean", both, 1, keepdims=0), 96, 128, "Relu")
    rows = w.over_axes("Unsqueeze", slots, 1)
    empty = w.node("MatMul", rows, w.const(np.zeros((1, 128), np.float32)))
    summed = w.node("ScatterND", empty, w.over_axes("Unsqueeze", owner, 1), value, reduction="add")
    w.output(w.linear(w.linear(summed, 128, 96, "Relu"), 96, 1), ("num_graphs", 1))
    return w.build()


@MODELS.add()
def embedding_bag_by_loop() -> Built:
    """torch's EmbeddingBag: a Loop over bags that slices indices between offsets and adds rows."""
    w = Writer("embedding_bag_by_loop", 13)
    indices = w.input("indices", ("n",), w.integers(600, 12))
    offsets = w.input("offsets", ("bags",), np.asarray([0, 3, 4, 9], np.int64))
    table = w.const(w.normal(600, 64), "bag.weight")
    size = w.node("Shape", indices)
    ends = w.node(
        "Concat", w.node("Slice", offsets, w.ints(1), w.ints(2**62), w.ints(0)), size, axis=0
    )
    count = w.over_axes("Squeeze", w.node("Shape", offsets), 0)
    body = w.body("bag")
    number, _ = body.formal((), np.int64), body.formal((), np.bool_)
    start = body.over_axes("Unsqueeze", body.node("Gather", offsets, number, axis=0), 0)
    end = body.over_axes("Unsqueeze", body.node("Gather", ends, number, axis=0), 0)
    inside = body.node("Slice", indices, start, end, body.ints(0))
    summed = body.over_axes("ReduceSum", body.node("Gather", table, inside), 0, keepdims=0)
    body.output(body.const(np.asarray(True), name="always"), (), np.bool_)
    body.output(summed, (64,))
    bags = w.node("Loop", count, w.const(np.asarray(True)), body=body.graph())
    w.output(w.linear(bags, 64, 10), ("bags", 10))
    return w.build()


@MODELS.add(quick=True)
def towers_with_unlike_axes() -> Built:
    """Static first axes that differ: 3 anchors, 2 candidates, a table of 5."""
    w = Writer("towers_with_unlike_axes", 15)
    anchors = w.input("anchors", (3, 64), w.normal(3, 64))
    candidates = w.input("candidates", (2, 80), w.normal(2, 80))
    table = w.input("table", (5, 128), w.normal(5, 128))
    left = w.linear(w.linear(anchors, 64, 128, "Relu"), 128, 96)
    right = w.linear(w.linear(candidates, 80, 128, "Relu"), 128, 96)
    rows = w.linear(table, 128, 96)
    w.named_output(
        "scores", w.node("MatMul", left, w.node("Transpose", right, perm=[1, 0])), (3, 2)
    )
    w.named_output("by_row", w.node("MatMul", rows, w.node("Transpose", left, perm=[1, 0])), (5, 3))
    return w.build()


@MODELS.add()
def sets_pooled_by_maximum() -> Built:
    """Points [batch, n, 3], a shared layer per point, the maximum over all: point clouds."""
    w = Writer("sets_pooled_by_maximum", 13)
    points = w.input("points", ("batch", "n", 3), w.normal(2, 40, 3))
    value = w.linear(w.linear(points, 3, 64, "Relu"), 64, 256, "Relu")
    pooled = w.node("ReduceMax", value, axes=[1], keepdims=0)
    w.output(w.linear(w.linear(pooled, 256, 128, "Relu"), 128, 10), ("batch", 10))
    return w.build()


@MODELS.add()
def table_with_categories() -> Built:
    """Columns as inputs [batch, 1], one table of embeddings per category, odd column names."""
    w = Writer("table_with_categories", 12)
    parts = []
    for column, size in (("native-country", 200), ("occupation", 120), ("zip code", 400)):
        ids = w.input(column, ("batch", 1), w.integers(size, 4, 1))
        found = w.node("Gather", w.const(w.normal(size, 64), f"{column}/embeddings"), ids)
        parts.append(w.node("Flatten", found, axis=1))
    parts.append(w.input("age", ("batch", 1), w.normal(4, 1)))
    joined = w.node("Concat", *parts, axis=1)
    hidden = w.node("Relu", w.node("Gemm", joined, w.matrix(193, 128), w.bias(128)))
    w.output(w.node("Sigmoid", w.node("Gemm", hidden, w.matrix(128, 1), w.bias(1))), ("batch", 1))
    return w.build()


@MODELS.add()
def recommender_with_products() -> Built:
    """Features crossed pair by pair: Einsum of all with all, the upper triangle by GatherND."""
    w = Writer("recommender_with_products", 12)
    dense = w.input("dense", ("batch", 13), w.normal(3, 13))
    sparse = w.input("sparse", ("batch", 6), w.integers(300, 3, 6, dtype=np.int32))
    hidden = w.over_axes("Unsqueeze", w.linear(dense, 13, 96, "Relu"), 1)
    rows = w.node("Gather", w.const(w.normal(300, 96), "tables"), sparse)
    every = w.node("Concat", hidden, rows, axis=1)
    products = w.node("Einsum", every, every, equation="bid,bjd->bij")
    upper = np.stack(np.triu_indices(7, 1), axis=1).astype(np.int64)
    turned = w.node("Transpose", products, perm=[1, 2, 0])
    pairs = w.node("Transpose", w.node("GatherND", turned, w.const(upper)), perm=[1, 0])
    w.output(w.linear(w.linear(pairs, 21, 128, "Relu"), 128, 1, "Sigmoid"), ("batch", 1))
    return w.build()


@MODELS.add(is_float=False)
def trees_and_a_linear_layer() -> Built:
    """A forest of ai.onnx.ml before a small layer: nothing in it is worth 8 bits."""
    w = Writer("trees_and_a_linear_layer", 15)
    x = w.input("X", ("batch", 4), w.normal(5, 4))
    leaves = {"target_nodeids": [1, 2], "target_treeids": [0, 0], "target_ids": [0, 0]}
    value = w.node(
        "TreeEnsembleRegressor", x, domain="ai.onnx.ml", n_targets=1, nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2], nodes_featureids=[2, 0, 0], nodes_values=[0.1, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0], nodes_missing_value_tracks_true=[0, 0, 0],
        target_weights=[-1.5, 2.5], **leaves,
    )  # fmt: skip
    w.domains["ai.onnx.ml"] = 3
    w.output(w.linear(value, 1, 3), ("batch", 3))
    return w.build()


@MODELS.add()
def time_series_with_many_outputs() -> Built:
    """Past and known future, quantiles as outputs, one of which is an input passed through."""
    w = Writer("time_series_with_many_outputs", 17)
    past = w.input("past", ("batch", 48, 4), w.normal(2, 48, 4))
    future = w.input("future", ("batch", 12, 2), w.normal(2, 12, 2))
    flat = w.node("Concat", w.node("Reshape", past, w.ints(0, 192)),
                  w.node("Reshape", future, w.ints(0, 24)), axis=1)  # fmt: skip
    hidden = w.layer_norm(w.linear(flat, 216, 128, "Relu"), 128)
    for index in range(3):
        w.named_output(f"q{index}", w.linear(hidden, 128, 12), ("batch", 12))
    w.outputs.append(helper.make_tensor_value_info("level", TensorProto.FLOAT, ["batch", 4]))
    last = w.node("Gather", past, w.const(np.asarray(-1, np.int64)), axis=1)
    w.nodes.append(helper.make_node("Identity", [last], ["level"]))
    return w.build()
