"""Text: encoders with masks and computed positions, tied and static embeddings, strings."""

from __future__ import annotations

import numpy as np

from .models import Register
from .writer import Built, Writer

MODELS = Register("text")


def attention(w: Writer, value: str, width: int, heads: int, mask: str = "", bias: str = "") -> str:
    """Scaled dot-product self-attention in parts; the mask is added to the scores."""
    size = width // heads

    def split(part: str, perm: list[int]) -> str:
        return w.node("Transpose", w.node("Reshape", part, w.ints(0, 0, heads, size)), perm=perm)

    q = split(w.linear(value, width, width), [0, 2, 1, 3])
    k = split(w.linear(value, width, width), [0, 2, 3, 1])
    v = split(w.linear(value, width, width), [0, 2, 1, 3])
    scores = w.node("Div", w.node("MatMul", q, k), w.const(float(np.sqrt(size))))
    for added in (mask, bias):
        scores = w.node("Add", scores, added) if added else scores
    mixed = w.node("MatMul", w.node("Softmax", scores, axis=-1), v)
    turned = w.node("Transpose", mixed, perm=[0, 2, 1, 3])
    return w.linear(w.node("Reshape", turned, w.ints(0, 0, width)), width, width)


def layer(w: Writer, value: str, width: int, mask: str = "", bias: str = "") -> str:
    """One encoder layer, norms after the sums."""
    value = w.layer_norm(w.node("Add", value, attention(w, value, width, 4, mask, bias)), width)
    hidden = w.linear(value, width, 2 * width)
    erf = w.node("Erf", w.node("Div", hidden, w.const(float(np.sqrt(2)))))
    hidden = w.node("Mul", w.node("Mul", hidden, w.node("Add", erf, w.const(1.0))), w.const(0.5))
    return w.layer_norm(w.node("Add", value, w.linear(hidden, 2 * width, width)), width)


def mask_to_add(w: Writer, mask: str) -> str:
    """[B, S] of ones and zeros -> [B, 1, 1, S] of 0 and -1e4."""
    wide = w.node("Cast", w.over_axes("Unsqueeze", mask, 1, 2), to=1)
    return w.node("Mul", w.node("Sub", w.const(1.0), wide), w.const(-10000.0))


@MODELS.add(quick=True)
def encoder_with_mask_and_types() -> Built:
    w = Writer("encoder_with_mask_and_types", 14)
    dims = ("batch_size", "sequence_length")
    ids = w.input("input_ids", dims, w.integers(500, 2, 9))
    mask = w.input("attention_mask", dims, np.asarray([[1] * 9, [1] * 5 + [0] * 4], np.int64))
    types = w.input("token_type_ids", dims, np.zeros((2, 9), np.int64))
    length = w.node("Gather", w.node("Shape", ids), w.const(np.asarray(1)), axis=0)
    places = w.node(
        "Slice",
        w.const(np.arange(64)[None]),
        w.ints(0),
        w.over_axes("Unsqueeze", length, 0),
        w.ints(1),
    )
    value = w.node("Gather", w.const(w.normal(500, 64, scale=0.5), "word.weight"), ids)
    value = w.node("Add", value, w.node("Gather", w.const(w.normal(2, 64)), types))
    value = w.layer_norm(
        w.node("Add", value, w.node("Gather", w.const(w.normal(64, 64)), places)), 64
    )
    added = mask_to_add(w, mask)
    for _ in range(2):
        value = layer(w, value, 64, added)
    first = w.node("Gather", value, w.const(np.asarray(0)), axis=1)
    w.named_output("last_hidden_state", value, (*dims, 64))
    w.named_output("pooler_output", w.linear(first, 64, 64, "Tanh"), ("batch_size", 64))
    return w.build()


