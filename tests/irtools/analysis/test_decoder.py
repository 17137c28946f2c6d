"""Decoders with a cache are known by their inputs and outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.decoder import (
    PlainDecoder,
    Reading,
    find_decoder,
    find_text_decoder,
    reading_of,
)
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


def test_a_decoder_without_a_cache_reads_the_text_again(plain_decoder: Model) -> None:
    found = find_text_decoder(plain_decoder.ir)
    assert isinstance(found, PlainDecoder)
    assert (found.outputs, found.batch) == (("logits",), None)
    first = found.feeds(np.array([[5, 6], [8, 9]]), found.empty(2))
    second = found.feeds(np.array([[3], [4]]), found.next_past(first, {}))
    assert second["input_ids"].tolist() == [[5, 6, 3], [8, 9, 4]]
    assert second["position_ids"].tolist() == [[0, 1, 2]] * 2
    assert second["attention_mask"].tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("change", ["task", "length", "source", "outputs"])
def test_what_writes_no_text(plain_decoder: Model, change: str) -> None:
    model = plain_decoder.ir.clone()
    match change:
        case "task":  # The shape of a masked language model is the same.
            model.metadata_props["task"] = "fill-mask"
        case "length":
            model.graph.inputs[0].shape = ir.Shape(["batch", 16])
        case "source":
            model.graph.inputs.append(
                ir.Value(name="source", type=ir.TensorType(ir.DataType.INT64))
            )
        case "outputs":
            model.graph.outputs[0].name = "hidden"
    assert find_text_decoder(model) is None


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
    second = found.feeds(np.array([[3], [4]]), found.next_past({}, given))
    assert second["attention_mask"].shape == (2, 4)
    assert second["position_ids"].tolist() == [[3], [3]]
    assert reading_of(first) == Reading("prefill", 6)
    assert reading_of(second) == Reading("decode", 2)
    assert reading_of({"input_ids": first["input_ids"]}) is None
