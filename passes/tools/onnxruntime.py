"""ONNX Runtime's own quantization tools."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from irtools.files import scratch_folder
from irtools.passes.tools.quantizer import matching_nodes, tool_at_work

__all__ = ["excluded_nodes", "through_files"]


def excluded_nodes(message: onnx.ModelProto, patterns: Sequence[str]) -> list[str]:
    """Return the names of the nodes that the tools are to leave alone.

    Among them is every Attention of the standard, which they take for ONNX Runtime's own operator
    of that name, with other inputs.

    Raises:
        OptionError: A pattern chooses no node.
    """
    found = matching_nodes(message, patterns, "nodes-to-exclude")
    attention = [n for n in message.graph.node if n.op_type == "Attention" and not n.domain]
    return found + [node.name for node in attention]


def through_files(
    tool: str, message: onnx.ModelProto, quantize: Callable[[Path, Path], Any], *, prepare: bool
) -> onnx.ModelProto:
    """Return what a function of `onnxruntime.quantization` makes of a model; it works on files.

    Args:
        tool: Its name, for messages.
        message: The model.
        quantize: Reads the first file and writes the second.
        prepare: Run the preparation that its documentation recommends first: symbolic shape
            inference and the optimizations that keep the standard operators.

    Raises:
        UnsupportedError: It failed.
    """
    with tool_at_work(tool), scratch_folder("tool") as folder:
        source, target = folder / "model.onnx", folder / "quantized.onnx"
        onnx.save(_prepared(message, folder) if prepare else message, source)
        # The tools leave temporary files in the working folder.
        with contextlib.chdir(folder):
            quantize(source, target)
        return onnx.load(target)


def _prepared(message: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, target = folder / "before.onnx", folder / "prepared.onnx"
    onnx.save(message, source)
    with contextlib.chdir(folder):
        try:
            quant_pre_process(source, target)
        except Exception:  # Its symbolic inference does not know all operators.
            quant_pre_process(source, target, skip_symbolic_shape=True)
    made = onnx.load(target)
    # The quantizer transposes weights of Gemm without changing their declared shapes, and its
    # shape inference then refuses the model.
    weights = {weight.name for weight in made.graph.initializer}
    kept = [info for info in made.graph.value_info if info.name not in weights]
    del made.graph.value_info[:]
    made.graph.value_info.extend(kept)
    return made
