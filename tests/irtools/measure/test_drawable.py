"""Sizes on which a model runs, where the usual ones do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset, SyntheticSettings, fit_dataset
from irtools.data.axes import resolve_sizes
from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.measure.drawable import DrawnInputs, run_with
from irtools.measure.hints import suggested_sizes
from irtools.measure.trial import run_trial
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

TARGET = find_target("ort-cpu")


def model(inputs: str, body: str, weights: Mapping[str, tuple[int, ...]], output: str) -> Model:
    """Weights are inputs of the text, and become initializers of ones."""
    text = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g ({inputs}'
        + "".join(f", float[{','.join(map(str, shape))}] {name}" for name, shape in weights.items())
        + f") => ({output}) {body}"
    )
    rng = np.random.default_rng(0)
    for value in [v for v in text.graph.inputs if v.name in weights]:
        array = rng.normal(size=weights[value.name or ""]).astype(np.float32)
        value.const_value = ir.tensor(array, name=value.name)
        text.graph.inputs.remove(value)
        text.graph.register_initializer(value)
    return Model(text)


MODELS: Mapping[str, tuple[Model, dict[str, Any]]] = {
    "a product of frames": (
        model(
            "float[n,frames,8] x",
            "<int64[2] s = {-1, 232}> { f = Reshape (x, s) y = MatMul (f, w) }",
            {"w": (232, 4)},
            "float[n,4] y",
        ),
        {"sizes": {"frames": 29}},
    ),
    "a reflection": (
        model(
            "float[n,1,samples] audio",
            '<int64[6] pads = {0, 0, 300, 0, 0, 300}> { p = Pad <mode = "reflect"> (audio, pads) '
            "y = Conv <strides = [160]> (p, k) }",
            {"k": (2, 1, 400)},
            "float[n,2,t] y",
        ),
        {"sizes": {"samples": 320}},
    ),
    "multiples of 48": (
        model(
            "float[n,1,h,w] x",
            "<float[4] scales = {1.0, 1.0, 48.0, 48.0}> { c = Conv <strides = [48, 48]> (x, k) "
            'u = Resize <mode = "nearest"> (c, , scales) y = Concat <axis = 1> (u, x) }',
            {"k": (1, 1, 48, 48)},
            "float[n,2,h,w] y",
        ),
        {"sizes": {"h": 48, "w": 48}},
    ),
    "one sample at a time": (
        model(
            "float[n,6] x",
            "<int64[3] s = {1, 2, 3}> { r = Reshape (x, s) y = MatMul (r, w) }",
            {"w": (3, 4)},
            "float[n,2,4] y",
        ),
        {"together": 1},
    ),
    "frames without a batch": (
        model(
            "float[frames,bins] x",
            "<int64[2] outer = {0, 1}, int64[2] s = {-1, 106}> { u = Unsqueeze (x, outer) "
            "c = Conv (u, k) r = Squeeze (c, outer) y = MatMul (r, w) }",
            {"k": (1, 1, 5, 39), "w": (106, 4)},
            "float[m,4] y",
        ),
        {"sizes": {"frames": 144, "bins": 144}, "calls": True},
    ),
    "a size found by trying all": (
        model(
            "float[n,1,h,w] x",
            "{ c = Conv <strides = [2, 2]> (x, k) f = Flatten (c) y = MatMul (f, w2) }",
            {"k": (1, 1, 3, 3), "w2": (81, 4)},
            "float[n,4] y",
        ),
        {"sizes": {"h": 19, "w": 19}},
    ),
}


def trial(found: Model, folder: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    path = found.save(folder / "m.onnx").files[0]
    options = RunnerOptions(exact=True)
    return run_trial(TARGET, path, options, [], None, given or {"sizes": {}}, {})


@pytest.mark.parametrize("case", MODELS)
def test_sizes_are_found(case: str, tmp_path: Path) -> None:
    found, expected = MODELS[case]
    answer = trial(found, tmp_path)
    assert not answer["reason"] and len(answer["outputs"]) == 2
    assert {name: answer["changes"][name] for name in expected} == expected
    if "together" not in expected:
        assert answer["changes"]["together"] is None


def test_the_rank_is_found_where_the_model_does_not_state_it(tmp_path: Path) -> None:
    found = model("float[n,k] x", "{ y = MatMul (x, w) }", {"w": (24, 4)}, "float[n,4] y")
    found.ir.graph.inputs[0].shape = None
    answer = trial(found, tmp_path)
    assert (answer["changes"]["rank"], answer["changes"]["sizes"]["x.1"]) == (2, 24)


def test_what_runs_on_two_samples_only_is_fed_calls(tmp_path: Path) -> None:
    """The usual two samples run, but measuring feeds single ones too, which have no row 1."""
    found = model(
        "float[n,4] x", "<int64 i = {1}> { y = Gather <axis = 0> (x, i) }", {}, "float[4] y"
    )
    path = found.save(tmp_path / "m.onnx").files[0]
    drawn = DrawnInputs(found, TARGET, lambda: path)
    settings = drawn.usable(SyntheticSettings(samples=1))
    assert settings.calls and settings.sizes is not None and settings.sizes["n"] > 1
    assert "a call per sample" in drawn.note
    assert drawn.synthesize(SyntheticSettings(samples=3), found).feeds["x"].shape[2:] == (4,)


def test_where_nothing_runs_the_reason_is_what_the_runtime_said_first(tmp_path: Path) -> None:
    found = model(
        "float[n,4] x",
        "<int64[2] never = {7, 7}> { y = Reshape (x, never) }",
        {},
        "float[7,7] y",
    )
    path = found.save(tmp_path / "m.onnx").files[0]
    drawn = DrawnInputs(found, TARGET, lambda: path)
    assert drawn.trial() is None
    assert "no inputs were found on which the model runs" in drawn.reason
    assert "Reshape" in drawn.reason
    with pytest.raises(DataError, match="no inputs were found"):
        drawn.usable(SyntheticSettings())


def test_usual_sizes_that_run_cost_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.measure import drawable

    found = model("float[n,s,4] x", "{ y = MatMul (x, w) }", {"w": (4, 4)}, "float[n,s,4] y")
    path = found.save(tmp_path / "m.onnx").files[0]
    calls: list[object] = []

    def here(function: Any, *arguments: Any, **_: Any) -> Any:
        calls.append(function)
        return function(*arguments)

    monkeypatch.setattr(drawable, "run_isolated", here)
    drawn = DrawnInputs(found, TARGET, lambda: path)
    kept = drawn.trial()
    assert kept is not None and len(kept.feeds) == len(kept.outputs) == 2
    assert drawn.adapt(SyntheticSettings(sequence=99)).sequence == 99
    assert not drawn.note and drawn.trial() is kept
    assert len(calls) == 1


@pytest.mark.parametrize("further", [True, False])
def test_larger_inputs_run_where_some_will_be_drawn(
    further: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.measure import drawable

    found = model("float[n,s,4] x", "{ y = MatMul (x, w) }", {"w": (4, 4)}, "float[n,s,4] y")
    path = found.save(tmp_path / "m.onnx").files[0]
    given: list[object] = []

    def here(function: Any, *arguments: Any, **_: Any) -> Any:
        given.append(arguments[4])
        return function(*arguments)

    monkeypatch.setattr(drawable, "run_isolated", here)
    assert DrawnInputs(found, TARGET, lambda: path, further=further).trial() is not None
    assert [one is not None for one in given] == [further]


def test_sizes_of_real_samples_are_tried_first(tmp_path: Path) -> None:
    found = MODELS["a product of frames"][0]
    path = found.save(tmp_path / "m.onnx").files[0]
    samples = Dataset({"x": np.zeros((3, 58, 8), np.float32)})
    drawn = DrawnInputs(found, TARGET, lambda: path, data=fit_dataset(samples, found))
    assert drawn.usable(SyntheticSettings()).sizes == {"frames": 58}
    assert "frames=58" in drawn.note


def test_sizes_of_the_caller_stay(tmp_path: Path) -> None:
    found = MODELS["a reflection"][0]
    path = found.save(tmp_path / "m.onnx").files[0]
    sizes = resolve_sizes(found, [("audio", 700)])
    drawn = DrawnInputs(found, TARGET, lambda: path, sizes=sizes)
    assert drawn.usable(SyntheticSettings()).sizes == {"samples": 700}
    assert not drawn.note


def test_what_fails_for_another_reason_fails_as_it_did(tmp_path: Path) -> None:
    found = model("float[n,4] x", "{ y = MatMul (x, w) }", {"w": (4, 4)}, "float[n,4] y")
    path = found.save(tmp_path / "m.onnx").files[0]

    def fail(adapt: object) -> None:
        raise DataError("something else")

    with pytest.raises(DataError, match="something else"):
        run_with(DrawnInputs(found, TARGET, lambda: path), fail)


def test_names_of_sizes() -> None:
    found = model("float[n,s,k] x, float[n,s] z", "{ y = Identity (x) }", {}, "float[n,s,k] y")
    assert dict(resolve_sizes(found, [("s", 5), ("x.2", 6)])) == {"s": 5, "k": 6}
    assert dict(resolve_sizes(found, [("z", 5), ("n", 2)])) == {"s": 5, "": 2}
    for name in ("x", "w"):
        with pytest.raises(UsageError, match=r"open are n \(x axis 0, z axis 0\), s \("):
            resolve_sizes(found, [(name, 5)])


def test_hints_come_from_products_strides_and_pads() -> None:
    hints = {name: suggested_sizes(found.ir) for name, (found, _) in MODELS.items()}
    assert 29 in hints["a product of frames"]
    assert 601 in hints["a reflection"] and 160 in hints["a reflection"]
    assert hints["multiples of 48"][0] == 48


class _Slow:
    """A target whose runner moves the clock by as much as a run is said to take."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.runs = 0

    @contextmanager
    def runner(self, source: Path, options: RunnerOptions) -> Iterator[_Slow]:
        yield self

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs += 1
        self._clock[0] += self._seconds
        return {"y": np.ones((2, 2), np.float32)}


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, 3), (1.5, 2), (20.0, 1)])
def test_a_slow_model_is_run_on_fewer_feeds(
    seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = [0.0]
    monkeypatch.setattr("irtools.measure.outputs.time.monotonic", lambda: clock[0])
    slow = _Slow(clock, seconds)
    feeds = [{"x": np.ones((2, 2), np.float32)} for _ in range(3)]
    answer = run_trial(slow, tmp_path, RunnerOptions(), feeds, None, {"sizes": {}}, {}, seconds=2.0)
    assert not answer["reason"]
    assert len(answer["outputs"]) == expected and len(answer["again"]) == 1
    assert slow.runs == expected + 1


def test_sizes_with_finite_outputs_are_preferred(tmp_path: Path) -> None:
    """Means of slots that no row falls into are 0 / 0, as for molecules without atoms."""
    found = model(
        "float[rows,4] x, int64[rows] place, float[slots] like",
        "<float zero = {0.0}, int64[1] ax = {1}> { l = Mul (like, zero) e = Unsqueeze (l, ax) "
        "z = MatMul (e, w) "
        's = Unsqueeze (place, ax) sums = ScatterND <reduction = "add"> (z, s, x) '
        "ones = Mul (x, zero) o = Exp (ones) "
        'counts = ScatterND <reduction = "add"> (z, s, o) y = Div (sums, counts) }',
        {"w": (1, 4)},
        "float[slots,4] y",
    )
    path = found.save(tmp_path / "m.onnx").files[0]
    drawn = DrawnInputs(found, TARGET, lambda: path)
    result = drawn.trial()
    assert result is not None and all(np.isfinite(one["y"]).all() for one in result.outputs)
    assert drawn.note.endswith("the usual ones give NaN or infinity")


def test_masks_whose_ones_hide_become_zeros(tmp_path: Path) -> None:
    """DETR's mask over pixels: ones leave a row without any key, and its softmax is 0 / 0."""
    found = model(
        "float[n,h,w] x, bool[n,h,w] mask",
        "<float low = {-inf}> { k = Where (mask, low, x) s = Softmax (k) y = Mul (s, x) }",
        {},
        "float[n,h,w] y",
    )
    path = found.save(tmp_path / "m.onnx").files[0]
    drawn = DrawnInputs(found, TARGET, lambda: path)
    result = drawn.trial()
    assert result is not None and all(np.isfinite(one["y"]).all() for one in result.outputs)
    assert "mask 0 everywhere" in drawn.note


def test_a_model_that_the_target_refuses_is_refused_each_time(tmp_path: Path) -> None:
    found = model("float[n,k] x", "{ y = acme.Swirl (x) }", {}, "float[n,k] y")
    path = found.save(tmp_path / "m.onnx").files[0]
    drawn = DrawnInputs(found, TARGET, lambda: path)
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="Swirl"):
            drawn.trial()


