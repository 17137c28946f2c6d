"""Prints the model around passes, to a folder or a stream."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import ClassVar, Literal, TextIO

from irtools.errors import FileError
from irtools.model import Model
from irtools.passmanager import Instrument, Step

__all__ = ["IrDump"]


class IrDump(Instrument):
    """Prints the canonical text of the model before or after passes.

    Args:
        when: `before`, `after`, or `change`: after a pass that modified the model.
        to: Folder that gets one file per print (`02-int8.after.txt`), or an open stream.
        passes: Names of the passes to print around; all where empty.

    Raises:
        FileError: The folder cannot be made or written to.
    """

    name: ClassVar[str] = "ir-dump"

    def __init__(
        self,
        when: Literal["before", "after", "change"],
        to: Path | TextIO,
        passes: Collection[str] = (),
    ) -> None:
        self._when = when
        self._to = to
        self._passes = frozenset(passes)

    def before(self, step: Step) -> None:
        if self._when == "before" and self._is_wanted(step):
            self._print(step, step.before)

    def after(self, step: Step) -> None:
        wanted = self._when == "after" or (self._when == "change" and step.modified)
        if wanted and self._is_wanted(step):
            self._print(step, step.model)

    def _is_wanted(self, step: Step) -> bool:
        return not self._passes or step.pass_.name in self._passes

    def _print(self, step: Step, model: Model) -> None:
        word = "before" if self._when == "before" else "after"
        text = model.text()
        if not isinstance(self._to, Path):
            self._to.write(f"// IR {word} {step.title}\n{text}\n")
            return
        stem = re.sub(r"[^\w.-]", "_", step.pass_.name)
        path = self._to / f"{step.index:02d}-{stem}.{word}.txt"
        try:
            self._to.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise FileError(f"cannot write the IR to {path}: {error.strerror}") from error
