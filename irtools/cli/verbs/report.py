"""`irc report`: views of a report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irtools.cli.types import FILE, OUT
from irtools.cli.verb import Verb
from irtools.errors import FileError, UsageError
from irtools.files import json_text, write_text

if TYPE_CHECKING:
    from irtools.report.document import Report

__all__ = ["report"]

_FORMATS = ("table", "markdown", "junit", "html", "json")
_BY_SUFFIX = {".md": "markdown", ".xml": "junit", ".html": "html", ".json": "json", ".txt": "table"}


@click.command(
    cls=Verb, epilog="Example: irc report small.json -o comment.md  # then: gh pr comment -F ..."
)
@click.argument("report_file", metavar="REPORT", required=False, type=FILE)
@click.option(
    "--output",
    "-o",
    type=OUT,
    help="A .md, .xml (JUnit), .html, .txt or .json file. [default: stdout]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="Form of the view. [default: by the name of the output, else table]",
)
@click.option(
    "--merge",
    "results",
    type=FILE,
    multiple=True,
    help="What a kit of `irc bench --kit` wrote on another machine, for the report.",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of reports.")
@click.option("--force", "-f", is_flag=True, help="Replace what exists.")
def report(
    report_file: str | None,
    output: str | None,
    form: str | None,
    results: tuple[str, ...],
    schema: bool,
    force: bool,
) -> None:
    """Show the report REPORT, which `irc optimize --json FILE` writes, or turn it into a file.

    Markdown is made for the comment of a pull request, JUnit for what CI systems show as tests.
    """
    if (report_file is None) != schema:
        raise click.UsageError("give either a report or --schema")
    chosen = form or _form_of(output)
    text = (
        _schema_text()
        if report_file is None
        else _view(_merged(_read(report_file), results), chosen)
    )
    if output is None:
        sys.stdout.write(text)
    else:
        _write(Path(output), text, force)


def _form_of(output: str | None) -> str:
    if output is None:
        return "table"
    suffix = Path(output).suffix
    if suffix not in _BY_SUFFIX:
        raise UsageError(f"{output} ends in none of {', '.join(_BY_SUFFIX)}: give --format")
    return _BY_SUFFIX[suffix]


def _read(path: str) -> Report:
    from irtools.errors import DataError
    from irtools.report.document import Report

    try:
        return Report.from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file") from error


def _merged(found: Report, results: tuple[str, ...]) -> Report:
    """Return a report with the times of other machines."""
    from irtools.measure.kit import read_result
    from irtools.report.elsewhere import merge_times

    for result in results:
        found = merge_times(found, read_result(Path(result)), result)
    return found


def _view(found: Report, form: str) -> str:
    from irtools.report.html import html
    from irtools.report.junit import junit
    from irtools.report.markdown import markdown

    views: dict[str, Callable[[Report], str]] = {
        "table": str,
        "markdown": markdown,
        "junit": junit,
        "html": html,
    }
    return found.to_json() if form == "json" else views[form](found)


def _schema_text() -> str:
    from irtools.report.document import schema

    return json_text(schema())


def _write(path: Path, text: str, force: bool) -> None:
    from irtools.driver.destination import check_writable

    if path.exists() and not force:
        raise UsageError(f"{path} exists: give another name with -o, or --force")
    check_writable(path)
    write_text(path, text)