@MODELS.add(quick=True)
def positions_counted_from_padding() -> Built:
    """RoBERTa's: CumSum over what is not padding, times the same, plus the padding's number."""
    w = Writer("positions_counted_from_padding", 13)
    dims = ("batch", "sequence")
    ids = w.input("input_ids", dims, np.asarray([[0, 9, 17, 33, 2], [0, 8, 2, 1, 1]], np.int64))
    mask = w.input("attention_mask", dims, np.asarray([[1] * 5, [1, 1, 1, 0, 0]], np.int64))
    one = w.const(np.asarray(1, np.int64))
    real = w.node("Cast", w.node("Not", w.node("Equal", ids, one)), to=6)
    counted = w.node("Mul", w.node("CumSum", real, w.const(np.asarray(1))), real)
    places = w.node("Add", w.node("Cast", counted, to=7), one)
    value = w.node("Gather", w.const(w.normal(400, 64, scale=0.5), "embeddings"), ids)
    value = w.node("Add", value, w.node("Gather", w.const(w.normal(66, 64, scale=0.3)), places))
    value = layer(w, w.layer_norm(value, 64), 64, mask_to_add(w, mask))
    wide = w.node("Cast", w.over_axes("Unsqueeze", mask, 2), to=1)
    total = w.over_axes("ReduceSum", w.node("Mul", value, wide), 1, keepdims=0)
    pooled = w.node("Div", total, w.over_axes("ReduceSum", wide, 1, keepdims=0))
    norm = w.node("ReduceL2", pooled, axes=[1], keepdims=1)
    w.named_output("sentence_embedding", w.node("Div", pooled, norm), ("batch", 64))
    return w.build()


@MODELS.add()
def biases_by_relative_distance() -> Built:
    """T5's buckets as a computed Gather; RMS norms in parts; the table is tied to the head."""
    w = Writer("biases_by_relative_distance", 13)
    ids = w.input("input_ids", ("batch", "length"), w.integers(700, 2, 8))
    table = w.const(w.normal(700, 96, scale=0.5), "shared.weight")
    value = w.node("Gather", table, ids)
    length = w.node("Gather", w.node("Shape", ids), w.const(np.asarray(1)), axis=0)
    step = (w.const(np.asarray(0)), length, w.const(np.asarray(1)))
    line = w.node("Range", *step)
    apart = w.node("Sub", w.over_axes("Unsqueeze", line, 0), w.over_axes("Unsqueeze", line, 1))
    bucket = w.node("Min", w.node("Abs", apart), w.const(np.asarray(31, np.int64)))
    bias = w.node("Gather", w.const(w.normal(32, 4)), bucket)
    bias = w.over_axes("Unsqueeze", w.node("Transpose", bias, perm=[2, 0, 1]), 0)
    variance = w.over_axes("ReduceMean", w.node("Pow", value, w.const(2.0)), -1, keepdims=1)
    root = w.node("Sqrt", w.node("Add", variance, w.const(1e-6)))
    normed = w.node("Mul", w.const(np.ones(96, np.float32)), w.node("Div", value, root))
    value = w.node("Add", value, attention(w, normed, 96, 4, "", bias))
    head = w.node("MatMul", value, w.node("Transpose", table, perm=[1, 0]))
    w.named_output("logits", head, ("batch", "length", 700))
    return w.build()


@MODELS.add(quick=True)
def static_embeddings_averaged() -> Built:
    """A table and a mean, int32 ids: nothing but Gather holds weights."""
    w = Writer("static_embeddings_averaged", 14)
    ids = w.input("input_ids", ("batch", "length"), w.integers(1500, 2, 6, dtype=np.int32))
    value = w.node("Gather", w.const(w.normal(1500, 64), "embedding.weight"), ids)
    mean = w.over_axes("ReduceMean", value, 1, keepdims=0)
    norm = w.node("LpNormalization", mean, axis=1, p=2)
    w.named_output("embeddings", norm, ("batch", 64))
    return w.build()


@MODELS.add()
def characters_by_convolution() -> Built:
    """Kernels of 3, 4 and 5 over letters, the maximum of each, a layer: tagging of words."""
    w = Writer("characters_by_convolution", 10)
    ids = w.input("chars", ("words", 21), w.integers(150, 3, 21, dtype=np.int32))
    value = w.node("Gather", w.const(w.normal(150, 48), "chars.weight"), ids)
    turned = w.node("Transpose", value, perm=[0, 2, 1])
    parts = []
    for size in (3, 4, 5):
        found = w.conv(turned, 48, 96, size, activation="Relu")
        parts.append(w.node("Squeeze", w.node("ReduceMax", found, axes=[2], keepdims=1), axes=[2]))
    joined = w.node("Concat", *parts, axis=1)
    w.output(
        w.node("Sigmoid", w.node("Gemm", joined, w.matrix(288, 64), w.bias(64))), ("words", 64)
    )
    return w.build()


