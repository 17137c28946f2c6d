"""What the range of int8 weights costs on CPUs without VNNI, and what saturation would.

    python -m benchmarks prepare minilm
    python -m benchmarks run pairs build/models/minilm/checkpoint --data texts.jsonl

For each range that `int8:reduce-range` offers: the signal-to-noise ratio of the weights, that of
the model's outputs, and of its products as a CPU with `vpmaddubsw` sums them. The products are
emulated in numpy on the quantized activations of a sample, so any CPU will do, and no times are
taken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import irtools
from irtools.analysis.int8_products import Int8Product, int8_products, saturating_products
from irtools.data import DataSettings, load_dataset
from irtools.model import Model
from irtools.sources import load_source
from irtools.targets import RunnerOptions, find_target

RANGES = {"8 bits": "false", "pairs": "pairs", "7 bits": "true"}
EMULATED_SAMPLES = 1


@dataclass(frozen=True)
class Result:
    """Figures of one range.

    Attributes:
        weights_db: Signal to rounding noise of the weights, mean over matrices and kernels.
        model_db: Signal to noise of the outputs against float32, with exact sums.
        unsafe: Products that could saturate for some input.
        saturated: Share of the pairs of the emulated products that did.
        products_db: Signal to noise of the emulated sums against exact ones; None: they are equal.
    """

    weights: str
    weights_db: float
    model_db: float
    unsafe: int
    saturated: float
    products_db: float | None


def main(argv: Sequence[str]) -> None:
    """Measure every range and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="texts or arrays to calibrate and compare on")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--sequence", type=int, default=64)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    model = load_source(given.model)
    weights = {name: v.const_value for name, v in model.ir.graph.initializers.items()}
    results = [measure(name, text, model, weights, given) for name, text in RANGES.items()]
    rows = [asdict(result) for result in results]
    print("\n".join(table(rows)))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield (
        "| weights | SQNR of weights | of outputs | unsafe products | saturated ppm "
        "| SQNR of sums |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        sums = "exact" if row["products_db"] is None else f"{row['products_db']:.1f} dB"
        yield (
            f"| {row['weights']} | {row['weights_db']:.1f} dB | {row['model_db']:.1f} dB "
            f"| {row['unsafe']} | {1e6 * row['saturated']:.0f} | {sums} |"
        )


VIEWS = {"table": table}


def measure(
    name: str,
    option: str,
    model: Model,
    weights: dict[str, ir.TensorProtocol | None],
    given: argparse.Namespace,
) -> Result:
    """Quantize with one range and look at weights, outputs and sums."""
    settings = DataSettings(samples=given.samples, max_length=given.sequence)
    done = irtools.optimize(
        model,
        f"cleanup,fuse,int8:reduce-range={option}",
        target="ort-cpu:isa=avx2",
        calibration=given.data,
        evaluation=given.data,
        data=settings,
        bench=None,
    )
    fidelity = done.rows[-1].fidelity
    assert fidelity is not None
    products = list(int8_products(done.model.ir))
    saturated, noise = emulate(done.model, products, given.data, settings)
    return Result(
        name,
        float(np.mean([weight_db(p, weights) for p in products])),
        fidelity.sqnr_db,
        len(saturating_products(done.model.ir)),
        saturated,
        noise,
    )


def weight_db(product: Int8Product, weights: dict[str, ir.TensorProtocol | None]) -> float:
    """Compare integers with what they were made of, by the least-squares scale per channel."""
    name = (product.weight.name or "").removesuffix("_quantized")
    tensor = weights.get(name)
    assert tensor is not None, f"{name} is not a weight of the model"
    array, integers = tensor.numpy().astype(np.float64), product.integers.astype(np.float64)
    if array.shape != integers.shape:
        array = array.T
    others = tuple(i for i in range(array.ndim) if i != product.axis)
    scale = (array * integers).sum(others, keepdims=True)
    scale /= np.maximum((integers**2).sum(others, keepdims=True), 1e-30)
    error = array - scale * integers
    return float(10 * np.log10((array**2).sum() / (error**2).sum()))


def emulate(
    model: Model, products: list[Int8Product], data: str, settings: DataSettings
) -> tuple[float, float | None]:
    """Return the share of pairs that saturate, and what that does to the sums of all products."""
    exposed = model.clone()
    found = [p for p in int8_products(exposed.ir) if p.integers.ndim == 2]
    inputs = {}
    for product in found:
        pair = product.node.inputs[0]
        assert pair is not None
        producer = pair.producer()
        assert producer is not None and producer.inputs[0] is not None
        inputs[product] = producer.inputs[0]
    exposed.ir.graph.outputs.extend(dict.fromkeys(inputs.values()))
    samples = load_dataset(data, model, settings)
    feeds = next(iter(samples.batches(EMULATED_SAMPLES)))
    with find_target("ort-cpu").runner(exposed, RunnerOptions(exact=True)) as runner:
        outputs = runner.run(feeds)
    pairs = saturated = 0
    signal = noise = 0.0
    for product in found:
        x = outputs[inputs[product].name or ""]
        w = product.integers if product.axis == 1 else product.integers.T
        lost, total, power, error = _sums(x.reshape(-1, x.shape[-1]), w)
        saturated, pairs, signal, noise = (
            saturated + lost,
            pairs + total,
            signal + power,
            noise + error,
        )
    return saturated / pairs, None if noise == 0 else float(10 * np.log10(signal / noise))


def _sums(x: np.ndarray, w: np.ndarray) -> tuple[int, int, float, float]:
    odd = x.shape[1] % 2
    a = np.pad(x, ((0, 0), (0, odd))).astype(np.int32)
    b = np.pad(w, ((0, odd), (0, 0))).astype(np.int32)
    error, lost = np.zeros((len(a), b.shape[1])), 0
    for k in range(0, a.shape[1], 2):
        pair = np.outer(a[:, k], b[k]) + np.outer(a[:, k + 1], b[k + 1])
        beyond = pair - pair.clip(-(2**15), 2**15 - 1)
        lost += int(np.count_nonzero(beyond))
        error += beyond
    exact = a.astype(np.float64) @ b
    return lost, error.size * (a.shape[1] // 2), float((exact**2).sum()), float((error**2).sum())
