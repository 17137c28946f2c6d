"""What targets share whose runtime is a Python package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from irtools.errors import FileError, TargetUnavailableError, UnsupportedError
from irtools.files import publish, staging_folder
from irtools.targets.base import Artifact, KernelReport, Target
from irtools.targets.lowered import lower_file_version, lowered

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["PackagedTarget"]


@dataclass(frozen=True)
class PackagedTarget(Target):
    """A target whose runtime is a Python package and loads ONNX files.

    What remains to be said: `name`, `summary`, `package`, `capabilities` and `runner`. A runtime
    with a format of its own names it in `formats` and writes it in `write`; forms that only this
    runtime knows are made in `lower`.
    """

    package: ClassVar[str]
    """As pip calls it; imported with underscores for hyphens."""

    def check_available(self) -> None:
        try:
            importlib.import_module(self.package.replace("-", "_"))
        except ImportError as error:
            raise TargetUnavailableError(
                f"target {self.name!r} needs the package {self.package}: pip install {self.package}"
            ) from error

    def version(self) -> str:
        return f"{self.package} {version(self.package)}"

    def lower(self, model: ir.Model) -> Mapping[str, int]:
        return lower_file_version(model, self.capabilities)

    def compile(
        self, model: Model, directory: Path, stem: str, *, format: str | None = None
    ) -> Artifact:
        chosen = self.choose_format(format)
        self.check_available()
        form = lowered(model, self)
        with staging_folder(directory) as folder:
            path = folder / f"{stem}.{chosen}"
            self.write(form, path)
            kernels = self._read_back(path)
            return Artifact(publish(folder, directory, path.name), kernels)

    def write(self, form: Model, path: Path) -> None:
        """Write a model in this target's forms, with the suffix of one of `formats`.

        Raises:
            UnsupportedError: The runtime refuses the model.
            FileError: The file cannot be written.
        """
        form.save(path)

    def _read_back(self, path: Path) -> KernelReport:
        try:
            return self.kernels(path)
        except UnsupportedError as error:
            raise FileError(f"{path.name} cannot be read back after writing: {error}") from error
