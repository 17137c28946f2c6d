"""Fused operators against their parts, and ONNX Runtime's own forms against the standard ones.

    python -m benchmarks run operators [--rounds N] [--threads N] [--write [NAME]]

Every pair is two small models with equal weights that compute the same numbers, which is checked;
they are timed alternately, on ONNX Runtime's CPU provider unless the name says OpenVINO. The ratio
says how many times as fast the second is. Prints the Markdown table of docs/fusion.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from benchmarks.recording import about, add_write_option, store
from irtools.measure.base import BenchSettings
from irtools.measure.cpu import cpu_quota
from irtools.measure.timing import Contender, measure
from irtools.targets import RunnerOptions

HEADER = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>'
TOLERANCE = 1e-4
Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Two bodies with one interface.

    Attributes:
        name: What is compared, with its sizes.
        first: The usual form, in ONNX's text syntax without the header.
        second: The form that is to be faster.
        feeds: Inputs and constants by name.
        labels: How the tables call the two forms.
        target: What runs them.
    """

    name: str
    first: str
    second: str
    feeds: Feeds
    labels: tuple[str, str] = ("parts", "one operator")
    target: str = "ort-cpu"


def values(*shape: int, seed: int = 0) -> np.ndarray:
    """Return seeded normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Several of the same operator, one after the other: one alone is lost in the time of a call.
REPEATED = 8


def chain(step: str, *, start: str = "x", end: str = "y") -> str:
    """Return `REPEATED` steps; a step reads `IN`, writes `OUT` and prefixes its values by `v_`."""
    lines = []
    for i in range(REPEATED):
        into = start if i == 0 else f"h{i}"
        out = end if i == REPEATED - 1 else f"h{i + 1}"
        lines.append(step.replace("IN", into).replace("OUT", out).replace("v_", f"v{i}_"))
    return "\n".join(lines)


RMS_PARTS = """
v_square = Mul(IN, IN)
v_mean = ReduceMean <keepdims: int = 1> (v_square, last_axis)
v_moved = Add(v_mean, epsilon)
v_root = Sqrt(v_moved)
v_normal = Div(IN, v_root)
OUT = Mul(v_normal, gamma)
"""
RMS = "OUT = RMSNormalization <axis: int = -1, epsilon: float = 1e-5> (IN, gamma)"
SIMPLIFIED = (
    "OUT = SimplifiedLayerNormalization <axis: int = -1, epsilon: float = 1e-5> (IN, gamma)"
)
SKIP_RMS = """
v_sum = Add(IN, skip)
OUT = RMSNormalization <axis: int = -1, epsilon: float = 1e-5> (v_sum, gamma)
"""
SKIP_SIMPLIFIED = (
    "OUT = com.microsoft.SkipSimplifiedLayerNormalization <epsilon: float = 1e-5> (IN, skip, gamma)"
)
SKIP_NORM = """
v_sum = Add(IN, skip)
OUT = LayerNormalization <axis: int = -1, epsilon: float = 1e-5> (v_sum, gamma, beta)
"""
SKIP_LAYER = (
    "OUT = com.microsoft.SkipLayerNormalization <epsilon: float = 1e-5> (IN, skip, gamma, beta)"
)
EMBED_PARTS = """
words = Gather(word_table, ids)
kinds = Gather(type_table, segments)
sum = Sum(words, places, kinds)
y = LayerNormalization <axis: int = -1, epsilon: float = 1e-5> (sum, gamma, beta)
"""
EMBED = """
y, unused = com.microsoft.EmbedLayerNormalization <epsilon: float = 1e-5>
    (ids, segments, word_table, place_table, type_table, gamma, beta)
