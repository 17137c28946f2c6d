"""Any checkpoint as a plain folder: `config.json`, tokenizer and weights in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from irtools.checkpoints import gguf, quantized, widened
from irtools.checkpoints.recognize import is_gguf
from irtools.checkpoints.unpacked import Unpacked
from irtools.errors import IrtoolsError, MissingExtraError
from irtools.files import scratch_folder

__all__ = ["PlainCheckpoint", "is_unpacked", "plain_checkpoint"]


@dataclass(frozen=True)
class PlainCheckpoint:
    """A checkpoint that networks are loaded from.

    Attributes:
        source: As the user named it.
        folder: What to load; the source itself where that is plain.
        found: What is known of how it was read.
    """

    source: Path
    folder: Path
    found: Unpacked = field(default_factory=Unpacked)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return self.found.notes

    def named(self, text: str) -> str:
        """Return a message that names the source in place of a temporary folder."""
        return text.replace(str(self.folder), str(self.source))


def is_unpacked(source: Path) -> bool:
    """Whether a source has another form than a plain folder, and one that is read."""
    return is_gguf(source) or (
        (source / "config.json").is_file() and quantized.is_quantized(source)
    )


@contextmanager
def plain_checkpoint(source: Path, *, mapped: bool = False) -> Iterator[PlainCheckpoint]:
    """Give a plain folder for a source, for as long as the `with` block runs.

    A GGUF file, or a folder with quantized weights, is written to a temporary folder in float32,
    weight by weight, so that it takes disk and little memory. Errors out of the block name the
    source. Whatever else a source is, it is given as it is.

    Args:
        source: A file or folder.
        mapped: Write large weights of 16 bits in float32 too, so that a network maps them from
            disk; else it makes float32 of them in memory.

    Raises:
        MissingExtraError: The packages that read it are not installed.
        ModelError: It is damaged, or contradicts itself.
        UnsupportedError: Stored in a way that is not read.
    """
    unpack = _unpacking(source, mapped=mapped)
    if unpack is None:
        yield PlainCheckpoint(source, source)
        return
    with scratch_folder("checkpoint") as scratch:
        # Its name is the source's, because libraries show it as well.
        folder = scratch / source.name
        folder.mkdir()
        plain = PlainCheckpoint(source, folder, unpack(source, folder))
        try:
            yield plain
        except IrtoolsError as error:
            error.args = tuple(plain.named(str(arg)) for arg in error.args)
            raise


def _unpacking(source: Path, *, mapped: bool) -> Callable[[Path, Path], Unpacked] | None:
    """Return what writes a source as a plain folder; None where it is one.

    Raises:
        MissingExtraError: The packages that read it are not installed.
    """
    unpack: Callable[[Path, Path], Unpacked]
    if is_unpacked(source):
        unpack = gguf.unpack if source.is_file() else quantized.unpack
    elif mapped and (source / "config.json").is_file() and widened.is_narrow(source):
        unpack = widened.widen
    else:
        return None
    try:
        import safetensors  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("reading a checkpoint", "torch") from error
    return unpack