@MODELS.add(quick=True)
def strings_looked_up() -> Built:
    """Strings in, lower case, looked up by LabelEncoder, a table and a layer after that."""
    w = Writer("strings_looked_up", 15)
    texts = np.asarray(["Good", "bad", "film", "Unknown"], dtype=object)
    x = w.input("texts", ("words",), texts)
    lower = w.node("StringNormalizer", x, case_change_action="LOWER", locale="C")
    words = ["good", "bad", "film", *(f"word{i}" for i in range(397))]
    ids = w.node(
        "LabelEncoder", lower, domain="ai.onnx.ml", keys_strings=words,
        values_int64s=list(range(400)), default_int64=399,
    )  # fmt: skip
    w.domains["ai.onnx.ml"] = 2
    value = w.node("Gather", w.const(w.normal(400, 128), "table"), ids)
    w.output(w.linear(value, 128, 64, "Tanh"), ("words", 64))
    return w.build()


@MODELS.add()
def bag_of_ngrams() -> Built:
    """TfIdfVectorizer over strings, then a linear classifier as skl2onnx writes text pipelines."""
    w = Writer("bag_of_ngrams", 13)
    x = w.input("words", ("n",), np.asarray(["a0", "a3", "a3", "b"], dtype=object))
    words = [f"a{i}" for i in range(300)]
    counts = w.node(
        "TfIdfVectorizer", x, max_gram_length=1, max_skip_count=0, min_gram_length=1, mode="TF",
        ngram_counts=[0], ngram_indexes=list(range(300)), pool_strings=words,
    )  # fmt: skip
    rows = w.node("Reshape", counts, w.ints(1, 300))
    w.output(w.node("Gemm", rows, w.matrix(300, 80), w.bias(80)), (1, 80))
    return w.build()


@MODELS.add()
def translator_reads_encoder() -> Built:
    """A decoder step: target ids, the encoder's states and its mask; logits of every position."""
    w = Writer("translator_reads_encoder", 12)
    ids = w.input("decoder_input_ids", ("batch", "target"), w.integers(350, 2, 4))
    memory = w.input("encoder_hidden_states", ("batch", "source", 64), w.normal(2, 7, 64))
    mask = w.input("encoder_attention_mask", ("batch", "source"), np.ones((2, 7), np.int64))
    value = w.node("Gather", w.const(w.normal(350, 64, scale=0.5), "emb"), ids)
    size = w.node("Gather", w.node("Shape", ids), w.const(np.asarray(1)), axis=0)
    line = w.node("Range", w.const(np.asarray(0)), size, w.const(np.asarray(1)))
    later = w.node("Greater", w.over_axes("Unsqueeze", line, 0), w.over_axes("Unsqueeze", line, 1))
    causal = w.node("Where", later, w.const(-1e9), w.const(0.0))
    value = w.layer_norm(w.node("Add", value, attention(w, value, 64, 4, causal)), 64)
    keys = w.node("Transpose", w.linear(memory, 64, 64), perm=[0, 2, 1])
    scores = w.node("MatMul", w.linear(value, 64, 64), keys)
    wide = w.over_axes("Unsqueeze", w.node("Cast", mask, to=1), 1)
    hidden = w.node("Mul", w.node("Sub", w.const(1.0), wide), w.const(-1e9))
    read = w.node(
        "MatMul", w.node("Softmax", w.node("Add", scores, hidden), axis=2), w.linear(memory, 64, 64)
    )
    value = w.layer_norm(w.node("Add", value, read), 64)
    w.named_output("logits", w.linear(value, 64, 350), ("batch", "target", 350))
    return w.build()


