"""`irc generate`: the text, its speed, and how far it is another model's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.analysis.decoder import CachedDecoder, find_text_decoder
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


def test_several_prompts_and_standard_input(
    irc: Irc,
    tmp_path: Path,
    talks: Talks,
    cached_decoder: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talks(tmp_path / "d", cached_decoder)
    found = irc("generate", "d", *_PROMPT, "--prompt", "w7", "--json", "all.json")
    assert found.code == 0, found.err
    first, second = json.loads((tmp_path / "all.json").read_text())["answers"]
    assert (first["prompt_tokens"], second["prompt_tokens"]) == (3, 1)
    assert found.out == f"{first['text']}\n{second['text']}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("w7\n"))
    assert irc("generate", "d", *_PROMPT[2:], "--prompt", "-").out == second["text"] + "\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
    refused = irc("generate", "d", *_PROMPT[2:], "--prompt", "-")
    assert refused.code == 2 and "standard input is not text: byte 0" in refused.err


def test_a_stop_text_and_sampling(
    irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    talks(tmp_path / "d", cached_decoder)
    whole = irc("generate", "d", *_PROMPT).out
    word = whole.split()[2]
    cut = irc("generate", "d", *_PROMPT, "--stop", word).out
    assert cut == whole[: whole.index(word)] + "\n"
    drawn = [irc("generate", "d", *_PROMPT, "--temperature", "9", "--seed", s).out for s in "112"]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.chat
def test_a_system_prompt(irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model) -> None:
    talks(tmp_path / "d", cached_decoder)
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (tmp_path / "d" / "chat_template.jinja").write_text(template)
    args = ("--prompt", "w5", "--new-tokens", "2", "--system", "w9 w9", "--json", "s.json")
    assert irc("generate", "d", *args).code == 0
    assert json.loads((tmp_path / "s.json").read_text())["prompt_tokens"] == 3
    refused = irc("generate", "d", *args, "--raw")
    assert refused.code == 2 and "--system goes through the chat template" in refused.err
    (tmp_path / "d" / "chat_template.jinja").unlink()
    refused = irc("generate", "d", *args)
    assert refused.code == 3 and "has no chat template" in refused.err


def test_top_p_without_a_temperature_is_one_line(
    irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    talks(tmp_path / "d", cached_decoder)
    found = irc("generate", "d", *_PROMPT, "--top-p", "0.9", "--json", "t.json")
    assert found.code == 2 and "give a temperature above 0" in found.err
    assert len(found.err.splitlines()) == 1 and not (tmp_path / "t.json").exists()


def test_adapters_write_one_after_the_other(
    irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    decoder = find_text_decoder(cached_decoder.ir)
    assert isinstance(decoder, CachedDecoder)
    talks(tmp_path / "d", cached_decoder, eos_token_id=60)
    talks(tmp_path / "o", cached_decoder, eos_token_id=60)
    rng = np.random.default_rng(0)
    for folder, name in (("d", "law"), ("d", "poems"), ("o", "law")):
        past = {c.name: rng.normal(0, 5, (1, c.heads, 3, c.size)) for c in decoder.past}
        np.savez(tmp_path / folder / f"{name}.past.npz", **past)
    both = ("--adapter", "law", "--adapter", "d/poems.past.npz")
    found = irc("generate", "d", *_PROMPT, *both, "--compare", "o", "--json", "all.json")
    assert found.code == 0, found.err
    answers = json.loads((tmp_path / "all.json").read_text())["answers"]
    assert [one["adapter"] for one in answers] == ["law", "d/poems.past.npz"]
    assert [one["original"]["adapter"] for one in answers] == ["law", None]
    alone = [irc("generate", "d", *_PROMPT, *both[n : n + 2]).out for n in (0, 2)]
    assert found.out == "".join(alone) and alone[0] != alone[1]
    own, _, poems, *rest = [line for line in found.err.splitlines() if "in the prompt" in line]
    assert own.startswith("irc: law: 3 tokens") and poems.startswith("irc: o: law: 3 tokens")
    assert rest[0].endswith("; it has no adapter 'd/poems.past.npz' and writes as it is")


def test_a_wrong_adapter_is_refused_before_anything_is_written(
    irc: Irc, tmp_path: Path, talks: Talks, cached_decoder: Model
) -> None:
    talks(tmp_path / "d", cached_decoder)
    decoder = find_text_decoder(cached_decoder.ir)
    assert isinstance(decoder, CachedDecoder)
    for name, size in (("law", 8), ("other", 9)):
        past = {c.name: np.zeros((1, c.heads, 3, size), np.float32) for c in decoder.past}
        np.savez(tmp_path / "d" / f"{name}.past.npz", **past)
    both = ("--adapter", "law", "--adapter", "other", "--json", "all.json")
    found = irc("generate", "d", *_PROMPT, *both)
    (line,) = found.err.splitlines()
    assert found.code == 3 and "other.past.npz was made for another model" in line
    assert not found.out and not (tmp_path / "all.json").exists()
