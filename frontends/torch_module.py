"""Any torch module: `package.module:factory`, with example inputs from a file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from irtools.errors import DataError, MissingExtraError, ModelError, UsageError
from irtools.frontend import LoadOptions

if TYPE_CHECKING:
    from irtools.model import Model

__all__ = ["TorchFrontend"]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class TorchFrontend:
    """A function that returns a `torch.nn.Module`, named `package.module:function`.

    The module is put into evaluation mode. Axis 0 of every input is dynamic and named `batch`;
    other sizes are those of the example inputs. Naming a function runs its code: it is the
    caller's own.
    """

    name: ClassVar[str] = "torch"
    summary: ClassVar[str] = "module:function that returns a torch.nn.Module, with --example"

    def accepts(self, source: str) -> bool:
        return _FACTORY.fullmatch(source) is not None and not Path(source).exists()

    def parts(self, source: str, options: LoadOptions) -> tuple[str, ...]:
        return ()

    def companions(self, source: str) -> tuple[Path, ...]:
        return ()

    def load(self, source: str, options: LoadOptions = LoadOptions()) -> Model:
        if options.example is None:
            raise UsageError(
                f"{source} does not tell its inputs; give --example with an .npz of arrays named "
                "like the arguments of forward"
            )
        try:
            import torch

            from irtools.frontends._check import compare
            from irtools.frontends._torch_export import TorchSource, convert, tensors_of
        except ImportError as error:
            raise MissingExtraError("exporting a torch module", "torch") from error
        module = _build(torch, source)
        if options.weights is not None:
            _load_weights(module, options.weights)
        module.eval()
        example = _read_example(options.example)
        make = partial(_tile, torch, example)
        with torch.inference_mode():
            try:
                outputs = tuple(tensors_of(module(**make(2, 0))))
            except (TypeError, RuntimeError) as error:
                raise DataError(
                    f"{source} does not run on {options.example}: {str(error).splitlines()[0]}"
                ) from error
        axes = {name: {0: "batch"} for name in example}
        described = TorchSource(module, make, axes, outputs, source)
        trials = described.trials() if options.check else ()
        model = convert(described, opset=options.opset)
        compare(model, trials, source)
        model.ir.graph.name = type(module).__name__
        return model


def _build(torch: Any, source: str) -> Any:
    where, _, name = source.partition(":")
    try:
        factory = getattr(importlib.import_module(where), name)
    except ImportError as error:
        raise UsageError(f"{source}: {where} cannot be imported: {error}") from error
    except AttributeError as error:
        raise UsageError(f"{source}: {where} has no {name!r}") from error
    module = factory()
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{source} returned {type(module).__name__}, expected a torch.nn.Module")
    return module


def _load_weights(module: Any, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = module.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit the module: {str(error).splitlines()[-1]}"
        ) from error
    if found.missing_keys or found.unexpected_keys:
        raise ModelError(
            f"{path} does not fit the module: missing {found.missing_keys[:3]}, "
            f"unexpected {found.unexpected_keys[:3]}"
        )


def _read_example(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no .npz of arrays: {error}") from error
    if not arrays or any(array.ndim == 0 or not len(array) for array in arrays.values()):
        raise DataError(f"{path} needs arrays of at least one sample along axis 0")
    return arrays


def _tile(torch: Any, example: Mapping[str, np.ndarray], batch: int, _: int) -> dict[str, Any]:
    """Repeat or cut the example rows to `batch`."""
    return {
        name: torch.from_numpy(array[np.arange(batch) % len(array)].copy())
        for name, array in example.items()
    }
