"""Writes what serves a release to a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from irtools.builds.serving import ovms, triton
from irtools.builds.serving.base import Served, served_builds
from irtools.builds.serving.client import client_files
from irtools.builds.serving.fastapi import fastapi_files
from irtools.errors import FileError, UsageError
from irtools.files import files_below, staging_folder

__all__ = ["SERVERS", "write_serving"]

SERVERS = ("fastapi", "triton", "ovms")

_WRITERS: Mapping[str, tuple[Callable[[Served, Path], None], Callable[[Served, str], str]]] = {
    "triton": (triton.write_repository, triton.readme),
    "ovms": (ovms.write_models, ovms.readme),
}


def write_serving(
    release: Path, server: str, folder: Path, wanted: str | None = None
) -> tuple[Path, ...]:
    """Write the files that serve a release, whole or not at all.

    Args:
        server: One of `SERVERS`.
        folder: Does not exist, or is empty.
        wanted: A build, or the beginning of its name; None: the only one that will do. An app of
            FastAPI takes all builds of a model, of which the machine that serves chooses.

    Returns:
        The files.

    Raises:
        UsageError: The folder is not empty, or several builds would do.
        UnsupportedError: The server cannot run the model.
        FileError: There is no release, or the folder cannot be written.
        IrtoolsError: As `served_builds`.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; name another folder with -o")
    builds = served_builds(release, wanted)
    with staging_folder(folder.absolute().parent) as staging:
        made = staging / "files"
        try:
            made.mkdir()
            _write(builds, server, made, folder, wanted)
            made.replace(folder)
        except OSError as error:
            raise FileError(f"cannot write {folder}: {error.strerror or error}") from error
    return tuple(folder / name for name in files_below(folder))


def _write(
    builds: Sequence[Served], server: str, made: Path, folder: Path, wanted: str | None
) -> None:
    if server == "fastapi":
        files = fastapi_files(builds, wanted, folder)
    else:
        served = _only(builds, server)
        write, readme = _WRITERS[server]
        write(served, made)
        files = client_files(served)
        example = '"a text"' if "tokenizer.json" in files else "samples.npz"
        files["README.md"] = readme(served, f"python client.py {example}")
    for name, text in files.items():
        (made / name).write_text(text, encoding="utf-8")


def _only(builds: Sequence[Served], server: str) -> Served:
    """Return the one build that a server can run."""
    known = [one for one in builds if one.target in triton.BACKENDS]
    if server == "ovms":
        known = [one for one in known if one.target.startswith("openvino")] or known
    names = [one.build.name for one in known]
    if not known:
        raise UsageError(f"none of {', '.join(one.build.name for one in builds)} is for {server}")
    if len(known) > 1:
        raise UsageError(f"several builds would do: name one with --build, {' or '.join(names)}")
    return known[0]