@MODELS.add(quick=True)
def decoder_with_cache() -> Built:
    """One layer with past keys and values, grouped heads by Expand, causal by comparison."""
    w = Writer("decoder_with_cache", 17)
    ids = w.input("input_ids", ("batch", "new"), w.integers(300, 1, 3))
    mask = w.input("attention_mask", ("batch", "all"), np.ones((1, 8), np.int64))
    past = [
        w.input(f"past_key_values.0.{part}", ("batch", 2, "past", 16), w.normal(1, 2, 5, 16))
        for part in ("key", "value")
    ]
    value = w.node("Gather", w.const(w.normal(300, 96, scale=0.5), "model.embed_tokens"), ids)
    normed = w.layer_norm(value, 96)

    def split(part: str, heads: int) -> str:
        rows = w.node("Reshape", part, w.ints(0, 0, heads, 16))
        return w.node("Transpose", rows, perm=[0, 2, 1, 3])

    q = split(w.node("MatMul", normed, w.matrix(96, 96)), 6)
    k = w.node("Concat", past[0], split(w.node("MatMul", normed, w.matrix(96, 32)), 2), axis=2)
    v = w.node("Concat", past[1], split(w.node("MatMul", normed, w.matrix(96, 32)), 2), axis=2)
    many = []
    for part in (k, v):
        wide = w.over_axes("Unsqueeze", part, 2)
        wide = w.node("Expand", wide, w.ints(1, 1, 3, 1, 1))
        many.append(w.node("Reshape", wide, w.ints(0, 6, -1, 16)))
    scores = w.node("MatMul", q, w.node("Transpose", many[0], perm=[0, 1, 3, 2]))
    seen = w.node("Shape", scores)
    new, every = (w.node("Gather", seen, w.const(np.asarray(i)), axis=0) for i in (2, 3))
    zero, one = w.const(np.asarray(0)), w.const(np.asarray(1))
    row = w.node("Add", w.node("Range", zero, new, one), w.node("Sub", every, new))
    later = w.node("Greater", w.over_axes("Unsqueeze", w.node("Range", zero, every, one), 0),
                   w.over_axes("Unsqueeze", row, 1))  # fmt: skip
    scores = w.node("Mul", scores, w.const(0.25))
    scores = w.node("Add", scores, w.node("Where", later, w.const(-1e9), w.const(0.0)))
    scores = w.node("Add", scores, mask_to_add(w, mask))
    mixed = w.node("MatMul", w.node("Softmax", scores, axis=-1), many[1])
    flat = w.node("Reshape", w.node("Transpose", mixed, perm=[0, 2, 1, 3]), w.ints(0, 0, 96))
    value = w.node("Add", value, w.node("MatMul", flat, w.matrix(96, 96)))
    hidden = w.layer_norm(value, 96)
    gate = w.node("MatMul", hidden, w.matrix(96, 192))
    gate = w.node("Mul", gate, w.node("Sigmoid", gate))
    up = w.node("Mul", gate, w.node("MatMul", hidden, w.matrix(96, 192)))
    value = w.node("Add", value, w.node("MatMul", up, w.matrix(192, 96)))
    w.named_output("logits", w.node("MatMul", value, w.matrix(96, 300)), ("batch", "new", 300))
    for part, made in (("key", k), ("value", v)):
        w.named_output(f"present.0.{part}", made, ("batch", 2, "all", 16))
    return w.build()


_REAL = np.asarray([[1] * 9, [1] * 5 + [0] * 4], np.int64)


@MODELS.add(quick=True)
def padding_marked_by_true() -> Built:
    """PyTorch's `src_key_padding_mask`: flags, time before batch, minus infinity."""
    w = Writer("padding_marked_by_true", 17)
    x = w.input("src", ("time", "batch", 64), w.normal(9, 2, 64))
    mask = w.input("src_key_padding_mask", ("batch", "time"), _REAL == 0)
    hidden = w.node("Where", w.over_axes("Unsqueeze", mask, 1, 2), w.const(-np.inf), w.const(0.0))
    value = layer(w, w.node("Transpose", x, perm=[1, 0, 2]), 64, hidden)
    w.output(w.node("Transpose", value, perm=[1, 0, 2]), ("time", "batch", 64))
    return w.build()


@MODELS.add()
def boxes_and_types_with_a_mask() -> Built:
    """Embeddings, boxes [batch, sequence, 4] and types [batch, sequence, 3] next to a mask."""
    w = Writer("boxes_and_types_with_a_mask", 17)
    dims = ("batch", "sequence")
    value = w.input("inputs_embeds", (*dims, 64), w.normal(2, 9, 64))
    for name, rows, columns in (("bbox", 100, 4), ("token_type_ids", 2, 3)):
        ids = w.input(name, (*dims, columns), w.integers(rows, 2, 9, columns))
        found = w.node("Gather", w.const(w.normal(rows, 64, scale=0.3)), ids)
        value = w.node("Add", value, w.over_axes("ReduceSum", found, 2, keepdims=0))
    mask = w.input("attention_mask", dims, _REAL)
    value = layer(w, value, 64, mask_to_add(w, mask))
    w.output(w.linear(value, 64, 7), (*dims, 7))
    return w.build()


@MODELS.add()
def mask_that_is_added() -> Built:
    """A float mask [batch, 1, 1, sequence]."""
    w = Writer("mask_that_is_added", 17)
    ids = w.input("ids", ("batch", "sequence"), w.integers(90, 2, 9))
    added = np.where(_REAL, 0, -1e4).astype(np.float32)[:, None, None]
    mask = w.input("mask", ("batch", 1, 1, "sequence"), added)
    value = layer(w, w.node("Gather", w.const(w.normal(90, 64, scale=0.5)), ids), 64, mask)
    w.output(w.linear(value, 64, 9), ("batch", "sequence", 9))
    return w.build()
