"""What `irc export` makes of the checkpoints of `benchmarks prepare`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.prepared.commands import irc
from benchmarks.prepared.packages import cached
from benchmarks.recording import prepare

__all__ = ["exported"]


def exported(name: str, cache: Path, *options: str) -> Path:
    """Return the model of a checkpoint, with its tokenizer next to it; it is made once."""
    prepare(name, cache)

    def export(folder: Path) -> None:
        folder.mkdir()
        irc("export", cache / name / "checkpoint", *options, "-o", folder / f"{name}.onnx")

    made = "-".join(("export", *(option.strip("-") for option in options)))
    return Path(cached(cache / name / made, export)) / f"{name}.onnx"
