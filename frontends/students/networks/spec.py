"""What a student is made of, as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from irtools.errors import FileError, ModelError, UsageError

__all__ = [
    "CheckpointFolder",
    "ChosenLayers",
    "PrunedModel",
    "Shrunk",
    "StudentSpec",
    "parse_student",
]

_SIZES = ("hidden", "layers", "heads", "ffn")


@dataclass(frozen=True)
class ChosenLayers:
    """Some layers of the teacher, with its embeddings and head."""

    layers: tuple[int, ...]


@dataclass(frozen=True)
class Shrunk:
    """A network of the teacher's kind with other sizes; None: the teacher's."""

    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None
    ffn: int | None = None


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint folder."""

    folder: Path


@dataclass(frozen=True)
class PrunedModel:
    """An ONNX file whose widths and weights the student takes."""

    path: Path


StudentSpec: TypeAlias = ChosenLayers | Shrunk | CheckpointFolder | PrunedModel


def parse_student(text: str) -> StudentSpec:
    """Parse `layers=0,2,5`, `hidden=192,layers=3`, a checkpoint folder or a pruned ONNX file.

    `layers=` alone lists layers of the teacher; beside another size it is a number of layers.

    Raises:
        UsageError: Text that is none of these.
        FileError: A path that does not exist.
        ModelError: A folder without `config.json`.
    """
    path = Path(text)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"student {text} is no checkpoint: it has no config.json")
        return CheckpointFolder(path)
    if path.is_file():
        if path.suffix != ".onnx":
            raise UsageError(f"student {text} is neither a checkpoint folder nor an .onnx file")
        return PrunedModel(path)
    if "=" not in text:
        raise FileError(
            f"student {text} does not exist; expected layers=0,2,5 or hidden=192,layers=3, a "
            "checkpoint folder or a pruned .onnx file"
        )
    return _sizes(text)


def _sizes(text: str) -> StudentSpec:
    given: dict[str, list[int]] = {}
    name = ""
    for part in text.split(","):
        head, equals, rest = part.partition("=")
        name, number = (head.strip(), rest) if equals else (name, part)
        if name not in _SIZES or (equals and name in given):
            raise UsageError(
                f"student {text!r}: {part!r} is not understood; expected layers=0,2,5 or sizes "
                f"such as hidden=192,layers=3 ({', '.join(_SIZES)})"
            )
        given.setdefault(name, []).append(_number(text, number))
    if set(given) == {"layers"}:
        return ChosenLayers(_checked_layers(text, given["layers"]))
    for name, numbers in given.items():
        if len(numbers) != 1 or numbers[0] < 1:
            raise UsageError(f"student {text!r}: {name} is one number of at least 1")
    return Shrunk(**{name: numbers[0] for name, numbers in given.items()})


def _checked_layers(text: str, layers: list[int]) -> tuple[int, ...]:
    if sorted(set(layers)) != layers:
        raise UsageError(f"student {text!r}: layers are named once and in ascending order")
    return tuple(layers)


def _number(text: str, number: str) -> int:
    if not number.strip().isdecimal():
        raise UsageError(f"student {text!r}: {number!r} is no number of 0 or more")
    return int(number)
