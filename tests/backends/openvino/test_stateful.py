"""Decoders that keep their cache inside OpenVINO: the same numbers, the kernel that was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.cache_codes import CACHE_BITS
from irtools.analysis.decoder import CachedDecoder
from irtools.backends.openvino.library import import_openvino
from irtools.backends.openvino.source import import_model
from irtools.backends.openvino.stateful import make_stateful
from irtools.errors import DataError, UnsupportedError
from irtools.measure.generate import write_greedily
from irtools.measure.steps import step_of
from irtools.model import Model
from irtools.passes.quantization.kv import Kv
from irtools.passmanager import PassContext
from irtools.targets import RunnerOptions, begin_text, find_target, lowered

pytestmark = pytest.mark.openvino

_EXACT = RunnerOptions(threads=1, exact=True)
_PLAIN = "openvino-cpu:stateful=false"
_IDS = np.random.default_rng(5).integers(0, 61, (2, 9))


def test_the_same_numbers_as_stateless(
    grouped_decoder: Model, decoder: CachedDecoder, read_padded: Callable
) -> None:
    results = []
    for target in (_PLAIN, "openvino-cpu"):
        with find_target(target).runner(grouped_decoder, _EXACT) as runner:
            results.append(read_padded(runner, decoder, _IDS, (7, 9)))
            assert runner.kernels().fused_attention == (target == "openvino-cpu")
    for plain, stateful in zip(*results, strict=True):
        assert plain.keys() == stateful.keys()
        for name, array in plain.items():
            np.testing.assert_allclose(stateful[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("lowest", "is_guarded"), [(-1.7e38, False), (-np.inf, True)])
def test_rows_of_nan_are_looked_for_where_a_mask_can_make_them(
    grouped_decoder: Model, decoder: CachedDecoder, lowest: float, is_guarded: bool
) -> None:
    model = grouped_decoder.clone()
    (shut,) = [n for n in model.ir.graph if n.outputs[0].name == "shut"]
    shut.attributes.add(ir.AttrFloat32("value_float", lowest))
    made = make_stateful(import_model(import_openvino().Core(), model)).model
    attention = next(n for n in made.get_ops() if n.get_type_name() == "ScaledDotProductAttention")
    readers = {port.get_node().get_type_name() for port in attention.output(0).get_target_inputs()}
    assert ("IsNaN" in readers) == is_guarded
    with find_target("openvino-cpu").runner(model, _EXACT) as runner:
        assert runner.kernels().fused_attention == 1
        mask = np.ones_like(_IDS)
        mask[1, :3] = 0
        feeds = decoder.feeds(_IDS, decoder.empty(2)) | {"attention_mask": mask}
        assert np.isfinite(runner.run(feeds)["logits"]).all()


def test_a_text_is_read_on_where_it_is(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    with find_target("openvino-cpu").runner(grouped_decoder, _EXACT) as runner:
        whole = runner.run(decoder.feeds(_IDS, decoder.empty(2)))
        text, other = (begin_text(runner, decoder, 2) for _ in range(2))
        parts = []
        for ids in (_IDS[:, :4], _IDS[:, 4:5], _IDS[:, 5:]):
            other.read(ids[::-1])
            parts.append(text.read(ids))
        assert text.length == 9
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole["logits"], atol=1e-5)
        past = {n.replace("present", "past_key_values"): a[:, :, :4] for n, a in whole.items()}
        del past["logits"]
        later = begin_text(runner, decoder, 2, past)
        np.testing.assert_allclose(later.read(_IDS[:, 4:]), whole["logits"][:, 4:], atol=1e-5)


def test_greedy_text_is_that_of_arrays(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    texts = []
    for target in ("ort-cpu", _PLAIN, "openvino-cpu"):
        with find_target(target).runner(grouped_decoder, _EXACT) as runner:
            texts.append(write_greedily(runner, decoder, _IDS, 12).tokens)
    np.testing.assert_array_equal(texts[0], texts[1])
    np.testing.assert_array_equal(texts[0], texts[2])


def test_what_is_written_has_variables(
    grouped_decoder: Model, decoder: CachedDecoder, tmp_path: Path, read_padded: Callable
) -> None:
    target = find_target("openvino-cpu")
    made = target.compile(grouped_decoder, tmp_path, "model")
    assert made.kernels.fused_attention == 1
    read = import_openvino().Core().read_model(made.files[0])
    assert [port.get_any_name() for port in read.inputs] == [
        "input_ids",
        "attention_mask",
        "position_ids",
        "beam_idx",
    ]
    assert [port.get_any_name() for port in read.outputs] == ["logits"]
    with target.runner(made.files[0], _EXACT) as runner:
        assert runner.input_names[3:] == ("past_key_values.0.key", "past_key_values.0.value")
        assert runner.output_names == ("logits", "present.0.key", "present.0.value")
        with find_target(_PLAIN).runner(grouped_decoder, _EXACT) as plain:
            for one, other in zip(
                read_padded(plain, decoder, _IDS, (7, 9)),
                read_padded(runner, decoder, _IDS, (7, 9)),
                strict=True,
            ):
                np.testing.assert_allclose(other["logits"], one["logits"], atol=1e-5)


def test_the_stateless_form_stays(grouped_decoder: Model, tmp_path: Path) -> None:
    made = find_target(_PLAIN).compile(grouped_decoder, tmp_path, "model")
    read = import_openvino().Core().read_model(made.files[0])
    assert len(read.inputs) == 5 and len(read.outputs) == 3 and not read.get_sinks()


def test_a_decoder_that_takes_more_than_tokens_keeps_its_cache(grouped_decoder: Model) -> None:
    model = grouped_decoder.clone()
    states = ir.val("encoder_states", ir.DataType.FLOAT, ["batch", "sequence", 32])
    model.ir.graph.inputs.append(states)
    (add,) = [node for node in model.ir.graph if node.op_type == "Add"]
    add.replace_input_with(1, states)
    with find_target("openvino-cpu").runner(model, _EXACT) as runner:
        assert runner.kernels().fused_attention == 0
        assert "past_key_values.0.key" in runner.input_names


def test_a_cache_of_another_model_is_named(grouped_decoder: Model, decoder: CachedDecoder) -> None:
    feeds = decoder.feeds(_IDS, decoder.empty(2))
    feeds["past_key_values.0.key"] = np.zeros((2, 3, 4, 8), np.float32)
    message = r"'past_key_values.0.key' takes shape \[\?x2x\?x8\]"
    runner = find_target("openvino-cpu").runner(grouped_decoder, _EXACT)
    with runner, pytest.raises(DataError, match=message):
        runner.run(feeds)


@pytest.mark.parametrize(("form", "most"), [("int8", 0.01), ("int4", 0.1)])
def test_a_cache_of_few_bits(
    grouped_decoder: Model, decoder: CachedDecoder, tmp_path: Path, form: str, most: float
) -> None:
    """Kept in the file too; prompts are read with the float numbers, what follows is not."""
    target = find_target("openvino-cpu")
    model = grouped_decoder.clone()
    Kv(form=form).run(model.ir, PassContext.for_model(model, target))
    made = target.compile(model, tmp_path, "model")
    texts = []
    for one in (grouped_decoder, model, made.files[0]):
        with target.runner(one, _EXACT) as runner:
            text = begin_text(runner, decoder, 2)
            texts.append(np.concatenate([text.read(ids) for ids in np.split(_IDS, 9, 1)], axis=1))
    np.testing.assert_array_equal(texts[1], texts[2])
    error = np.linalg.norm(texts[1] - texts[0]) / np.linalg.norm(texts[0])
    assert most / 100 < error < most


def test_keys_values_and_groups_have_what_is_asked(
    grouped_decoder: Model, decoder: CachedDecoder
) -> None:
    """Values of 4 bits are worse than 8 and better than keys of 4 as well; small groups help."""
    target = find_target("openvino-cpu")
    passes = (Kv(), Kv(form="int8-int4"), Kv(form="int4"), Kv(form="int4", group_size=4))
    with target.runner(grouped_decoder, _EXACT) as runner:
        text = begin_text(runner, decoder, 2)
        exact = np.concatenate([text.read(ids) for ids in np.split(_IDS, 9, 1)], axis=1)
    errors = []
    for kv in passes:
        model = grouped_decoder.clone()
        kv.run(model.ir, PassContext.for_model(model, target))
        with target.runner(model, _EXACT) as runner:
            text = begin_text(runner, decoder, 2)
            found = np.concatenate([text.read(ids) for ids in np.split(_IDS, 9, 1)], axis=1)
            errors.append(np.linalg.norm(found - exact))
    eight, mixed, four, grouped = errors
    assert 4 * eight < mixed < 0.9 * four and grouped < 0.8 * four


@pytest.mark.parametrize("form", ["int4", "int8-int4"])
def test_a_cache_of_four_bits_cannot_be_copied(
    grouped_decoder: Model, decoder: CachedDecoder, form: str
) -> None:
    """The runtime ends the process on it. Runs on arrays have one of 8 bits."""
    target = find_target("openvino-cpu")
    model = grouped_decoder.clone()
    Kv(form=form).run(model.ir, PassContext.for_model(model, target))
    with target.runner(grouped_decoder, _EXACT) as runner:
        whole = runner.run(decoder.feeds(_IDS, decoder.empty(2)))
    with target.runner(model, _EXACT) as runner:
        start = runner.run(decoder.feeds(_IDS[:, :6], decoder.empty(2)))
        past = decoder.next_past({}, start)
        found = runner.run(decoder.feeds(_IDS[:, 6:], past))
        np.testing.assert_allclose(found["logits"], whole["logits"][:, 6:], atol=0.2)
        np.testing.assert_allclose(found["present.0.key"], whole["present.0.key"], atol=0.05)
        with pytest.raises(UnsupportedError, match="takes up no cache of 4 bits"):
            begin_text(runner, decoder, 2, past)
        feeds = decoder.feeds(_IDS[:, 6:7], past)
        step = step_of(runner, feeds)  # Timed after as many tokens, then.
        step.prepare()
        step.run()


def test_what_was_rounded_for_another_runtime_is_rounded_by_this_one(
    grouped_decoder: Model,
) -> None:
    model = grouped_decoder.clone()
    Kv(form="int4", max_loss=None).run(model.ir, PassContext.for_model(model, "ort-cpu"))
    made = lowered(model, find_target("openvino-cpu"))
    assert made.ir.metadata_props[CACHE_BITS] == "4 4"
    assert not {node.op_type for node in made.ir.graph} & {"QuantizeLinear", "DequantizeLinear"}
    assert len(made.ir.graph) == len(grouped_decoder.ir.graph)
    keys = [
        next(n for n in m.ir.graph if n.op_type == "Attention").inputs[1] for m in (made, model)
    ]
    assert keys[0] is not None and keys[0].name == "turned_k" != (keys[1] and keys[1].name)
