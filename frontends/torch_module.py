"""Any torch module: `package.module:factory`, with example inputs from a file."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from irtools.data.npz import read_npz
from irtools.errors import (
    DataError,
    FileError,
    MissingExtraError,
    ModelError,
    OptionError,
    UsageError,
)
from irtools.frontend import LoadOptions
from irtools.frontends._failure import explain, first_line

if TYPE_CHECKING:
    from irtools.model import Model
    from irtools.target import Feeds

__all__ = ["TorchFrontend"]

# Code of a caller's may raise anything, and a script without a main guard leaves.
_FAILURES = (Exception, SystemExit)
_OPTIONS = ("--opset", "--example", "--weights")
# Where training programs keep the state among other things.
_STATES = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")
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
        foreign = [name for name in options.given() if name not in _OPTIONS]
        if foreign:
            raise OptionError(
                f"{source} is a torch module; {', '.join(foreign)} is for checkpoints"
            )
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
            except _FAILURES as error:
                raise DataError(
                    f"{source} does not run on {options.example}: {explain(error)}"
                ) from error
        if not outputs:
            raise ModelError(f"{source} returns no tensors")
        axes = {name: {0: "batch"} for name in example}
        described = TorchSource(module, make, axes, outputs, source)
        trials = described.trials() if options.check else ()
        model = convert(described, opset=options.opset)
        compare(model, trials, source)
        model.ir.graph.name = type(module).__name__
        return model


def _build(torch: Any, source: str) -> Any:
    where, _, name = source.partition(":")
    with _current_folder():
        try:
            found = importlib.import_module(where)
        except ImportError as error:
            raise UsageError(f"{source}: {where} cannot be imported: {error}") from error
        except _FAILURES as error:
            raise ModelError(f"{source}: {where} cannot be imported: {explain(error)}") from error
        factory = getattr(found, name, None)
        if not callable(factory):
            what = "has no" if factory is None else "has no function"
            raise UsageError(f"{source}: {where} {what} {name!r}")
        try:
            module = factory()
        except _FAILURES as error:
            raise ModelError(f"{source} failed: {explain(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{source} returned {type(module).__name__}, expected a torch.nn.Module")
    return module


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules of the current folder be found, behind all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _load_weights(module: Any, path: Path) -> None:
    try:
        found = module.load_state_dict(_unwrapped(_read_state(path), module), strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit the module: {str(error).splitlines()[-1].strip()}"
        ) from error
    if found.missing_keys or found.unexpected_keys:
        raise ModelError(
            f"{path} does not fit the module: missing {found.missing_keys[:3]}, "
            f"unexpected {found.unexpected_keys[:3]}"
        )


def _unwrapped(state: Mapping[str, Any], module: Any) -> Mapping[str, Any]:
    """Drop what torch.compile and data parallelism put before every name."""
    wanted = module.state_dict().keys()
    for prefix in _WRAPPERS:
        if not wanted & state.keys() and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _read_state(path: Path) -> Mapping[str, Any]:
    """Read tensors by name; of a pickle nothing else is unpacked."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileError(f"there are no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return cast(Mapping[str, Any], load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is a pickle that holds more than tensors, which is never unpacked; save "
            "module.state_dict() instead of the module"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read as weights: {first_line(error)}") from error
    if isinstance(state, dict):
        state = next((state[n] for n in _STATES if isinstance(state.get(n), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ModelError(f"{path} holds no tensors by name; expected a state dict")
    return state


def _read_example(path: Path) -> Feeds:
    arrays = read_npz(path, label_column="").feeds
    if not arrays or not all(len(array) for array in arrays.values()):
        raise DataError(f"{path} needs arrays of at least one sample along axis 0")
    return arrays


def _tile(torch: Any, example: Feeds, batch: int, _: int) -> dict[str, Any]:
    """Repeat or cut the example rows to `batch`."""
    return {
        name: torch.from_numpy(array[np.arange(batch) % len(array)].copy())
        for name, array in example.items()
    }
