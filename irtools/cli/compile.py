"""`irc compile`: what a target's runtime loads in deployment."""

from __future__ import annotations

import click

from irtools.cli import _options as options

__all__ = ["compile"]


@click.command("compile")
@click.argument("source", metavar="SRC")
@options.target_option
@click.option(
    "--output",
    "-o",
    metavar="DIR",
    help="Folder for the artifact. [default: <name>-<target>]",
)
@click.option("--force", "-f", is_flag=True, help="Write into a folder that holds files.")
@options.json_option
def compile(
    source: str, target: str, output: str | None, force: bool, json_path: str | None
) -> None:
    """Lower the model SRC for a target and write what its runtime loads.

    OpenVINO: .xml and .bin. ONNX Runtime: a runtime-optimized .onnx. The kernels that the runtime
    chose are counted.
    """
    from irtools.cli._artifact import compile_to
    from irtools.cli._console import say, write_json
    from irtools.cli._output import Destination, stem_of
    from irtools.frontend import load_source
    from irtools.report import size_text
    from irtools.target import find_target

    found = find_target(target)
    folder = output or f"{stem_of(source)}-{found.name}"
    destination = Destination.folder(folder, source, force=force)
    artifact, beside = compile_to(load_source(source), found, destination, source)
    files = (*artifact.files, *beside)
    if json_path is not None:
        write_json(
            {
                "files": [str(path) for path in files],
                "kernels": dict(artifact.kernels.counts),
                "int8": artifact.kernels.int8,
                "fused_attention": artifact.kernels.fused_attention,
                "float_fallbacks": list(artifact.kernels.float_fallbacks),
                "notes": list(artifact.notes),
            },
            json_path,
        )
    kernels = artifact.kernels
    for note in artifact.notes:
        say(f"irc: note: {note}")
    if kernels.float_fallbacks:
        say(f"irc: warning: {len(kernels.float_fallbacks)} nodes meant to be int8 run in float")
    size = sum(path.stat().st_size for path in artifact.files)
    say(
        f"irc: wrote {', '.join(str(path) for path in files)} ({size_text(size)}); "
        f"{kernels.int8} int8 kernels, {kernels.fused_attention} fused attention kernels"
    )
