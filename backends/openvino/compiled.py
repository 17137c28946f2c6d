"""What OpenVINO compiled, as one file (`.blob`) that is loaded in place of compiling again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from irtools.backends.openvino.kernels import count_kernels
from irtools.backends.openvino.library import clean_message, import_openvino, release
from irtools.backends.openvino.session import compiled_by, plugin_config, slot_of
from irtools.backends.openvino.source import ImportedModel, named
from irtools.backends.openvino.stateful import cache_variables
from irtools.errors import FileError, UnsupportedError
from irtools.targets import KernelReport, RunnerOptions, SessionRunner

__all__ = ["SUFFIX", "CompiledRunner", "write_compiled"]

SUFFIX = ".blob"


def write_compiled(imported: ImportedModel, path: Path, device: str) -> None:
    """Compile a model for a device of this machine, and write the result.

    Threads and precision are chosen when it is loaded, as of any model.

    Raises:
        UnsupportedError: OpenVINO refuses the model; or it keeps the cache of a decoder inside,
            which OpenVINO 2026.4 reads back with wrong numbers.
        FileError: The file cannot be written.
    """
    if cache_variables(imported.model):
        raise UnsupportedError(
            f"OpenVINO {release()} reads the compiled form of a decoder with its cache back with "
            f"wrong numbers: write .xml in place of {SUFFIX}"
        )
    core, config = import_openvino().Core(), plugin_config(RunnerOptions(), device)
    compiled = compiled_by(core, named(imported).model, device, config)
    try:
        made = compiled.export_model()
    except RuntimeError as error:
        raise UnsupportedError(
            f"OpenVINO {release()} writes no compiled form for {device}: {clean_message(error)}"
        ) from error
    try:
        path.write_bytes(made.getbuffer())
    except OSError as error:
        raise FileError(f"cannot write {path.name}: {error.strerror}") from error


class CompiledRunner(SessionRunner):
    """A model that was compiled before, with checked feeds.

    Args:
        path: What `write_compiled` wrote, on a machine of this kind and with this version; mapped.
        options: How to run it.
        device: `CPU` or `GPU`.
        counters: Count the time of every node.

    Raises:
        UnsupportedError: OpenVINO refuses the file.
    """

    runtime = "OpenVINO"

    def __init__(
        self, path: Path, options: RunnerOptions, device: str, *, counters: bool = False
    ) -> None:
        config = plugin_config(options, device) | ({"PERF_COUNT": "YES"} if counters else {})
        # Weights stay in the file, which OpenVINO does not hold by itself.
        self._mapped = _mapped(path)
        self._load = partial(_load, self._mapped, path.name, device, config)
        compiled = self._load()
        names = [min(port.get_names()) for port in compiled.outputs]
        slots = [slot_of(port, names) for port in compiled.inputs]
        super().__init__(compiled.create_infer_request(), slots, names)

    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        try:
            results = self.session.infer(
                dict(enumerate(feeds.values())), share_inputs=True, share_outputs=True
            )
        except RuntimeError:
            # As in `OpenVinoRunner.infer`: sizes of a failed run stay in the compiled model.
            self._session = self._load().create_infer_request()
            raise
        return [np.array(results[self._outputs.index(name)]) for name in wanted]

    def describe(self, error: Exception) -> str:
        return clean_message(error)

    def kernels(self) -> KernelReport:
        """Count the layers of the runtime model by type and precision.

        What was to be int8 and is not cannot be told: the file does not say what was asked for.
        """
        return count_kernels(self.session.get_compiled_model().get_runtime_model(), frozenset())

    def counters(self) -> Sequence[Any]:
        """Return `openvino.ProfilingInfo` of every node in the last run."""
        found: Sequence[Any] = self.session.get_profiling_info()
        return found


def _mapped(path: Path) -> np.ndarray:
    try:
        # OpenVINO takes arrays that may change; "c" keeps the file as it is.
        return np.memmap(path, np.uint8, "c")
    except ValueError as error:
        raise UnsupportedError(f"{path.name} is empty") from error


def _load(mapped: np.ndarray, name: str, device: str, config: Mapping[str, str]) -> Any:
    ov = import_openvino()
    try:
        file = ov.Tensor(mapped, shared_memory=True)
        return ov.Core().import_model(file, device, dict(config))
    except RuntimeError as error:
        raise UnsupportedError(
            f"OpenVINO {release()} cannot load {name}; such files belong to the version and the "
            f"kind of machine that made them, make it again there: {clean_message(error)}"
        ) from error
