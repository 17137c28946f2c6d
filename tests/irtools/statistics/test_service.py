"""The service on whole models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from irtools.data import Dataset
from irtools.errors import DataError, UnsupportedError
from irtools.statistics import (
    ChannelMean,
    ChannelRange,
    ChannelSquare,
    CollectionSettings,
    Count,
    Gram,
    GramResult,
    HeadGram,
    Histogram,
    HistogramResult,
    MinMax,
    MinMaxResult,
    Reduction,
    StreamingStatistics,
    TurnedPeak,
    Want,
)
from irtools.targets import Feeds, KernelReport, RunnerOptions

TOKENS = """
<ir_version: 8, opset_import: ["" : 17]>
tokens (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
    => (float[batch, sequence, 4] out) {
  rows = Gather (table, input_ids)
  wide = MatMul (rows, w)
  act = Relu (wide)
  out = Add (act, act)
}
"""


class PlainRunner:
    """A plain session, one thread, so that these tests need no backend of ours."""

    def __init__(self, model: ir.Model, options: RunnerOptions) -> None:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        self._session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), settings)
        self.output_names = [output.name for output in self._session.get_outputs()]
        self.input_names = [given.name for given in self._session.get_inputs()]
        self.runs = 0

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        names = list(self.output_names if outputs is None else outputs)
        self.runs += 1
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def kernels(self) -> KernelReport:
        return KernelReport()

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> PlainRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def token_model() -> ir.Model:
    model = ir.from_onnx_text(TOKENS)
    rng = np.random.default_rng(0)
    for name, shape in (("table", (50, 3)), ("w", (3, 4))):
        tensor = ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        uses = [v for n in model.graph for v in n.inputs if v is not None and v.name == name]
        uses[0].const_value = tensor
        model.graph.register_initializer(uses[0])
    return model


def token_data(left: bool = False) -> Dataset:
    rng = np.random.default_rng(1)
    lengths = np.array([9, 4, 4, 7, 1, 9, 2])
    places = np.arange(9)
    mask = (places >= 9 - lengths[:, None]) if left else (places < lengths[:, None])
    # Padding is given the id whose row is the largest, so that counting it would show.
    ids = np.where(mask, rng.integers(1, 50, mask.shape), 0)
    return Dataset({"input_ids": ids, "attention_mask": mask.astype(np.int64)})


def make(
    model: ir.Model, data: Dataset, settings: CollectionSettings | None = None
) -> tuple[StreamingStatistics, list[PlainRunner]]:
    made: list[PlainRunner] = []

    def make_runner(copy: ir.Model, options: RunnerOptions) -> PlainRunner:
        made.append(PlainRunner(copy, options))
        return made[-1]

    return StreamingStatistics(model, data, make_runner, settings or CollectionSettings()), made


def rows_of(data: Dataset, model: ir.Model) -> np.ndarray:
    """Return `act` at every token that is not padding, [n, 4], by numpy."""
    weights = {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}
    acts = np.maximum(weights["table"][data.feeds["input_ids"]] @ weights["w"], 0)
    return acts[data.feeds["attention_mask"].astype(bool)]


def _turned(x: np.ndarray) -> np.ndarray:
    """Channels 0 and 2 turned by up to one radian, by trying many angles."""
    pair = (x[:, 0] + 1j * x[:, 2]) * np.exp(1j * np.linspace(0, 1, 4001))[:, None]
    peaks = abs(x).max(axis=0)
    peaks[[0, 2]] = abs(pair.real).max(), abs(pair.imag).max()
    return np.asarray(peaks)


REDUCTIONS: list[Reduction] = [
    MinMax(),
    Histogram(),
    ChannelRange(),
    ChannelMean(),
    ChannelSquare(),
    TurnedPeak(((0, 2),), (1.0,)),
    Count(),
    Gram(),
    Gram(against="rows"),
    HeadGram(2),
]


@pytest.mark.parametrize("left", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_answers_equal_numpy_without_padding(left: bool, batch: int) -> None:
    model, data = token_model(), token_data(left)
    service, _ = make(model, data, CollectionSettings(batch=batch))
    answers = service.collect([Want("act", r) for r in REDUCTIONS])
    x = rows_of(data, model).astype(np.float64)
    spread = answers[Want("act", MinMax())]
    assert isinstance(spread, MinMaxResult)
    assert (spread.low, spread.high) == pytest.approx((x.min(), x.max()), rel=1e-6)
    counted = answers[Want("act", Histogram())]
    assert isinstance(counted, HistogramResult)
    assert counted.counts.sum() == x.size
    assert counted.counts[counted.centers == 0].sum() == (x == 0).sum()
    for reduction, expected in (
        (ChannelRange(), np.stack([x.min(axis=0), x.max(axis=0)])),
        (ChannelMean(), x.mean(axis=0)),
        (ChannelSquare(), np.square(x).mean(axis=0)),
        (TurnedPeak(((0, 2),), (1.0,)), _turned(x)),
        (Count(), np.array(len(x))),
    ):
        np.testing.assert_allclose(answers[Want("act", reduction)], expected, rtol=1e-5)
    gram = answers[Want("act", Gram(against="rows"))]
    assert isinstance(gram, GramResult)
    assert gram.count == len(x) == 36
    np.testing.assert_allclose(gram.xx[:4, :4], x.T @ x, rtol=1e-5)
    assert gram.xy is not None
    assert gram.xy.shape == (5, 3)
    whole = np.concatenate([x.reshape(-1, 2, 2), np.ones((36, 2, 1))], axis=2).transpose(1, 0, 2)
    by_head = answers[Want("act", HeadGram(2))]
    np.testing.assert_allclose(by_head, whole.transpose(0, 2, 1) @ whole, rtol=1e-5)


def test_the_model_is_not_changed() -> None:
    model = token_model()
    before = ir.to_proto(model).SerializeToString()
    make(model, token_data())[0].collect([Want("act", MinMax())])
    assert ir.to_proto(model).SerializeToString() == before


def test_one_sweep_where_memory_allows_and_nothing_twice() -> None:
    service, made = make(token_model(), token_data())
    first = service.collect([Want("act", MinMax()), Want("wide", Histogram())])
    assert (service.figures.sweeps, len(made)) == (1, 1)
    again = service.collect([Want("wide", Histogram())])
    assert again[Want("wide", Histogram())] is first[Want("wide", Histogram())]
    assert (service.figures.sweeps, len(made)) == (1, 1)


def test_waves_under_a_small_limit_give_the_same_answers() -> None:
    wants = [Want(n, r) for n in ("rows", "wide", "act") for r in (Histogram(), Gram())]
    whole = make(token_model(), token_data())[0].collect(wants)
    service, _ = make(token_model(), token_data(), CollectionSettings(memory_limit=600_000))
    parts = service.collect(wants)
    assert service.figures.sweeps > 1
    assert service.figures.peak_bytes <= 600_000
    for want in wants:
        a, b = whole[want], parts[want]
        if isinstance(a, HistogramResult):
            assert isinstance(b, HistogramResult)
            assert np.array_equal(a.counts, b.counts)
        else:
            assert isinstance(a, GramResult)
            assert isinstance(b, GramResult)
            np.testing.assert_allclose(a.xx, b.xx, rtol=1e-5)


def test_memory_does_not_grow_with_the_samples() -> None:
    data = token_data()
    many = data.select(np.tile(np.arange(len(data)), 20))
    peaks = []
    for given in (data, many):
        service, _ = make(token_model(), given, CollectionSettings(batch=1))
        service.collect([Want("act", Histogram()), Want("wide", MinMax())])
        peaks.append(service.figures.peak_bytes)
    assert peaks[0] == peaks[1]


def test_graph_inputs_are_read_from_the_feeds() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,2] x) => (float[n,2] y) '
        "{ y = Relu (x) }"
    )
    x = np.array([[1, -3], [2, 0]], np.float32)
    answers = make(model, Dataset({"x": x}))[0].collect([Want("x", MinMax()), Want("y", MinMax())])
    assert answers[Want("x", MinMax())] == MinMaxResult(-3.0, 2.0)
    assert answers[Want("y", MinMax())] == MinMaxResult(0.0, 2.0)


def test_outputs_and_tensors_without_type_information() -> None:
    model = token_model()
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.type, value.shape = None, None
    wants = [Want(name, MinMax()) for name in ("out", "wide", "act")]
    answers = make(model, token_data())[0].collect(wants)
    top, act = answers[wants[0]], answers[wants[2]]
    assert isinstance(top, MinMaxResult)
    assert isinstance(act, MinMaxResult)
    assert top.high == 2 * act.high > 0


def test_nan_inside_the_model_is_counted() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,2] x) => (float[n,2] y) '
        "{ l = Log (x) y = Relu (l) }"
    )
    x = np.array([[1, -3], [2, 0]], np.float32)
    answer = make(model, Dataset({"x": x}))[0].collect([Want("l", MinMax())])
    assert answer[Want("l", MinMax())] == MinMaxResult(0.0, pytest.approx(np.log(2)), 2)


SUBGRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (bool c, float[n,2] x) => (float[n,2] y) {
  y = If (c) <then_branch = t () => (float[n,2] a) { a = Relu (x) },
              else_branch = e () => (float[n,2] b) { b = Neg (x) }>
}
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "no tensor named 'nothing'"),
        ("w", "'w' is a weight"),
        ("input_ids", "'input_ids' holds INT64"),
    ],
)
def test_tensors_that_cannot_be_observed(name: str, reason: str) -> None:
    service, made = make(token_model(), token_data())
    with pytest.raises(UnsupportedError, match=reason):
        service.collect([Want(name, MinMax())])
    assert not made


def test_tensors_inside_subgraphs_are_named() -> None:
    model = ir.from_onnx_text(SUBGRAPH)
    service, _ = make(model, Dataset({"x": np.zeros((1, 2), np.float32)}))
    with pytest.raises(UnsupportedError, match="'a' is inside a subgraph"):
        service.collect([Want("a", MinMax())])


def test_data_that_does_not_fit_is_refused_before_a_run() -> None:
    service, made = make(token_model(), Dataset({"input_ids": np.zeros((2, 3), np.int64)}))
    with pytest.raises(DataError, match="no array for input attention_mask"):
        service.collect([Want("act", MinMax())])
    assert not made


def test_progress_counts_samples() -> None:
    steps: list[tuple[str, int, int]] = []

    class Recorder:
        def step(self, label: str, done: int, total: int) -> None:
            steps.append((label, done, total))

    service = StreamingStatistics(
        token_model(), token_data(), PlainRunner, CollectionSettings(batch=4), Recorder()
    )
    service.collect([Want("act", MinMax())])
    assert steps[-1] == ("calibrating", 7, 7)
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
