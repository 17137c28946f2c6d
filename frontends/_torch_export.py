"""From a torch module to a model, through torch.export and the dynamo exporter."""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.frontends._check import RELATIVE_TOLERANCE, PlainTrial, Trial
from irtools.frontends._failure import LIBRARY_FAILURES, explain
from irtools.frontends._names import tidy
from irtools.frontends._padding import axes_of_sequence, hidden_by_name, spread
from irtools.model import Model

__all__ = [
    "EXAMPLE_SIZES",
    "TorchSource",
    "convert",
    "draws_randomly",
    "tensors_of",
    "without_fast_path",
]

# torch 2.13 writes opset 20 by default: every operator of a BERT has its own form there
# (LayerNormalization, Gelu), and both runtimes promise it.
DEFAULT_OPSET = 20
EXAMPLE_SIZES = (2, 24)
CHECK_SIZES = ((1, 16), (3, 37))

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class TorchSource:
    """A module and what is known of its signature.

    Attributes:
        module: A `torch.nn.Module` in evaluation mode.
        inputs: Makes seeded input tensors by name for (batch, sequence) sizes.
        axes: Name of an input or output to its dynamic axes, as axis to label. A label that is a
            sum (`past_sequence + sequence`) follows from the others.
        outputs: Names of the outputs in the order in which the module returns tensors.
        where: What a message calls the module.
        limits: Largest size of a named axis.
        forward: What to export in place of the module's own `forward`, which it gets as its first
            argument: inputs by name to outputs in order. None: the module called with the inputs
            as keywords.
        make_trials: Makes what the export is checked with; None: the outputs at two sizes that
            the exporter does not see.
        metadata: Properties for the model.
        notes: What its user should know of what was left out.
        example: Batch and sequence that it is traced with.
    """

    module: Any
    inputs: Callable[[int, int], Tensors]
    axes: Mapping[str, Mapping[int, str]]
    outputs: Sequence[str]
    where: str
    limits: Mapping[str, int] = field(default_factory=dict)
    forward: Callable[[Callable[..., Any], Tensors], Sequence[Any]] | None = None
    make_trials: Callable[[], Sequence[Trial]] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    example: tuple[int, int] = EXAMPLE_SIZES

    def trials(self) -> Sequence[Trial]:
        """Run the module as it stands and return what the export must reproduce.

        Raises:
            UnsupportedError: It computes something else each time.
        """
        if self.make_trials is not None:
            return self.make_trials()
        longest = self.limits.get("sequence", CHECK_SIZES[-1][1])
        sizes = [(batch, min(length, longest)) for batch, length in CHECK_SIZES]
        found = [self._trial(*size) for size in sizes]
        hidden = _at_padding(found)
        found = [replace(trial, hidden=at) for trial, at in zip(found, hidden, strict=True)]
        for name, again in self._trial(*sizes[0]).wanted.items():
            if found[0].error(name, again) > RELATIVE_TOLERANCE:
                raise draws_randomly(self.where, name)
        return found

    def run(self, inputs: Tensors) -> dict[str, Any]:
        """Run the module and return its outputs by name."""
        import torch

        with torch.inference_mode(), without_fast_path():
            if self.forward is not None:
                found = self.forward(self.module, inputs)
            else:
                found = list(tensors_of(self.module(**inputs)).values())
        return dict(zip(self.outputs, found, strict=True))

    def _trial(self, batch: int, sequence: int) -> PlainTrial:
        inputs = self.inputs(batch, sequence)
        return PlainTrial(
            {name: tensor.numpy() for name, tensor in inputs.items()},
            {name: tensor.float().numpy() for name, tensor in self.run(inputs).items()},
            f"batch {batch}" + f", sequence {sequence}" * self._has_sequence,
        )

    @property
    def _has_sequence(self) -> bool:
        return any("sequence" in axes.values() for axes in self.axes.values())


def draws_randomly(where: str, output: str) -> UnsupportedError:
    """Return the refusal of a module that computes something else each time."""
    return UnsupportedError(
        f"{where} draws random numbers: output {output!r} is another one each time torch computes "
        "it, and no export can be held against it; --no-check leaves that out"
    )


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Let torch's attention layers compute what they do in training.

    Their fast path for inference is another function at padding: it puts zeros there and may cut
    the sequence to the longest row. It is never exported.
    """
    import torch

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _at_padding(trials: Sequence[PlainTrial]) -> list[dict[str, np.ndarray]]:
    """Return for each trial, by output, what lies at positions that its mask hides."""
    each = [hidden_by_name(trial.feeds) for trial in trials]
    masks = [mask for mask in each if mask is not None]
    if len(masks) < len(trials):
        return [{} for _ in trials]
    sizes = [(mask.shape[0], mask.shape[1]) for mask in masks]
    axes = {
        name: axes_of_sequence([trial.wanted[name].shape for trial in trials], sizes)
        for name in trials[0].wanted
    }
    return [
        {name: spread(mask, array, axes[name]) for name, array in trial.wanted.items()}
        for trial, mask in zip(trials, masks, strict=True)
    ]


def convert(source: TorchSource, *, opset: int | None = None) -> Model:
    """Export a module. Weights are views of the module's, transposed where a product wants it.

    Raises:
        UnsupportedError: The module cannot be exported; names the reason and the place in torch.
    """
    import torch

    inputs = dict(source.inputs(*source.example))
    plain = {name: name.replace(".", "_") for name in inputs}
    job = _Job(
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
    tidy(found)
    found.metadata_props.update(source.metadata)
    return Model.from_ir(found)


@dataclass(frozen=True)
class _Job:
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


def _by_torch(torch: Any, job: _Job) -> ir.Model:
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
    )
    found: ir.Model = program.model
    return found


def _by_transformers(torch: Any, job: _Job) -> ir.Model:
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


def tensors_of(result: Any) -> dict[str, Any]:
    """Return the tensors that a module returns, by name where it names them.

    What is nested is named after what holds it: `hidden_states.0`, `output_1.0`.
    """
    import torch

    return dict(_named(torch, result, ""))


def _named(torch: Any, result: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(result, torch.Tensor):
        yield name or "output", result
    elif isinstance(result, (Mapping, list, tuple)):
        items = result.items() if isinstance(result, Mapping) else enumerate(result)
        for key, value in items:
            own = key if isinstance(key, str) else f"output_{key}"
            yield from _named(torch, value, f"{name}.{key}" if name else own)


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

    A wrapper module would do too, but would stand in front of every module name.
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
