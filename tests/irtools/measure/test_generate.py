"""Greedy text through the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from irtools.analysis.decoder import find_decoder, find_text_decoder
from irtools.measure import jobs
from irtools.measure.generate import (
    Writing,
    compare_writings,
    surest_difference,
    write_greedily,
)
from irtools.model import Model
from irtools.targets import Feeds, Runner, RunnerOptions, find_target

_PROMPTS = np.array([[3, 17, 40, 9], [60, 2, 2, 31], [8, 5, 13, 1]])


def test_text_through_the_cache_is_that_of_whole_texts(cached_decoder: Model) -> None:
    decoder = find_decoder(cached_decoder.ir)
    assert decoder is not None
    with find_target("ort-cpu").runner(cached_decoder, RunnerOptions(threads=1)) as runner:
        found = write_greedily(runner, decoder, _PROMPTS, 9)
        one_by_one = write_greedily(runner, replace(decoder, batch=1), _PROMPTS, 9)
        texts, leads = _PROMPTS, []
        for _ in range(9):
            logits = runner.run(decoder.feeds(texts, decoder.empty(3)))["logits"][:, -1]
            best = np.sort(logits, axis=1)
            leads.append((best[:, -1] - best[:, -2]) / np.linalg.norm(logits, axis=1))
            texts = np.concatenate([texts, logits.argmax(axis=1)[:, None]], axis=1)
    np.testing.assert_array_equal(found.tokens, texts[:, 4:])
    np.testing.assert_allclose(found.margins, np.stack(leads, axis=1), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(one_by_one.tokens, found.tokens)
    assert len(np.unique(found.tokens)) > 5


def test_without_a_cache_the_text_is_the_same(cached_decoder: Model, plain_decoder: Model) -> None:
    found = []
    for model in (cached_decoder, plain_decoder):
        decoder = find_text_decoder(model.ir)
        assert decoder is not None
        with find_target("ort-cpu").runner(model, RunnerOptions(threads=1)) as runner:
            found.append(write_greedily(runner, decoder, _PROMPTS, 9))
    np.testing.assert_array_equal(found[1].tokens, found[0].tokens)
    np.testing.assert_allclose(found[1].margins, found[0].margins, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("seconds", "batch", "expected"), [(2.5, None, 3), (2.5, 1, 2), (0.0, None, 2), (99.0, None, 9)]
)
def test_writing_ends_with_its_time(
    cached_decoder: Model,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    batch: int | None,
    expected: int,
) -> None:
    """Texts that are written one after the other all get as many tokens as the first."""
    decoder = find_decoder(cached_decoder.ir)
    assert decoder is not None
    clock = [0.0]
    monkeypatch.setattr("irtools.measure.generate.time.monotonic", lambda: clock[0])
    with find_target("ort-cpu").runner(cached_decoder, RunnerOptions(threads=1)) as runner:
        run = runner.run

        def slow(feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
            clock[0] += 1.0
            return run(feeds, outputs)

        whole = write_greedily(runner, decoder, _PROMPTS, 9)
        monkeypatch.setattr(runner, "run", slow)
        found = write_greedily(runner, replace(decoder, batch=batch), _PROMPTS, 9, seconds, least=2)
    np.testing.assert_array_equal(found.tokens, whole.tokens[:, :expected])
    assert found.margins.shape == found.tokens.shape


def test_texts_are_equal_up_to_their_first_other_token() -> None:
    margins = np.arange(12.0).reshape(3, 4)
    original = Writing(np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]), margins)
    # What follows another token is another text, even where a token is the same.
    found = Writing(np.array([[1, 2, 3, 4], [5, 0, 7, 8], [9, 9, 0, 0]]), margins)
    compared = compare_writings(original, found, 16, "texts")
    assert (compared.prompts, compared.new_tokens, compared.equal) == (3, 4, 1)
    assert compared.share == (4 + 1 + 2) / 12
    assert compared.first_difference == 2
    assert surest_difference(original, found) == 10.0

    same = compare_writings(original, original, 16, "texts")
    assert (same.equal, same.share, same.first_difference) == (3, 1.0, None)
    assert surest_difference(original, original) == 0.0


def test_a_file_that_only_writes_text_is_not_packed(
    cached_decoder: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cached_decoder.save(tmp_path / "m.onnx").files[0]
    decoder = find_decoder(cached_decoder.ir)
    assert decoder is not None
    asked = []
    target = find_target("ort-cpu")

    def watched(model: Model | Path, options: RunnerOptions) -> Runner:
        asked.append(options)
        return target.runner(model, options)

    monkeypatch.setattr(jobs, "find_target", lambda _: SimpleNamespace(runner=watched))
    jobs.write_text(path, "ort-cpu", RunnerOptions(threads=1), decoder, np.array([[1, 2]]), 2)
    assert asked == [RunnerOptions(threads=1, frugal=True)]
