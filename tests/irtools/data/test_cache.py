"""Feeds of decoders with a cache: drawn, and made of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irtools.data import Dataset, SyntheticSettings, fit_dataset, load_dataset, synthesize
from irtools.data.synthetic import longest_text
from irtools.errors import DataError
from irtools.model import Model


def test_drawn_prompts_have_an_empty_cache(cached_decoder: Model) -> None:
    feeds = synthesize(cached_decoder, SyntheticSettings(samples=3, sequence=6)).feeds
    assert feeds["past_key_values.0.key"].shape == (3, 1, 0, 8)
    assert feeds["attention_mask"].shape == feeds["input_ids"].shape == (3, 6)
    assert feeds["input_ids"].max() < 61


def test_a_past_is_drawn_with_padding_before_it(cached_decoder: Model) -> None:
    settings = SyntheticSettings(samples=20, sequence=3, past=9)
    feeds = synthesize(cached_decoder, settings).feeds
    mask, places = feeds["attention_mask"], feeds["position_ids"]
    assert feeds["past_key_values.0.value"].shape == (20, 1, 9, 8)
    assert feeds["past_key_values.0.value"].std() > 0.5
    assert mask.shape == (20, 12) and places.shape == (20, 3)
    past = mask[:, :9]
    assert (np.sort(past, axis=1) == past).all() and past[:, -1].all()
    assert past[0].all() and not past.all()
    np.testing.assert_array_equal(places[:, 0], past.sum(axis=1))


def test_past_and_prompt_stay_inside_the_positions(cached_decoder: Model) -> None:
    found = synthesize(cached_decoder, SyntheticSettings(samples=2, sequence=40, past=30))
    assert found.feeds["position_ids"].max() == 47
    assert found.feeds["input_ids"].shape == (2, 18)
    assert longest_text(cached_decoder.ir, 100, 1) == 48
    assert longest_text(cached_decoder.ir, 20, 1) is None


def test_samples_without_a_cache_get_an_empty_one(cached_decoder: Model) -> None:
    feeds = {
        "input_ids": np.array([[4, 5, 6], [7, 8, 9]]),
        "attention_mask": np.array([[1, 1, 1], [0, 1, 1]]),
    }
    found = fit_dataset(Dataset(feeds), cached_decoder)
    assert found.feeds["past_key_values.0.key"].shape == (2, 1, 0, 8)
    assert found.feeds["position_ids"].tolist() == [[0, 1, 2], [0, 0, 1]]
    with pytest.raises(DataError, match="no array for input attention_mask"):
        fit_dataset(Dataset({"input_ids": feeds["input_ids"]}), cached_decoder)


def _with_a_past(length: int, **changed: np.ndarray) -> Dataset:
    past = {f"past_key_values.0.{what}": np.zeros((2, 1, 3, 8)) for what in ("key", "value")}
    tokens = {"input_ids": np.full((2, 4), 5), "attention_mask": np.ones((2, length), np.int64)}
    return Dataset({**tokens, **past, **changed}, source="d")


def test_a_mask_is_as_long_as_cache_and_tokens(cached_decoder: Model) -> None:
    assert fit_dataset(_with_a_past(7), cached_decoder).feeds["position_ids"].tolist()[0] == [
        *(3, 4, 5, 6)
    ]
    with pytest.raises(DataError) as caught:
        places = np.tile(np.arange(4), (2, 1))
        fit_dataset(_with_a_past(4, position_ids=places), cached_decoder)
    assert str(caught.value) == (
        "d: 'past_sequence + sequence' is 4 in input 'attention_mask', and 3 ('past_sequence' in "
        "'past_key_values.0.key') and 4 ('sequence' in 'input_ids') make 7; the model needs them "
        "equal"
    )


def test_a_part_of_a_cache_is_not_filled_up(cached_decoder: Model) -> None:
    data = _with_a_past(7)
    del data.feeds["past_key_values.0.value"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"no array for input past_key_values\.0\.value "):
        fit_dataset(data, cached_decoder)


def test_texts_are_read_for_a_decoder(cached_decoder: Model, tmp_path: Path) -> None:
    words = {"[UNK]": 0, "[PAD]": 1, "one": 2, "two": 3, "three": 4}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "one two three"}\n{"text": "three one"}\n')
    found = load_dataset(str(texts), cached_decoder)
    assert found.feeds["input_ids"].tolist() == [[2, 3, 4], [4, 2, 1]]
    assert found.feeds["past_key_values.0.value"].shape == (2, 1, 0, 8)
    again = found.encoded_with({"tokenizer.json": json.dumps(tokenizer).encode()})
    assert set(again.feeds) == set(found.feeds)