"""


def norms(width: int) -> Iterator[Pair]:
    """Yield the pairs of normalizations over [1, 128, width]."""
    x, skip = values(1, 128, width), values(1, 128, width, seed=1)
    gamma, beta = values(width, seed=2), values(width, seed=3)
    constants = {"last_axis": np.array([-1]), "epsilon": np.array(1e-5, np.float32)}
    alone = {"x": x, "gamma": gamma}
    yield Pair(
        f"RMSNormalization, [1,128,{width}]",
        chain(RMS_PARTS),
        chain(RMS),
        {**alone, **constants},
    )
    yield Pair(
        f"SimplifiedLayerNormalization, [1,128,{width}]",
        chain(RMS),
        chain(SIMPLIFIED),
        alone,
        ("RMSNormalization", "its own"),
    )
    yield Pair(
        f"SkipSimplifiedLayerNormalization, [1,128,{width}]",
        chain(SKIP_RMS),
        chain(SKIP_SIMPLIFIED),
        {**alone, "skip": skip},
        ("Add, RMSNormalization", "its own"),
    )
    yield Pair(
        f"SkipLayerNormalization, [1,128,{width}]",
        # Sum, since the session makes SkipLayerNormalization of Add by itself.
        chain(SKIP_NORM.replace("Add(", "Sum(")),
        chain(SKIP_LAYER),
        {**alone, "skip": skip, "beta": beta},
        ("Sum, LayerNormalization", "its own"),
    )


def embedding(batch: int, length: int, width: int) -> Pair:
    """Return the embedding block of BERT."""
    rng = np.random.default_rng(4)
    places = values(length, width, seed=5)
    return Pair(
        f"EmbedLayerNormalization, [{batch},{length},{width}]",
        EMBED_PARTS,
        EMBED,
        {
            "ids": rng.integers(0, 30000, (batch, length), dtype=np.int32),
            "segments": np.zeros((batch, length), np.int32),
            "word_table": values(30000, width),
            "place_table": places,
            "places": places[None],
            "type_table": values(2, width, seed=6),
            "gamma": values(width, seed=2),
            "beta": values(width, seed=3),
        },
        ("Gather, Sum, LayerNormalization", "its own"),
    )


ROTARY_HEAD = """
linear = MatMul(x, weight)
split = Reshape(linear, by_head)
heads = Transpose <perm: ints = [0, 2, 1, 3]> (split)
"""
ROTARY_PARTS = (
    ROTARY_HEAD
    + """
left, right = Split <axis: int = -1, num_outputs: int = 2> (heads)
minus = Neg(right)
turned = Concat <axis: int = -1> (minus, left)
whole_cos = Concat <axis: int = -1> (cos, cos)
whole_sin = Concat <axis: int = -1> (sin, sin)
even = Mul(heads, whole_cos)
odd = Mul(turned, whole_sin)
y = Add(even, odd)
"""
)
ROTARY = ROTARY_HEAD + "y = RotaryEmbedding (heads, cos, sin)"


def rotary(heads: int = 32, width: int = 64, length: int = 128) -> Pair:
    """Return rotary embedding after the linear layer that feeds it."""
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(width // 2) / (width // 2))
    feeds = {
        "x": values(1, length, 128),
        "weight": values(128, heads * width) / 11,
        "by_head": np.array([1, length, heads, width]),
        "cos": np.cos(angles)[None].astype(np.float32),
        "sin": np.sin(angles)[None].astype(np.float32),
    }
    return Pair(f"RotaryEmbedding, {heads} heads, S={length}", ROTARY_PARTS, ROTARY, feeds)


GROUPED_PARTS = """
keys = Concat <axis: int = 2> (past_key, key)
values = Concat <axis: int = 2> (past_value, value)
keys_5 = Unsqueeze(keys, two)
values_5 = Unsqueeze(values, two)
keys_g = Expand(keys_5, grouped)
values_g = Expand(values_5, grouped)
all_keys = Reshape(keys_g, joined)
all_values = Reshape(values_g, joined)
keys_t = Transpose <perm: ints = [0, 1, 3, 2]> (all_keys)
scores = MatMul(query, keys_t)
scaled = Mul(scores, scale)
masked = Add(scaled, mask)
weights = Softmax <axis: int = -1> (masked)
y = MatMul(weights, all_values)
"""
GROUPED = """
y, present_key, present_value = Attention <scale: float = 0.125>
    (query, key, value, mask, past_key, past_value)
"""
STANDARD_3D = """
y, present_key, present_value =
    Attention <scale: float = 0.125, q_num_heads: int = 32, kv_num_heads: int = 8>
    (query_3, key_3, value_3, mask, past_key, past_value)
