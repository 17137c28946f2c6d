"""What is served: a build of a release, as far as a server must know it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from irtools.builds.load import POOLED, SCORES, named_builds, tokenizer_files
from irtools.builds.records import BuildRecord
from irtools.builds.release import copy_files, fault_of, read_release
from irtools.data import find_class_names
from irtools.errors import DataError, UsageError
from irtools.model import ValueInfo

__all__ = ["Served", "served_builds"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


@dataclass(frozen=True)
class Served:
    """A build that is to be served.

    Attributes:
        release: The release's folder.
        build: The build in it.
        inputs: What the model takes.
        outputs: What it gives.
        classes: Names of its classes by number; empty where no file has them.
        tokenizer: `tokenizer.json` and its settings; empty where the build has none.
    """

    release: Path
    build: BuildRecord
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    classes: tuple[str, ...]
    tokenizer: dict[str, bytes]

    @classmethod
    def of(cls, release: Path, build: BuildRecord) -> Served:
        """Read what a release says of one of its builds.

        Raises:
            DataError: A name that no build of irtools has; it would be part of what is written.
        """
        if _NAME.fullmatch(build.name) is None:
            raise DataError(f"{release} has a build {build.name!r}, which is not MODEL/PIPELINE/..")
        folder = release / build.name
        numbers = find_class_names([folder])
        return cls(
            release=release,
            build=build,
            inputs=tuple(map(ValueInfo.parse, build.interface["inputs"])),
            outputs=tuple(map(ValueInfo.parse, build.interface["outputs"])),
            classes=tuple(sorted(numbers, key=numbers.__getitem__)),
            tokenizer=tokenizer_files(folder),
        )

    @property
    def model(self) -> str:
        """The model's name in `irc.toml`, which is what servers call it."""
        return self.build.name.split("/")[0]

    @property
    def target(self) -> str:
        """Name of the target without its options."""
        return self.build.inputs.target.partition(":")[0]

    @property
    def scores(self) -> ValueInfo | None:
        """The output that has a row of scores per sample."""
        return next(self._named(SCORES, 2), None)

    @property
    def embeds(self) -> bool:
        """Whether it gives embeddings, or hidden states that they are made of."""
        pooled = next(self._named(POOLED, 2), None)
        hidden = (one for one in self.outputs if one.shape is not None and len(one.shape) == 3)
        return pooled is not None or next(hidden, None) is not None

    @property
    def batch(self) -> int | None:
        """Samples of a call where the model has a fixed number of them; None: any."""
        shape = self.inputs[0].shape if self.inputs else None
        size = shape[0] if shape else None
        return size if isinstance(size, int) else None

    @property
    def takes_batches(self) -> bool:
        """Whether every input and output has a sample per row, any number of them."""
        values = (*self.inputs, *self.outputs)
        return all(one.shape and not isinstance(one.shape[0], int) for one in values)

    def copy_model(self, folder: Path) -> str:
        """Copy what the runtime loads to a new folder; returns the name of its main file.

        Raises:
            OSError: A file cannot be read or written.
        """
        source = self.release / self.build.name
        stem = f"{Path(self.build.main).stem}."
        names = [path.name for path in source.iterdir() if path.name.startswith(stem)]
        copy_files(names, source, folder)
        return self.build.main

    def _named(self, parts: Sequence[str], rank: int) -> Iterator[ValueInfo]:
        for part in parts:
            for one in self.outputs:
                fits = one.shape is None or len(one.shape) == rank
                if part in one.name.lower() and fits:
                    yield one


def served_builds(release: Path, wanted: str | None) -> tuple[Served, ...]:
    """Return the builds of a release that a name means; without a name all of its one model.

    Raises:
        FileError: There is no release.
        DataError: A file of it is not what was built.
        UnknownNameError: It has no such build.
        UsageError: It has several models, and none is named.
    """
    manifest = read_release(release)
    if (fault := fault_of(release, manifest)) is not None:
        raise DataError(f"{release}/{fault}: build it again, then write what serves it")
    found = named_builds(manifest.builds, wanted, release)
    models = list(dict.fromkeys(build.name.split("/")[0] for build in found))
    if len(models) > 1:
        raise UsageError(f"{release} has several models: name one of {', '.join(models)}")
    return tuple(Served.of(release, build) for build in found)
