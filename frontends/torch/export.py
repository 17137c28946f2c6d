"""From a torch module to a model, through torch.export and the dynamo exporter."""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.frontends.torch.failures import LIBRARY_FAILURES, explain
from irtools.frontends.torch.names import normalize_names
from irtools.frontends.torch.source import TorchSource, without_fast_path
from irtools.model import Model

__all__ = ["convert"]

# torch 2.13 writes opset 20 by default: every operator of a BERT has its own form there
# (LayerNormalization, Gelu), and both runtimes promise it.
DEFAULT_OPSET = 20


def convert(source: TorchSource, *, opset: int | None = None) -> Model:
    """Export a module. Weights are views of the module's, transposed where a product needs it.

    Raises:
        UnsupportedError: The module cannot be exported; names the reason and the place in torch.
    """
    import torch

    inputs = dict(source.inputs(*source.example))
    plain = {name: name.replace(".", "_") for name in inputs}
    job = _Export(
        source.module,
        {plain[name]: tensor for name, tensor in inputs.items()},
        {
            plain[name]: dict(zip(axes, _sizes(torch, source, axes.values()), strict=True))
            for name, axes in ((name, source.axes.get(name, {})) for name in inputs)
        },
        tuple(inputs),
        tuple(source.outputs),
        opset or DEFAULT_OPSET,
    )
    failures = (*LIBRARY_FAILURES, torch.onnx.OnnxExporterError)
    with _quiet(), _uncollected(), without_fast_path(), _forward_of(source, plain):
        try:
            found = _by_torch(torch, job)
        except failures as error:
            reason = f"{source.where} cannot be exported: {explain(error)}"
            if not hasattr(source.module, "config"):
                raise UnsupportedError(reason) from error
            try:
                found = _by_transformers(torch, job)
            except failures as second:
                raise UnsupportedError(reason) from second
    _name_axes(found.graph, source.axes)
    normalize_names(found)
    found.metadata_props.update(source.metadata)
    return Model.from_ir(found)


@dataclass(frozen=True)
class _Export:
    """What both exporters take.

    Attributes:
        inputs: Example inputs by the names of arguments.
        dynamic_shapes: Dynamic axes by the names of arguments.
        input_names: Names of the inputs in the model.
    """

    module: Any
    inputs: Mapping[str, Any]
    dynamic_shapes: Mapping[str, Mapping[int, Any]]
    input_names: Sequence[str]
    output_names: Sequence[str]
    opset: int


def _by_torch(torch: Any, job: _Export) -> ir.Model:
    program = torch.onnx.export(
        job.module,
        (),
        kwargs=dict(job.inputs),
        dynamo=True,
        opset_version=job.opset,
        input_names=list(job.input_names),
        output_names=list(job.output_names),
        dynamic_shapes={name: dict(axes) for name, axes in job.dynamic_shapes.items()},
        verbose=False,
        optimize=False,
    )
    found: ir.Model = program.model
    _tidy(found)
    return found


def _tidy(model: ir.Model) -> None:
    """Do what the exporter's own optimization does, but for its rewrite rules.

    Each of these is tried on every node, which takes two fifths of the export of a decoder; what
    they simplify, `cleanup` does.
    """
    import onnx_ir.passes.common as common
    from onnxscript.optimizer import fold_constants

    common.InlinePass()(model)
    fold_constants(model)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def _by_transformers(torch: Any, job: _Export) -> ir.Model:
    """Export with what transformers changes in its networks so that they can be exported.

    Only where torch alone fails: the masks and guards that it adds make a larger graph.
    """
    from transformers.exporters import OnnxConfig, OnnxExporter

    dynamic = torch.export.Dim.DYNAMIC
    shapes = {
        name: {axis: dynamic if isinstance(size, str) else size for axis, size in axes.items()}
        for name, axes in job.dynamic_shapes.items()
    }
    config = OnnxConfig(dynamic=True, dynamic_shapes=shapes, opset_version=job.opset)
    found, _ = OnnxExporter().export_program(job.module, dict(job.inputs), config)
    for value, name in zip(found.graph.inputs, job.input_names, strict=True):
        value.name = name
    for value, name in zip(found.graph.outputs, job.output_names, strict=True):
        value.name = name
    model: ir.Model = found
    return model


def _sizes(torch: Any, source: TorchSource, labels: Iterable[str]) -> Iterator[Any]:
    """Say how the sizes of these labels are traced.

    Where one size follows from others, torch takes no named dimension for any of them: it finds
    the relation itself, and calls the sizes by the labels.
    """
    related = any("+" in label for axes in source.axes.values() for label in axes.values())
    for label in labels:
        if related:
            yield label
        elif label in source.limits:
            yield torch.export.Dim(label, max=source.limits[label])
        else:
            yield torch.export.Dim(label)


def _name_axes(graph: ir.Graph, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Call dynamic sizes by their labels, at the interface and, where they are plain, inside."""
    renamed: dict[str, str] = {}
    for value in graph.inputs:
        for axis, label in axes.get(value.name or "", {}).items():
            old = None if value.shape is None else value.shape[axis]
            if isinstance(old, ir.SymbolicDim) and old.value and "+" not in label:
                renamed.setdefault(old.value, label)
    inner = [value for node in graph for value in node.outputs]
    for value in (*graph.inputs, *inner):
        if value.shape is not None:
            labels = axes.get(value.name or "", {})
            value.shape = ir.Shape(
                [labels.get(a, _renamed(dim, renamed)) for a, dim in enumerate(value.shape)]
            )


def _renamed(dim: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | ir.SymbolicDim | str:
    if isinstance(dim, int) or dim.value is None:
        return dim
    return re.sub(r"[A-Za-z_]\w*", lambda m: names.get(m[0], m[0]), dim.value)


@contextlib.contextmanager
def _forward_of(source: TorchSource, plain: Mapping[str, str]) -> Iterator[None]:
    """Give the module a forward that takes exactly the inputs.

    A wrapper module would work too, but would add a prefix to every module name.
    """
    if source.forward is None:
        yield
        return
    forward, module, original = source.forward, source.module, source.module.forward

    def flat(**given: Any) -> Any:
        return tuple(forward(original, {name: given[plain[name]] for name in plain}))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in plain.values()]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    own = module.__dict__.get("forward")
    module.forward = flat
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles.

    A traced graph is millions of objects that stay; going through them again and again takes an
    eighth of the export.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own progress off the terminal; its errors are raised."""
    names = (
        "torch.onnx",
        "torch.export",
        "torch.fx",
        "torch._dynamo",
        "onnxscript",
        "transformers",
    )
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            # torch prints the graph that it could not finish.
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
