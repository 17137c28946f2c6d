"""Pairs of models that differ by one known cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.why_graphs import chain, convolutions, dynamic_chain, quantized, read, weights
from irtools.data import Dataset
from irtools.model import Model

__all__ = ["CASES", "Pair"]

_EVEN = (-4.5, 4.5)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models and why the second one lags.

    Attributes:
        first: The one to compare with.
        second: The one that lags.
        expected: Causes that are the right answer.
        target: What runs both.
        data: Evaluation data.
        calibration: What the second was calibrated on.
        threads: Threads; None: the CPU quota.
    """

    first: Model
    second: Model
    expected: tuple[str, ...]
    target: str = "ort-cpu:isa=native"
    data: Dataset | None = None
    calibration: Dataset | None = None
    threads: int | None = None


def dynamic_int8(width: int) -> Pair:
    """OpenVINO dequantizes what is quantized at run time."""
    matrices = weights(3, width)
    pair = chain(matrices), dynamic_chain(matrices)
    return Pair(*pair, ("dynamic-int8",), "openvino-cpu:isa=native")


def int8_without_vnni(width: int) -> Pair:
    """Products by 8-bit weights leave 16 bits, and are hardly faster."""
    matrices = weights(3, width)
    pair = chain(matrices), quantized(matrices, [_EVEN, (0, 4.5), (0, 4.5)])
    return Pair(*pair, ("no-int8-instructions", "saturation"), "ort-cpu:isa=avx2")


def unfused_pairs(width: int) -> Pair:
    """Pairs around normalizations and activations, which no kernel takes in."""
    blocks = 6
    plain, pairs = [], []
    for n in range(blocks):
        norm, gelu = f"[block.{n}/LayerNormalization] n{n} =", f"[block.{n}/Gelu] a{n} ="
        before = "x" if n == 0 else f"a{n - 1}"
        plain += [f"{norm} LayerNormalization({before}, g)", f"{gelu} Gelu(n{n})"]
        pairs += [
            f"q{n} = QuantizeLinear({before}, s, z) d{n} = DequantizeLinear(q{n}, s, z)",
            f"{norm} LayerNormalization(d{n}, g)",
            f"r{n} = QuantizeLinear(n{n}, s, z) e{n} = DequantizeLinear(r{n}, s, z)",
            f"{gelu} Gelu(e{n})",
        ]
    shape, gain = f"float[batch, 256, {width}]", {"g": np.ones(width, np.float32)}
    grid = {"s": np.array(9 / 255, np.float32), "z": np.array(128, np.uint8)}
    form = (f"{shape} x", f"{shape} a{blocks - 1}")
    first, second = (
        read("blocks", *form, plain, gain), read("blocks", *form, pairs, {**gain, **grid})
    )  # fmt: skip
    return Pair(first, second, ("unfused-pairs",))


