"""Decoders whose attention writes into the buffer of its cache: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.decoder import CachedDecoder
from irtools.backends.onnxruntime.bound_text import BoundText
from irtools.backends.onnxruntime.coded_cache import SHARED_CACHE
from irtools.measure.generate import write_greedily
from irtools.model import Model
from irtools.targets import FedText, Runner, RunnerOptions, begin_text, find_target, lowered

_ONE = RunnerOptions(threads=1)
_IDS = np.random.default_rng(5).integers(0, 61, (2, 9))
_SHARING = "ort-cpu"
_PLAIN = "ort-cpu:shared-cache=false"


def _lowered(model: Model, target: str = _SHARING) -> Model:
    return lowered(model, find_target(target))


def _operators(model: Model) -> set[str]:
    return {node.op_type for node in model.ir.graph}


def _read(runner: Runner, mask: np.ndarray, past: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    places = np.maximum(mask.cumsum(axis=1) - 1, 0)
    start = next(iter(past.values())).shape[2]
    feeds = {
        "input_ids": _IDS[:, start : mask.shape[1]],
        "attention_mask": mask,
        "position_ids": places[:, start:],
    }
    return runner.run(feeds | past)


def test_padding_may_be_anywhere(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    mask = np.ones((2, 8), np.int64)
    mask[0, 4:6], mask[1, :3] = 0, 0
    results = []
    for target in (_PLAIN, _SHARING):
        with find_target(target).runner(_lowered(grouped_decoder, target), _ONE) as runner:
            prompt = _read(runner, mask[:, :7], decoder.empty(2))
            results.append((prompt, _read(runner, mask, decoder.next_past({}, prompt))))
    for step in (0, 1):
        kept = mask[:, :7].astype(bool) if step == 0 else np.ones((2, 1), bool)
        for name, array in results[0][step].items():
            found = results[1][step][name]
            assert found.shape == array.shape
            rows = kept if name == "logits" else slice(None)
            np.testing.assert_allclose(found[rows], array[rows], rtol=1e-5, atol=1e-6)


def test_a_text_is_read_on_in_its_buffers(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    with find_target(_SHARING).runner(_lowered(grouped_decoder), _ONE) as runner:
        ids = np.random.default_rng(6).integers(0, 61, (1, 300))
        whole = runner.run(decoder.feeds(ids, decoder.empty(1)))
        text, other = (begin_text(runner, decoder, 1) for _ in range(2))
        assert isinstance(text, BoundText)
        parts = []
        # The room runs out after 261 tokens.
        for start, end in ((0, 5), (5, 6), (6, 260), (260, 299), (299, 300)):
            other.read(ids[:, :3])
            parts.append(text.read(ids[:, start:end]))
        assert text.length == 300
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole["logits"], atol=1e-5)
        past = {cache.name: whole[cache.present][:, :, :200] for cache in decoder.past}
        later = begin_text(runner, decoder, 1, past).read(ids[:, 200:])
        np.testing.assert_allclose(later, whole["logits"][:, 200:], atol=1e-5)


def test_greedy_text_is_that_of_the_portable_graph(
    grouped_decoder: Model, decoder: CachedDecoder
) -> None:
    target = find_target(_SHARING)
    texts = []
    for model in (grouped_decoder, _lowered(grouped_decoder)):
        with target.runner(model, _ONE) as runner:
            texts.append(write_greedily(runner, decoder, _IDS, 12).tokens)
    np.testing.assert_array_equal(*texts)


def test_what_is_written_shares(
    grouped_decoder: Model, decoder: CachedDecoder, tmp_path: Path
) -> None:
    target = find_target(_SHARING)
    made = target.compile(grouped_decoder, tmp_path, "model")
    assert made.kernels.counts["GroupQueryAttention"] == 1
    with target.runner(made.files[0], _ONE) as runner:
        assert isinstance(begin_text(runner, decoder, 1), BoundText)


def test_several_tokens_of_several_texts(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    """The kernel takes one token at a time then."""
    with find_target(_SHARING).runner(_lowered(grouped_decoder), _ONE) as runner:
        whole = runner.run(decoder.feeds(_IDS, decoder.empty(2)))
        text = begin_text(runner, decoder, 2)
        parts = [text.read(_IDS[:, :4]), text.read(_IDS[:, 4:])]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole["logits"], atol=1e-5)


def test_padded_texts_are_read_on_in_one_call(
    grouped_decoder: Model, decoder: CachedDecoder
) -> None:
    """The kernel refuses that; the runner reads them one by one."""
    mask = np.ones((2, 9), np.int64)
    mask[0, 4:6], mask[1, :3] = 0, 0
    results = []
    for target in (_PLAIN, _SHARING):
        with find_target(target).runner(_lowered(grouped_decoder, target), _ONE) as runner:
            prompt = _read(runner, mask[:, :5], decoder.empty(2))
            results.append(_read(runner, mask, decoder.next_past({}, prompt)))
    for name, array in results[0].items():
        kept = mask[:, 5:].astype(bool) if name == "logits" else slice(None)
        np.testing.assert_allclose(results[1][name][kept], array[kept], rtol=1e-5, atol=1e-6)


def test_the_portable_form_stays(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    plain = _lowered(grouped_decoder, _PLAIN)
    assert "Attention" in _operators(plain) and SHARED_CACHE not in plain.ir.metadata_props
    with find_target(_PLAIN).runner(plain, _ONE) as runner:
        assert isinstance(begin_text(runner, decoder, 1), FedText)


def _read_elsewhere(model: ir.Model) -> None:
    """The cache is read by more than attention."""
    past = next(value for value in model.graph.inputs if value.name == "past_key_values.0.value")
    node = ir.node("ReduceMax", [past], {"keepdims": 0})
    node.outputs[0].name = "largest"
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, ir.Shape([])
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _all_of_its_shape(model: ir.Model) -> None:
    past = next(value for value in model.graph.inputs if value.name == "past_key_values.0.key")
    node = ir.node("Shape", [past])
    node.outputs[0].name = "sizes"
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.INT64, ir.Shape([4])
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def _causal_itself(model: ir.Model) -> None:
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    attention.attributes.add(ir.AttrInt64("is_causal", 1))


@pytest.mark.parametrize("change", [_read_elsewhere, _all_of_its_shape, _causal_itself])
def test_what_does_not_fit_stays(
    grouped_decoder: Model, change: Callable[[ir.Model], None]
) -> None:
    model = grouped_decoder.clone()
    change(model.ir)
    assert "Attention" in _operators(_lowered(model))


def test_the_length_of_a_cache_is_that_of_the_mask(
    grouped_decoder: Model, decoder: CachedDecoder
) -> None:
    """Exporters ask the cache for it; a buffer is longer than what it holds."""
    model = grouped_decoder.clone()
    graph = model.ir.graph
    past = next(value for value in graph.inputs if value.name == "past_key_values.0.key")
    (old,) = [node for node in graph if node.op_type == "Sub"]
    length = ir.node("Shape", [past], {"start": 2, "end": 3})
    length.outputs[0].name = "length"
    graph.insert_before(old, length)
    old.outputs[0].replace_all_uses_with(length.outputs[0])
    made = _lowered(model)
    assert "GroupQueryAttention" in _operators(made)
    with find_target(_SHARING).runner(made, _ONE) as runner:
        whole = runner.run(decoder.feeds(_IDS[:1], decoder.empty(1)))
        text = begin_text(runner, decoder, 1)
        parts = [text.read(_IDS[:1, :4]), text.read(_IDS[:1, 4:5]), text.read(_IDS[:1, 5:])]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole["logits"], atol=1e-5)
