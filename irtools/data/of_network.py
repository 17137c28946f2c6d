"""What a network of transformers is fed, as a model that data can be read for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from irtools.editing import Editor
from irtools.errors import UnsupportedError
from irtools.model import Model

__all__ = ["signature_of"]


def signature_of(network: Any, folder: Path | None) -> Model:
    """Return a model that takes what a network of transformers takes, and does nothing with it.

    Data is read for it as for any model.

    Args:
        network: Its `forward` and `config` are looked at.
        folder: Its checkpoint, next to which data may have its tokenizer.

    Raises:
        UnsupportedError: It takes neither text nor images.
    """
    inputs = [_input(name, network.config) for name in _input_names(network)]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}, name="signature")
    model = ir.Model(graph, ir_version=10)
    dtype = inputs[0].dtype
    same = Editor(model, "signature").append(graph, "Identity", inputs[:1], outputs={"same": dtype})
    graph.outputs.append(same)
    # Data is looked up next to the model's file.
    source = None if folder is None else folder / "config.json"
    return Model.from_ir(model, source)


def _input_names(network: Any) -> tuple[str, ...]:
    """Return what a network is fed."""
    taken = inspect.signature(network.forward).parameters
    if "pixel_values" in taken:
        return ("pixel_values",)
    if "input_ids" not in taken:
        raise UnsupportedError(
            f"{type(network).__name__} takes {', '.join(taken)}; expected input_ids or pixel_values"
        )
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in taken and getattr(network.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return tuple(names)


def _input(name: str, config: Any) -> ir.Value:
    if name != "pixel_values":
        shape: Sequence[int | str] = ("batch", "sequence")
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.INT64))
    size = getattr(config, "image_size", 224)
    high, wide = (size, size) if isinstance(size, int) else size
    shape = ("batch", getattr(config, "num_channels", 3), high, wide)
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
