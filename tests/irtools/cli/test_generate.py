"""`irc generate`: the text, its speed, and how far it is another model's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.model import Model
from tests.irtools.cli.conftest import Irc

Talks = Callable[..., Path]
_PROMPT = ("--prompt", "w5 w9 w30", "--raw", "--new-tokens", "6", "--threads", "1")


def test_the_text_is_streamed_and_timed(
    irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    talks(tmp_path / "d", cached_decoder, eos_token_id=60)
    found = irc("generate", "d", *_PROMPT, "--compare", "d/model.onnx", "--json", "found.json")
    assert found.code == 0, found.err
    document = json.loads((tmp_path / "found.json").read_text())
    assert found.out == document["text"] + "\n" and document["text"].startswith("w")
    assert len(document["token_ids"]) == document["tokens"] == document["same_tokens"]
    assert document["original"]["token_ids"] == document["token_ids"]
    first, original, same = found.err.splitlines()
    assert first.startswith("irc: 3 tokens in the prompt, the first new one after ")
    assert original.startswith("irc: d/model.onnx: 3 tokens in the prompt, ")
    assert same == f"irc: the same text, token by token ({document['tokens']})"


@pytest.mark.chat
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "line 1, is not a template: "),
        ("{{ ''.__class__.__mro__ }}", " fails: access to attribute '__class__' of 'str' object"),
        (" ".join(["w7"] * 24), "the prompt has 24 tokens, and the context of d is 24: shorten it"),
    ],
)
def test_a_template_that_fails_is_one_line(
    irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model, template: str, message: str
) -> None:
    talks(tmp_path / "d", cached_decoder)
    (tmp_path / "d" / "chat_template.jinja").write_text(template)
    found = irc("generate", "d", "--prompt", "w5", "--json", "found.json")
    assert found.code == 3
    (line,) = found.err.splitlines()
    assert message in line
    assert not (tmp_path / "found.json").exists()
