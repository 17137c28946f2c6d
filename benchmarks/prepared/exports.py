"""ONNX files by both of torch's exporters, each checked against the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

DYNAMO_OPSET = 20
TORCHSCRIPT_OPSET = 17
TOLERANCE = 1e-4
MAX_SEQUENCE = 512
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Interface:
    """Names, dynamic axes and example inputs of an exported model.

    Attributes:
        make: seeded inputs by name for a (batch, sequence) size; images ignore the sequence.
        axes: dynamic axes shared by all inputs, as `{axis: name}`.
        output: name of the single output.
        output_axes: dynamic axes of the output.
    """

    make: Callable[[int, int], Tensors]
    axes: Mapping[int, str]
    output: str = "logits"
    output_axes: Mapping[int, str] = field(default_factory=lambda: {0: "batch"})


def text_interface(names: Sequence[str], configuration: Any) -> Interface:
    """Token inputs of which every row but the first ends in padding."""
    make = partial(_texts, names, configuration.vocab_size, configuration.pad_token_id)
    return Interface(make, {0: "batch", 1: "sequence"})


def image_interface(size: int) -> Interface:
    """Square RGB images, dynamic in the batch only."""
    return Interface(partial(_images, size), {0: "batch"})


def _texts(names: Sequence[str], vocabulary: int, padding: int, batch: int, length: int) -> Tensors:
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    lengths = length - (torch.arange(batch) * length) // (2 * batch)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(padding + 1, vocabulary, (batch, length), generator=generator)
    inputs = {
        "input_ids": ids.where(mask == 1, padding),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) >= length // 2).long() * mask,
    }
    return {name: inputs[name] for name in names}


def _images(size: int, batch: int, _: int) -> Tensors:
    generator = torch.Generator().manual_seed(batch)
    return {"pixel_values": torch.randn(batch, 3, size, size, generator=generator)}


def export_dynamo(path: Path, model: nn.Module, interface: Interface) -> None:
    """Export `model` to one ONNX file through torch.export and check it."""
    inputs = interface.make(2, 24)
    limits = {"sequence": MAX_SEQUENCE}
    axes = {
        axis: torch.export.Dim(name, max=limits.get(name)) for axis, name in interface.axes.items()
    }
    program = torch.onnx.export(
        model,
        (),
        kwargs=inputs,
        dynamo=True,
        opset_version=DYNAMO_OPSET,
        input_names=list(inputs),
        output_names=[interface.output],
        dynamic_shapes=dict.fromkeys(inputs, axes),
        verbose=False,
    )
    program.save(path, external_data=False)
    check_export(path, model, interface)


def export_torchscript(
    path: Path, model: nn.Module, interface: Interface, *, keep_batch_norm: bool = False
) -> None:
    """Export `model` to one ONNX file through the TorchScript tracer and check it.

    Args:
        path: the file to write.
        model: the module, in evaluation mode.
        interface: its inputs and output.
        keep_batch_norm: do not fold batch normalisations into their convolutions.
    """
    inputs = interface.make(2, 24)
    mode = torch.onnx.TrainingMode.PRESERVE if keep_batch_norm else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        model,
        (),
        path,
        kwargs=inputs,
        dynamo=False,
        opset_version=TORCHSCRIPT_OPSET,
        input_names=list(inputs),
        output_names=[interface.output],
        dynamic_axes={
            **dict.fromkeys(inputs, interface.axes),
            interface.output: interface.output_axes,
        },
        training=mode,
        do_constant_folding=not keep_batch_norm,
    )
    check_export(path, model, interface)


def check_export(path: Path, model: nn.Module, interface: Interface) -> None:
    """Compare the file with torch at two sizes that the exporter has not seen.

    Raises:
        ValueError: an input, an output, a dynamic axis or a number differs.
    """
    import onnx
    import onnxruntime

    graph = onnx.load(path, load_external_data=False).graph
    for value, axes in (
        *((value, interface.axes) for value in graph.input),
        (graph.output[0], interface.output_axes),
    ):
        shape = value.type.tensor_type.shape
        found = {axis: dim.dim_param for axis, dim in enumerate(shape.dim) if dim.dim_param}
        if found != axes:
            raise ValueError(f"{path.name}: axes of {value.name} are {found}, expected {axes}")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for size in ((1, 16), (3, 37)):
        inputs = interface.make(*size)
        with torch.inference_mode():
            reference = model(**inputs)
        reference = getattr(reference, interface.output, reference).numpy()
        feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
        (result,) = session.run([interface.output], feeds)
        error = float(np.linalg.norm(result - reference) / np.linalg.norm(reference))
        if not error <= TOLERANCE:
            raise ValueError(f"{path.name}: relative error {error:.2e} at {size}")
