"""Files that a pass has made to lie beside the model: the tokenizer of a smaller vocabulary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from irtools.errors import FileError, UsageError
from irtools.files import publish, staging_folder
from irtools.sources import find_frontend

__all__ = ["companions_beside", "write_companions"]


def write_companions(companions: Mapping[str, bytes], folder: Path) -> tuple[Path, ...]:
    """Write the files into a folder, over what is there.

    Raises:
        FileError: One cannot be written.
    """
    written = []
    for name, content in companions.items():
        path = folder / name
        try:
            path.write_bytes(content)
        except OSError as error:
            raise FileError(f"cannot write {path}: {error.strerror or error}") from error
        written.append(path)
    return tuple(written)


@contextlib.contextmanager
def companions_beside(
    companions: Mapping[str, bytes], folder: Path, source: str, *, force: bool
) -> Iterator[tuple[Path, ...]]:
    """Write the files beside a model that is written inside the `with`; yields their paths.

    They appear under their names when the model is there.

    Args:
        source: Where the model came from; the files beside it are never replaced.
        force: Files of other models may be.

    Raises:
        UsageError: A file of that name is there and must not be replaced.
        FileError: One cannot be written.
    """
    if not companions:
        yield ()
        return
    _check(companions, folder, source, force)
    with staging_folder(folder) as staging:
        made = write_companions(companions, staging)
        yield tuple(folder / path.name for path in made)
        publish(staging, folder)


def _check(companions: Mapping[str, bytes], folder: Path, source: str, force: bool) -> None:
    companions_of_source = find_frontend(source).companions(source) if source else ()
    own = {path.absolute() for path in companions_of_source}
    for name, content in companions.items():
        path = folder / name
        if not path.exists() or path.read_bytes() == content:
            continue
        if path.absolute() in own:
            raise UsageError(
                f"{path} belongs to {source}, and the result needs another one: give -o in a "
                "folder of its own"
            )
        if not force:
            raise UsageError(
                f"{path} is there, and the result needs another one: give -o in a folder of its "
                "own, or --force"
            )