def integer_convolutions(width: int) -> Pair:
    """Convolutions that were quantized at run time."""
    channels, size = max(width // 6, 4), 32
    return Pair(
        convolutions(3, channels, size, integers=False),
        convolutions(3, channels, size, integers=True),
        ("integer-convolution",),
    )


def float_fallback(width: int) -> Pair:
    """Countable rows and a float bias: ONNX Runtime makes float Gemms of int8 products."""
    matrices = weights(3, width)
    biases = {f"b{n}": np.full(width, 0.1, np.float32) for n in range(3)}
    plain, pairs, arrays = [], [], {}
    for n, matrix in enumerate(matrices):
        state = "x" if n == 0 else f"a{n - 1}"
        scale = np.abs(matrix).max(axis=0) / 127
        arrays |= {
            f"w{n}_q": np.rint(matrix / scale).astype(np.int8),
            f"w{n}_s": scale.astype(np.float32),
        }
        product, added = f"[layer.{n}/MatMul] p{n} = MatMul", f"[layer.{n}/Add] t{n} = Add"
        tail = f"{added}(p{n}, b{n}) a{n} = Relu(t{n})"
        plain.append(f"{product}({state}, w{n}) {tail}")
        pairs += [
            f"q{n} = QuantizeLinear({state}, s, z) d{n} = DequantizeLinear(q{n}, s, z)",
            f"v{n} = DequantizeLinear<axis = 1>(w{n}_q, w{n}_s)",
            f"{product}(d{n}, v{n}) {tail}",
        ]
    grid = {"s": np.array(9 / 255, np.float32), "z": np.array(128, np.uint8)}
    form = (f"float[64, {width}] x", f"float[64, {width}] a2")
    floats = {f"w{n}": matrix for n, matrix in enumerate(matrices)}
    return Pair(
        read("layers", *form, plain, {**floats, **biases}),
        read("layers", *form, pairs, {**arrays, **biases, **grid}),
        ("float-fallback",),
    )


def left_in_float(width: int) -> Pair:
    """Int8 products next to convolutions that were not quantized."""
    channels, size = max(width // 6, 4), 32
    head = weights(1, channels)[0]
    scale = np.abs(head).max(axis=0) / 127
    stages = convolutions(3, channels, size, integers=False)
    kernels = {
        name: value.const_value.numpy()
        for name, value in stages.ir.graph.initializers.items()
        if value.const_value is not None
    }
    form = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    body = [
        f"[stage.{n}/Conv] p{n} = Conv{form}({'x' if n == 0 else f'a{n - 1}'}, w{n}) "
        f"a{n} = Relu(p{n})"
        for n in range(3)
    ]
    body.append("pooled = GlobalAveragePool(a2) flat = Flatten(pooled)")
    grid = {"s": np.array(2 / 255, np.float32), "z": np.array(0, np.uint8)}
    shape = (f"float[batch, {channels}, {size}, {size}] x", f"float[batch, {channels}] y")
    int8 = [
        "q = QuantizeLinear(flat, s, z) d = DequantizeLinear(q, s, z)",
        "v = DequantizeLinear<axis = 1>(h_q, h_s) [head/MatMul] y = MatMul(d, v)",
    ]
    stored = {"h_q": np.rint(head / scale).astype(np.int8), "h_s": scale.astype(np.float32)}
    return Pair(
        read("net", *shape, [*body, "[head/MatMul] y = MatMul(flat, h)"], {**kernels, "h": head}),
        read("net", *shape, [*body, *int8], {**kernels, **stored, **grid}),
        ("left-in-float",),
    )


def layout_copies(width: int) -> Pair:
    """Transposes that no optimizer can move: a Reshape stands between them."""
    lines, copies = [], []
    size = 48
    for n in range(4):
        state = "x" if n == 0 else f"a{n - 1}"
        lines.append(f"[stage.{n}/Sigmoid] a{n} = Sigmoid({state})")
        copies += [
            f"[stage.{n}/Transpose] t{n} = Transpose<perm = [0, 2, 3, 1]>({state})",
            f"r{n} = Reshape(t{n}, rows) [stage.{n}/Act] u{n} = Sigmoid(r{n})",
            f"m{n} = Reshape(u{n}, image)",
            f"[stage.{n}/Transpose_1] a{n} = Transpose<perm = [0, 3, 1, 2]>(m{n})",
        ]
    channels = max(width // 6, 4)
    shape = f"float[1, {channels}, {size}, {size}]"
    shapes = {
        "rows": np.array([1, size * size // 4, channels * 4], np.int64),
        "image": np.array([1, size, size, channels], np.int64),
    }
    form = (f"{shape} x", f"{shape} a3")
    first, second = read("stages", *form, lines, {}), read("stages", *form, copies, shapes)
    return Pair(first, second, ("layout-copies",))


def casts(width: int) -> Pair:
    """Float16 on a CPU that multiplies in float32 alone: a conversion on each side."""
    plain, halves = [], []
    for n in range(6):
        state = "x" if n == 0 else f"a{n - 1}"
        plain.append(f"[layer.{n}/Softmax] a{n} = Softmax({state})")
        halves += [
            f"c{n} = Cast<to = 10>({state}) f{n} = Cast<to = 1>(c{n})",
            f"[layer.{n}/Softmax] a{n} = Softmax(f{n})",
        ]
    shape = f"float[batch, 256, {width}]"
    form = (f"{shape} x", f"{shape} a5")
    return Pair(read("layers", *form, plain, {}), read("layers", *form, halves, {}), ("casts",))


def spoilt_layer(width: int) -> Pair:
    """One weight of six holds other numbers."""
    matrices = weights(6, width)
    other = [*matrices]
    other[3] = matrices[3] + 0.5 * weights(1, width, 9)[0]
    return Pair(
        chain(matrices), chain(other), ("coarse-weights", "spoilt-layer"), data=_rows(width)
    )


def coarse_weights(width: int) -> Pair:
    """One weight of which scales leave five bits of eight."""
    matrices = weights(3, width)
    pair = chain(matrices), quantized(matrices, _grids(matrices, width), coarse=1)
    return Pair(*pair, ("coarse-weights",), data=_rows(width))


def outlier_channel(width: int) -> Pair:
    """One channel of the activations is a hundred times as large, and its weights as small."""
    matrices = weights(3, width)
    matrices[0][:, 5] *= 150
    matrices[1][5, :] /= 150
    pair = chain(matrices), quantized(matrices, _grids(matrices, width))
    return Pair(*pair, ("outlier-channel",), data=_rows(width))


def wrong_calibration(width: int) -> Pair:
    """Ranges of data that is a fifth as large as what the model then meets."""
    matrices = weights(3, width)
    small = _rows(width, scale=0.2)
    pair = chain(matrices), quantized(matrices, _grids(matrices, width, scale=0.2))
    return Pair(*pair, ("exceeded-ranges",), data=_rows(width), calibration=small)


def idle_exits(width: int) -> Pair:
    """An exit with a threshold that no sample reaches."""
    matrices = {f"w{n}": matrix for n, matrix in enumerate(weights(3, width))}
    head = {"h": weights(1, width, 5)[0][:, :4] / 4, "g": weights(1, width, 6)[0][:, :4]}
    rest = (
        "[layer.1/MatMul] p1 = MatMul(a0, w1) a1 = Relu(p1) "
        "[layer.2/MatMul] p2 = MatMul(a1, w2) a2 = Relu(p2) m = ReduceMean<keepdims = 0>(a2, axis)"
    )
    begin = "[layer.0/MatMul] p0 = MatMul(x, w0) a0 = Relu(p0)"
    arrays = {**matrices, "axis": np.array([1], np.int64)}
    exit_ = (
        f"{begin} m0 = ReduceMean<keepdims = 0>(a0, axis) early = MatMul(m0, h) "
        "p = Softmax(early) top = ReduceMax<keepdims = 0>(p) stay = Less(top, limit) "
        "[exit/If] logits = If(stay) <then_branch = deep () => (float[batch, 4] late) "
        f"{{ {rest} late = MatMul(m, g) }}, else_branch = done () => (float[batch, 4] same) "
        "{ same = Identity(early) }>"
    )
    limit = {"limit": np.array(0.99, np.float32)}
    form = (f"float[batch, 64, {width}] x", "float[batch, 4] logits")
    first = read("exits", *form, [f"{begin} {rest} logits = MatMul(m, g)"],
                 {**arrays, "g": head["g"]})  # fmt: skip
    second = read("exits", *form, [exit_], {**arrays, **head, **limit})
    return Pair(first, second, ("idle-exits",), data=_rows(width, samples=12))


def threads_over_quota(width: int) -> Pair:
    """Eight times as many threads as CPUs."""
    from irtools.measure.cpu import cpu_quota

    matrices = {f"w{n}": matrix for n, matrix in enumerate(weights(3, width))}
    ends = {"low": np.array(-1, np.float32), "lower": np.array(-2, np.float32)}
    shape = f"float[batch, 64, {width}]"
    plain, more = (
        [
            f"[layer.{n}/MatMul] p{n} = MatMul({'x' if n == 0 else f'a{n - 1}'}, w{n}) {rest}"
            for n, rest in enumerate(kind.replace("N", str(n)) for n in range(3))
        ]
        for kind in ("aN = Relu(pN)", "rN = Relu(pN) sN = Max(rN, low) aN = Max(sN, lower)")
    )
    first, second = (
        read("layers", f"{shape} x", f"{shape} a2", lines, {**matrices, **more_arrays})
        for lines, more_arrays in ((plain, {}), (more, ends))
    )
    return Pair(first, second, ("threads-over-quota",), threads=8 * cpu_quota())


def repeated_weight(width: int) -> Pair:
    """A table that embedding and classifier shared, and that folding a Transpose doubled."""
    table = weights(1, width)[0]
    body = "[embed/Gather] h = Gather(table, ids)"
    form = ("int64[batch, seq] ids", f"float[batch, seq, {width}] scores")
    shared = [f"{body} t = Transpose(table) [head/MatMul] scores = MatMul(h, t)"]
    folded = [f"{body} [head/MatMul] scores = MatMul(h, turned)"]
    copy = np.ascontiguousarray(table.T)
    return Pair(
        read("tied", *form, shared, {"table": table}),
        read("tied", *form, folded, {"table": table, "turned": copy}),
        ("repeated-weights",),
    )


def folded_constant(width: int) -> Pair:
    """A mask that was computed of a range, and is now stored."""
    lines = [
        "r = Range(zero, size, one) row = Unsqueeze(r, first) column = Unsqueeze(r, last) "
        "later = Greater(row, column) mask = Where(later, low, high) y = Add(x, mask)"
    ]
    side = 2 * width
    numbers = {
        "zero": np.array(0, np.int64), "size": np.array(side, np.int64),
        "one": np.array(1, np.int64), "first": np.array([0], np.int64),
        "last": np.array([1], np.int64), "low": np.array(-9.0, np.float32),
        "high": np.array(0.0, np.float32),
    }  # fmt: skip
    form = (f"float[batch, {side}, {side}] x", f"float[batch, {side}, {side}] y")
    mask = np.triu(np.full((side, side), -9.0, np.float32), 1)
    second = read("masked", *form, ["y = Add(x, stored)"], {"stored": mask})
    return Pair(read("masked", *form, lines, numbers), second, ("folded-constants",))


def unmasked_padding(width: int) -> Pair:
    """A mean over all positions where padding was to be left out."""
    table = weights(1, width)[0]
    head = weights(1, width, 3)[0][:, :4].copy()
    begin = "h = Gather(table, ids) w = Cast<to = 1>(attention_mask) u = Unsqueeze(w, last)"
    masked = "k = Mul(h, u) s = ReduceSum<keepdims = 0>(k, axis)"
    whole = "s = ReduceSum<keepdims = 0>(h, axis)"
    counted = "n = ReduceSum<keepdims = 1>(w, axis) m = Div(s, n) logits = MatMul(m, head)"
    arrays = {"table": table, "head": head, "axis": np.array([1], np.int64),
              "last": np.array([-1], np.int64)}  # fmt: skip
    form = ("int64[batch, seq] ids, int64[batch, seq] attention_mask", "float[batch, 4] logits")
    draw = np.random.default_rng(1)
    mask = (np.arange(12) < draw.integers(4, 13, 32)[:, None]).astype(np.int64)
    ids = draw.integers(1, width, (32, 12)) * mask
    data = Dataset({"ids": ids, "attention_mask": mask}, source="samples")
    return Pair(
        read("pooled", *form, [begin, masked, counted], arrays),
        read("pooled", *form, [begin, whole, counted], arrays),
        ("unmasked-padding",),
        data=data,
    )


def class_order(width: int) -> Pair:
    """The columns of the classifier stand in another order."""
    head = weights(1, width, 3)[0][:, :5].copy()
    form = (f"float[batch, {width}] x", "float[batch, 5] logits")
    other = np.ascontiguousarray(head[:, [2, 0, 1, 4, 3]])
    first, second = (
        read("head", *form, ["[head/MatMul] logits = MatMul(x, w)"], {"w": w})
        for w in (head, other)
    )
    draw = np.random.default_rng(2)
    x = draw.standard_normal((200, width)).astype(np.float32)
    data = Dataset({"x": x}, (x @ head).argmax(axis=1).astype(np.int64), source="samples")
    return Pair(first, second, ("class-order",), data=data)


CASES: Mapping[str, Callable[[int], Pair]] = {
    "dynamic int8 on OpenVINO": dynamic_int8,
    "int8 without VNNI": int8_without_vnni,
    "pairs that nothing takes in": unfused_pairs,
    "ConvInteger": integer_convolutions,
    "float fall-back": float_fallback,
    "Conv left in float32": left_in_float,
    "layout copies": layout_copies,
    "casts": casts,
    "exits that never fire": idle_exits,
    "threads over the quota": threads_over_quota,
    "one spoilt layer": spoilt_layer,
    "one weight of few steps": coarse_weights,
    "outlier channel": outlier_channel,
    "wrong calibration data": wrong_calibration,
    "padding not masked": unmasked_padding,
    "classes in another order": class_order,
    "shared weight folded out": repeated_weight,
    "constant folded": folded_constant,
}
"""Name to what makes the pair at a width."""


def _rows(width: int, samples: int = 16, scale: float = 1.0) -> Dataset:
    draw = np.random.default_rng(7)
    x = (scale * draw.standard_normal((samples, 64, width))).astype(np.float32)
    return Dataset({"x": x}, source="samples")


def _grids(matrices: list[np.ndarray], width: int, scale: float = 1.0) -> list[tuple[float, float]]:
    """Return the ranges in front of each product that data of a scale gives."""
    x = _rows(width, scale=scale).feeds["x"].reshape(-1, width)
    states = [x]
    for matrix in matrices:
        states.append(np.maximum(states[-1] @ matrix, 0))
    return [(min(0.0, float(a.min())), float(a.max())) for a, _ in pairwise(states)]
