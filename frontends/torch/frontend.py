"""Any torch module: `package.module:factory`, with example inputs from a file."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from irtools.data import read_arrays
from irtools.errors import (
    DataError,
    FileError,
    IrtoolsError,
    MissingExtraError,
    ModelError,
    OptionError,
    UnsupportedError,
    UsageError,
)
from irtools.frontends.torch.batches import Batches, find_batches, rebatched, size_of_batch
from irtools.frontends.torch.check import RELATIVE_TOLERANCE, PlainTrial, SizeError, compare
from irtools.frontends.torch.export import convert
from irtools.frontends.torch.failures import explain, first_line
from irtools.frontends.torch.padding import hidden_by_trying, spread
from irtools.frontends.torch.source import (
    TorchSource,
    draws_randomly,
    tensors_of,
    without_fast_path,
)
from irtools.frontends.torch.tensors import read_tensors
from irtools.plugins import current_folder
from irtools.sources import Claim, LoadOptions

if TYPE_CHECKING:
    from irtools.model import Model
    from irtools.targets import Feeds

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

    The module is put into evaluation mode. The batch, axis 0 of the inputs where the module runs
    so, is dynamic and named `batch`; of a module that holds for one size alone it stays as the
    example has it, and a note says so. Other sizes are those of the example inputs. Naming a
    function runs its code: it is the caller's own.
    """

    name: ClassVar[str] = "torch"
    summary: ClassVar[str] = "module:function that returns a torch.nn.Module, with --example"

    def accepts(self, source: str) -> Claim:
        is_factory = _FACTORY.fullmatch(source) is not None and not Path(source).exists()
        return "own" if is_factory else None

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
                f"{source} does not state its inputs; give --example with an .npz of arrays named "
                "like the arguments of forward"
            )
        try:
            import torch
            import torch.onnx
        except ImportError as error:
            raise MissingExtraError("exporting a torch module", "torch") from error
        module = _build(torch, source)
        if options.weights is not None:
            _load_weights(module, options.weights)
        module.eval()
        example = _read_example(options.example)
        run = partial(_run, torch, module)
        try:
            wanted = run(example)
        except _FAILURES as error:
            raise DataError(
                f"{source} does not run on {options.example}: {explain(error)}"
            ) from error
        if not wanted:
            raise ModelError(f"{source} returns no tensors")
        job = _Export(source, module, example, tuple(wanted), run, options)
        model = job.load()
        model.ir.graph.name = type(module).__name__
        return model


@dataclass(frozen=True)
class _Export:
    """The export of one module.

    Attributes:
        outputs: Names of what it returns.
        run: Runs it: arrays by name to arrays by name.
    """

    source: str
    module: Any
    example: Feeds
    outputs: tuple[str, ...]
    run: Callable[[Feeds], Feeds]
    options: LoadOptions

    def load(self) -> Model:
        """Export with a batch of any size if the module holds for it, else with the example's.

        Raises:
            ModelError: The export is wrong.
            UnsupportedError: It cannot be exported.
        """

        batches = find_batches(self.example, self._failure)
        if batches.is_fixed:
            return self._fixed(batches, batches.reason)
        try:
            return self._dynamic(batches)
        except (UnsupportedError, SizeError) as error:
            if "draws random numbers" in str(error):
                raise
            try:
                return self._fixed(batches, str(error))
            except IrtoolsError:
                raise error from None

    def _dynamic(self, batches: Batches) -> Model:
        held = [n for n in (3, 2, 1) if n not in batches.failed]
        axes = {n: {a: "batch"} for n, a in batches.axes.items() if a is not None}
        notes = (f"{self.source} does not hold {batches.reason}",) if batches.failed else ()
        sizes = {1, 3, batches.size}.intersection(held) or {batches.size}
        rows = [rebatched(self.example, batches.axes, size) for size in sorted(sizes)]
        traced = rebatched(self.example, batches.axes, 2)
        return self._export(traced, axes, rows, notes)

    def _fixed(self, batches: Batches, reason: str) -> Model:
        turned = {
            name: np.flip(array, axis=0).copy() if array.ndim else array
            for name, array in self.example.items()
        }
        rows = [self.example] + ([turned] if self._failure(turned) is None else [])
        size = batches.size
        notes = (f"the export of {self.source} holds for batch {size} only: {reason}",)
        return self._export(self.example, {}, rows, notes)

    def _export(
        self,
        traced: Feeds,
        axes: Mapping[str, Mapping[int, str]],
        rows: Sequence[Feeds],
        notes: tuple[str, ...],
    ) -> Model:
        import torch

        def inputs(batch: int, sequence: int) -> dict[str, Any]:
            return _tensors(torch, traced)

        described = TorchSource(self.module, inputs, axes, self.outputs, self.source)
        trials = [self._trial(feeds) for feeds in rows] if self.options.check else []
        model = convert(described, opset=self.options.opset)
        compare(model, trials, self.source)
        model.notes = notes
        return model

    def _trial(self, feeds: Feeds) -> PlainTrial:

        wanted = self.run(feeds)
        hidden, axes = hidden_by_trying(feeds, wanted, self.run)
        at = {} if hidden is None else {n: spread(hidden, wanted[n], axes[n]) for n in axes}
        trial = PlainTrial(feeds, wanted, f"batch {size_of_batch(feeds)}", at)
        for name, again in self.run(feeds).items():
            if trial.error(name, again) > RELATIVE_TOLERANCE:
                raise draws_randomly(self.source, name)
        return trial

    def _failure(self, feeds: Feeds) -> str | None:
        try:
            self.run(feeds)
        except _FAILURES as error:
            return first_line(error)
        return None


def _run(torch: Any, module: Any, feeds: Feeds) -> dict[str, np.ndarray]:
    with torch.inference_mode(), without_fast_path():
        found = tensors_of(module(**_tensors(torch, feeds)))
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in found.items()
    }


def _tensors(torch: Any, feeds: Feeds) -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()) for name, array in feeds.items()}


def _build(torch: Any, source: str) -> Any:
    where, _, name = source.partition(":")
    with current_folder():
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

    if not path.is_file():
        raise FileError(f"there are no weights at {path}")
    instead, failed = "module.state_dict() instead of the module", "cannot be read as weights"
    state = read_tensors(path, instead=instead, failed=failed)
    if path.suffix == ".safetensors":
        return cast(Mapping[str, Any], state)
    if isinstance(state, dict):
        state = next((state[n] for n in _STATES if isinstance(state.get(n), dict)), state)
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ModelError(f"{path} holds no tensors by name; expected a state dict")
    return state


def _read_example(path: Path) -> Feeds:
    arrays = read_arrays(path)
    if not arrays or not all(array.size for array in arrays.values()):
        raise DataError(f"{path} needs arrays of at least one sample along axis 0")
    return arrays
