"""The pass `ort-static`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx

from irtools.errors import OptionError
from irtools.passes.tools.onnxruntime import excluded_nodes, through_files
from irtools.passes.tools.quantizer import ToolQuantizer
from irtools.passes.tools.samples import FeedReader, Feeds
from irtools.passmanager import option

__all__ = ["OrtStatic"]

_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
_TYPES = {"qint8": "QInt8", "quint8": "QUInt8"}
_FORMATS = {"qdq": "QDQ", "qoperator": "QOperator"}


@dataclass(frozen=True)
class OrtStatic(ToolQuantizer):
    """Quantize with ONNX Runtime's `quantize_static`: ranges of activations from calibration data.

    The function of `onnxruntime.quantization` runs as it is, after the preparation that its
    documentation recommends; options have its names. What differs are the activations' type, u8 as
    it recommends for x86 CPUs, and the calibration: samples run one by one and are counted at once,
    so that their lengths may differ and memory holds one of them, and without padding.

    Apart from this pass `int8` does the same work, with channels that are too large for a common
    range in float32, scales moved first, and a plan that an accuracy budget can cut short.
    """

    name: ClassVar[str] = "ort-static"

    per_channel: bool = option(False, "one scale per output channel of a weight")
    reduce_range: bool = option(False, "7-bit weights, for CPUs whose 8-bit products saturate")
    activation_type: Literal["quint8", "qint8"] = option("quint8", "type of activations")
    weight_type: Literal["qint8", "quint8"] = option("qint8", "type of weights")
    calibrate_method: Literal["minmax", "entropy", "percentile"] = option(
        "minmax", "how the range of an activation is found"
    )
    percentile: float = option(
        99.999, "per cent of the values that a range covers; with calibrate-method=percentile"
    )
    moving_average: bool = option(
        False, "ends of ranges are averages over the samples; with calibrate-method=minmax"
    )
    quant_format: Literal["qdq", "qoperator"] = option(
        "qdq", "QuantizeLinear and DequantizeLinear around the nodes, or operators on integers"
    )
    op_types_to_quantize: tuple[str, ...] = option(
        (), "operators, such as MatMul+Gemm; none named: all that it can"
    )
    nodes_to_exclude: tuple[str, ...] = option((), "patterns of names of nodes that stay float32")
    matmul_const_b_only: bool = option(
        False, "leave out products of two activations, such as those of attention"
    )
    pre_process: bool = option(True, "infer shapes and fold what is constant first")

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise OptionError(
                f"percentile is {self.percentile:g}, expected more than 50 and at most 100"
            )
        if self.moving_average and self.calibrate_method != "minmax":
            raise OptionError(
                f"moving-average needs calibrate-method=minmax, it is {self.calibrate_method!r}"
            )

    def quantized(self, message: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        excluded = excluded_nodes(message, self.nodes_to_exclude)
        if self.matmul_const_b_only:
            # Its own MatMulConstBOnly has no effect on the format with QuantizeLinear nodes.
            excluded += _products_of_activations(message)

        def quantize(source: Path, target: Path) -> None:
            quantize_static(
                source,
                target,
                FeedReader(tuple(samples)),
                quant_format=QuantFormat[_FORMATS[self.quant_format]],
                op_types_to_quantize=list(self.op_types_to_quantize),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                activation_type=QuantType[_TYPES[self.activation_type]],
                weight_type=QuantType[_TYPES[self.weight_type]],
                nodes_to_exclude=excluded,
                calibrate_method=CalibrationMethod[_METHODS[self.calibrate_method]],
                extra_options=self._extra(),
            )

        return through_files(self.name, message, quantize, prepare=self.pre_process)

    def _extra(self) -> dict[str, object]:
        # One sample at a time: the histograms of samples of different lengths cannot be joined
        # otherwise, and every activation of every sample would be held at once.
        extra: dict[str, object] = {"CalibStridedMinMax": 1}
        if self.calibrate_method == "percentile":
            extra["CalibPercentile"] = self.percentile
        if self.moving_average:
            extra["CalibMovingAverage"] = True
        return extra


def _products_of_activations(message: onnx.ModelProto) -> list[str]:
    """Return the names of MatMul nodes whose second input is not constant."""
    constants = {weight.name for weight in message.graph.initializer}
    found = []
    for node in message.graph.node:
        if all(name in constants for name in node.input):
            constants.update(node.output)
        elif node.op_type == "MatMul" and node.input[1] not in constants:
            found.append(node.name)
    return found
