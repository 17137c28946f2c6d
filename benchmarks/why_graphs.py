"""Graphs for `benchmarks run why`: small, of any width, in float32 and in int8."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from irtools.model import Model, iter_nodes
from irtools.testing import read_model

__all__ = ["chain", "convolutions", "dynamic_chain", "quantized", "read", "weights"]

_NAME = re.compile(r"\[[a-z]+[\w.]*/\w+\]")
_HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def read(name: str, inputs: str, output: str, lines: Sequence[str],
         arrays: Mapping[str, np.ndarray]) -> Model:  # fmt: skip
    """Return a model of lines of ONNX text; arrays are its initializers.

    Node names may hold points and strokes, which the text does not know: `[layer.0/MatMul]`.
    """
    typed = ", ".join([inputs, *(_declared(n, a) for n, a in arrays.items())])
    body = _NAME.sub(lambda match: _written(match[0]), " ".join(lines))
    model = read_model(f"{_HEAD} {name} ({typed}) => ({output}) {{ {body} }}", arrays)
    for node in iter_nodes(model.ir):
        node.name = (node.name or "").replace("__p__", ".").replace("__s__", "/")
    return model


def weights(count: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """Return matrices [width, width] that keep the power of what they multiply."""
    draw = np.random.default_rng(seed)
    return [
        (draw.standard_normal((width, width)) / width**0.5).astype(np.float32) for _ in range(count)
    ]


def chain(matrices: Sequence[np.ndarray], tokens: int | str = 64) -> Model:
    """x [B, tokens, D] through products with a Relu after each; values are called `a0`, `a1`, .."""
    width = len(matrices[0])
    lines = [
        f"[layer.{n}/MatMul] p{n} = MatMul({_state(n)}, w{n}) [layer.{n}/Relu] a{n} = Relu(p{n})"
        for n in range(len(matrices))
    ]
    last = f"a{len(matrices) - 1}"
    return read(
        "chain",
        f"float[batch, {tokens}, {width}] x",
        f"float[batch, {tokens}, {width}] {last}",
        lines,
        {f"w{n}": w for n, w in enumerate(matrices)},
    )


def quantized(
    matrices: Sequence[np.ndarray],
    grids: Sequence[tuple[float, float]],
    tokens: int | str = 64,
    *,
    coarse: int | None = None,
) -> Model:
    """`chain` with a QDQ pair in front of each product.

    Args:
        matrices: Float weights; they are rounded to s8.
        grids: Least and largest value of the u8 grid in front of each product.
        tokens: As `chain` takes it.
        coarse: Number of a weight whose scales are eight times as large as they need to be.
    """
    width = len(matrices[0])
    lines: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    for n, (matrix, (low, high)) in enumerate(zip(matrices, grids, strict=True)):
        scale = (high - low) / 255
        arrays |= {
            f"s{n}": np.array(scale, np.float32),
            f"z{n}": np.array(round(-low / scale), np.uint8),
            **_stored(n, matrix, 8 if n == coarse else 1),
        }
        lines += [
            f"[layer.{n}/QuantizeLinear] q{n} = QuantizeLinear({_state(n)}, s{n}, z{n})",
            f"[layer.{n}/DequantizeLinear] d{n} = DequantizeLinear(q{n}, s{n}, z{n})",
            f"v{n} = DequantizeLinear<axis = 1>(w{n}_q, w{n}_s)",
            f"[layer.{n}/MatMul] p{n} = MatMul(d{n}, v{n}) [layer.{n}/Relu] a{n} = Relu(p{n})",
        ]
    last = f"a{len(matrices) - 1}"
    shape = f"float[batch, {tokens}, {width}]"
    return read("chain", f"{shape} x", f"{shape} {last}", lines, arrays)


def dynamic_chain(matrices: Sequence[np.ndarray], tokens: int | str = 64) -> Model:
    """`chain` with activations that are quantized at run time."""
    width = len(matrices[0])
    lines: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    for n, matrix in enumerate(matrices):
        arrays |= _stored(n, matrix, 1)
        lines += [
            f"q{n}, s{n}, z{n} = DynamicQuantizeLinear({_state(n)})",
            f"[layer.{n}/MatMul_quant] i{n} = MatMulInteger(q{n}, w{n}_q, z{n})",
            f"f{n} = Cast<to = 1>(i{n}) t{n} = Mul(s{n}, w{n}_s)",
            f"p{n} = Mul(f{n}, t{n}) [layer.{n}/Relu] a{n} = Relu(p{n})",
        ]
    shape = f"float[batch, {tokens}, {width}]"
    return read("chain", f"{shape} x", f"{shape} a{len(matrices) - 1}", lines, arrays)


def convolutions(count: int, channels: int, size: int, *, integers: bool) -> Model:
    """Convolutions 3x3 with a Relu after each, in float32 or quantized at run time."""
    draw = np.random.default_rng(0)
    lines: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    form = "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
    for n in range(count):
        kernel = draw.standard_normal((channels, channels, 3, 3)) / (9 * channels) ** 0.5
        if integers:
            scale = float(np.abs(kernel).max()) / 127
            arrays |= {
                f"w{n}_q": np.rint(kernel / scale).astype(np.int8),
                f"w{n}_s": np.array(scale, np.float32),
            }
            lines += [
                f"q{n}, s{n}, z{n} = DynamicQuantizeLinear({_state(n)})",
                f"[stage.{n}/ConvInteger] i{n} = ConvInteger{form}(q{n}, w{n}_q, z{n})",
                f"f{n} = Cast<to = 1>(i{n}) t{n} = Mul(s{n}, w{n}_s) p{n} = Mul(f{n}, t{n})",
            ]
        else:
            arrays[f"w{n}"] = kernel.astype(np.float32)
            lines.append(f"[stage.{n}/Conv] p{n} = Conv{form}({_state(n)}, w{n})")
        lines.append(f"[stage.{n}/Relu] a{n} = Relu(p{n})")
    shape = f"float[batch, {channels}, {size}, {size}]"
    return read("stages", f"{shape} x", f"{shape} a{count - 1}", lines, arrays)


def _written(name: str) -> str:
    return name.replace(".", "__p__").replace("/", "__s__")


def _stored(n: int, matrix: np.ndarray, coarse: int) -> dict[str, np.ndarray]:
    scale = np.asarray(coarse * np.abs(matrix).max(axis=0) / 127, np.float32)
    return {f"w{n}_q": np.rint(matrix / scale).astype(np.int8), f"w{n}_s": scale}


def _state(n: int) -> str:
    return "x" if n == 0 else f"a{n - 1}"


def _declared(name: str, array: np.ndarray) -> str:
    kinds = {"float32": "float", "float16": "float16"}
    kind = kinds.get(array.dtype.name, array.dtype.name)
    sizes = ", ".join(map(str, array.shape))
    return f"{kind}[{sizes}] {name}" if array.ndim else f"{kind} {name}"
