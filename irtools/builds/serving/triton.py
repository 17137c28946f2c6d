"""A model repository for NVIDIA Triton Inference Server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from irtools.builds.serving.base import Served
from irtools.builds.serving.client import KSERVE_TYPES
from irtools.errors import UnsupportedError
from irtools.model import ValueInfo

__all__ = ["model_config", "write_repository"]

BACKENDS = {
    "ort-cpu": "onnxruntime",
    "ort-cuda": "onnxruntime",
    "ort-tensorrt": "onnxruntime",
    "openvino-cpu": "openvino",
    "openvino-gpu": "openvino",
}
"""Target to the backend that runs its files."""

_MOST_SAMPLES = 32
_LABELS = "labels.txt"
_README = """\
# {model} on Triton

    docker run --rm -p 8000:8000 -v "$PWD/models:/models" \\
        nvcr.io/nvidia/tritonserver:25.08-py3 tritonserver --model-repository /models

`models/{model}/config.pbtxt` says what the model takes and gives. Requests of several clients are
run together, up to {most} samples, where they are of one shape. `client.py` asks it:

    {ask}
"""


def write_repository(served: Served, folder: Path) -> None:
    """Write the repository `models/`.

    Raises:
        UnsupportedError: Triton has no type for an input or output.
        OSError: A file cannot be written.
    """
    place = folder / "models" / served.model
    main = served.copy_model(place / "1")
    (place / "config.pbtxt").write_text(model_config(served, main), encoding="utf-8")
    if served.classes:
        text = "".join(f"{' '.join(name.split())}\n" for name in served.classes)
        (place / _LABELS).write_text(text, encoding="utf-8")


def readme(served: Served, ask: str) -> str:
    """Return how the server is started and asked."""
    most = _MOST_SAMPLES if served.takes_batches else 1
    return _README.format(model=served.model, most=most, ask=ask)


def model_config(served: Served, main: str) -> str:
    """Return `config.pbtxt`: a `ModelConfig` in protobuf's text format.

    Raises:
        UnsupportedError: Triton has no type for an input or output.
    """
    return "\n".join(_lines(served, main)) + "\n"


def _lines(served: Served, main: str) -> Iterator[str]:
    yield f"# {served.build.name} of a release that irtools built."
    yield f"name: {_text(served.model)}"
    yield f"backend: {_text(BACKENDS[served.target])}"
    yield f"default_model_filename: {_text(main)}"
    # 0: the shapes below have all axes, and Triton does not put requests together.
    yield f"max_batch_size: {_MOST_SAMPLES if served.takes_batches else 0}"
    for what, values in (("input", served.inputs), ("output", served.outputs)):
        for value in values:
            labels = _LABELS if served.classes and value is served.scores else None
            yield from _value(what, value, labels, served.takes_batches)
    if served.takes_batches:
        yield "dynamic_batching { }"
    kind = "KIND_CPU" if served.target.endswith("-cpu") else "KIND_GPU"
    yield f"instance_group [ {{ count: 1, kind: {kind} }} ]"
    if served.target == "ort-tensorrt":
        yield "optimization {"
        yield '  execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] }'
        yield "}"


def _value(what: str, value: ValueInfo, labels: str | None, batched: bool) -> Iterator[str]:
    if value.shape is None:
        raise UnsupportedError(f"{value.name} has no stated number of axes, which Triton must know")
    sizes = value.shape[1:] if batched else value.shape
    dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in sizes)
    yield f"{what} {{"
    yield f"  name: {_text(value.name)}"
    yield f"  data_type: {_type(value)}"
    # A row of one number: dims must not be empty.
    yield f"  dims: [ {dims or '1'} ]"
    if not dims:
        yield "  reshape { shape: [ ] }"
    if labels is not None:
        yield f"  label_filename: {_text(labels)}"
    yield "}"


def _type(value: ValueInfo) -> str:
    names = {**KSERVE_TYPES, "string": "STRING", "bfloat16": "BF16"}
    if value.dtype not in names:
        raise UnsupportedError(
            f"{value.name} is of type {value.dtype or 'unknown'}, which Triton has not; expected "
            f"one of {', '.join(names)}"
        )
    return f"TYPE_{names[value.dtype]}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
