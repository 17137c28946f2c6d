"""Writing what a deployment loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irtools.backends.onnxruntime.runner import compiled_kernels
from irtools.backends.onnxruntime.session import Provider, SaveAs, open_session
from irtools.backends.onnxruntime.source import ModelSource
from irtools.errors import FileError, UnsupportedError
from irtools.model import Model
from irtools.target import Artifact, RunnerOptions
from irtools.target.staging import publish, staging_folder

__all__ = ["write_artifact"]

_ONE_FILE_UP_TO = 1_500_000_000
_MAY_GROW_BY = 1.1
_CPU = Provider("CPUExecutionProvider")


def write_artifact(
    lowered: Model, directory: Path, stem: str, providers: Sequence[Provider], *, optimize: bool
) -> Artifact:
    """Write `<stem>.onnx`, read it back, and move it into place.

    Args:
        lowered: The model in the forms of this runtime.
        directory: Where to; made if absent.
        stem: Name of the file without its ending.
        providers: Where the model will run.
        optimize: Store the graph as the runtime optimizes it, so that it loads faster. Layouts
            that hold for one machine alone are left out.

    Raises:
        UnsupportedError: The runtime refuses the model.
        FileError: It cannot be written.
    """
    with staging_folder(directory) as folder:
        path = folder / f"{stem}.onnx"
        notes = _write_optimized(lowered, path, providers) if optimize else _write(lowered, path)
        kernels = compiled_kernels(_read_back(path, lowered), RunnerOptions(), providers)
        return Artifact(publish(folder, directory, path.name), kernels, notes)


def _write(lowered: Model, path: Path) -> tuple[str, ...]:
    lowered.save(path)
    return ()


def _write_optimized(lowered: Model, path: Path, providers: Sequence[Provider]) -> tuple[str, ...]:
    size = _weight_bytes(lowered)
    save = SaveAs(path, portable=True, beside=size > _ONE_FILE_UP_TO)
    open_session(ModelSource.of(lowered), RunnerOptions(threads=1), providers, save)
    written = sum(file.stat().st_size for file in path.parent.iterdir())
    if written <= size * _MAY_GROW_BY + 1_000_000:
        return ()
    # Folding unpacks weights that are stored small (fp16 casts, doubly quantized scales).
    for file in path.parent.iterdir():
        file.unlink()
    _write(lowered, path)
    return ("stored as it is: the runtime's own optimization would unpack its weights",)


def _read_back(path: Path, lowered: Model) -> ModelSource:
    source = ModelSource.of(path)
    try:
        session = open_session(
            source, RunnerOptions(exact=True), [Provider("CPUExecutionProvider")]
        )
    except UnsupportedError as error:
        raise FileError(f"{path.name} cannot be read back after writing: {error}") from error
    wanted = [value.name for value in lowered.ir.graph.outputs]
    found = [output.name for output in session.get_outputs()]
    if found != wanted:
        raise UnsupportedError(f"ONNX Runtime renamed the outputs {wanted} to {found}")
    return source


def _weight_bytes(model: Model) -> int:
    tensors = (
        value.const_value for graph in model.ir.graphs() for value in graph.initializers.values()
    )
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
