"""Quantized models made by other tools, each at its best documented setting.

A peer takes the same float model and the same calibration samples as irtools does and writes an
ONNX model or an OpenVINO IR. Tools that are passes of irtools as well run through the same code,
without anything before or after them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irtools.passes.tools.nncf_quantize import Nncf
from irtools.passes.tools.ort_dynamic import OrtDynamic
from irtools.passes.tools.ort_static import OrtStatic
from irtools.passes.tools.quantizer import ToolQuantizer

Feeds = Mapping[str, np.ndarray]
HEADS = 12  # of BERT-base, DistilBERT, ViT-base and MiniLM-L6 alike


@dataclass(frozen=True)
class Peer:
    """Another tool's way to a fast model.

    Attributes:
        name: Row in the table.
        target: Target of irtools that runs the result.
        precision: Inference precision asked of the runtime; None is its default.
        make: Writes the model; takes the float model, calibration samples and a folder.
        fixed: For OpenVINO: reshape what was made to the sizes that are timed.
    """

    name: str
    target: str
    precision: str | None
    make: Callable[[Path, Sequence[Feeds], Path], Path]
    fixed: bool = False


def unchanged(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """The float model itself."""
    return model


def ort_transformer_optimized(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """onnxruntime.transformers.optimizer for BERT, float32."""
    from onnxruntime.transformers import optimizer

    target = folder / "ort-transformer-optimized.onnx"
    fused = optimizer.optimize_model(
        str(model), model_type="bert", num_heads=HEADS, hidden_size=_hidden_size(model), opt_level=0
    )
    fused.save_model_to_file(str(target))
    return target


def _hidden_size(model: Path) -> int:
    """Return the width of the hidden states: that of most vectors of an encoder."""
    import onnx

    weights = onnx.load(model, load_external_data=False).graph.initializer
    return Counter(w.dims[0] for w in weights if len(w.dims) == 1).most_common(1)[0][0]


def ort_dynamic(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """onnxruntime.quantization.quantize_dynamic after its pre-processing, s8 per channel."""
    return _made_by(OrtDynamic(per_channel=True), model, samples, folder / "ort-dynamic.onnx")


def ort_optimized_dynamic(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """The documented way for transformers: fuse offline first, then quantize dynamically."""
    fused = ort_transformer_optimized(model, samples, folder)
    tool = OrtDynamic(per_channel=True, pre_process=False)
    return _made_by(tool, fused, samples, folder / "ort-optimized-dynamic.onnx")


def ort_static_defaults(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """onnxruntime.quantization.quantize_static after its own pre-processing, all defaults."""
    tool = OrtStatic(activation_type="qint8")
    return _made_by(tool, model, samples, folder / "ort-static-defaults.onnx")


def ort_static_matmul(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """quantize_static restricted to MatMul and Gemm, u8 activations, s8 weights per channel."""
    tool = OrtStatic(
        per_channel=True, op_types_to_quantize=("MatMul", "Gemm"), matmul_const_b_only=True
    )
    return _made_by(tool, model, samples, folder / "ort-static-matmul.onnx")


def nncf_onnx(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """nncf.quantize on the ONNX model, transformer preset."""
    return _made_by(Nncf(model_type="transformer"), model, samples, folder / "nncf.onnx")


def nncf_openvino(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """nncf.quantize on the OpenVINO model, transformer preset."""
    return _made_on_openvino(Nncf(model_type="transformer"), model, samples, folder / "nncf.xml")


def _made_by(tool: ToolQuantizer, model: Path, samples: Sequence[Feeds], target: Path) -> Path:
    import onnx

    onnx.save(tool.quantized(onnx.load(model), samples), target)
    return target


def _made_on_openvino(tool: Nncf, model: Path, samples: Sequence[Feeds], target: Path) -> Path:
    import openvino

    quantized = tool.quantized_model(openvino.Core().read_model(model), samples)
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target


def ort_static_per_channel(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """quantize_static for convolutional networks: QDQ, u8 activations, s8 weights per channel."""
    tool = OrtStatic(per_channel=True)
    return _made_by(tool, model, samples, folder / "ort-static-per-channel.onnx")


def nncf_openvino_mixed(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """nncf.quantize on the OpenVINO model, preset for networks with other activations than ReLU."""
    return _made_on_openvino(Nncf(preset="mixed"), model, samples, folder / "nncf-mixed.xml")


FLOAT = (
    Peer("ORT fp32", "ort-cpu", None, unchanged),
    Peer("OpenVINO f32", "openvino-cpu", "f32", unchanged),
    Peer("OpenVINO bf16", "openvino-cpu", "bf16", unchanged),
)
ENCODER_PEERS = (
    FLOAT[0],
    Peer("ORT fp32, transformers optimizer", "ort-cpu", None, ort_transformer_optimized),
    Peer("ORT dynamic", "ort-cpu", None, ort_dynamic),
    Peer("ORT optimizer + dynamic", "ort-cpu", None, ort_optimized_dynamic),
    Peer("ORT static, defaults", "ort-cpu", None, ort_static_defaults),
    Peer("ORT static, MatMul per channel", "ort-cpu", None, ort_static_matmul),
    Peer("NNCF on ORT", "ort-cpu", None, nncf_onnx),
    *FLOAT[1:],
    Peer("NNCF on OpenVINO f32", "openvino-cpu", "f32", nncf_openvino),
    Peer("NNCF on OpenVINO bf16", "openvino-cpu", "bf16", nncf_openvino),
)
# The runtime's documentation advises fixed shapes where the input has one size.
FIXED_PEERS = (
    Peer("OpenVINO bf16, fixed sizes", "openvino-cpu", "bf16", unchanged, fixed=True),
    Peer("NNCF on OpenVINO f32, fixed sizes", "openvino-cpu", "f32", nncf_openvino, fixed=True),
    Peer("NNCF on OpenVINO bf16, fixed sizes", "openvino-cpu", "bf16", nncf_openvino, fixed=True),
)
# ONNX Runtime's optimizer knows no DeBERTa, and its defaults and NNCF's ONNX files are slower than
# the float model on every encoder that was measured.
DEBERTA_PEERS = tuple(
    peer
    for peer in ENCODER_PEERS
    if peer.make not in (ort_transformer_optimized, ort_optimized_dynamic, ort_static_defaults)
    and peer.make is not nncf_onnx
)
CONVOLUTIONAL_PEERS = (
    FLOAT[0],
    Peer("ORT static, per channel", "ort-cpu", None, ort_static_per_channel),
    *FLOAT[1:],
    Peer("NNCF on OpenVINO f32", "openvino-cpu", "f32", nncf_openvino_mixed),
    Peer("NNCF on OpenVINO bf16", "openvino-cpu", "bf16", nncf_openvino_mixed),
)
