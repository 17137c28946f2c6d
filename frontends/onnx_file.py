"""ONNX files, and folders that hold one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from irtools.errors import ModelError, OptionError
from irtools.model import Model
from irtools.sources import Claim, LoadOptions, companions_in

__all__ = ["OnnxFrontend"]

_CHECKPOINT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_CONFIG = "config.json"


class OnnxFrontend:
    """Reads an ONNX file, or the one ONNX file of a folder that holds no other weights.

    Files of other names are read where no other frontend claims them: the loader says best what a
    file that is not a model really is.
    """

    name: ClassVar[str] = "onnx"
    summary: ClassVar[str] = "an ONNX file, or a folder with one"

    def accepts(self, source: str) -> Claim:
        path = Path(source)
        if path.is_dir():
            return "own" if _models_in(path) and not _is_checkpoint(path) else None
        if path.suffix == ".onnx":
            return "own"
        return "unknown" if path.exists() or path.is_symlink() else None

    def load(self, source: str, options: LoadOptions) -> Model:
        """Read the file.

        Raises:
            ModelError: It cannot be read or is not sound, it is a part of a checkpoint, or the
                folder holds several.
            FileError: There is no such file.
            OptionError: An option that only an export takes.
        """
        given = options.given()
        if given:
            raise OptionError(
                f"{source} is an ONNX file already: {', '.join(given)} would be for an export"
            )
        if options.part is not None:
            raise OptionError(f"{source} is an ONNX file, and has no part {options.part!r}")
        if _is_of_checkpoint(Path(source)):
            folder = Path(source).parent
            raise ModelError(f"{source} is a part of a checkpoint: give its folder, {folder}")
        file = _file_of(source)
        model = Model.load(file)
        if Path(source).is_dir() and (others := [p for p in _models_in(Path(source)) if p != file]):
            names = ", ".join(path.name for path in others)
            model.notes = (*model.notes, f"{file.name} of {source} is taken, next to it is {names}")
        return model

    def parts(self, source: str, options: LoadOptions) -> tuple[str, ...]:
        return ()

    def companions(self, source: str) -> tuple[Path, ...]:
        return companions_in(_file_of(source).parent)


def _file_of(source: str) -> Path:
    path = Path(source)
    return _the_model_in(path) if path.is_dir() else path


def _models_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix == ".onnx")


def _is_checkpoint(folder: Path) -> bool:
    return any(p.suffix in _CHECKPOINT_SUFFIXES for p in folder.iterdir())


def _is_of_checkpoint(path: Path) -> bool:
    kind = path.suffix in _CHECKPOINT_SUFFIXES or path.name == _CONFIG
    return kind and path.is_file() and (path.parent / _CONFIG).is_file()


def _the_model_in(folder: Path) -> Path:
    found = _models_in(folder)
    named = [path for path in found if path.name == "model.onnx"]
    match named or found:
        case [only]:
            return only
        case _:
            names = ", ".join(path.name for path in found)
            raise ModelError(f"{folder} holds {len(found)} models ({names}): name one of them")
