"""`optimize` on a decoder with its cache, from end to end."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest

from irtools import optimize
from irtools.data import Dataset
from irtools.measure.base import BenchSettings
from irtools.model import Model
from irtools.report.document import schema
from irtools.targets import RunnerOptions, find_target

_QUICK = BenchSettings(sequence=(12,), past=(20,), rounds=3, block_seconds=0.01, max_seconds=1.0)


def _texts() -> Dataset:
    rng = np.random.default_rng(0)
    mask = np.ones((10, 18), np.int64)
    mask[3, 11:] = 0
    return Dataset(
        {"input_ids": rng.integers(0, 61, mask.shape), "attention_mask": mask},
        # Classes of whole texts, as files of texts have them.
        labels=np.arange(10) % 3,
        source="texts",
    )


def test_speed_perplexity_and_text_of_every_pass(cached_decoder: Model) -> None:
    result = optimize(cached_decoder, "cleanup", evaluation=_texts(), bench=_QUICK, threads=1)
    document = result.report.to_dict()
    jsonschema.validate(document, schema())
    first, last = result.rows
    assert [(r.phase, r.shape) for r in last.latency] == [
        ("prefill", "prefill batch=1 sequence=12"),
        ("decode", "decode batch=1 past=20"),
    ]
    for timed, tokens in zip(last.latency, (12, 1), strict=True):
        assert timed.tokens_per_second == pytest.approx(tokens * timed.throughput)
        assert timed.speedup is not None
    assert last.checks == ("verifier", "numerics", "greedy-text")
    assert last.greedy is not None and (last.greedy.equal, last.greedy.source) == (8, "texts")
    assert first.metric is not None and last.metric is not None
    assert first.metric.value == pytest.approx(_perplexity(cached_decoder), rel=1e-5)
    assert last.metric.value == pytest.approx(first.metric.value, rel=1e-6)


def _perplexity(model: Model) -> float:
    losses: list[float] = []
    feeds = _texts().feeds
    with find_target("ort-cpu").runner(model, RunnerOptions(threads=1, exact=True)) as runner:
        for ids, mask in zip(feeds["input_ids"], feeds["attention_mask"], strict=True):
            text = ids[mask == 1][None]
            empty = np.zeros((1, 1, 0, 8), np.float32)
            found = runner.run(
                {
                    "input_ids": text,
                    "attention_mask": np.ones_like(text),
                    "position_ids": np.arange(text.shape[1])[None],
                    "past_key_values.0.key": empty,
                    "past_key_values.0.value": empty,
                }
            )
            logits = found["logits"][0, :-1].astype(np.float64)
            shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            losses.extend(-np.log(shares[np.arange(len(shares)), text[0, 1:]]))
    return float(np.exp(np.mean(losses)))


@pytest.mark.slow
@pytest.mark.openvino
def test_text_is_compared_on_openvino(cached_decoder: Model) -> None:
    result = optimize(
        cached_decoder, "cleanup", target="openvino-cpu", bench=None, new_tokens=8, threads=1
    )
    found = result.rows[1].greedy
    assert found is not None and (found.prompts, found.new_tokens, found.equal) == (8, 8, 8)
    assert "greedy-text" in result.rows[1].checks
