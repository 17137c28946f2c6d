"""Models against each other on the same samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.errors import DataError, IrtoolsError, UsageError
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.contest import Contest, ContestSettings
from irtools.measure.contest import contest as module
from irtools.measure.contest import samples as samples_module
from irtools.measure.timing import Contender
from irtools.metrics import fidelity
from irtools.model import Model
from irtools.targets import find_target

SILENT = ContestSettings(bench=None, metric="accuracy", threads=1, isolation="none")


def model_of(weight: np.ndarray, body: str = "", text: str = "float[b, 4] x") -> Model:
    """x [b, 4] -> logits [b, 3] by one MatMul."""
    numbers = ", ".join(str(float(number)) for number in weight.reshape(-1))
    columns = weight.shape[1]
    return Model.from_ir(
        ir.from_onnx_text(
            f"""<ir_version: 10, opset_import: ["" : 20]>
            g ({text}) => (float[b, {columns}] logits) <float[4, {columns}] w = {{{numbers}}}> {{
              {body or "logits = MatMul (x, w)"}
            }}"""
        )
    )


WEIGHT = np.random.default_rng(0).standard_normal((4, 3)).round(2)
RIGHT, WORSE = model_of(WEIGHT), model_of(WEIGHT[:, [1, 0, 2]])


@pytest.fixture
def data() -> Dataset:
    """Samples whose class is what `RIGHT` says."""
    x = np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32)
    return Dataset({"x": x}, (x @ WEIGHT).argmax(axis=1), "test.npz")


def on(target: str = "ort-cpu", **models: Model | Path) -> dict[str, Contender]:
    return {name: Contender(model, target) for name, model in models.items()}


def test_the_better_model_is_known_by_the_paired_difference(data: Dataset) -> None:
    result = Contest(on(right=RIGHT, same=RIGHT.clone(), worse=WORSE), data, SILENT).run()
    right, same, worse = result.standings
    assert (result.samples, result.source) == (64, "test.npz")
    assert right.evaluation is not None and worse.evaluation is not None
    assert right.evaluation.value == 1.0 and right.difference is None
    assert same.difference is not None and worse.difference is not None
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert worse.difference.value == worse.evaluation.value - 1
    assert worse.difference.high < 0 and worse.difference.is_significant
    assert same.fidelity is not None and same.fidelity.sqnr_db == np.inf
    wanted = {"logits": (data.feeds["x"] @ WEIGHT).astype(np.float32)}
    found = {"logits": wanted["logits"][:, [1, 0, 2]]}
    assert worse.fidelity is not None
    assert worse.fidelity.agreement == fidelity(wanted, found).agreement


def test_outputs_too_large_to_keep_change_nothing(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Contest(on(right=RIGHT, worse=WORSE), data, SILENT).run()
    monkeypatch.setattr(samples_module, "_KEPT_BYTES", 0)
    assert Contest(on(right=RIGHT, worse=WORSE), data, SILENT).run() == kept


def test_without_a_metric_outputs_alone_are_compared(data: Dataset) -> None:
    settings = ContestSettings(bench=None, samples=10, isolation="none")
    result = Contest(on(right=RIGHT, worse=WORSE), data, settings).run()
    worse = result.standings[1]
    assert worse.evaluation is None and worse.difference is None
    assert worse.fidelity is not None and worse.fidelity.samples == result.samples == 10


def lower_is_better(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """The error rate, as a metric that needs all outputs at once."""
    return float((outputs["logits"].argmax(axis=1) != labels).mean())


lower_is_better.larger_is_better = False  # type: ignore[attr-defined]


def test_a_metric_of_all_outputs_is_drawn_on_the_same_samples(data: Dataset) -> None:
    name = "error"
    metric = type("Error", (), {"name": name, "larger_is_better": False})()
    metric.__class__.__call__ = lambda _, outputs, labels: lower_is_better(outputs, labels)
    settings = ContestSettings(bench=None, metric=metric, isolation="none")
    by_share = Contest(on(right=RIGHT, worse=WORSE), data, SILENT).run().standings[1]
    found = Contest(on(right=RIGHT, worse=WORSE), data, settings).run().standings[1]
    assert found.difference is not None and by_share.difference is not None
    assert found.difference.value == pytest.approx(-by_share.difference.value)
    assert found.difference.low == pytest.approx(-by_share.difference.high, abs=0.03)
    assert found.evaluation is not None and not found.evaluation.larger_is_better


def test_a_model_of_fixed_sizes_sets_the_batches_of_all(data: Dataset) -> None:
    fixed = model_of(WEIGHT, text="float[8, 4] x", body="logits = MatMul (x, w)")
    result = Contest(on(right=RIGHT, fixed=fixed), data, SILENT).run()
    found = result.standings[1].fidelity
    assert found is not None and (found.samples, found.sqnr_db, found.agreement) == (64, np.inf, 1)
    other = model_of(WEIGHT, text="float[4, 4] x")
    with pytest.raises(UsageError, match="fixed takes exactly 8 at a time and other exactly 4"):
        Contest(on(fixed=fixed, other=other), data, SILENT).run()


def test_a_contender_may_have_its_own_form_of_the_samples(data: Dataset) -> None:
    """The second model takes its inputs the other way round."""
    turned = Dataset({"x": data.feeds["x"][:, ::-1]}, data.labels)
    contenders = on(right=RIGHT, turned=model_of(WEIGHT[::-1]))
    result = Contest(contenders, {"right": data, "turned": turned}, SILENT).run()
    difference = result.standings[1].difference
    assert difference is not None and (difference.low, difference.high) == (0, 0)
    with pytest.raises(DataError, match=r"turned has 3 samples and right 64"):
        Contest(contenders, {"right": data, "turned": turned.take(3)}, SILENT).run()


@pytest.mark.parametrize(
    ("other", "kind", "said"),
    [
        (
            model_of(WEIGHT[:, :2]),
            UsageError,
            r"logits of b has shape \[1, 2\], that of a \[1, 3\]",
        ),
        (
            model_of(WEIGHT, text="float[b, 4] y", body="logits = MatMul (y, w)"),
            DataError,
            r"b: test\.npz has no array for input y",
        ),
        (
            model_of(
                WEIGHT, text="double[b, 4] x", body="c = Cast <to=1> (x) logits = MatMul (c, w)"
            ),
            DataError,
            r"b: test\.npz: input 'x' is float32, the model takes float64",
        ),
    ],
)
def test_models_that_do_not_correspond(
    data: Dataset, other: Model, kind: type[IrtoolsError], said: str
) -> None:
    settings = ContestSettings(bench=None, threads=1)
    with pytest.raises(kind, match=said):
        Contest(on(a=RIGHT, b=other), data, settings).run()


def test_outputs_of_other_names(data: Dataset) -> None:
    renamed = RIGHT.clone()
    renamed.ir.graph.outputs[0].name = "answer"
    with pytest.raises(UsageError, match="b gives answer, and a gives logits: there is no output"):
        Contest(on(a=RIGHT, b=renamed), data, SILENT).run()
    both = model_of(WEIGHT, body="logits = MatMul (x, w)")
    both.ir.graph.outputs.append(renamed_output(both))
    result = Contest(on(a=both, b=RIGHT), data, SILENT).run()
    assert result.notes == ("b has no output more: left out of the comparison",)


def renamed_output(model: Model) -> ir.Value:
    node = ir.node("Identity", [model.ir.graph.outputs[0]])
    model.ir.graph.append(node)
    (value,) = node.outputs
    value.name, value.type = "more", ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(["b", 3])
    return value


def test_what_cannot_be_compared_is_refused_before_anything_runs(data: Dataset) -> None:
    with pytest.raises(UsageError, match="at least one contender"):
        Contest({}, data)
    with pytest.raises(UsageError, match="'accuracy' needs data to be measured on"):
        Contest(on(a=RIGHT), None, SILENT)
    bare = Dataset(data.feeds, None, "bare.npz")
    with pytest.raises(DataError, match=r"bare\.npz has no labels, and metric 'accuracy'"):
        Contest(on(a=RIGHT), bare, SILENT).run()
    with pytest.raises(UsageError, match="no data to score"):
        next(Contest(on(a=RIGHT), None, ContestSettings(bench=None)).scores())


class Timed:
    """What was to be timed, in place of the timing."""

    def __call__(
        self, contenders: Mapping[str, Contender], feeds: Mapping[str, Any], *_: object
    ) -> list[LatencyResult]:
        self.contenders, self.feeds = contenders, feeds
        return [
            LatencyResult(name, shape, 1.0 + index, 0, 0, 0, 0, 0, 3, (1.0 + index,) * 3)
            for shape in feeds
            for index, name in enumerate(contenders)
        ]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    found = Timed()
    monkeypatch.setattr(module, "measure", found)
    return found


def test_latency_stands_next_to_the_rest(data: Dataset, timed: Timed) -> None:
    settings = ContestSettings(BenchSettings(batch=(1, 2)), "accuracy", isolation="none")
    result = Contest(on(right=RIGHT, worse=WORSE), data, settings).run()
    assert [r.shape for r in result.standings[1].latency] == ["batch=1", "batch=2"]
    assert [(r.name, r.shape) for r in result.latency] == [
        (name, shape) for shape in ("batch=1", "batch=2") for name in ("right", "worse")
    ]
    assert all(standing.file_bytes > 100 for standing in result.standings)
    given = {"as given": {"x": np.ones((3, 4), np.float32)}}
    Contest(on(right=RIGHT, worse=WORSE), data, settings, timed_on=given).time()
    assert timed.feeds is given


def test_only_models_with_the_same_inputs_are_timed(timed: Timed) -> None:
    other = model_of(WEIGHT, text="float[b, 4] y", body="logits = MatMul (y, w)")
    with pytest.raises(UsageError, match="b takes y: float32 and a takes x: float32"):
        Contest(on(a=RIGHT, b=other)).run()


def test_a_file_of_a_runtime_is_a_contender(data: Dataset, timed: Timed, tmp_path: Path) -> None:
    made = find_target("ort-cpu").compile(RIGHT, tmp_path, "right", format="ort")
    settings = ContestSettings(metric="accuracy", threads=1, isolation="none")
    result = Contest(on(file=made.files[0], model=RIGHT), data, settings).run()
    first, second = result.standings
    assert second.difference is not None and second.difference.value == 0
    assert second.fidelity is not None and second.fidelity.sqnr_db > 100
    assert first.file_bytes == made.files[0].stat().st_size


def test_padding_and_labels_of_tokens_are_left_out() -> None:
    """Texts of two lengths run in batches of their own; the class of a token is its parity."""
    table = [[1.0, 0.0], [0.0, 1.0]] * 3
    numbers = ", ".join(str(x) for row in table for x in row)

    def tagger(body: str) -> Model:
        return Model.from_ir(
            ir.from_onnx_text(
                f"""<ir_version: 10, opset_import: ["" : 20]>
                g (int64[b, s] input_ids, int64[b, s] attention_mask) => (float[b, s, 2] logits)
                <float[6, 2] w = {{{numbers}}}> {{ {body} }}"""
            )
        )

    right = tagger("logits = Gather (w, input_ids)")
    turned = tagger("e = Gather (w, input_ids) logits = Neg (e)")
    ids = np.arange(24).reshape(6, 4) % 6
    mask = np.ones((6, 4), np.int64)
    mask[::2, 3] = 0
    labels = np.where(mask == 1, ids % 2, -100)
    labels[1, 0] = 1 - labels[1, 0]
    data = Dataset({"input_ids": ids, "attention_mask": mask}, labels, "tags.npz")
    first, same, other = (
        Contest(on(a=right, b=right.clone(), c=turned), data, SILENT).run().standings
    )
    assert first.evaluation is not None and other.evaluation is not None
    assert first.evaluation.value == pytest.approx(20 / 21)
    assert other.evaluation.value == pytest.approx(1 / 21)
    # No mean over samples: drawn, with the same samples for both.
    assert same.difference is not None and (same.difference.low, same.difference.high) == (0, 0)
    assert other.difference is not None and other.difference.high < -0.5


def test_sizes_that_the_data_decides_may_differ() -> None:
    def finder(threshold: float) -> Model:
        return Model.from_ir(
            ir.from_onnx_text(
                f"""<ir_version: 10, opset_import: ["" : 20]>
                g (float[b, 4] x) => (float[n] found) <float t = {{{threshold}}}> {{
                  big = Greater (x, t)
                  one = Constant <value_ints = [-1]> ()
                  flat = Reshape (big, one)
                  found = Compress (x, flat)
                }}"""
            )
        )

    data = Dataset({"x": np.array([[0, 1, 2, 3], [0, 0, 0, 3]], np.float32)})
    settings = ContestSettings(bench=None, threads=1, isolation="none")
    result = Contest(on(a=finder(0.5), b=finder(1.5)), data, settings).run()
    assert result.standings[1].fidelity is not None
    assert result.standings[1].fidelity.same_shape == 0.5


@pytest.mark.openvino
def test_targets_are_mixed(data: Dataset, timed: Timed, tmp_path: Path) -> None:
    made = find_target("openvino-cpu").compile(WORSE, tmp_path, "worse")
    contenders = {
        "ort": Contender(RIGHT, "ort-cpu"),
        "openvino": Contender(RIGHT, "openvino-cpu"),
        "compiled": Contender(made.files[0], "openvino-cpu"),
    }
    settings = ContestSettings(metric="accuracy", threads=1, isolation="none")
    result = Contest(contenders, data, settings).run()
    ort, openvino, compiled = result.standings
    assert openvino.difference is not None and compiled.difference is not None
    assert openvino.difference.value == 0 and openvino.fidelity is not None
    assert openvino.fidelity.agreement == 1 and openvino.fidelity.sqnr_db > 30
    assert compiled.difference.is_significant and compiled.difference.value < 0
    assert compiled.file_bytes == sum(f.stat().st_size for f in tmp_path.glob("worse.*"))
    assert [c.target for c in timed.contenders.values()] == [s.target for s in result.standings]
    assert ort.fidelity is not None and ort.fidelity.sqnr_db == np.inf


def test_a_child_process_that_times_a_model_loads_nothing_of_this() -> None:
    """Its peak memory is a figure of the model."""
    code = "import sys, irtools.measure.jobs; print([m for m in sys.modules if 'contest' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def with_tables(words: int) -> Model:
    """ids and types [b, s] -> sums of rows; the table of types has two rows in every model."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (int64[b, s] ids, int64[b, s] types) => (float[b, s, 1] y)
    <float[{words}, 1] w = {{{", ".join(["1.0"] * words)}}}, float[2, 1] t = {{1.0, 2.0}}> {{
      a = Gather (w, ids)
      c = Gather (t, types)
      y = Add (a, c)
    }}"""
    return Model.from_ir(ir.from_onnx_text(text))


def test_ids_are_drawn_for_the_smallest_of_each_table() -> None:
    many = on(whole=with_tables(4000), trimmed=with_tables(3), middle=with_tables(50))
    bench = BenchSettings(rounds=3, block_seconds=0.01)
    settings = ContestSettings(bench, isolation="none", threads=1)
    assert {found.name for found in Contest(many, None, settings).time()} == set(many)
