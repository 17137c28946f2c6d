"""Small networks with residual streams, as ONNX text with weights that are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irtools.model import Model
from irtools.testing import read_model

WIDTH = 32
TOKENS = 50
EXACT_DB = 110.0


@dataclass(frozen=True)
class Network:
    """A pre-norm network of attention and feed-forward blocks.

    Attributes:
        norm: `rms` or `layer`.
        blocks: How many.
        tied: Whether the head multiplies by the table of embeddings.
        end: What the model gives: `logits`, the last `norm`, the `stream` itself, or logits of the
            `first` position.
        biases: Whether products have biases.
        scaled: Whether blocks have layer scales.
        positions: Whether a table of positions is added.
        cached: Whether values are an output of the model.
        packed: Whether one product makes queries, keys and values.
        looked_up_twice: Whether the caller gets some embeddings as well.
        outliers: Channels of the embeddings that are large.
        opset: Of the model.
    """

    norm: str = "rms"
    blocks: int = 1
    tied: bool = False
    end: str = "logits"
    biases: bool = False
    scaled: bool = False
    positions: bool = False
    cached: bool = False
    packed: bool = False
    looked_up_twice: bool = False
    outliers: int = 3
    opset: int = 23
    seed: int = 0


def make(network: Network) -> Model:
    """Write a network."""
    return _Writer(network).model()


class _Writer:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.rng = np.random.default_rng(network.seed)
        self.weights: dict[str, np.ndarray] = {}
        self.lines: list[str] = []

    def model(self) -> Model:
        net = self.network
        table = self.rng.normal(size=(TOKENS, WIDTH))
        table[:, : net.outliers] *= 20
        self.weights["table"] = table.astype(np.float32)
        x = self.line("Gather", "table", "ids")
        if net.positions:
            x = self.line("Add", x, self.weight("positions", 6, WIDTH))
        for index in range(net.blocks):
            x = self.add(x, self.attention(self.norm(x, f"a{index}"), index), f"a{index}")
            x = self.add(x, self.feed_forward(self.norm(x, f"f{index}"), index), f"f{index}")
        outputs = [self.end(x)]
        if net.cached:
            outputs += [f"float[B,2,6,16] value{i}" for i in range(net.blocks)]
        if net.looked_up_twice:
            self.weights["zero"] = np.asarray(0)
            first = self.line("Gather", "ids", "zero", attributes="<axis = 1>")
            self.lines.append(f"embedded = Gather(table, {first})")
            outputs.append(f"float[B,{WIDTH}] embedded")
        inputs = ["int64[B,6] ids", *(self.declared(n, a) for n, a in self.weights.items())]
        text = (
            f'<ir_version: 10, opset_import: ["" : {net.opset}]>\n'
            f"network ({', '.join(inputs)}) => ({', '.join(outputs)}) {{\n"
            + "\n".join(self.lines)
            + "\n}"
        )
        return read_model(text, self.weights)

    def end(self, x: str) -> str:
        net = self.network
        if net.end == "stream":
            self.lines.append(f"stream = Identity({x})")
            self.product(self.norm(x, "end"), "head", WIDTH, 4, "other")
            return f"float[B,6,{WIDTH}] stream"
        n = self.norm(x, "end")
        if net.end == "norm":
            self.lines.append(f"hidden = Identity({n})")
            return f"float[B,6,{WIDTH}] hidden"
        if net.end == "first":
            self.weights["zero"] = np.asarray(0)
            n = self.line("Gather", n, "zero", attributes="<axis = 1>")
            self.product(n, "head", WIDTH, 8, "logits")
            return "float[B,8] logits"
        if net.tied:
            turned = self.line("Transpose", "table", attributes="<perm = [1, 0]>")
            self.lines.append(f"logits = MatMul({n}, {turned})")
        else:
            self.product(n, "head", WIDTH, TOKENS, "logits")
        return f"float[B,6,{TOKENS}] logits"

    def norm(self, x: str, name: str) -> str:
        gain = 1 + 0.3 * self.rng.normal(size=WIDTH)
        self.weights[f"{name}_gain"] = gain.astype(np.float32)
        if self.network.norm == "rms":
            return self.line("RMSNormalization", x, f"{name}_gain")
        offset = self.weight(f"{name}_offset", WIDTH)
        return self.line("LayerNormalization", x, f"{name}_gain", offset)

    def attention(self, x: str, index: int) -> str:
        if self.network.packed:
            packed = self.product(x, f"qkv{index}", WIDTH, 3 * WIDTH)
            self.lines.append(
                f"q{index}, k{index}, v{index} = Split<axis = -1, num_outputs = 3>({packed})"
            )
            q, k, v = (f"{kind}{index}" for kind in "qkv")
        else:
            q, k, v = (self.product(x, f"{kind}{index}", WIDTH, WIDTH) for kind in "qkv")
        q, k, v = (self.split(part) for part in (q, k, v))
        if self.network.cached:
            self.lines.append(f"value{index} = Identity({v})")
            v = f"value{index}"
        keys = self.line("Transpose", k, attributes="<perm = [0, 1, 3, 2]>")
        shares = self.line("Softmax", self.line("MatMul", q, keys), attributes="<axis = -1>")
        mixed = self.line("MatMul", shares, v)
        joined = self.line("Transpose", mixed, attributes="<perm = [0, 2, 1, 3]>")
        self.weights["flat"] = np.asarray([0, 0, WIDTH])
        return self.product(self.line("Reshape", joined, "flat"), f"o{index}", WIDTH, WIDTH)

    def feed_forward(self, x: str, index: int) -> str:
        up = self.line("Gelu", self.product(x, f"up{index}", WIDTH, 48))
        return self.product(up, f"down{index}", 48, WIDTH)

    def split(self, x: str) -> str:
        self.weights["split"] = np.asarray([0, 0, 2, WIDTH // 2])
        heads = self.line("Reshape", x, "split")
        return self.line("Transpose", heads, attributes="<perm = [0, 2, 1, 3]>")

    def add(self, x: str, y: str, name: str) -> str:
        if self.network.scaled:
            y = self.line("Mul", y, self.weight(f"{name}_scale", WIDTH))
        return self.line("Add", x, y)

    def product(self, x: str, name: str, rows: int, columns: int, result: str = "") -> str:
        weight = self.weight(name, rows, columns)
        if not self.network.biases:
            return self.line("MatMul", x, weight, result=result)
        bias = self.weight(f"{name}_bias", columns)
        return self.line("Add", self.line("MatMul", x, weight), bias, result=result)

    def weight(self, name: str, *shape: int) -> str:
        self.weights[name] = (0.3 * self.rng.normal(size=shape)).astype(np.float32)
        return name

    def line(self, op: str, *inputs: str, attributes: str = "", result: str = "") -> str:
        result = result or f"t{len(self.lines)}"
        self.lines.append(f"{result} = {op}{attributes}({', '.join(inputs)})")
        return result

    @staticmethod
    def declared(name: str, array: np.ndarray) -> str:
        kind = "int64" if array.dtype == np.int64 else "float"
        return (
            f"{kind}[{','.join(map(str, array.shape))}] {name}" if array.ndim else f"{kind} {name}"
        )