def test_outputs_that_are_never_finite_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irtools.measure.search._MOST_TRIES", 20)
    text = "<float no = {0.0}> { z = Mul (x, no) l = Log (z) y = Add (l, x) }"
    found = model("float[n,k] x", text, {}, "float[n,k] y")
    path = found.save(tmp_path / "m.onnx").files[0]
    drawn = DrawnInputs(found, TARGET, lambda: path)
    result = drawn.trial()
    assert result is not None and len(result.outputs) == 2
    assert not drawn.note and not drawn.reason


_SPEECH = ("float[n,s,4] x, float[n,3,h,w] picture", "{ y = MatMul (x, w) }", {"w": (4, 4)})


@pytest.mark.parametrize(
    ("seconds", "given", "sizes"),
    [
        (4.0, {}, {}),
        (12.0, {}, {"s": 16}),
        (12.0, {"s": 40}, {"s": 40}),
    ],
)
def test_inputs_of_a_slow_model_are_short(
    seconds: float, given: dict[str, int], sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.measure import drawable

    found = model(*_SPEECH, "float[n,s,4] y")

    def here(_: object, __: object, ___: object, *arguments: Any, **____: Any) -> Any:
        outputs = [{"y": np.ones((2, 16, 4), np.float32)} for _ in arguments[1]]
        about = {"changes": {}, "reason": "", "full_seconds": seconds}
        return {"outputs": outputs, "again": outputs[:1], **about}

    monkeypatch.setattr(drawable, "run_isolated", here)
    drawn = DrawnInputs(found, TARGET, lambda: Path(), sizes=given)
    assert drawn.trial() is not None
    assert (drawn.adapt(SyntheticSettings(sequence=128)).sizes or {}) == sizes
    expected = "inputs are drawn with s=16: the usual ones take 12 s a run" if seconds > 5 else ""
    assert drawn.note == ("" if given else expected)


def test_a_trial_tells_what_a_sample_of_the_usual_size_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = [0.0]
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"irtools.measure.trial.time.{name}", lambda: clock[0])
    feeds = [{"x": np.ones((2, 2), np.float32)}]
    answer = run_trial(
        _Slow(clock, 7.0), tmp_path, RunnerOptions(), feeds, feeds[0], {"sizes": {}}, {}
    )
    assert answer["full_seconds"] == 7.0
