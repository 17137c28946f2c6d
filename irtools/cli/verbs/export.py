"""`irc export`: ONNX files of a checkpoint or another source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irtools.cli import options as options
from irtools.cli.needs import say_needs
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, FILE, OUT, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.driver.destination import Destination
    from irtools.model import Model
    from irtools.sources import LoadOptions

__all__ = ["export"]

F = TypeVar("F", bound=Callable[..., Any])


_QUANTIZER_OPTIONS = (
    click.option(
        "--quantizer",
        metavar="TOOL:METHOD[:OPTION=VALUE]",
        help="Quantize the weights of a checkpoint first: neural-compressor:rtn, "
        "neural-compressor:gptq, neural-compressor:awq, autoround, with the tool's own options "
        "(bits=4, group_size=32). `int4` keeps what it chose.",
    ),
    click.option("--calibrate", type=DATA, help="What the quantizer is calibrated on."),
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=128,
        show_default=True,
        help="Samples of it, evenly spread.",
    ),
    click.option(
        "--max-length",
        type=click.IntRange(min=1),
        help="Tokens of a text. [default: as the tokenizer says]",
    ),
    click.option("--tokenizer", type=FILE, help="Reads text. [default: SRC's own]"),
)


def _quantizer_options(function: F) -> F:
    for add in reversed(_QUANTIZER_OPTIONS):
        function = add(function)
    return function


@click.command(
    cls=Verb,
    epilog="Examples: irc export ./my-bert -o bert.onnx; irc export ./llama --with-past -o llm/",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--output",
    "-o",
    type=OUT,
    help="FILE.onnx, or a folder for model.onnx (an encoder-decoder: encoder_model.onnx and "
    "decoder_model.onnx). [default: <name>.onnx]",
)
@options.fix_option
@click.option(
    "--logits",
    type=click.Choice(["all", "last"]),
    default="all",
    show_default=True,
    help="Scores that a decoder gives: of all tokens, or of the last one, which is all that "
    "generation reads; with the pass sink a prompt is read faster.",
)
@source_options
@_quantizer_options
@click.option("--no-check", is_flag=True, help="Do not compare the export with its source.")
@click.option(
    "--external-data", is_flag=True, default=None, help="Weights in a file next to the model."
)
@click.option("--force", "-f", is_flag=True, help="Replace what exists.")
@options.json_option
@options.work_dir_option
def export(
    source: str,
    output: str | None,
    external_data: bool | None,
    force: bool,
    json_path: str | None,
    **given: Any,
) -> None:
    """Make an ONNX file of SRC: a Transformers checkpoint folder, a GGUF file or module:function.

    The result is compared with torch on several sizes. The tokenizer or image processor is copied
    next to it, so that text and images work as data afterwards; in a folder, a decoder with its
    cache gets the genai_config.json by which onnxruntime-genai opens it. Weights of more than 1.5
    GB go into a file of their own.
    """
    from irtools.cli.console import say, write_json
    from irtools.driver.artifact import write_export
    from irtools.driver.destination import Destination, stem_of
    from irtools.words import size_text

    if given["calibrate"] is not None and given["quantizer"] is None:
        raise click.UsageError("--calibrate is for --quantizer")
    destination = Destination.of(output or f"{stem_of(source)}.onnx", source, force=force)
    say_needs(source, destination.path.parent, exports=not source.endswith(".onnx"))
    made: dict[str, Any] = {}
    notes: dict[str, None] = {}
    loading = load_options(given, check=not given["no_check"])
    written = write_export(
        _models(source, destination, loading, made, notes),
        source,
        destination,
        external_data=external_data,
        force=force,
    )
    names = [str(path) for path in (*written.files, *written.companions)]
    if json_path is not None:
        write_json({"files": names, **made, "notes": [*notes, *written.notes]}, json_path)
    size = size_text(sum(path.stat().st_size for path in written.files))
    for note in (*notes, *written.notes):
        say(f"irc: note: {note}")
    say(f"irc: wrote {', '.join(names)} ({size})")
    if written.lacks_tokenizer:
        say(f"irc: {source} has no tokenizer that could be copied: texts as data need --tokenizer")
    if written.others:
        others = ", ".join(str(path) for path in written.others)
        say(
            f"irc: kept {others}, and {source} has others: data for {written.files[0].name} would "
            "be read with those kept; give -o a folder of its own, or --force"
        )


def _models(
    source: str,
    destination: Destination,
    loading: LoadOptions,
    made: dict[str, Any],
    notes: dict[str, None],
) -> Iterator[tuple[str, Model]]:
    """Yield the models of a source one at a time, so that one is in memory at a time.

    What is reported of them goes into `made` and, each note once, into `notes`.
    """
    from irtools.sources import find_frontend, load_by

    frontend = find_frontend(source)
    parts = frontend.parts(source, loading)
    if not parts:
        model = load_by(frontend, source, loading)
        made |= {"sha256": model.fingerprint(), "opset": model.opset}
        notes |= dict.fromkeys(model.notes)
        yield destination.stem, model
        return
    if not destination.is_folder:
        raise click.UsageError(
            f"{source} makes {len(parts)} models ({', '.join(parts)}): give a folder with -o DIR/"
        )
    for part in parts:
        model = load_by(frontend, source, replace(loading, part=part))
        made[part] = {"sha256": model.fingerprint(), "opset": model.opset}
        notes |= dict.fromkeys(model.notes)
        yield f"{part}_model", model
