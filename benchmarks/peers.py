"""Quantized models made by other tools, each at its best documented setting.

A peer takes the same float model and the same calibration samples as irtools does and writes an
ONNX model or an OpenVINO IR. Nothing here imports irtools' passes.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


class FeedReader:
    """Calibration samples as ONNX Runtime's tools take them."""

    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._samples = samples
        self._rest: Iterator[Feeds] = iter(samples)

    def get_next(self) -> Feeds | None:
        """Return the next sample, or None at the end."""
        return next(self._rest, None)

    def rewind(self) -> None:
        """Start again."""
        self._rest = iter(self._samples)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restrict the samples; part of the reader protocol."""
        self._rest = iter(self._samples[start_index:end_index])

    def __len__(self) -> int:
        return len(self._samples)


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
    return _quantize_dynamic(_preprocessed(model, folder), folder / "ort-dynamic.onnx")


def ort_optimized_dynamic(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """The documented way for transformers: fuse offline first, then quantize dynamically."""
    fused = ort_transformer_optimized(model, samples, folder)
    return _quantize_dynamic(fused, folder / "ort-optimized-dynamic.onnx")


def _quantize_dynamic(model: Path, target: Path) -> Path:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The exporter writes shapes of weights too. The quantizer transposes weights of Gemm without
    # changing those, and its own shape inference then refuses the model.
    proto = onnx.load(model)
    del proto.graph.value_info[:]
    source = target.with_suffix(".source.onnx")
    onnx.save(proto, source)
    quantize_dynamic(
        source,
        target,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    source.unlink()
    return target


def ort_static_defaults(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """onnxruntime.quantization.quantize_static after its own pre-processing, all defaults."""
    from onnxruntime.quantization import quantize_static

    target = folder / "ort-static-defaults.onnx"
    quantize_static(_preprocessed(model, folder), target, FeedReader(samples))
    return target


def ort_static_matmul(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """quantize_static restricted to MatMul and Gemm, u8 activations, s8 weights per channel."""
    target = folder / "ort-static-matmul.onnx"
    return _static_per_channel(
        model,
        samples,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"MatMulConstBOnly": True},
    )


def nncf_onnx(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """nncf.quantize on the ONNX model, transformer preset."""
    import nncf
    import onnx

    target = folder / "nncf.onnx"
    onnx.save(_nncf_quantize(nncf, onnx.load(model), samples), target)
    return target


def nncf_openvino(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """nncf.quantize on the OpenVINO model, transformer preset."""
    import nncf
    import openvino

    target = folder / "nncf.xml"
    quantized = _nncf_quantize(nncf, openvino.Core().read_model(model), samples)
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target


def _nncf_quantize(nncf: object, model: object, samples: Sequence[Feeds]) -> object:
    return nncf.quantize(  # type: ignore[attr-defined]
        model,
        nncf.Dataset(list(samples)),  # type: ignore[attr-defined]
        model_type=nncf.ModelType.TRANSFORMER,  # type: ignore[attr-defined]
        subset_size=len(samples),
    )


def _preprocessed(model: Path, folder: Path) -> Path:
    """ONNX Runtime's recommended preparation; without its symbolic inference where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model, target = model.absolute(), folder.absolute() / "ort-preprocessed.onnx"
    # It leaves temporary files in the working folder.
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        try:
            quant_pre_process(model, target)
        except Exception:
            quant_pre_process(model, target, skip_symbolic_shape=True)
    return target


def ort_static_per_channel(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """quantize_static for convolutional networks: QDQ, u8 activations, s8 weights per channel."""
    return _static_per_channel(model, samples, folder / "ort-static-per-channel.onnx")


def _static_per_channel(
    model: Path, samples: Sequence[Feeds], target: Path, **options: object
) -> Path:
    from onnxruntime.quantization import QuantType, quantize_static

    quantize_static(
        _preprocessed(model, target.parent),
        target,
        FeedReader(samples),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        **options,
    )
    return target


def nncf_openvino_mixed(model: Path, samples: Sequence[Feeds], folder: Path) -> Path:
    """nncf.quantize on the OpenVINO model, preset for networks with other activations than ReLU."""
    import nncf
    import openvino

    target = folder / "nncf-mixed.xml"
    quantized = nncf.quantize(
        openvino.Core().read_model(model),
        nncf.Dataset(list(samples)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
    )
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target


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
