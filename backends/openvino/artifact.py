"""Writing what a deployment loads: OpenVINO's own format."""

from __future__ import annotations

from pathlib import Path

from irtools.backends.openvino._library import clean_message, import_openvino
from irtools.backends.openvino.runner import OpenVinoRunner
from irtools.backends.openvino.source import import_model
from irtools.errors import FileError, UnsupportedError
from irtools.model import Model
from irtools.targets import Artifact, KernelReport, RunnerOptions
from irtools.targets.staging import publish, staging_folder

__all__ = ["write_artifact"]


def write_artifact(model: Model, directory: Path, stem: str, device: str) -> Artifact:
    """Write `<stem>.xml` and `<stem>.bin`, read them back, and move them into place.

    Raises:
        UnsupportedError: OpenVINO refuses the model.
        FileError: The files cannot be written.
    """
    ov = import_openvino()
    imported = import_model(ov.Core(), model)
    for output, name in zip(imported.model.outputs, imported.outputs, strict=True):
        # Values that became one carry all their names; callers ask for the model's.
        output.get_tensor().set_names({name})
    with staging_folder(directory) as folder:
        path = folder / f"{stem}.xml"
        try:
            # The default halves float32 weights unasked.
            ov.save_model(imported.model, path, compress_to_fp16=False)
        except RuntimeError as error:
            raise FileError(f"OpenVINO cannot write {path.name}: {clean_message(error)}") from error
        kernels = _read_back(path, device)
        return Artifact(publish(folder, directory, path.name), kernels)


def _read_back(path: Path, device: str) -> KernelReport:
    try:
        with OpenVinoRunner(path, RunnerOptions(), device) as runner:
            return runner.kernels()
    except UnsupportedError as error:
        raise FileError(f"{path.name} cannot be read back after writing: {error}") from error
