"""`kv`: what joins a cache is rounded, with scales that hold at every position."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.cache_codes import CACHE_BITS, CACHE_GROUP, CacheBlock, cache_blocks, codes_of
from irtools.data import Dataset
from irtools.editing import Editor
from irtools.errors import OptionError, UnsupportedError
from irtools.model import Model, print_model
from irtools.passes.quantization import kv, trial_run
from irtools.passes.quantization.kv import Kv
from irtools.passmanager import PassContext, PassResult
from irtools.targets import RunnerOptions, find_target
from irtools.testing import read_model

_DECODER = """
<ir_version: 10, opset_import: ["" : 23]>
decoder (
  int64[batch, sequence] input_ids,
  float[batch, 1, past_sequence, 4] "past_key_values.0.key",
  float[batch, 1, past_sequence, 4] "past_key_values.0.value",
  int64[batch, sequence] position_ids,
  float[11, 4] words, float[11, 4] values, float[4, 11] head, float[64, 2] cos, float[64, 2] sin
) => (
  float[batch, sequence, 11] logits,
  float[batch, 1, "past_sequence + sequence", 4] "present.0.key",
  float[batch, 1, "past_sequence + sequence", 4] "present.0.value"
) {
  k = Gather (words, input_ids)
  v = Gather (values, input_ids)
  turned = ROTARY (k, cos, sin, position_ids)
  mixed, "present.0.key", "present.0.value" =
    Attention <q_num_heads = 1, kv_num_heads = 1, is_causal = 1>
    (turned, turned, v, , "past_key_values.0.key", "past_key_values.0.value")
  logits = MatMul (mixed, head)
}
"""
_HALVES = "RotaryEmbedding <num_heads = 1>"
_NEIGHBOURS = "RotaryEmbedding <num_heads = 1, interleaved = 1>"
_PART = "RotaryEmbedding <num_heads = 1, rotary_embedding_dim = 2>"


def _decoder(rotary: str = _HALVES) -> Model:
    rng = np.random.default_rng(3)
    angles = np.arange(64)[:, None] * np.array([1.0, 0.1])
    wide = 1 if "dim" in rotary else 2
    weights = {
        "words": rng.normal(size=(11, 4)),
        "values": rng.normal(size=(11, 4)),
        "head": rng.normal(size=(4, 11)),
        "cos": np.cos(angles)[:, :wide],
        "sin": np.sin(angles)[:, :wide],
    }
    text = _DECODER.replace("ROTARY", rotary).replace("[64, 2]", f"[64, {wide}]")
    return read_model(text, {name: w.astype(np.float32) for name, w in weights.items()})


def _texts(ids: np.ndarray) -> Dataset:
    count, length = ids.shape
    empty = np.zeros((count, 1, 0, 4), np.float32)
    return Dataset(
        {
            "input_ids": ids,
            "position_ids": np.tile(np.arange(length), (count, 1)),
            "past_key_values.0.key": empty,
            "past_key_values.0.value": empty,
        }
    )


_IDS = np.arange(22).reshape(2, 11) % 11


def _run(model: Model, form: str = "int8", target: str = "ort-cpu") -> PassResult:
    ctx = PassContext.for_model(model, target, calibration=_texts(_IDS))
    return Kv(form=form, max_loss=None).run(model.ir, ctx)  # type: ignore[arg-type]


def _block(model: Model) -> CacheBlock:
    (block,) = cache_blocks(model.ir)
    return block


@pytest.mark.parametrize(
    ("rotary", "pairs"),
    [
        (_HALVES, [[0, 2], [1, 3]]),
        (_NEIGHBOURS, [[0, 1], [2, 3]]),
        (_PART, [[0, 1], [2], [3]]),
    ],
)
def test_keys_are_scaled_by_the_norms_of_rotated_pairs(rotary: str, pairs: list[list[int]]) -> None:
    model = _decoder(rotary)
    words = model.ir.graph.initializers["words"].const_value
    values = model.ir.graph.initializers["values"].const_value
    assert words is not None and values is not None
    result = _run(model)
    assert result.counters["num-quantized-caches"] == 1 and not result.notes
    keys, rounded = (codes_of(value) for value in _block(model).new)
    assert keys is not None and rounded is not None
    for pair in pairs:
        largest = np.linalg.norm(words.numpy()[:, pair], axis=1).max()
        np.testing.assert_allclose(keys.scale[pair], largest / 127.45, rtol=1e-6)
    np.testing.assert_allclose(rounded.scale, abs(values.numpy()).max(axis=0) / 127.45, rtol=1e-6)


def test_slow_pairs_are_followed_as_far_as_they_are_turned(tmp_path: Path) -> None:
    """Channels 1 and 3 turn by 0.1 a position, so not even once in 12; 0 and 2 by 1."""
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 12}')
    model = _decoder()
    ctx = PassContext.for_model(model, calibration=_texts(_IDS))
    ctx.source_files = {"config.json": tmp_path / "config.json"}
    Kv().run(model.ir, ctx)
    codes = codes_of(_block(model).new[0])
    table = model.ir.graph.initializers["words"].const_value
    assert codes is not None and table is not None
    words = table.numpy()
    turned = (words[:, 1] + 1j * words[:, 3]) * np.exp(0.1j * np.linspace(0, 11, 5001))[:, None]
    peaks = codes.scale * 127.45
    np.testing.assert_allclose(peaks[1], abs(turned.real).max(), rtol=1e-5)
    np.testing.assert_allclose(peaks[3], abs(turned.imag).max(), rtol=1e-5)
    np.testing.assert_allclose(peaks[[0, 2]], np.hypot(words[:, 0], words[:, 2]).max(), rtol=1e-5)


def test_no_position_clips_a_key() -> None:
    """Ranges of channels on a short text would."""
    model = _decoder()
    _run(model, "int8")
    codes = codes_of(_block(model).new[0])
    assert codes is not None
    ids = np.tile(np.arange(11), (1, 5))
    feeds = _texts(ids).feeds
    with find_target("ort-cpu").runner(model, RunnerOptions(threads=1)) as runner:
        found = runner.run(feeds)["present.0.key"]
    with find_target("ort-cpu").runner(_decoder(), RunnerOptions(threads=1)) as runner:
        exact = runner.run(feeds)["present.0.key"]
    assert (abs(found - exact) <= codes.scale / 2 + 1e-6).all()


def test_golden() -> None:
    model = _decoder()
    _run(model, "int4")
    lines = [line.split('  "')[0].strip() for line in print_model(model.ir).splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("turned = "))
    codes = "turned_turned_scale, turned_turned_zero"
    assert lines[start + 1 : start + 11] == [
        "turned_centered = Sub(turned, turned_mean)",
        "turned_turned_apart = Reshape(turned_centered, heads_apart)",
        "turned_turned_by_head = MatMul(turned_turned_apart, key_turn)",
        "turned_turned = Reshape(turned_turned_by_head, heads_joined)",
        f"turned_turned_codes = QuantizeLinear<axis=2>(turned_turned, {codes})",
        f"turned_turned_rounded = DequantizeLinear<axis=2>(turned_turned_codes, {codes})",
        "turned_back_apart = Reshape(turned_turned_rounded, heads_apart)",
        "turned_back_by_head = MatMul(turned_back_apart, key_turn_1)",
        "turned_back = Reshape(turned_back_by_head, heads_joined)",
        "turned_restored = Add(turned_back, turned_mean)",
    ]
    codes = "v_turned_scale, v_turned_zero"
    assert lines[start + 11 : start + 21] == [
        "v_centered = Sub(v, v_mean)",
        "v_turned_apart = Reshape(v_centered, heads_apart_1)",
        "v_turned_by_head = MatMul(v_turned_apart, value_turn)",
        "v_turned = Reshape(v_turned_by_head, heads_joined_1)",
        f"v_turned_codes = QuantizeLinear<axis=2>(v_turned, {codes})",
        f"v_turned_rounded = DequantizeLinear<axis=2>(v_turned_codes, {codes})",
        "v_back_apart = Reshape(v_turned_rounded, heads_apart_1)",
        "v_back_by_head = MatMul(v_back_apart, value_turn_1)",
        "v_back = Reshape(v_back_by_head, heads_joined_1)",
        "v_restored = Add(v_back, v_mean)",
    ]
    assert "turned_turned_zero: int4[4] = [0, 0, 0, 0]" in lines


def test_keys_that_are_moved_back_to_another_place_are_not_known() -> None:
    model = _decoder()
    _run(model, "int4")
    found = codes_of(_block(model).new[0])
    assert found is not None and found.turn is not None
    assert found.plain.name == "turned"
    restored = _block(model).new[0].producer()
    assert restored is not None and restored.inputs[1] is not None
    mean = restored.inputs[1].const_value
    assert mean is not None
    other = Editor(model.ir, "test").constant("other", mean.numpy() + 1)
    restored.replace_input_with(1, other)
    assert codes_of(_block(model).new[0]) is None


def test_twice_is_once() -> None:
    model = _decoder()
    assert _run(model).modified
    again = _run(model, "int4")
    assert not again.modified and again.counters["num-skipped-quantized"] == 1


def test_a_runtime_that_scales_its_cache_itself_is_told_the_bits() -> None:
    model = _decoder()
    assert _run(model, "int4", "openvino-cpu").counters == {"num-quantized-caches": 1}
    assert model.ir.metadata_props[CACHE_BITS] == "4 4"
    assert CACHE_GROUP not in model.ir.metadata_props
    assert not any(map(codes_of, _block(model).new))
    assert not _run(model, "int8", "openvino-cpu").modified


def test_keys_and_values_may_differ_where_the_runtime_scales_them() -> None:
    model = _decoder()
    ctx = PassContext.for_model(model, "openvino-cpu")
    assert Kv(form="int8-int4", group_size=2).run(model.ir, ctx).modified
    assert model.ir.metadata_props[CACHE_BITS] == "8 4"
    assert model.ir.metadata_props[CACHE_GROUP] == "2"


@pytest.mark.parametrize("asked", [Kv(form="int8-int4"), Kv(group_size=2)])
def test_where_scales_are_fixed_they_may_not(asked: Kv) -> None:
    model = _decoder()
    with pytest.raises(UnsupportedError, match="keys and values in the same bits"):
        asked.run(model.ir, PassContext.for_model(model, "ort-cpu"))


def test_blocks_that_lose_most_may_stay_in_8_bits() -> None:
    model = _decoder()
    ctx = PassContext.for_model(model, "ort-cpu", calibration=_texts(_IDS))
    result = Kv(form="int4", wide_blocks=1).run(model.ir, ctx)
    assert result.counters["num-quantized-caches"] == 1 and not result.notes
    codes = [codes_of(value) for value in _block(model).new]
    assert [one.bits for one in codes if one is not None] == [8, 8]


def _two_blocks() -> Model:
    """The second one adds a hundredth of what the first does."""
    model = _decoder()
    editor = Editor(model.ir, "test")
    (first,) = [node for node in model.ir.graph if node.op_type == "Attention"]
    key, value = first.inputs[4:6]
    past = [
        ir.Value(name=v.name.replace(".0.", ".1."), type=v.type, shape=v.shape)
        for v in (key, value)
    ]
    model.ir.graph.inputs.extend(past)
    part = editor.constant("part", np.array(0.01, np.float32))
    small = editor.before(
        first, "Mul", [first.inputs[2], part], outputs={"small": ir.DataType.FLOAT}
    )
    second = editor.copy(first, [*first.inputs[:2], small, None, *past], "_1")
    model.ir.graph.insert_after(first, second)
    for number, output in enumerate(second.outputs[1:], start=1):
        output.name = (first.outputs[number].name or "").replace(".0.", ".1.")
        output.type, output.shape = first.outputs[number].type, first.outputs[number].shape
        model.ir.graph.outputs.append(output)
    (head,) = [node for node in model.ir.graph if node.op_type == "MatMul"]
    both = editor.before(
        head, "Add", [first.outputs[0], second.outputs[0]], outputs={"both": ir.DataType.FLOAT}
    )
    head.replace_input_with(0, both)
    return model


def _bits_for(most: float | Literal["auto"] | None) -> tuple[list[int], str]:
    model = _two_blocks()
    texts = _texts(_IDS)
    feeds = {
        **texts.feeds,
        **{n.replace(".0.", ".1."): a for n, a in texts.feeds.items() if "past" in n},
    }
    ctx = PassContext.for_model(model, "ort-cpu", calibration=Dataset(feeds))
    result = Kv(form="int4", max_loss=most).run(model.ir, ctx)
    codes = [codes_of(value) for block in cache_blocks(model.ir) for value in block.new]
    return [one.bits for one in codes if one is not None], result.notes[0]


def test_as_few_blocks_as_a_loss_takes_have_8_bits() -> None:
    """The error of the whole is that of the first block, and without it that of the second."""
    assert _bits_for(0.1)[0] == [4, 4, 4, 4]
    bits, note = _bits_for(1e-5)
    assert bits == [8, 8, 4, 4]
    assert "on 2 samples, with 8 bits in 1 of 2 blocks (max-loss=none:" in note
    assert _bits_for(1e-12)[0] == [8, 8, 8, 8]


def test_a_loss_is_bounded_unless_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "_LOSS", 1e-5)
    assert _bits_for("auto")[0] == [8, 8, 4, 4]
    bits, note = _bits_for(None)
    assert bits == [4, 4, 4, 4] and note.endswith("and at max-loss")


def test_where_nothing_can_be_measured_4_bits_are_taken_unless_a_loss_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial_run, "largest_tried", lambda: 0)
    bits, note = _bits_for("auto")
    assert bits == [4, 4, 4, 4] and note.endswith("and at wide-blocks")
    with pytest.raises(UnsupportedError, match="max-loss needs a model that runs"):
        _bits_for(0.1)


def test_a_loss_is_for_4_bits_with_fixed_scales() -> None:
    with pytest.raises(OptionError, match=r"max-loss is 0\.1 with form=int8: expected more than 0"):
        Kv(max_loss=0.1)
    with pytest.raises(OptionError, match="max-loss is 0 with form=int4"):
        Kv(form="int4", max_loss=0)
    with pytest.raises(OptionError, match="both choose blocks"):
        Kv(form="int4", max_loss=0.1, wide_blocks=1)
    model = _decoder()
    with pytest.raises(UnsupportedError, match="keeps all blocks in the same bits"):
        Kv(form="int4", max_loss=0.1).run(model.ir, PassContext.for_model(model, "openvino-cpu"))


def test_wide_blocks_are_for_4_bits_with_fixed_scales() -> None:
    with pytest.raises(OptionError, match="wide-blocks is 1 with form=int8: expected 0 or more"):
        Kv(wide_blocks=1)
    model = _decoder()
    with pytest.raises(UnsupportedError, match="keeps all blocks in the same bits"):
        Kv(form="int4", wide_blocks=1).run(model.ir, PassContext.for_model(model, "openvino-cpu"))


def test_groups_divide_a_head() -> None:
    with pytest.raises(OptionError, match="expected 1 or more"):
        Kv(group_size=0)
    model = _decoder()
    with pytest.raises(OptionError, match=r"group-size is 3, which does not divide .* head, 4"):
        Kv(group_size=3).run(model.ir, PassContext.for_model(model, "openvino-cpu"))


@pytest.mark.parametrize("target", ["ort-cuda", "ort-cpu:shared-cache=false"])
def test_a_target_without_such_a_cache_is_named(target: str) -> None:
    with pytest.raises(UnsupportedError, match=r"keeps no cache in 8 bits.*expected ort-cpu"):
        Kv().run(_decoder().ir, PassContext.for_model(_decoder(), find_target(target, check=False)))


def _no_cache(model: ir.Model) -> None:
    for value in list(model.graph.inputs)[1:3]:
        value.name = f"state.{value.name}"


def _heads_apart(model: ir.Model) -> None:
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    attention.attributes.pop("q_num_heads")


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_no_cache, "no cache that grows"), (_heads_apart, "`fuse` first")],
)
def test_what_stays_says_why(change: object, reason: str) -> None:
    model = _decoder()
    assert callable(change)
    change(model.ir)
    result = Kv().run(model.ir, PassContext.for_model(model))
    assert not result.modified and reason in result.notes[0]
