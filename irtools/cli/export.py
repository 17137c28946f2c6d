"""`irc export`: an ONNX file of a checkpoint or another source."""

from __future__ import annotations

from pathlib import Path

import click

from irtools.cli import _options as options

__all__ = ["export"]


@click.command(epilog="Example: irc export ./my-bert -o bert.onnx")
@click.argument("source", metavar="SRC")
@click.option("--output", "-o", metavar="FILE", help="The .onnx file. [default: <name>.onnx]")
@click.option("--opset", type=click.IntRange(min=7), help="ai.onnx opset of the export.")
@click.option("--example", metavar="FILE", help=".npz with example inputs, for torch modules.")
@click.option("--weights", metavar="FILE", help=".safetensors with the state, for torch modules.")
@click.option("--no-check", is_flag=True, help="Do not compare the export with its source.")
@click.option(
    "--external-data", is_flag=True, default=None, help="Weights in a file beside the model."
)
@click.option("--force", "-f", is_flag=True, help="Replace what exists.")
@options.json_option
def export(
    source: str,
    output: str | None,
    opset: int | None,
    example: str | None,
    weights: str | None,
    no_check: bool,
    external_data: bool | None,
    force: bool,
    json_path: str | None,
) -> None:
    """Make an ONNX file of SRC: a Transformers checkpoint folder or module:function.

    The tokenizer or image processor is copied beside it, so that text works as data afterwards.
    """
    from irtools.cli._artifact import copy_companions, save_checked
    from irtools.cli._console import say, write_json
    from irtools.cli._output import Destination, stem_of
    from irtools.frontend import LoadOptions, load_source
    from irtools.report import size_text

    destination = Destination.file(output or f"{stem_of(source)}.onnx", source, force=force)
    loading = LoadOptions(
        opset=opset,
        example=None if example is None else Path(example),
        weights=None if weights is None else Path(weights),
        check=not no_check,
    )
    model = load_source(source, loading)
    files = save_checked(model, destination.path, external_data)
    beside = copy_companions(source, destination.path.parent)
    if json_path is not None:
        names = [str(path) for path in (*files, *beside)]
        write_json({"files": names, "sha256": model.fingerprint(), "opset": model.opset}, json_path)
    size = size_text(sum(path.stat().st_size for path in files))
    say(f"irc: wrote {', '.join(str(path) for path in (*files, *beside))} ({size})")
