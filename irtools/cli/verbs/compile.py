"""`irc compile`: what a target's runtime loads in deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import OUT, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.targets import Artifact

__all__ = ["compile"]


@click.command(
    "compile",
    cls=Verb,
    epilog="Examples: irc compile model.onnx -t openvino-cpu -o deploy/; "
    "irc compile model.onnx -o model.ort",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@options.target_option
@click.option(
    "--output",
    "-o",
    type=OUT,
    help="Folder for the artifact and what belongs with it, or its file: FILE.onnx, FILE.ort, "
    "FILE.xml, FILE.blob. [default: the folder <name>-<target>]",
)
@click.option(
    "--format",
    "-F",
    type=click.Choice(["onnx", "ort", "xml", "blob"]),
    help="Format of the artifact; ort-cpu and ort-cuda write onnx or ort, OpenVINO xml or blob. "
    "[default: by the suffix of OUT, else onnx or xml]",
)
@click.option("--force", "-f", is_flag=True, help="Write into a folder that holds files.")
@options.size_option
@options.fix_option
@source_options
@options.json_option
@options.work_dir_option
def compile(
    source: str,
    target: str,
    output: str | None,
    format: str | None,
    force: bool,
    json_path: str | None,
    **given: Any,
) -> None:
    """Lower the model SRC for a target and write what its runtime loads.

    OpenVINO: .xml and .bin, or .blob, which is compiled already: it starts sooner, with this
    version on this kind of machine alone. ONNX Runtime: a runtime-optimized .onnx, or .ort, the
    format that its builds for small devices load too. The result is run once in a process of its
    own, and the kernels that the runtime chose are counted.
    """
    from irtools.cli.console import say, write_json
    from irtools.data import resolve_sizes
    from irtools.driver.artifact import compile_to
    from irtools.driver.destination import Destination, stem_of
    from irtools.report.saturation import remark_on_saturation
    from irtools.report.verdicts import remark_on_form
    from irtools.sources import load_source
    from irtools.targets import find_target, lowered

    found = find_target(target)
    destination = Destination.artifact(
        output or f"{stem_of(source)}-{found.name}", source, force=force
    )
    wanted = _format(destination.path, format, is_file=not destination.is_folder)
    found.choose_format(wanted)
    model = load_source(source, load_options(given))
    sizes = resolve_sizes(model, given["drawn_sizes"])
    artifact, companions = compile_to(model, found, destination, source, format=wanted, sizes=sizes)
    files = (*artifact.files, *companions)
    remarks = (
        *remark_on_form(model.ir, found),
        *remark_on_saturation(model.ir, lowered(model, found).ir, found),
    )
    if json_path is not None:
        notes = (*model.notes, *artifact.notes, *(remark.text for remark in remarks))
        write_json(_document(artifact, files, notes), json_path)
    for note in (*model.notes, *artifact.notes):
        say(f"irc: note: {note}")
    for remark in remarks:
        say(f"irc: {remark.level.value}: {remark.text}")
    _tell(artifact, files)


def _format(path: Path, given: str | None, *, is_file: bool) -> str | None:
    """Return what the suffix of the output and the option agree on.

    Raises:
        click.UsageError: They do not agree.
    """
    if not is_file:
        return given
    suffix = path.suffix.removeprefix(".")
    if given not in (None, suffix):
        raise click.UsageError(f"--format {given} does not go with the output {path}")
    return suffix


def _document(
    artifact: Artifact, files: tuple[Path, ...], notes: tuple[str, ...]
) -> dict[str, object]:
    return {
        "files": [str(path) for path in files],
        "kernels": dict(artifact.kernels.counts),
        "int8": artifact.kernels.int8,
        "fused_attention": artifact.kernels.fused_attention,
        "float_fallbacks": list(artifact.kernels.float_fallbacks),
        "notes": list(notes),
    }


def _tell(artifact: Artifact, files: tuple[Path, ...]) -> None:
    from irtools.cli.console import say
    from irtools.words import counted, size_text

    kernels = artifact.kernels
    if kernels.float_fallbacks:
        nodes = counted(len(kernels.float_fallbacks), "node")
        say(f"irc: warning: in floating point although meant to be int8: {nodes}")
    size = sum(path.stat().st_size for path in artifact.files)
    say(
        f"irc: wrote {', '.join(str(path) for path in files)} ({size_text(size)}); "
        f"{counted(kernels.int8, 'int8 kernel')}, "
        f"{counted(kernels.fused_attention, 'fused attention kernel')}"
    )
