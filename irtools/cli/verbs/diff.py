"""`irc diff`: two models side by side in Google's Model Explorer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.comparing import runs_option
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, FOLDER, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.causes import ExplorerFiles

__all__ = ["diff"]


@click.command(cls=Verb, epilog="Example: irc diff float.onnx int8.onnx -o diff/")
@click.argument("first", metavar="A", type=SOURCE)
@click.argument("second", metavar="B", type=SOURCE)
@click.option("--output", "-o", "out", type=FOLDER, required=True, help="Folder to write to.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@options.target_option
@click.option("--data", type=DATA, help="Feeds. [default: drawn from the signature of A]")
@options.data_options
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    default=16,
    show_default=True,
    help="Most samples on which tensors are compared.",
)
@options.batch_option
@options.sequence_option
@options.threads_option
@runs_option
@click.option("--no-bench", is_flag=True, help="Write no latency, and profile nothing.")
@options.seed_option
@options.size_option
@source_options
@options.work_dir_option
def diff(first: str, second: str, out: str, force: bool, **given: Any) -> None:
    """Write two models side by side for Model Explorer, with latency, SQNR and bytes over them.

    The folder holds both graphs (a.json, b.json), which nodes do the same work (mapping.json, for
    a split view: Sync navigation, upload mapping), figures by node (latency, slower, sqnr, bytes)
    and a table by module (modules.json). The line that opens them is printed; Model Explorer is
    the Python package ai-edge-model-explorer, which irtools does not need.
    """
    from irtools.causes import MeasuredFacts, explorer_files
    from irtools.cli.comparing import measuring, samples_of, subject_of
    from irtools.cli.console import progress, say, say_notes
    from irtools.driver.destination import Destination
    from irtools.targets import find_target

    Destination.folder(out, first, force=force)
    target = find_target(given["target"])
    loading = load_options(given)
    a, b = (subject_of(source, target, loading) for source in (first, second))
    say_notes(a.model, b.model)
    with options.naming_data_option("--data", given["data"]), progress() as shown:
        samples = samples_of(a, given, given["data"])
        facts = MeasuredFacts(a, b, target, samples, measuring(given, shown))
        files = explorer_files(facts)
    for note in dict.fromkeys(facts.notes):
        say(f"irc: note: {note}")
    place = Path(out)
    _write(files, place)
    counts = files.nodes
    say(
        f"irc: {counts['first']} nodes of A stand for {counts['second']} of B; "
        f"{counts['gone']} are gone, {counts['new']} are new"
    )
    say(f"irc: wrote {len(files.documents)} files to {place}; open them with")
    say(f"  {files.command(place)}")


def _write(files: ExplorerFiles, place: Path) -> None:
    from irtools.files import json_text, publish_folder, staging_folder

    with staging_folder(place if place.is_dir() else place.parent) as staging:
        folder = staging / "out"
        folder.mkdir()
        for name, document in files.documents.items():
            (folder / name).write_text(json_text(document), encoding="utf-8")
        publish_folder(folder, place)
