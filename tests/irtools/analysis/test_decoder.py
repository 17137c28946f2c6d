"""Decoders with a cache are known by their inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.decoder import Reading, find_decoder, reading_of
from irtools.model import Model

_IDS = "int64[b, s] input_ids"
_PAST = 'float[b, 2, p, 4] "past_key_values.0.key"'


def _model(inputs: str, outputs: str = "float[b, s] y") -> ir.Model:
    body = "y = Cast <to = 1> (input_ids)"
    return ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 20]> m ({inputs}) => ({outputs}) {{ {body} }}'
    )


def test_inputs_outputs_and_sizes_are_read_from_the_signature(cached_decoder: Model) -> None:
    found = find_decoder(cached_decoder.ir)
    assert found is not None and found.generates
    assert (found.ids, found.axis, found.mask, found.positions) == (
        "input_ids",
        "sequence",
        "attention_mask",
        "position_ids",
    )
    assert found.outputs == ("logits", "present.0.key", "present.0.value")
    assert [(c.heads, c.size, c.axis) for c in found.past] == [(1, 8, "past_sequence")] * 2
    assert found.batch is None


@pytest.mark.parametrize(
    "inputs",
    [
        _IDS,
        f'{_IDS}, float[b, 2, 7, 4] "past_key_values.0.key"',
        f'{_IDS}, float[b, h, p, 4] "past_key_values.0.key"',
        f'{_IDS}, float[b, p, 4] "past_key_values.0.key"',
        f'{_IDS}, float[b, 2, p, 4] "past_key_values.0.encoder.key"',
    ],
    ids=["no cache", "fixed length", "unknown heads", "another rank", "cross-attention only"],
)
def test_what_is_no_growing_cache(inputs: str) -> None:
    assert find_decoder(_model(inputs)) is None


def test_a_decoder_that_needs_more_than_text_cannot_write_by_itself() -> None:
    alone, with_source = f"{_IDS}, {_PAST}", f"{_IDS}, {_PAST}, float[b, e, 8] source"
    for inputs in (alone, with_source):
        found = find_decoder(_model(inputs))  # Without logits and presents neither can.
        assert found is not None and not found.generates


def test_each_call_continues_the_cache_of_the_one_before(cached_decoder: Model) -> None:
    found = find_decoder(cached_decoder.ir)
    assert found is not None
    first = found.feeds(np.array([[5, 6, 7], [8, 9, 1]]), found.empty(2))
    assert {name: array.shape for name, array in first.items()} == {
        "input_ids": (2, 3),
        "attention_mask": (2, 3),
        "position_ids": (2, 3),
        "past_key_values.0.key": (2, 1, 0, 8),
        "past_key_values.0.value": (2, 1, 0, 8),
    }
    given = {name: np.ones((2, 1, 3, 8), np.float32) for name in found.outputs[1:]}
    second = found.feeds(np.array([[3], [4]]), found.next_past(given))
    assert second["attention_mask"].shape == (2, 4)
    assert second["position_ids"].tolist() == [[3], [3]]
    assert reading_of(first) == Reading("prefill", 6)
    assert reading_of(second) == Reading("decode", 2)
    assert reading_of({"input_ids": first["input_ids"]}) is None
