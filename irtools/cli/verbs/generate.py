"""`irc generate`: a decoder writes text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.types import SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.driver.talk import Piece, Speed, Talker

__all__ = ["generate"]


@click.command(
    "generate",
    cls=Verb,
    epilog='Example: irc generate llm4/ --prompt "What is gravity?" --compare llm/',
)
@click.argument("source", metavar="DIR", type=SOURCE)
@click.option("--prompt", metavar="TEXT", required=True, help="What the model is asked.")
@click.option(
    "--new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    default=128,
    show_default=True,
    help="Most tokens to write.",
)
@click.option(
    "--adapter",
    metavar="NAME",
    help="Write with this adapter of DIR, exported with --adapters-as inputs. [default: the base]",
)
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
@click.option(
    "--compare",
    type=SOURCE,
    metavar="ORIGINAL",
    help="Also let this model write, and say how far the texts are the same.",
)
@click.option(
    "--target",
    metavar="TARGET",
    help="What runs the models. [default: OpenVINO for .xml, else ONNX Runtime]",
)
@options.threads_option
@options.json_option
def generate(
    source: str,
    prompt: str,
    new_tokens: int,
    adapter: str | None,
    raw: bool,
    compare: str | None,
    target: str | None,
    threads: int | None,
    json_path: str | None,
) -> None:
    """Let a decoder answer a prompt, the likeliest token at each step, and stream the text.

    DIR is a folder with a decoder with its cache, its tokenizer and its chat template, as `irc
    export --with-past`, `irc optimize -o DIR/` and `irc compile -o DIR/` write it, the model's file
    in such a folder, or a release of one model. Says how long the first token took and how many
    follow in a second.
    """
    from irtools.cli.console import say, write_json
    from irtools.driver.talk import speed_of

    found: dict[str, Any] = {}
    talker = _open(source, target, threads, adapter)
    pieces = _write(talker, prompt, new_tokens, raw=raw, streams=json_path != "-")
    speed = speed_of(_tokens(talker, prompt, raw=raw), pieces)
    talker.close()
    found |= {**_document(source, pieces, speed), "cache_bytes": talker.cache_bytes}
    say(f"irc: {_speed_text(speed)}{_cache_text(talker)}")
    if compare is not None:
        original = _open(compare, target, threads)
        others = _write(original, prompt, new_tokens, raw=raw, streams=False)
        other_speed = speed_of(_tokens(original, prompt, raw=raw), others)
        original.close()
        same = _same(pieces, others)
        found["original"] = _document(compare, others, other_speed)
        found["same_tokens"] = same
        say(f"irc: {compare}: {_speed_text(other_speed)}")
        say(f"irc: {_sameness(same, pieces, others)}")
    if json_path is not None:
        write_json(found, json_path)


def _open(
    source: str, target: str | None, threads: int | None, adapter: str | None = None
) -> Talker:
    """Open a model, or the build of a release that suits this machine best."""
    from pathlib import Path

    from irtools.builds.load import load
    from irtools.builds.records import MANIFEST_FILE
    from irtools.driver.talk import open_talker

    if not (Path(source) / MANIFEST_FILE).is_file():
        return open_talker(source, target, threads, adapter)
    if target is not None:
        raise click.UsageError(f"--target is for a model; the builds of {source} have theirs")
    talker = load(source, threads=threads).talker()
    if adapter is not None:
        talker.use_adapter(adapter)
    return talker


def _tokens(talker: Talker, prompt: str, *, raw: bool) -> Any:
    return talker.raw(prompt) if raw else talker.chat(prompt)


def _write(
    talker: Talker, prompt: str, new_tokens: int, *, raw: bool, streams: bool
) -> list[Piece]:
    from irtools.words import printable

    pieces = []
    for piece in talker.write(_tokens(talker, prompt, raw=raw), new_tokens):
        pieces.append(piece)
        if streams:
            text = "\n".join(printable(line) for line in piece.text.split("\n"))
            click.echo(text, nl=False)
    if streams:
        click.echo()
    return pieces


def _document(source: str, pieces: list[Piece], speed: Speed) -> dict[str, Any]:
    return {
        "model": source,
        "text": "".join(piece.text for piece in pieces),
        "token_ids": [piece.token for piece in pieces],
        **asdict(speed),
    }


def _speed_text(speed: Speed) -> str:
    from irtools.words import counted

    rate = "" if speed.tokens_per_second is None else f", {speed.tokens_per_second:.1f} tokens/s"
    return (
        f"{counted(speed.prompt_tokens, 'token')} in the prompt, the first new one after "
        f"{1e3 * speed.first_seconds:.0f} ms, {counted(speed.tokens, 'token')} written{rate}"
    )


def _cache_text(talker: Talker) -> str:
    from irtools.words import size_text

    size = talker.cache_bytes
    return "" if size is None else f", {size_text(size)} of cache"


def _same(pieces: list[Piece], others: list[Piece]) -> int:
    """Return how many tokens are the same from the start."""
    count = 0
    for piece, other in zip(pieces, others, strict=False):
        if piece.token != other.token:
            break
        count += 1
    return count


def _sameness(same: int, pieces: list[Piece], others: list[Piece]) -> str:
    if same == len(pieces) == len(others):
        return f"the same text, token by token ({same})"
    longest = max(len(pieces), len(others))
    return f"the first other token is number {same + 1} of {longest}"
