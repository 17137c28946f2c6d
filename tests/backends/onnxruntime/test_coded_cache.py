"""Caches of 8 and 4 bits: codes in the buffers, and the numbers of the portable form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.cache_codes import cache_blocks
from irtools.analysis.cache_turn import CacheTurn
from irtools.analysis.decoder import CachedDecoder
from irtools.backends.onnxruntime.bound_text import BoundText
from irtools.backends.onnxruntime.coded_cache import CodedCache, coded_caches, note_codes
from irtools.errors import DataError
from irtools.measure.generate import write_greedily
from irtools.model import Model
from irtools.passes.quantization.kv import Kv
from irtools.passmanager import PassContext
from irtools.targets import RunnerOptions, begin_text, find_target, lowered

_ONE = RunnerOptions(threads=1)
_IDS = np.random.default_rng(5).integers(0, 61, (2, 9))


@pytest.fixture(scope="module", params=["int8", "int4"])
def rounded(request: pytest.FixtureRequest, grouped_decoder: Model) -> Model:
    model = grouped_decoder.clone()
    Kv(form=request.param, max_loss=None).run(model.ir, PassContext.for_model(model))
    return model


def _lowered(model: Model) -> Model:
    return lowered(model, find_target("ort-cpu"))


def test_the_numbers_are_those_of_the_portable_form(
    rounded: Model, decoder: CachedDecoder, read_padded: Callable
) -> None:
    """In a batch that is padded in front, and one token later."""
    results = []
    for model in (rounded, _lowered(rounded)):
        with find_target("ort-cpu").runner(model, _ONE) as runner:
            results.append(read_padded(runner, decoder, _IDS, (8, 9)))
    for portable, coded in zip(*results, strict=True):
        for name, array in portable.items():
            assert coded[name].dtype == np.float32
            np.testing.assert_allclose(coded[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_buffers_hold_codes(rounded: Model, grouped_decoder: Model, decoder: CachedDecoder) -> None:
    made = _lowered(rounded)
    assert not {node.op_type for node in made.ir.graph} & {"QuantizeLinear", "DequantizeLinear"}
    sizes = []
    for model in (_lowered(grouped_decoder), made):
        with find_target("ort-cpu").runner(model, _ONE) as runner:
            text = begin_text(runner, decoder, 1)
            assert isinstance(text, BoundText)
            text.read(_IDS[:1])
            sizes.append(text.cache_bytes)
    (bits,) = {cache.bits for cache in coded_caches(made.ir.metadata_props).values()}
    assert sizes[0] == sizes[1] * 32 // bits


def test_a_text_is_read_on(rounded: Model, decoder: CachedDecoder) -> None:
    ids = np.random.default_rng(6).integers(0, 61, (1, 300))
    with find_target("ort-cpu").runner(_lowered(rounded), _ONE) as runner:
        whole = runner.run(decoder.feeds(ids, decoder.empty(1)))
        text = begin_text(runner, decoder, 1)
        parts = [text.read(part) for part in np.split(ids, [5, 6, 260, 299], axis=1)]
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole["logits"], atol=1e-5)
        past = {cache.name: whole[cache.present][:, :, :200] for cache in decoder.past}
        later = begin_text(runner, decoder, 1, past).read(ids[:, 200:])
        np.testing.assert_allclose(later, whole["logits"][:, 200:], atol=1e-5)


def test_greedy_text_is_that_of_the_portable_form(rounded: Model, decoder: CachedDecoder) -> None:
    texts = []
    for model in (rounded, _lowered(rounded)):
        with find_target("ort-cpu").runner(model, _ONE) as runner:
            texts.append(write_greedily(runner, decoder, _IDS, 12).tokens)
    np.testing.assert_array_equal(*texts)


def test_what_is_written_keeps_codes(
    rounded: Model, decoder: CachedDecoder, tmp_path: Path
) -> None:
    """In both formats: the scales of what is fed go with the file."""
    target = find_target("ort-cpu")
    for suffix in ("onnx", "ort"):
        made = target.compile(rounded, tmp_path, "model", format=suffix)
        with target.runner(made.files[0], _ONE) as runner:
            whole = runner.run(decoder.feeds(_IDS, decoder.empty(2)))
            assert whole["present.0.key"].shape == (2, 2, 9, 8)


def test_the_plain_form_has_the_numbers(rounded: Model, decoder: CachedDecoder) -> None:
    plain = lowered(rounded, find_target("ort-cpu:shared-cache=false"))
    assert len(cache_blocks(plain.ir)) == 1
    logits = []
    for model in (plain, _lowered(rounded)):
        with find_target("ort-cpu").runner(model, _ONE) as runner:
            logits.append(runner.run(decoder.feeds(_IDS, decoder.empty(2)))["logits"])
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_of_a_grid_come_back(bits: int) -> None:
    rng = np.random.default_rng(7)
    most = 2 ** (bits - 1) - 1
    steps = rng.integers(-most - 1, most + 1, (2, 3, 5, 8))
    cache = CodedCache("past", "present", bits, rng.uniform(0.1, 2, (3, 8)).astype(np.float32))
    array = (steps * cache.scale[:, None]).astype(np.float32)
    codes = cache.encode(array)
    assert codes.dtype == cache.dtype and codes.shape == (2, 3, 5, cache.width)
    np.testing.assert_array_equal(cache.decode(codes), array)
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    note_codes(model, [cache])
    (read,) = coded_caches(model.metadata_props).values()
    np.testing.assert_array_equal(read.scale, cache.scale)
    assert (read.name, read.present, read.bits) == ("past", "present", bits)


@pytest.mark.parametrize("twice", [0, 2])
def test_turned_codes_come_back_with_the_file(twice: int) -> None:
    """The last channels hold what is left over of the first ones."""
    rng = np.random.default_rng(8)
    whole = rng.normal(size=(3, 8, 8))
    places = [*range(8 - twice), *range(twice)]
    offset, scale = rng.normal(size=(3, 8)), rng.uniform(0.1, 2, (3, 8))
    coarse = np.full((3, 8), 1e30)
    coarse[:, 8 - twice :] = scale[:, :twice]
    scale[:, 8 - twice :] /= 15 if twice else 1
    arrays = offset.reshape(-1), whole[:, :, places], np.linalg.inv(whole)[:, places]
    turn = CacheTurn(*(a.astype(np.float32) for a in arrays))
    if twice:
        turn = replace(turn, coarse=coarse.reshape(-1).astype(np.float32))
    found = [
        CodedCache("key", "key", 4, scale.astype(np.float32), turn),
        CodedCache("value", "value", 4, scale.astype(np.float32)),
    ]
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    note_codes(model, found)
    read = coded_caches(model.metadata_props)
    keys = rng.normal(size=(2, 3, 5, 8)).astype(np.float32)
    for cache in found:
        codes = cache.encode(keys)
        np.testing.assert_array_equal(read[cache.name].encode(keys), codes)
        np.testing.assert_array_equal(read[cache.name].decode(codes), cache.decode(codes))
        again = cache.decode(cache.encode(cache.decode(codes)))
        np.testing.assert_allclose(again, cache.decode(codes), atol=1e-4)


_SHAPE = (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 3, 4, 8), (1, 3, 4, 8)), r"takes shape \[\?x2x\?x8\], got \[1x3x4x8\]"),
        ((_SHAPE, (1, 2, 5, 8)), "4 tokens in one layer and 5 in another"),
        (((2, 2, 4, 8), (2, 2, 4, 8)), "of 2 texts, expected 1"),
        ((_SHAPE,), "no data for input 'past_key_values.0.value'"),
    ],
)
def test_a_cache_of_another_model_is_one_line(
    rounded: Model,
    decoder: CachedDecoder,
    shapes: tuple[tuple[int, ...], ...],
    message: str,
) -> None:
    past = {c.name: np.zeros(s, np.float32) for c, s in zip(decoder.past, shapes, strict=False)}
    with find_target("ort-cpu").runner(_lowered(rounded), _ONE) as runner:
        with pytest.raises(DataError, match=message) as error:
            begin_text(runner, decoder, 1, past)
        assert "\n" not in str(error.value)
