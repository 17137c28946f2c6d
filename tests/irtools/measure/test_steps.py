"""What is timed as one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from irtools.analysis.decoder import CachedDecoder
from irtools.errors import DataError
from irtools.measure.steps import step_of
from irtools.targets import InputSlot

_CACHE = {f"past_key_values.0.{what}": np.zeros((1, 2, 16, 4), np.float32) for what in "kv"}
_DECODE = {"input_ids": np.zeros((1, 1), np.int64), **_CACHE}


class _Text:
    def __init__(self, length: int, positions: int) -> None:
        self.length = length
        self._positions = positions

    def read(self, ids: np.ndarray) -> np.ndarray:
        if self.length + ids.shape[1] > self._positions:
            raise DataError("no such position")
        self.length += ids.shape[1]
        return np.zeros((*ids.shape, 3))


class _Keeping:
    """A runner that keeps texts."""

    slots = tuple(InputSlot(name, array.dtype, array.shape) for name, array in _DECODE.items())

    def __init__(self, positions: int = 1000) -> None:
        self.calls = 0
        self.texts: list[_Text] = []
        self._positions = positions

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls += 1
        return {}

    def begin_text(self, decoder: CachedDecoder, past: Mapping[str, np.ndarray]) -> _Text:
        self.texts.append(_Text(decoder.length(past), self._positions))
        return self.texts[-1]


class _Feeding:
    def __init__(self) -> None:
        self.calls = 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls += 1
        return {}


def _run(runner: Any, feeds: Mapping[str, np.ndarray], times: int) -> None:
    step = step_of(runner, feeds)
    for _ in range(times):
        step.prepare()
        step.run()


def test_a_token_is_read_where_the_cache_is_and_the_text_begun_again() -> None:
    runner = _Keeping()
    _run(runner, _DECODE, 20)
    assert runner.calls == 0
    assert [text.length for text in runner.texts] == [24, 24, 20]


def test_a_prompt_is_a_call() -> None:
    runner = _Keeping()
    empty = {name: array[:, :, :0] for name, array in _CACHE.items()}
    _run(runner, {"input_ids": np.zeros((1, 7), np.int64), **empty}, 3)
    assert runner.calls == 3 and not runner.texts


def test_a_decoder_that_takes_more_than_tokens_is_called() -> None:
    runner = _Keeping()
    _run(runner, {**_DECODE, "encoder_hidden_states": np.zeros((1, 5, 8), np.float32)}, 3)
    assert runner.calls == 3 and not runner.texts


def test_what_keeps_no_texts_is_called() -> None:
    runner = _Feeding()
    _run(runner, _DECODE, 3)
    assert runner.calls == 3


def test_a_text_grows_no_further_than_the_positions_of_its_model() -> None:
    runner = _Keeping(positions=18)
    _run(runner, _DECODE, 6)
    # Two tokens each; the first text also tries a third.
    assert [text.length for text in runner.texts] == [18, 18, 18]
    with pytest.raises(DataError, match="no such position"):
        _run(_Keeping(positions=16), _DECODE, 1)
