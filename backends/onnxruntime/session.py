"""Making sessions: options, providers, and errors in one clear line."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irtools.backends.onnxruntime.library import import_onnxruntime
from irtools.backends.onnxruntime.source import ModelSource
from irtools.errors import TargetUnavailableError, UnsupportedError
from irtools.targets import RunnerOptions
from irtools.words import one_line

__all__ = [
    "RUNTIME_ERRORS",
    "Provider",
    "SaveAs",
    "clean_message",
    "open_session",
]

ort: Any = import_onnxruntime()
state: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    state.EPFail,
    state.EngineError,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.ModelRequiresCompilation,
    state.NoModel,
    state.NoSuchFile,
    state.NotFound,
    state.NotImplemented,
    state.RuntimeException,
)
"""What the runtime raises; its classes share no base but Exception."""

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (?:Load model from .*? failed:)?")
_FATAL_ONLY = 4


@dataclass(frozen=True)
class Provider:
    """An execution provider and its options.

    Attributes:
        name: As the runtime calls it (`CUDAExecutionProvider`).
        options: Provider options.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SaveAs:
    """Where a session writes the graph it made of the model.

    Attributes:
        path: The file; in the runtime's own format where its suffix is `.ort`.
        portable: Leave out what holds for this machine alone (memory layouts of its kernels).
        external_data: Write large weights to `<name>.data` next to the file.
    """

    path: Path
    portable: bool = False
    external_data: bool = False


def open_session(
    source: ModelSource,
    options: RunnerOptions,
    providers: Sequence[Provider],
    save: SaveAs | None = None,
    profile: Path | None = None,
) -> Any:
    """Make an `onnxruntime.InferenceSession` on exactly these providers.

    Args:
        source: The model; it must outlive the session.
        options: How to run it.
        providers: In order of preference; the first must take part.
        save: Also write the optimized graph.
        profile: Write the times of nodes to a file whose name starts so.

    Raises:
        UnsupportedError: The runtime refuses the model.
        TargetUnavailableError: The first provider could not be started.
    """
    session_options = _session_options(options)
    source.share_weights(session_options)
    if not source.packs or (options.exact and source.is_large):
        session_options.add_session_config_entry("session.disable_prepacking", "1")
    if source.is_large:
        # The arena is the process's and outlives the session, with what it has ever held.
        session_options.enable_cpu_mem_arena = False
    if save is not None:
        _save_optimized(session_options, save)
    if profile is not None:
        session_options.enable_profiling = True
        session_options.profile_file_prefix = str(profile)
    chosen = [(provider.name, dict(provider.options)) for provider in providers]
    try:
        # enable_fallback=0: the wrapper would print and go on with the CPU.
        session = ort.InferenceSession(
            source.content, session_options, providers=chosen, enable_fallback=0
        )
    except RUNTIME_ERRORS as error:
        raise UnsupportedError(
            f"ONNX Runtime {ort.__version__} refuses the model: {clean_message(error)}"
        ) from error
    active = session.get_providers()
    if providers[0].name not in active:
        raise TargetUnavailableError(
            f"ONNX Runtime could not start {providers[0].name} and would run on "
            f"{', '.join(active)} instead; check the driver and the CUDA libraries"
        )
    return session


def clean_message(error: Exception) -> str:
    """Return the runtime's message as one line, without its code numbers."""
    return one_line(_PREFIX.sub("", str(error)))


def _session_options(options: RunnerOptions) -> Any:
    made = ort.SessionOptions()
    made.log_severity_level = _FATAL_ONLY
    # Workers wait for the next kernel awake: to sleep and wake for each costs small models a third
    # of their time. They stop when a run ends, or would steal from whatever runs next.
    made.add_session_config_entry("session.force_spinning_stop", "1")
    if options.threads is not None:
        made.intra_op_num_threads = options.threads
    levels = {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }
    made.graph_optimization_level = levels["off" if options.exact else options.optimizations]
    return made


def _save_optimized(session_options: Any, save: SaveAs) -> None:
    session_options.optimized_model_filepath = str(save.path)
    # Packing copies every weight for the kernels; this session never runs.
    session_options.add_session_config_entry("session.disable_prepacking", "1")
    session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if save.portable:
        session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if save.path.suffix == ".ort":
        session_options.add_session_config_entry("session.save_model_format", "ORT")
    if save.external_data:
        session_options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{save.path.name}.data"
        )
