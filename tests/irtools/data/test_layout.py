"""Inputs whose samples do not lie along the first axis."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, draw_feeds, fit_dataset, load_dataset, required_inputs, synthesize
from irtools.data.batches import plan_batches
from irtools.data.layout import find_layout
from irtools.errors import DataError

N = 6


def model(inputs: str, outputs: str = "float[n] y") -> ir.Model:
    name = inputs.split()[1].strip(",")
    return ir.from_onnx_text(
        f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({outputs}) '
        f"{{ y = Identity ({name}) }}"
    )


LAYOUTS: Mapping[str, tuple[str, str, dict[str, int], int | None]] = {
    "a batch": ("float[b,4] x", "float[b,4] y", {"x": 0}, None),
    "a state": ("float[b,4] x, float[2,b,8] s", "float[b] y", {"x": 0, "s": 1}, None),
    "a rate": ("float[b,4] x, int64 sr", "float[b] y", {"x": 0}, None),
    "scales": ("int64[b,t] x, float[3] scales", "float[b] y", {"x": 0}, None),
    "one at a time": ("float[1,8,4] x, float[2] size", "float[1] y", {"x": 0}, 1),
    "a fixed batch": ("float[2,4] x, float gain", "float[2] y", {"x": 0}, 2),
    "unlike first axes": ("float[3,2] x, float[2,2] z", "float[5] y", {}, 1),
    "one of them the batch": ("float[3,2] x, float[2,2] z", "float[3] y", {"x": 0}, 3),
    "an image": ("float[3,h,w] x", "float[10] y", {}, 1),
    "a matrix": ("float[4,8] x", "float[10] y", {}, 1),
    "a state of one stream": ("float[25] s, float[t,4] x", "float[25] y", {"x": 0}, None),
    "time first": (
        "float[t,batch,4] x, int64[batch] length",
        "float[t,batch,4] y",
        {"x": 1, "length": 0},
        None,
    ),
    "time first and a state": (
        "float[seq,b,4] x, float[2,b,8] s",
        "float[seq,b,4] y",
        {"x": 1, "s": 1},
        None,
    ),
    "a graph": ("float[nodes,4] x, int64[2,edges] edge_index", "float[nodes] y", {}, 1),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_where_samples_lie(case: str) -> None:
    inputs, outputs, axes, fixed = LAYOUTS[case]
    found = find_layout(model(inputs, outputs))
    assert (dict(found.axes), found.fixed) == (axes, fixed)


@pytest.mark.parametrize("case", LAYOUTS)
def test_drawn_calls_have_the_shapes_that_the_model_states(case: str) -> None:
    inputs, outputs, *_ = LAYOUTS[case]
    found = model(inputs, outputs)
    data = synthesize(found)
    calls = [draw_feeds(found), *data.batches(4)]
    assert fit_dataset(data, found).fixed_batch == data.fixed_batch
    for call in calls:
        for spec in required_inputs(found):
            assert spec.shape is not None and call[spec.name].ndim == len(spec.shape)
            for size, stated in zip(call[spec.name].shape, spec.shape, strict=True):
                assert size == stated or not isinstance(stated, int)


def test_states_are_put_together_along_their_own_axis() -> None:
    found = model("float[b,4] x, float[2,b,8] s")
    state = np.arange(N * 16.0, dtype=np.float32).reshape(N, 2, 1, 8)
    x = np.zeros((N, 4), np.float32)
    for given in (state, state[:, :, 0]):
        data = fit_dataset(Dataset({"x": x, "s": given}), found)
        first = next(iter(data.batches(4)))
        assert first["s"].shape == (2, 4, 8)
        np.testing.assert_array_equal(first["s"][:, 3], state[3, :, 0])
        (batch, _) = plan_batches(data, required_inputs(found)).batches(4)
        np.testing.assert_array_equal(batch.feeds["s"], first["s"])
    with pytest.raises(DataError, match=r"lie along axis 1: give them along axis 0, shape \[N,2,1"):
        fit_dataset(Dataset({"x": x, "s": np.zeros((N, 3, 8), np.float32)}), found)


def test_samples_run_together_only_where_what_is_fed_whole_is_the_same() -> None:
    found = model("float[b,4] x, float[3] scales")
    x = np.zeros((N, 4), np.float32)
    same = fit_dataset(Dataset({"x": x, "scales": np.ones((N, 3), np.float32)}), found)
    assert [len(call["x"]) for call in same.batches(4)] == [4, 2]
    other = np.ones((N, 3), np.float32) * np.arange(N, dtype=np.float32)[:, None]
    apart = fit_dataset(Dataset({"x": x, "scales": other}), found)
    assert [float(call["scales"][0]) for call in apart.batches(4)] == list(range(N))
    with pytest.raises(DataError, match=r"one array per sample: shape \[N,3\]"):
        fit_dataset(Dataset({"x": x, "scales": np.ones((N, 2), np.float32)}), found)


def test_a_fixed_batch_shares_what_is_fed_whole() -> None:
    found = model("float[2,4] x, float gain", "float[2] y")
    x = np.zeros((4, 4), np.float32)
    data = fit_dataset(Dataset({"x": x, "gain": np.array([1, 1, 2, 2], np.float32)}), found)
    assert [float(call["gain"]) for call in data.batches(8)] == [1, 2]
    with pytest.raises(DataError, match="'gain' is fed whole and differs"):
        fit_dataset(Dataset({"x": x, "gain": np.arange(4, dtype=np.float32)}), found)


def test_a_static_first_axis_may_be_given_as_a_batch_or_whole() -> None:
    found = model("float[4,8] x", "float[10] y")
    whole = fit_dataset(Dataset({"x": np.zeros((3, 4, 8), np.float32)}), found)
    rows = fit_dataset(Dataset({"x": np.zeros((12, 8), np.float32)}), found)
    for data in (whole, rows):
        assert [call["x"].shape for call in data.batches(1)] == [(4, 8)] * 3


def _unlike() -> Iterator[dict[str, np.ndarray]]:
    for frames in (5, 7, 4):
        yield {"x": np.full((1, frames, 3), frames, np.float32)}


def _states() -> Iterator[dict[str, np.ndarray]]:
    for start in range(3):
        x, state = np.full((2, 4), start, np.float32), np.full((2, 2, 8), start, np.float32)
        yield {"x": x, "s": state, "sr": np.array(16000)}


def test_batches_of_a_function_stay_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "feeds_of_mine", sys.modules[__name__])
    data = load_dataset("feeds_of_mine:_unlike", model("float[n,frames,3] x"))
    assert len(data) == 3 and data.digest
    assert [call["x"].shape for call in data.batches(8)] == [(1, 5, 3), (1, 7, 3), (1, 4, 3)]
    kept = data.select(np.array([2]))
    assert next(iter(kept.batches()))["x"].shape == (1, 4, 3)
    found = model("float[b,4] x, float[2,b,8] s, int64 sr")
    states = load_dataset("feeds_of_mine:_states", found)
    assert [(call["x"].shape, call["s"].shape, call["sr"].shape) for call in states.batches()] == [
        ((2, 4), (2, 2, 8), ())
    ] * 3


@pytest.mark.parametrize(
    ("inputs", "width"),
    [
        ("float[b,s,4] features, int64[b,s] attention_mask", 3),
        ("float[b,s,6] features, int64[b,s] attention_mask", 3),
        ("float[b,4,s] features, int64[b,s] attention_mask", 6),
        ("float[b,s,4] features, float[b,1,s,s] bias, int64[b,s] attention_mask", 6),
    ],
    ids=["features", "as wide as long", "channels first", "a bias"],
)
def test_padding_is_cut_from_all_inputs_with_the_axis_or_from_none(inputs: str, width: int) -> None:
    found = model(inputs)
    mask = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])
    sizes = {"b": 2, "s": 6}
    feeds = {
        spec.name: mask
        if spec.name == "attention_mask"
        else np.ones([sizes.get(str(size), size) for size in spec.shape or ()], np.float32)
        for spec in required_inputs(found)
    }
    data = fit_dataset(Dataset(feeds), found)
    (call,) = data.batches(2)
    assert call["attention_mask"].shape == (2, width)
    assert call["features"].shape[1 if "s," in inputs[:12] else 2] == width
    plan = plan_batches(data, required_inputs(found))
    for batch in plan.batches(2):
        assert batch.feeds["attention_mask"].shape[1] in batch.feeds["features"].shape[1:]


def test_bytes_of_images_are_drawn_as_bytes() -> None:
    drawn = synthesize(model("uint8[n,h,8,3] x")).feeds["x"]
    assert drawn.shape == (32, 224, 8, 3) and drawn.min() == 0 and drawn.max() == 255
