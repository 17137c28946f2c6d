"""From a torch module to a checked model, through torch.export and the dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irtools.errors import ModelError, UnsupportedError
from irtools.model import Model
from irtools.target import RunnerOptions, find_target

__all__ = ["TorchSource", "export"]

# torch 2.13 writes opset 20 by default: every operator of a BERT has its own form there
# (LayerNormalization, Gelu), and both runtimes promise it.
DEFAULT_OPSET = 20
RELATIVE_TOLERANCE = 1e-4
EXAMPLE_SIZES = (2, 24)
CHECK_SIZES = ((1, 16), (3, 37))


@dataclass(frozen=True)
class TorchSource:
    """A module and what is known of its signature.

    Attributes:
        module: A `torch.nn.Module` in evaluation mode.
        inputs: Makes seeded input tensors by name for (batch, sequence) sizes.
        axes: Input name to its dynamic axes, as axis to name.
        outputs: Names of the outputs in the order in which the module returns tensors.
        limits: Largest size of a named axis.
        where: What a message calls the module.
    """

    module: Any
    inputs: Callable[[int, int], Mapping[str, Any]]
    axes: Mapping[str, Mapping[int, str]]
    outputs: Sequence[str]
    limits: Mapping[str, int]
    where: str


def export(source: TorchSource, *, opset: int | None = None, check: bool = True) -> Model:
    """Export a module and compare the result with it on sizes that the exporter did not see.

    Raises:
        UnsupportedError: The module cannot be exported; names the reason and the place in torch.
        ModelError: The exported model computes something else.
    """
    import torch

    inputs = dict(source.inputs(*EXAMPLE_SIZES))
    dims = {
        name: {axis: _dim(torch, label, source.limits) for axis, label in axes.items()}
        for name, axes in source.axes.items()
    }
    with _quiet():
        try:
            program = torch.onnx.export(
                source.module,
                (),
                kwargs=inputs,
                dynamo=True,
                opset_version=opset or DEFAULT_OPSET,
                input_names=list(inputs),
                output_names=list(source.outputs),
                dynamic_shapes={name: dims.get(name, {}) for name in inputs},
                verbose=False,
            )
        except (RuntimeError, ValueError, TypeError, torch.onnx.OnnxExporterError) as error:
            raise UnsupportedError(
                f"{source.where} cannot be exported: {_reason(error)}"
            ) from error
    model = Model.from_ir(program.model)
    if check:
        _compare(source, model)
    return model


def _dim(torch: Any, label: str, limits: Mapping[str, int]) -> Any:
    return (
        torch.export.Dim(label, max=limits[label]) if label in limits else torch.export.Dim(label)
    )


def _compare(source: TorchSource, model: Model) -> None:
    import torch

    target = find_target("ort-cpu")
    with target.runner(model, RunnerOptions(exact=True)) as runner:
        for sizes in CHECK_SIZES:
            inputs = source.inputs(*sizes)
            with torch.inference_mode():
                wanted = tensors_of(source.module(**inputs))
            found = runner.run({name: tensor.numpy() for name, tensor in inputs.items()})
            for name, tensor in zip(source.outputs, wanted.values(), strict=True):
                reference = tensor.float().numpy()
                error = _relative_l2(reference, found[name])
                if not error <= RELATIVE_TOLERANCE:
                    raise ModelError(
                        f"the export of {source.where} is wrong: output {name!r} differs from "
                        f"torch by {error:.1e} (relative L2) at batch {sizes[0]}, sequence "
                        f"{sizes[1]}; expected at most {RELATIVE_TOLERANCE:.0e}"
                    )


def tensors_of(result: Any) -> dict[str, Any]:
    """Return the tensors that a module returns, by name where it names them."""
    import torch

    if isinstance(result, torch.Tensor):
        return {"output": result}
    items = result.items() if isinstance(result, Mapping) else enumerate(result)
    named = {k if isinstance(k, str) else f"output_{k}": v for k, v in items}
    return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}


def _relative_l2(reference: np.ndarray, found: np.ndarray) -> float:
    if reference.shape != found.shape:
        return float("inf")
    norm = float(np.linalg.norm(reference)) or 1.0
    return float(np.linalg.norm(found.astype(np.float64) - reference)) / norm


def _reason(error: BaseException) -> str:
    """The first line that says something, from the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own progress off the terminal; its errors are raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
