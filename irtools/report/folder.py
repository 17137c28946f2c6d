"""All reports below a folder: of a release, a sweep, or a folder of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from irtools.errors import DataError, FileError, IrtoolsError
from irtools.report.document import Report
from irtools.report.page import Listed, many_cells

__all__ = ["listed_below", "many_text"]

_MOST_REPORTS = 2000
_HEAD_BYTES = 400
_SUFFIX = ".json"


def listed_below(folder: Path, home: Path) -> list[Listed]:
    """Return all reports below a folder, by the paths of their folders or files.

    Args:
        folder: Searched with its folders, but for hidden ones and links.
        home: Where the page that lists them will be; links are relative to it.

    Raises:
        FileError: There is none, or one cannot be read.
        DataError: One is of another version, or there are more than 2000.
    """
    found = sorted(_reports(folder))
    if not found:
        raise FileError(
            f"{folder} holds no report: irc build, irc sweep and irc optimize -o DIR/ write them"
        )
    if len(found) > _MOST_REPORTS:
        raise DataError(f"{folder} holds {len(found)} reports, expected {_MOST_REPORTS} at most")
    return [_listed(path, folder, home) for path in found]


def many_text(found: Sequence[Listed]) -> str:
    """Return what a console shows of many runs."""
    cells = many_cells(found)
    lines = [cells.headings, *cells.rows]
    wide = [max(len(line[n]) for line in lines) for n in range(len(cells.headings))]
    return "".join("  ".join(map(str.ljust, line, wide)).rstrip() + "\n" for line in lines)


def _reports(folder: Path) -> Iterator[Path]:
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in files:
            path = Path(place) / name
            if name.endswith(_SUFFIX) and not path.is_symlink() and _is_report(path):
                yield path


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return f'"{Report.FORMAT}"'.encode() in stream.read(_HEAD_BYTES)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error


def _listed(path: Path, folder: Path, home: Path) -> Listed:
    try:
        report = Report.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file") from error
    except IrtoolsError as error:
        raise error.within(str(path)) from error
    is_only = path.name == "report.json" and path.parent != folder
    stem = path.name.removesuffix(_SUFFIX).removesuffix(".report")
    name = path.parent if is_only else path.with_name(stem)
    page = path.with_suffix(".html")
    link = quote(os.path.relpath(page, home).replace(os.sep, "/")) if page.is_file() else ""
    return Listed(name.relative_to(folder).as_posix(), report, link)
