"""`irc report`: views of a report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irtools.cli.types import FILE, OUT, SOURCE
from irtools.cli.verb import Verb
from irtools.errors import FileError, UsageError
from irtools.files import json_text, write_text

if TYPE_CHECKING:
    from irtools.report.document import Report

__all__ = ["report"]

_FORMATS = ("table", "markdown", "junit", "html", "json")
_HEAD_LETTERS = 400
_BY_SUFFIX = {".md": "markdown", ".xml": "junit", ".html": "html", ".json": "json", ".txt": "table"}


@click.command(
    cls=Verb,
    epilog="Examples: irc report small.json -o small.html; irc report a.json b.json -o both.html; "
    "irc report release/ -o index.html",
)
@click.argument("report_files", metavar="REPORT [REPORT]", nargs=-1, type=SOURCE)
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
    report_files: tuple[str, ...],
    output: str | None,
    form: str | None,
    results: tuple[str, ...],
    schema: bool,
    force: bool,
) -> None:
    """Show the report REPORT, which `irc optimize --json FILE` writes, or turn it into a file.

    HTML is a page with charts that needs no network and no script; two reports make one of both
    runs against each other, and a folder (a release, a sweep) one of all reports in it, with a link
    to the page of each. Markdown is made for the comment of a pull request, JUnit for what CI
    systems show as tests. What `irc bench --json FILE` writes becomes a page, too.
    """
    if bool(report_files) == schema:
        raise click.UsageError("give either a report or --schema")
    if len(report_files) > 2:
        raise click.UsageError(f"give one report or two, not {len(report_files)}")
    if results and len(report_files) != 1:
        raise click.UsageError("--merge puts times into one report")
    chosen = form or _form_of(output)
    many = len(report_files) == 1 and Path(report_files[0]).is_dir()
    if schema:
        text = _schema_text()
    elif many:
        text = _of_folder(Path(report_files[0]), output, chosen, merged=bool(results))
    elif len(report_files) == 2:
        text = _against(report_files, chosen)
    else:
        text = _of_file(report_files[0], results, chosen)
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


def _of_file(path: str, results: tuple[str, ...], form: str) -> str:
    """Return a view of a report, or the page of a benchmark."""
    from irtools.report.bench import FORMAT, read_bench
    from irtools.report.page import bench_page

    text = _text_of(path)
    if f'"{FORMAT}"' not in text[:_HEAD_LETTERS]:
        return _view(_merged(_parsed(text, path), results), form)
    if form != "html" or results:
        raise UsageError(f"{path} is a benchmark, which is shown as html: give -o NAME.html")
    return bench_page(read_bench(text, path), Path(path).name)


def _of_folder(folder: Path, output: str | None, form: str, *, merged: bool) -> str:
    """Return a view of all reports below a folder."""
    from irtools.report.folder import listed_below, many_text
    from irtools.report.markdown import table
    from irtools.report.page import many_cells, many_page

    if merged:
        raise UsageError("--merge puts times into one report, and this is a folder")
    found = listed_below(folder, Path(output).parent if output is not None else folder)
    if form == "html":
        return many_page(folder.absolute().name, found)
    if form == "markdown":
        return "\n".join(table(many_cells(found))) + "\n"
    if form == "table":
        return many_text(found)
    raise UsageError(f"the reports of a folder are shown as html, markdown or table, not as {form}")


def _read(path: str) -> Report:
    return _parsed(_text_of(path), path)


def _parsed(text: str, path: str) -> Report:
    from irtools.errors import IrtoolsError
    from irtools.report.document import Report

    try:
        return Report.from_json(text)
    except IrtoolsError as error:
        raise error.within(path) from error


def _text_of(path: str) -> str:
    from irtools.errors import DataError

    try:
        return Path(path).read_text(encoding="utf-8")
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
    from irtools.report.impossible import refuse_impossible
    from irtools.report.junit import junit
    from irtools.report.markdown import markdown
    from irtools.report.page import report_page

    views: dict[str, Callable[[Report], str]] = {
        "table": str,
        "markdown": markdown,
        "junit": junit,
        "html": report_page,
    }
    if form == "json":
        return found.to_json()
    with refuse_impossible():
        return views[form](found)


def _against(files: tuple[str, ...], form: str) -> str:
    """Return a view of two runs: a page, or the table of their figures."""
    from irtools.report.comparison import comparison_text
    from irtools.report.impossible import refuse_impossible
    from irtools.report.page import comparison_page

    first, second = map(_read, files)
    if form == "html":
        return comparison_page(first, second, (files[0], files[1]))
    if form == "table":
        with refuse_impossible():
            return comparison_text(first, second)
    raise UsageError(f"two reports are shown as html or table, not as {form}")


def _schema_text() -> str:
    from irtools.report.document import schema

    return json_text(schema())


def _write(path: Path, text: str, force: bool) -> None:
    from irtools.driver.destination import check_writable

    if path.exists() and not force:
        raise UsageError(f"{path} exists: give another name with -o, or --force")
    check_writable(path)
    write_text(path, text)
