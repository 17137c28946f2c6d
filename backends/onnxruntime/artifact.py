"""Writing what a deployment loads: an .onnx file, or the runtime's own .ort format."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from irtools.backends.onnxruntime.runner import compiled_kernels
from irtools.backends.onnxruntime.session import Provider, SaveAs, open_session
from irtools.backends.onnxruntime.source import ModelSource
from irtools.errors import FileError, LimitError, UnsupportedError
from irtools.files import publish, staging_folder
from irtools.model import Model
from irtools.targets import Artifact, RunnerOptions

__all__ = ["write_artifact"]

_ONE_FILE_UP_TO = 1 << 20
"""Bytes of weights that a file holds itself. Those of a file next to it are mapped, not copied: the
first answer comes twice as soon (`python -m benchmarks run first-run`)."""
_ORT_FORMAT_UP_TO = 2_000_000_000
"""A flatbuffer addresses 2 GiB, and this format keeps its weights inside."""
_MAY_GROW_BY = 1.1
_NODE_BYTES = 1000
"""A node with its names, attributes and shapes takes less."""
_CPU = Provider("CPUExecutionProvider")
_UNPACKS = "stored as it is: the runtime's own optimization would unpack its weights"


def write_artifact(
    lowered: Model,
    path: Path,
    providers: Sequence[Provider],
    *,
    optimize: bool,
) -> Artifact:
    """Write a file, read it back, and move it into place.

    Args:
        lowered: The model in the forms of this runtime.
        path: Where to; the folder is made if absent. Weights go to a file next to it, which the
            runtime maps. With the suffix `.ort` in the runtime's own
            format, which its builds for small devices load too, and which cannot be turned back.
        providers: Where the model will run.
        optimize: Store the graph as the runtime optimizes it, so that it loads faster. Layouts
            that hold for one machine alone are left out.

    Raises:
        UnsupportedError: The runtime refuses the model.
        LimitError: It does not fit into one file of the format.
        FileError: It cannot be written.
    """
    size = _weight_bytes(lowered)
    external_data = size > _ONE_FILE_UP_TO and path.suffix != ".ort"
    if path.suffix == ".ort" and size > _ORT_FORMAT_UP_TO:
        raise LimitError(
            f"{path.name}: {size / 1e9:.1f} GB of weights do not fit into the ORT format, which "
            "holds 2 GB; write .onnx"
        )
    with staging_folder(path.parent) as folder:
        staged = folder / path.name
        notes: tuple[str, ...] = ()
        if optimize:
            notes = _write_optimized(lowered, staged, providers, size, external_data)
        else:
            lowered.save(staged, external_data=external_data)
        written = _read_back(staged, lowered)
        kernels = compiled_kernels(written, RunnerOptions(), providers)
        return Artifact(publish(folder, path.parent, path.name), kernels, notes)


def _write_optimized(
    lowered: Model, path: Path, providers: Sequence[Provider], size: int, external_data: bool
) -> tuple[str, ...]:
    save = SaveAs(path, portable=True, external_data=external_data)
    with _disk_faults(path, size):
        open_session(ModelSource.of(lowered), RunnerOptions(threads=1), providers, save)
    written = sum(file.stat().st_size for file in path.parent.iterdir())
    nodes = sum(len(graph) for graph in lowered.ir.graphs())
    if written <= size * _MAY_GROW_BY + nodes * _NODE_BYTES:
        return ()
    # Folding unpacks weights that are stored small (8 bits, fp16 casts, doubly quantized scales).
    for file in path.parent.iterdir():
        file.unlink()
    if path.suffix == ".ort":
        _write_plain_ort(lowered, path)
    else:
        lowered.save(path, external_data=external_data)
    return (_UNPACKS,)


def _write_plain_ort(lowered: Model, path: Path) -> None:
    exact = RunnerOptions(threads=1, exact=True)
    with _disk_faults(path, _weight_bytes(lowered)):
        open_session(ModelSource.of(lowered), exact, [_CPU], SaveAs(path))


@contextlib.contextmanager
def _disk_faults(path: Path, size: int) -> Iterator[None]:
    """Find out whether it is the disk for which a file was not written: the runtime does not say.

    Raises:
        FileError: There is no room for `size` bytes next to the file.
    """
    try:
        yield
    except UnsupportedError as error:
        for part in path.parent.iterdir():
            part.unlink()
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as fault:
            raise FileError(f"cannot write {path}: {fault.strerror}") from error
        finally:
            path.unlink(missing_ok=True)
        raise


def _read_back(path: Path, lowered: Model) -> ModelSource:
    source = ModelSource.of(path)
    try:
        session = open_session(source, RunnerOptions(exact=True), [_CPU])
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
