"""`irc generate`: a decoder writes text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.types import SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.driver.sampling import Sampling
    from irtools.driver.talk import Piece, Speed, Talker

__all__ = ["generate"]


@click.command(
    "generate",
    cls=Verb,
    epilog='Example: irc generate llm4/ --prompt "What is gravity?" --compare llm/',
)
@click.argument("source", metavar="DIR", type=SOURCE)
@click.option(
    "--prompt",
    "prompts",
    metavar="TEXT",
    required=True,
    multiple=True,
    help="What the model is asked; - reads it from standard input; again for further questions, "
    "each by itself.",
)
@click.option("--system", metavar="TEXT", help="System prompt, where the chat template has one.")
@click.option(
    "--new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    default=128,
    show_default=True,
    help="Most tokens to write.",
)
@click.option("--stop", "stops", metavar="TEXT", multiple=True, help="End the text before TEXT.")
@click.option(
    "--temperature",
    type=float,
    metavar="T",
    default=0.0,
    show_default=True,
    help="Draw tokens, from scores divided by T; 0: the likeliest at each step.",
)
@click.option(
    "--top-k", type=int, metavar="K", default=0, help="Draw from the K likeliest. [default: all]"
)
@click.option(
    "--top-p",
    type=float,
    metavar="P",
    default=1.0,
    help="Draw from the likeliest that have probability P together. [default: all]",
)
@click.option(
    "--repetition-penalty",
    type=float,
    metavar="X",
    default=1.0,
    help="Divide scores of tokens that were there by X. [default: 1, no change]",
)
@options.seed_option
@click.option(
    "--adapter",
    "adapters",
    metavar="NAME",
    multiple=True,
    help="Write with this adapter of DIR, exported with --adapters-as inputs; again to write with "
    "one after the other. [default: the base]",
)
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
@click.option(
    "--compare",
    type=SOURCE,
    metavar="ORIGINAL",
    help="Also let this model write, with its adapter of the same name, and say how far the texts "
    "are the same.",
)
@click.option(
    "--target",
    metavar="TARGET",
    help="What runs the models. [default: OpenVINO for .xml, else ONNX Runtime]",
)
@options.threads_option
@options.json_option
def generate(source: str, compare: str | None, json_path: str | None, **given: Any) -> None:
    """Let a decoder answer a prompt, and stream the text.

    DIR is a folder with a decoder with its cache, its tokenizer and its chat template, as `irc
    export --with-past`, `irc optimize -o DIR/` and `irc compile -o DIR/` write it, the model's file
    in such a folder, or a release of one model. Says how long the first token took and how many
    follow in a second. With several prompts or adapters, the JSON has a list `answers`.
    """
    from irtools.cli.console import say, write_json

    asked = _asked(given)
    talker = _open(source, given["target"], given["threads"])
    own = []
    for answer in _answers(talker, asked, streams=json_path != "-"):
        own.append(answer)
        say(f"irc: {_speed_text(answer)}{_cache_text(talker)}")
    documents = [{**_document(source, a), "cache_bytes": talker.cache_bytes} for a in own]
    talker.close()
    if compare is not None:
        original = _open(compare, given["target"], given["threads"])
        for answer, document, other in zip(
            own, documents, _answers(original, asked, streams=False, by_name=True), strict=True
        ):
            same = _same(answer.pieces, other.pieces)
            document |= {"original": _document(compare, other), "same_tokens": same}
            bare = answer.adapter is not None and other.adapter is None
            note = f"; it has no adapter {answer.adapter!r} and writes as it is" if bare else ""
            say(f"irc: {compare}: {_speed_text(other)}{note}")
            say(f"irc: {_sameness(same, answer.pieces, other.pieces)}")
        original.close()
    if json_path is not None:
        write_json(documents[0] if len(documents) == 1 else {"answers": documents}, json_path)


@dataclass(frozen=True)
class _Asked:
    """What models are asked, and how they answer."""

    prompts: Sequence[str]
    system: str | None
    raw: bool
    new_tokens: int
    sampling: Sampling
    stops: Sequence[str]
    adapters: Sequence[str]


@dataclass(frozen=True)
class _Answer:
    adapter: str | None
    pieces: list[Piece]
    speed: Speed


def _asked(given: dict[str, Any]) -> _Asked:
    from irtools.driver.sampling import Sampling

    if given["raw"] and given["system"] is not None:
        raise click.UsageError("--system goes through the chat template, and --raw leaves it out")
    read = [_standard_input() if text == "-" else text for text in given["prompts"]]
    named = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
    sampling = Sampling(**{name: given[name] for name in named})
    rest = {name: given[name] for name in ("system", "raw", "new_tokens", "stops", "adapters")}
    return _Asked(read, sampling=sampling, **rest)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"standard input is not text: byte {error.start}") from error


def _answers(
    talker: Talker, asked: _Asked, *, streams: bool, by_name: bool = False
) -> Iterator[_Answer]:
    """Yield the answer to each prompt, with one adapter after the other.

    Args:
        by_name: Take adapters by their names where the model has them, and none where it has not.
    """
    from irtools.driver.talk import adapter_name

    adapters: Sequence[str | None] = asked.adapters or (None,)
    if by_name:
        named = [None if one is None else adapter_name(one) for one in adapters]
        adapters = [one if one in talker.adapters else None for one in named]
    for adapter in adapters:
        talker.use_adapter(adapter)  # A wrong one is refused before anything is written.
    for adapter in adapters:
        talker.use_adapter(adapter)
        for prompt in asked.prompts:
            yield _answer(talker, asked, prompt, adapter, streams=streams)


def _answer(
    talker: Talker, asked: _Asked, prompt: str, adapter: str | None, *, streams: bool
) -> _Answer:
    from irtools.driver.talk import speed_of

    tokens = talker.raw(prompt) if asked.raw else talker.chat(prompt, asked.system)
    pieces = []
    for piece in talker.write(tokens, asked.new_tokens, asked.sampling, asked.stops):
        pieces.append(piece)
        if streams:
            _show(piece.text)
    if streams:
        click.echo()
    return _Answer(adapter, pieces, speed_of(tokens, pieces))


def _show(text: str) -> None:
    from irtools.words import printable

    click.echo("\n".join(printable(line) for line in text.split("\n")), nl=False)


def _open(source: str, target: str | None, threads: int | None) -> Talker:
    """Open a model, or the build of a release that suits this machine best."""
    from pathlib import Path

    from irtools.builds.load import load
    from irtools.builds.records import MANIFEST_FILE
    from irtools.driver.talk import open_talker

    if not (Path(source) / MANIFEST_FILE).is_file():
        return open_talker(source, target, threads)
    if target is not None:
        raise click.UsageError(f"--target is for a model; the builds of {source} have theirs")
    return load(source, threads=threads).talker()


def _document(source: str, answer: _Answer) -> dict[str, Any]:
    return {
        "model": source,
        "adapter": answer.adapter,
        "text": "".join(piece.text for piece in answer.pieces),
        "token_ids": [piece.token for piece in answer.pieces],
        **asdict(answer.speed),
    }


def _speed_text(answer: _Answer) -> str:
    from irtools.words import counted

    speed = answer.speed
    name = "" if answer.adapter is None else f"{answer.adapter}: "
    rate = "" if speed.tokens_per_second is None else f", {speed.tokens_per_second:.1f} tokens/s"
    return (
        f"{name}{counted(speed.prompt_tokens, 'token')} in the prompt, the first new one after "
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
