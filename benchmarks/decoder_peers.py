"""Decoders with weights of 4 and 8 bits made by other tools, each at its documented settings.

    python -m benchmarks.decoder_peers NAME CACHE CHECKPOINT MODEL TARGET

Each takes the float model that `irc export --with-past` wrote, or the checkpoint. Run as a command,
so that the memory of each can be watched from outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.prepared.packages import Package, unpacked
from irtools.passes.tools.nncf_weights import NncfWeights

GENAI = Package(
    "onnxruntime-genai==0.18.0",
    {"": "af9e2a4efb447feea2cfa10e24aedef1e4f01635c00f6cca759ee13254ee27db"},
)


@dataclass(frozen=True)
class Source:
    """What a peer may start from.

    Attributes:
        cache: Folder for packages.
        checkpoint: Folder of the network.
        model: Its float ONNX model.
    """

    cache: Path
    checkpoint: Path
    model: Path


@dataclass(frozen=True)
class Peer:
    """Another tool's way to a small decoder.

    Attributes:
        suffix: Of the file that it writes.
        target: Target of irtools that runs it.
        precision: Inference precision asked of the runtime; None is its default.
        make: Writes the model to a file.
    """

    suffix: str
    target: str
    precision: str | None
    make: Callable[[Source, Path], None]


def ort_int4(source: Source, target: Path) -> None:
    """onnxruntime.quantization.MatMulNBitsQuantizer, blocks of 32, int8 arithmetic.

    The settings of onnxruntime-genai's model builder for CPUs. The quantizer needs constants
    after MatMul and finds none after a tied table's Transpose, so the table is written out a
    second time for it, as that builder does.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    proto = onnx.load(source.model)
    _write_out_transposes(proto)
    quantizer = MatMulNBitsQuantizer(
        proto, bits=4, block_size=32, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    _save(quantizer.model.model, target)


def ort_int4_k_quant(source: Source, target: Path) -> None:
    """The same with zero points and scales by the k-quant algorithm, its best in accuracy."""
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    proto = onnx.load(source.model)
    _write_out_transposes(proto)
    config = nbits.KQuantWeightOnlyQuantConfig()
    quantizer = nbits.MatMulNBitsQuantizer(
        proto, block_size=32, is_symmetric=False, accuracy_level=4, algo_config=config
    )
    quantizer.process()
    _save(quantizer.model.model, target)


def genai_int4(source: Source, target: Path) -> None:
    """onnxruntime-genai's model builder for CPUs: its own graph, grouped-query attention and all.

    Its model takes no positions; an input that no node reads is added, so that all take the same.
    """
    import onnx

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        command += ["-m", str(source.checkpoint), "-o", str(target.parent)]
        command += ["-p", "int4", "-e", "cpu", "-c", scratch]
        path = str(unpacked(GENAI, source.cache))
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    proto = onnx.load(target, load_external_data=False)
    if all(given.name != "position_ids" for given in proto.graph.input):
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(
                "position_ids", onnx.TensorProto.INT64, ["batch_size", "sequence_length"]
            )
        )
    target.write_bytes(proto.SerializeToString())


def nncf_int4(source: Source, target: Path) -> None:
    """nncf.compress_weights to 4 bits; tables and the last layer in 8 bits.

    Groups of 64: its default of 128 does not divide the widths of SmolLM2, which it refuses.
    """
    _compress(source, target, NncfWeights(mode="int4_asym", group_size=64, ratio=1.0))


def nncf_int8(source: Source, target: Path) -> None:
    """nncf.compress_weights with its defaults: 8 bits per channel."""
    _compress(source, target, NncfWeights())


def _compress(source: Source, target: Path, tool: NncfWeights) -> None:
    import openvino

    network = tool.compressed(openvino.Core().read_model(source.model))
    openvino.save_model(network, target, compress_to_fp16=False)


def _write_out_transposes(proto: Any) -> None:
    """Replace each Transpose of an initializer by the transposed initializer."""
    import numpy as np
    from onnx import numpy_helper

    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        (perm,) = (list(a.ints) for a in node.attribute)
        array = numpy_helper.to_array(weights[node.input[0]]).transpose(perm)
        made = numpy_helper.from_array(np.ascontiguousarray(array), node.output[0])
        graph.initializer.append(made)
        graph.node.remove(node)


def _save(proto: Any, target: Path) -> None:
    import onnx

    onnx.save_model(
        proto,
        str(target),
        save_as_external_data=True,
        location=f"{target.name}.data",
        size_threshold=1024,
    )


PEERS: Mapping[str, Peer] = {
    "ORT int4": Peer(".onnx", "ort-cpu", None, ort_int4),
    "ORT int4, k-quant": Peer(".onnx", "ort-cpu", None, ort_int4_k_quant),
    "onnxruntime-genai int4": Peer(".onnx", "ort-cpu", None, genai_int4),
    "NNCF int4 on OpenVINO bf16": Peer(".xml", "openvino-cpu", "bf16", nncf_int4),
    "NNCF int4 on OpenVINO f32": Peer(".xml", "openvino-cpu", "f32", nncf_int4),
    "NNCF int8 on OpenVINO bf16": Peer(".xml", "openvino-cpu", "bf16", nncf_int8),
}


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    cache, checkpoint, model, target = map(Path, paths)
    PEERS[name].make(Source(cache, checkpoint, model), target)