"""
OWN = """
y, present_key, present_value = com.microsoft.GroupQueryAttention
    <num_heads: int = 32, kv_num_heads: int = 8, scale: float = 0.125>
    (query_3, key_3, value_3, past_key, past_value, lengths, total)
"""


def grouped(queries: int, past: int) -> Iterator[Pair]:
    """Yield attention of 32 heads over 8 of width 64 with a cache of `past` tokens."""
    query, key, value = (
        values(1, 32, queries, 64),
        *(values(1, 8, queries, 64, seed=s) for s in (1, 2)),
    )
    cache = {f"past_{n}": values(1, 8, past, 64, seed=s) for n, s in (("key", 3), ("value", 4))}
    causal = np.triu(np.full((queries, past + queries), -1e9, np.float32), past + 1)
    mask = np.broadcast_to(causal, (1, 1, queries, past + queries)).copy()
    flat = {
        f"{name}_3": array.transpose(0, 2, 1, 3).reshape(1, queries, -1)
        for name, array in (("query", query), ("key", key), ("value", value))
    }
    what = f"32 heads over 8, {queries} new, {past} in the cache"
    yield Pair(
        f"Attention, {what}",
        GROUPED_PARTS,
        GROUPED,
        {
            "query": query,
            "key": key,
            "value": value,
            "mask": mask,
            **cache,
            "two": np.array([2]),
            "grouped": np.array([1, 8, 4, past + queries, 64]),
            "joined": np.array([1, 32, past + queries, 64]),
            "scale": np.array(0.125, np.float32),
        },
    )
    yield Pair(
        f"GroupQueryAttention, {what}",
        STANDARD_3D,
        OWN,
        {
            **flat,
            **cache,
            "mask": mask,
            "lengths": np.array([past + queries - 1], np.int32),
            "total": np.array([past + queries], np.int32),
        },
        ("Attention", "its own"),
    )


def three_and_one(of_one: str) -> tuple[str, str]:
    """Return three products and their sum, and the same as one product that is split.

    Args:
        of_one: A product OUT of x with weights whose names end in `_PART`.
    """
    parts = "qkv"
    three = "\n".join(
        of_one.replace("OUT", f"{part}").replace("PART", part).replace("v_", f"{part}_")
        for part in parts
    )
    one = of_one.replace("OUT", "all").replace("PART", "all").replace("v_", "all_")
    total = "y = Sum(q, k, v)"
    split = "q, k, v = Split <axis: int = -1, num_outputs: int = 3> (all)"
    return f"{three}\n{total}", f"{one}\n{split}\n{total}"


FLOAT_PRODUCT = "OUT = MatMul(x, w_PART)"
INT8_PRODUCT = """
v_codes = QuantizeLinear(x, x_scale, x_zero)
v_rounded = DequantizeLinear(v_codes, x_scale, x_zero)
v_weight = DequantizeLinear <axis: int = 1> (w_PART, s_PART)
OUT = MatMul(v_rounded, v_weight)
"""
NIBBLE_PRODUCT = (
    "OUT = com.microsoft.MatMulNBits <K: int = WIDTH, N: int = N_PART, bits: int = 4, "
    "block_size: int = 32, accuracy_level: int = 4> (x, w_PART, s_PART)"
)


def packed(width: int, tokens: int) -> Iterator[Pair]:
    """Yield query, key and value as three products and as one, by the form of their weights."""
    what = f"[1,{tokens},{width}]"
    rng = np.random.default_rng(7)
    x = values(1, tokens, width)
    weights = [values(width, width, seed=seed) / np.float32(width) for seed in (1, 2, 3)]
    first, second = three_and_one(FLOAT_PRODUCT)
    feeds = {"x": x, **joined("w", weights, axis=1)}
    for target, where in (("ort-cpu", ""), ("openvino-cpu", ", OpenVINO")):
        yield Pair(f"one product for Q, K, V{where}, {what}", first, second, feeds, THREE, target)
    first, second = three_and_one(INT8_PRODUCT)
    codes = [rng.integers(-127, 128, (width, width), np.int8) for _ in range(3)]
    scales = [np.full(width, 1e-3, np.float32)] * 3
    rounding = {"x_scale": np.array(0.03, np.float32), "x_zero": np.array(128, np.uint8)}
    feeds = {"x": x, **rounding, **joined("w", codes, axis=1), **joined("s", scales, axis=0)}
    for target, where in (("ort-cpu", ""), ("openvino-cpu", ", OpenVINO")):
        yield Pair(f"the same in int8{where}, {what}", first, second, feeds, THREE, target)
    first, second = (
        text.replace("N_all", str(3 * width)).replace("WIDTH", str(width))
        for text in three_and_one(NIBBLE_PRODUCT)
    )
    for part in "qkv":
        first = first.replace(f"N_{part}", str(width))
    nibbles = [rng.integers(0, 256, (width, width // 32, 16), np.uint8) for _ in range(3)]
    scales = [np.full((width, width // 32), 1e-3, np.float32)] * 3
    feeds = {"x": x, **joined("w", nibbles, axis=0), **joined("s", scales, axis=0)}
    yield Pair(f"the same in 4 bits, {what}", first, second, feeds, THREE)


THREE = ("three products", "one")


def joined(stem: str, parts: Sequence[np.ndarray], axis: int) -> dict[str, np.ndarray]:
    """Return the weights of query, key and value, and all of them in one."""
    named = {f"{stem}_{part}": array for part, array in zip("qkv", parts, strict=True)}
    return {**named, f"{stem}_all": np.concatenate(parts, axis)}


def biases(width: int, tokens: int, heads: int) -> Iterator[Pair]:
    """Yield attention with the biases of K and V, and without: b_k is the same for all keys of a
    query, so Softmax drops it, and shares sum to 1, so b_v becomes part of what follows O.
    """
    what = f"[1,{tokens},{width}]"
    rng = np.random.default_rng(8)
    weights = {p: values(width, width, seed=s) / np.float32(width) for s, p in enumerate("qkvo", 1)}
    added = {f"b_{p}": values(width, seed=s) for s, p in enumerate("qkvo", 5)}
    attention = f"""
        a = Attention <q_num_heads: int = {heads}, kv_num_heads: int = {heads}> (Q, K, V)
        o = MatMul(a, w_o)
    """
    for name, product in (("", FLOAT_PRODUCT), (" in int8", INT8_PRODUCT)):
        parts = "".join(
            product.replace("OUT", p).replace("PART", p).replace("v_", f"{p}_") for p in "qkv"
        )
        if name:  # A bias in steps of the products: else their sums are Gemms in float32.
            parts += "".join(
                f"{p}_bias = DequantizeLinear <axis: int = 0> (i_{p}, z_{p})\n" for p in "qkv"
            )
        bias = "{}_bias" if name else "b_{}"
        sums = {p: f" {p.upper()} = Add({p}, {bias.format(p)}) " for p in "qkv"}
        first = f"{parts} {sums['q']} {sums['k']} {sums['v']} {attention}"
        second = f"{parts} {sums['q']} {attention}".replace("K, V)", "k, v)")
        codes = {f"w_{p}": rng.integers(-127, 128, (width, width), np.int8) for p in "qkv"}
        scales = {f"s_{p}": np.full(width, 1e-4, np.float32) for p in "qkv"}
        rounding = {"x_scale": np.array(0.03, np.float32), "x_zero": np.array(128, np.uint8)}
        own = {**codes, **scales, **rounding} if name else {f"w_{p}": weights[p] for p in "qkv"}
        step = np.full(width, 3e-6, np.float32)
        whole = {f"i_{p}": np.rint(added[f"b_{p}"] / step).astype(np.int32) for p in "qkv"}
        own |= {**whole, **{f"z_{p}": step for p in "qkv"}} if name else {}
        moved = {"b_moved": added["b_o"] + added["b_v"] @ weights["o"]}
        feeds = {"x": values(1, tokens, width), "w_o": weights["o"], **added, **own, **moved}
        for target, where in (("ort-cpu", ""), ("openvino-cpu", ", OpenVINO")):
            yield Pair(
                f"attention{name} without biases of K and V{where}, {what}",
                f"{first} y = Add(o, b_o)",
                f"{second} y = Add(o, b_moved)",
                feeds,
                ("with them", "b_v in O"),
                target,
            )


def pairs() -> Iterator[Pair]:
    """Yield everything that is compared."""
    yield from norms(768)
    yield rotary()
    for queries, past in ((1, 128), (1, 512), (128, 0)):
        yield from grouped(queries, past)
    yield embedding(1, 128, 768)
    yield embedding(8, 64, 384)
    yield from packed(384, 1)
    yield from packed(384, 64)
    yield from packed(768, 128)
    yield from biases(384, 64, 12)
    yield from biases(768, 128, 12)


KINDS = {"float32": "float", "int64": "int64", "int32": "int32"}
# Tables and weights are constants of a real model; data are what a call provides.
CONSTANTS = frozenset(
    {
        "last_axis",
        "epsilon",
        "gamma",
        "beta",
        "word_table",
        "place_table",
        "type_table",
        "places",
        "weight",
        "by_head",
        "two",
        "grouped",
        "joined",
        "scale",
        "x_scale",
        "x_zero",
        *(f"{stem}_{part}" for stem in "ws" for part in ("q", "k", "v", "all")),
        "w_o",
        *(f"b_{part}" for part in ("q", "k", "v", "o", "moved")),
        *(f"{stem}_{part}" for stem in "iz" for part in "qkv"),
    }
)


def build(body: str, feeds: Feeds) -> onnx.ModelProto:
    """Return the model of a body; both models of a pair have all inputs, read or not."""
    data = [
        f"{KINDS[str(array.dtype)]}[{','.join(map(str, array.shape))}] {name}"
        for name, array in feeds.items()
        if name not in CONSTANTS
    ]
    model = onnx.parser.parse_model(
        f"{HEADER}\ngraph ({', '.join(data)}) => (float[1] y) {{\n{body}\n}}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(feeds[name], name) for name in sorted(CONSTANTS & read)
    )
    return model


def measured(pair: Pair, settings: BenchSettings, threads: int) -> dict[str, Any]:
    """Return medians, the ratio with its interval, and how far the outputs are apart."""
    feeds = {name: array for name, array in pair.feeds.items() if name not in CONSTANTS}
    options = RunnerOptions(threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "first.onnx", Path(folder) / "second.onnx"]
        outputs = []
        for path, body in zip(paths, (pair.first, pair.second), strict=True):
            onnx.save(build(body, pair.feeds), path)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            outputs.append(session.run(["y"], feeds)[0])
        first, second = measure(
            {path.stem: Contender(path, pair.target, options) for path in paths},
            {"": feeds},
            settings,
        )
    # GroupQueryAttention and the 4-dimensional form of Attention lay heads out differently.
    apart = np.linalg.norm(outputs[0] - outputs[1].reshape(outputs[0].shape))
    ratio = second.speedup
    assert ratio is not None
    return {
        "name": pair.name,
        "labels": list(pair.labels),
        "ms": [first.median_ms, second.median_ms],
        "ratio": [ratio.value, ratio.low, ratio.high],
        "relative_error": float(apart / np.linalg.norm(outputs[0])),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| second | first | first ms | second ms | ratio |"
    yield "| --- " * 5 + "|"
    for row in rows:
        first, second = row["ms"]
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"])
        yield f"| {row['name']} | {row['labels'][0]} | {first:.3f} | {second:.3f} | {ratio} |"


def main(argv: Sequence[str]) -> None:
    """Measure every pair, the pairs of one operator first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--only", default="", help="part of a name")
    add_write_option(parser, "operators")
    arguments = parser.parse_args(argv)
    settings = BenchSettings(rounds=arguments.rounds, max_seconds=12)
    rows = []
    for pair in pairs():
        if arguments.only in pair.name:
            rows.append(measured(pair, settings, arguments.threads))
            print(f"{pair.name}: {rows[-1]['ratio'][0]:.2f}", file=sys.stderr, flush=True)
            if rows[-1]["relative_error"] > TOLERANCE:
                raise SystemExit(f"{pair.name}: relative error {rows[-1]['relative_error']:.1e}")
    print("\n".join(table(rows)))
    head = {**about("operators"), "threads": arguments.threads}
    store(arguments.write, {**head, "rows": rows})


VIEWS = {"table": lambda found: table(found["rows"])}
