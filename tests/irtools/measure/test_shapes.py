from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, SyntheticSettings, fit_dataset
from irtools.errors import DataError, UsageError
from irtools.measure.base import BenchSettings
from irtools.measure.shapes import bench_feeds, branches, sample_feeds
from irtools.model import Model


def _model(inputs: str, body: str) -> Model:
    text = f'<ir_version: 10, opset_import: ["" : 20]>\nm ({inputs}) => (float y) {{ {body} }}'
    return Model(ir.from_onnx_text(text))


_TOKENS = _model(
    "int64[b, s] input_ids, int64[b, s] attention_mask",
    "c = Add(input_ids, attention_mask) f = Cast<to = 1>(c) y = ReduceSum<keepdims = 0>(f)",
)
_IMAGE = _model("float[b, 3, 8, 8] pixels", "y = ReduceSum<keepdims = 0>(pixels)")
_SIZES = _model("int64[2] sizes", "e = ConstantOfShape(sizes) y = ReduceSum<keepdims = 0>(e)")


def test_every_batch_and_sequence_gets_feeds() -> None:
    found = bench_feeds(_TOKENS, BenchSettings(batch=(1, 4), sequence=(16, 32)))
    assert {label: feeds["input_ids"].shape for label, feeds in found.items()} == {
        "batch=1 sequence=16": (1, 16),
        "batch=1 sequence=32": (1, 32),
        "batch=4 sequence=16": (4, 16),
        "batch=4 sequence=32": (4, 32),
    }


def test_nothing_is_padded() -> None:
    (feeds,) = bench_feeds(_TOKENS, BenchSettings(batch=(8,))).values()
    assert feeds["attention_mask"].all()


def test_models_without_a_sequence_have_one_shape_per_batch() -> None:
    found = bench_feeds(_IMAGE, BenchSettings(batch=(1, 2), sequence=(16, 32)))
    assert list(found) == ["batch=1", "batch=2"]


def test_decoders_read_prompts_and_then_one_token(cached_decoder: Model) -> None:
    found = bench_feeds(cached_decoder, BenchSettings(batch=(2,), sequence=(4, 16)))
    assert {label: feeds["input_ids"].shape for label, feeds in found.items()} == {
        "prefill batch=2 sequence=4": (2, 4),
        "prefill batch=2 sequence=16": (2, 16),
        "decode batch=2 past=4": (2, 1),
        "decode batch=2 past=16": (2, 1),
    }
    assert found["decode batch=2 past=16"]["attention_mask"].all()
    assert found["decode batch=2 past=16"]["position_ids"].tolist() == [[16], [16]]


def test_the_cache_of_a_decoder_leaves_room_for_a_token(cached_decoder: Model) -> None:
    found = bench_feeds(cached_decoder, BenchSettings(sequence=(128,), past=(8, 100)))
    assert list(found) == [
        "prefill batch=1 sequence=48",
        "decode batch=1 past=8",
        "decode batch=1 past=47",
    ]


def test_a_cache_beyond_the_trained_positions_is_named(
    cached_decoder: Model, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"n_positions": 32}')
    cached_decoder.save(tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx")
    assert "decode batch=1 past=31" in bench_feeds(model, BenchSettings(past=(31,)))
    with pytest.raises(UsageError, match=r"^100 tokens .* was trained on 32 .* most 31$"):
        bench_feeds(model, BenchSettings(past=(8, 100)))


def test_prompts_are_no_longer_than_the_trained_positions(
    cached_decoder: Model, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"n_positions": 20}')
    cached_decoder.save(tmp_path / "model.onnx")
    found = bench_feeds(Model.load(tmp_path / "model.onnx"), BenchSettings(sequence=(8, 30)))
    assert list(found) == [
        *("prefill batch=1 sequence=8", "prefill batch=1 sequence=20"),
        *("decode batch=1 past=8", "decode batch=1 past=19"),
    ]


def _refuse(settings: SyntheticSettings) -> SyntheticSettings:
    raise DataError("nothing runs")


def test_where_no_inputs_run_they_come_from_data() -> None:
    with pytest.raises(DataError, match="nothing runs"):
        bench_feeds(_SIZES, BenchSettings(), adapt=_refuse)
    data = fit_dataset(Dataset({"sizes": np.array([[3, 4], [5, 6]])}), _SIZES)
    (feeds,) = bench_feeds(_SIZES, BenchSettings(batch=(2,)), data, adapt=_refuse).values()
    np.testing.assert_array_equal(feeds["sizes"], [3, 4])


def test_the_batch_is_read_where_the_samples_lie() -> None:
    model = _model("float[2, b, 3] state, float[b, 3] x", "s = Add (state, x) y = ReduceSum (s)")
    assert list(bench_feeds(model, BenchSettings(batch=(4,)))) == ["batch=4"]


_IF = (
    "y = If (go) <then_branch = a () => (float p) { p = Identity (x) }, "
    "else_branch = b () => (float q) { q = Neg (x) }>"
)


def test_a_model_with_an_if_may_need_more_time_for_one_sample_than_for_another() -> None:
    assert branches(_model("float x, bool go", _IF))
    assert not branches(_IMAGE)


def test_a_decoder_with_a_cache_is_timed_by_lengths(cached_decoder: Model) -> None:
    model, branching = cached_decoder.ir.clone(), _model("float x, bool go", _IF).ir
    for value in tuple(branching.graph.inputs):
        branching.graph.inputs.remove(value)
        model.graph.inputs.append(value)
    branching.graph.outputs.clear()
    (node,) = branching.graph
    branching.graph.remove(node)
    model.graph.append(node)
    assert not branches(Model(model))


@pytest.mark.parametrize("count", [100, 40])
def test_samples_run_in_turns_evenly_spread_over_the_data(count: int) -> None:
    """Files are often sorted: the first samples alone would show one class."""
    data = Dataset({"x": np.arange(count, dtype=np.float32)[:, None]})
    found = sample_feeds(data, BenchSettings(batch=(1, 2)))
    for batch, turns in zip((1, 2), found.values(), strict=True):
        rows = np.concatenate([feeds["x"][:, 0] for feeds in turns])
        taken = min(32 * batch, count)
        np.testing.assert_array_equal(rows, np.arange(taken) * count // taken)
        assert all(len(feeds["x"]) == batch for feeds in turns)
    one, two = (len(turns) for turns in found.values())
    assert (one, two) == (32, min(32, count // 2))
    assert list(found) == [
        f"batch=1 {one} alternating samples",
        f"batch=2 {two} alternating samples",
    ]
