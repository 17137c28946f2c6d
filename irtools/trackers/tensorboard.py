"""TensorBoard: a folder of event files."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from irtools.errors import FileError, MissingExtraError
from irtools.trackers.base import TrackedRun

__all__ = ["TensorBoardTracker"]

_FOLDER = "runs"


class TensorBoardTracker:
    """Writes runs to a folder of their own each.

    Args:
        place: Folder of all runs; None: `runs`.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(self, place: str | None) -> None:
        self._folder = Path(place or _FOLDER)

    def check(self) -> None:
        if find_spec("tensorboard") is None:
            raise MissingExtraError("tracking by TensorBoard", "tensorboard")
        if self._folder.exists() and not self._folder.is_dir():
            raise FileError(f"{self._folder} is a file, expected a folder for TensorBoard")

    def log(self, run: TrackedRun) -> str:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        name = re.sub(r"[^\w.-]+", "-", run.name)
        folder = self._folder / f"{name}-{stamp}"
        writer = EventFileWriter(str(folder))
        now = time.time()
        writer.add_event(Event(wall_time=now, summary=hparams_pb(dict(run.parameters))))
        for row in run.rows:
            writer.add_event(Event(wall_time=now, step=row.step, summary=_scalars(row.metrics)))
        writer.add_event(Event(wall_time=now, summary=_text("report", run.files["report.md"])))
        writer.close()
        for file, text in run.files.items():
            (folder / file).write_text(text, encoding="utf-8")
        return str(folder)


def _scalars(metrics: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    return Summary(value=values)


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    metadata = create_summary_metadata(display_name=tag, description="")
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])
