"""What a release says of itself: `irtools.json`, and `build.json` of each build."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from irtools.builds.inputs import Inputs
from irtools.builds.matrix import Combination
from irtools.errors import DataError, FileError
from irtools.files import fault_of_document, json_text

__all__ = [
    "BUILD_FILE",
    "MANIFEST_FILE",
    "MEASURED_FILES",
    "BuildRecord",
    "FileRecord",
    "Manifest",
    "Record",
    "Scores",
    "read_record",
    "record_text",
]

BUILD_FILE = "build.json"
MANIFEST_FILE = "irtools.json"
MEASURED_FILES = frozenset({"report.json", "report.html", BUILD_FILE})
"""Files of a build that hold times, and so differ from run to run."""

_SEAL = '"sha256": "{}"\n}}\n'
"""End of a manifest's text: its own hash."""

T = TypeVar("T", bound="Record")


class Record(msgspec.Struct, frozen=True):
    """A JSON document of a stated format and version."""

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int] = 1
    REMEDY: ClassVar[str] = "build it again, or read it with the irtools that wrote it"
    """What to do about another version."""


class Scores(msgspec.Struct, frozen=True):
    """The figures of a build that a reader asks for first; None where not measured.

    Attributes:
        metric: Name of the task metric.
        original: Its value for the source.
        value: Its value for the result, with its interval.
        samples: Number of samples that it is over.
        agreement: Share of equal answers.
        sqnr_db: Of the outputs; text where it is not finite.
        original_ms: Median latency of the source at the first shape.
        median_ms: That of the result.
        speedup: How many times faster, with its interval.
    """

    original_bytes: int
    bytes: int
    metric: str | None = None
    larger_is_better: bool = True
    original: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int = 0
    agreement: float | None = None
    sqnr_db: float | str | None = None
    shape: str = ""
    original_ms: float | None = None
    median_ms: float | None = None
    speedup: tuple[float, float, float] | None = None


class BuildRecord(Record, frozen=True):
    """One build.

    Attributes:
        name: `model/pipeline/target`, as `irc.toml` names them; its folder in the release.
        source: What was read, as it was given.
        source_sha256: Of the model before the first pass.
        result_sha256: Of the model that was lowered and written.
        main: The file that a runtime loads.
        inputs: All that decided the bytes.
        pipeline: Text of the passes that made it: those that were given, or found.
        interface: Inputs and outputs with type and shape, as text.
        datasets: Data that was used: name, SHA-256, number of samples.
        task: As the model's metadata says.
        notes: What a reader must know.
    """

    FORMAT: ClassVar[str] = "irtools-build"

    name: str
    source: str
    source_sha256: str
    result_sha256: str
    main: str
    created: str
    inputs: Inputs
    pipeline: str
    scores: Scores
    interface: Mapping[str, tuple[str, ...]]
    datasets: tuple[tuple[str, str, int], ...] = ()
    task: str | None = None
    notes: tuple[str, ...] = ()

    def answers(self, one: Combination, inputs: Inputs) -> bool:
        """Whether it is what a build would make, whatever its names."""
        return self.inputs.key == inputs.key and one.takes(self.pipeline)


class FileRecord(msgspec.Struct, frozen=True):
    """Size and hash of a file."""

    bytes: int
    sha256: str


class Manifest(Record, frozen=True):
    """A release.

    Attributes:
        irtools: Version of irtools that made it.
        config: SHA-256 of the tables of `irc.toml` that decide its pages.
        files: Every file but this one and the signature, by relative path.
        sha256: Of the text of this document with this one left empty.
    """

    FORMAT: ClassVar[str] = "irtools-release"

    name: str
    release: str
    irtools: str
    config: str
    builds: tuple[BuildRecord, ...]
    files: Mapping[str, FileRecord]
    sha256: str = ""

    def sealed(self) -> tuple[Manifest, str]:
        """Return it with its own hash, and its text."""
        open_text = record_text(msgspec.structs.replace(self, sha256=""))
        digest = hashlib.sha256(open_text.encode()).hexdigest()
        text = open_text.removesuffix(_SEAL.format("")) + _SEAL.format(digest)
        return msgspec.structs.replace(self, sha256=digest), text

    def is_text(self, text: bytes) -> bool:
        """Whether a text is the one that was written, to the byte."""
        end = _SEAL.format(self.sha256).encode()
        open_text = text.removesuffix(end) + _SEAL.format("").encode()
        return text.endswith(end) and hashlib.sha256(open_text).hexdigest() == self.sha256


def record_text(record: Record) -> str:
    """Return a document as text."""
    head = {"format": record.FORMAT, "version": record.VERSION}
    return json_text({**head, **msgspec.to_builtins(record)})


def read_record(kind: type[T], path: Path) -> T:
    """Read a document.

    Raises:
        FileError: It cannot be read.
        DataError: It is another document, or of another version.
    """
    try:
        document: Any = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if fault := fault_of_document(document, kind.FORMAT, kind.VERSION, kind.REMEDY):
        raise DataError(f"{path} {fault}")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{path} does not follow its format: {error}") from error
