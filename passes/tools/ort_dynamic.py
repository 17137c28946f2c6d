"""The pass `ort-dynamic`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx

from irtools.passes.tools.onnxruntime import excluded_nodes, through_files
from irtools.passes.tools.quantizer import ToolQuantizer
from irtools.passes.tools.samples import Feeds
from irtools.passmanager import option

__all__ = ["OrtDynamic"]

_TYPES = {"qint8": "QInt8", "quint8": "QUInt8"}


@dataclass(frozen=True)
class OrtDynamic(ToolQuantizer):
    """Quantize with ONNX Runtime's `quantize_dynamic`: activations are measured at run time.

    The function of `onnxruntime.quantization` runs as it is, after the preparation that its
    documentation recommends; options have its names. It needs no calibration data. One range is
    taken for a whole batch, so that outputs depend on what else is in it, padding included.
    """

    name: ClassVar[str] = "ort-dynamic"

    per_channel: bool = option(False, "one scale per output channel of a weight")
    reduce_range: bool = option(False, "7-bit weights, for CPUs whose 8-bit products saturate")
    weight_type: Literal["qint8", "quint8"] = option("qint8", "type of weights")
    op_types_to_quantize: tuple[str, ...] = option(
        (), "operators, such as MatMul+Gather; none named: all that it can"
    )
    nodes_to_exclude: tuple[str, ...] = option((), "patterns of names of nodes that stay float32")
    pre_process: bool = option(True, "infer shapes and fold what is constant first")

    @property
    def needs_samples(self) -> bool:
        return False

    def quantized(self, message: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        excluded = excluded_nodes(message, self.nodes_to_exclude)

        def quantize(source: Path, target: Path) -> None:
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=list(self.op_types_to_quantize),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=QuantType[_TYPES[self.weight_type]],
                nodes_to_exclude=excluded,
                # The type of tensors that shape inference says nothing about.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )

        return through_files(self.name, message, quantize, prepare=self.pre_process)
