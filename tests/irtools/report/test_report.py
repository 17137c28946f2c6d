"""The document, its table, and what is said about figures."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jsonschema
import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.driver.settings import Settings
from irtools.errors import DataError
from irtools.instruments.rollback import Rollback
from irtools.instruments.scores import FidelityFigure, MetricFigure
from irtools.instruments.sizes import Size
from irtools.instruments.speed import Latency, is_slower
from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.generate import GreedyText
from irtools.measure.machine import Machine
from irtools.report.document import Report, schema
from irtools.report.entries import DataEntry, ModelEntry, Row, TargetEntry
from irtools.report.plain import plain_data
from irtools.report.verdicts import judge_run, remark_on_data, remark_on_equal, remark_on_form
from irtools.targets import KernelReport, find_target
from irtools.words import printable, size_text


def _latency(low: float, value: float, high: float) -> Latency:
    ratio = Ratio(value, low, high)
    result = LatencyResult("m", "batch=1", 2.0, 2.5, 3.0, 500.0, 10**7, 0.1, 9, (2.0,), ratio)
    return Latency((result,))


def _row(index: int, text: str, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "index": index,
        "text": text,
        "modified": index > 0,
        "skipped": False,
        "counters": {"num-a": 3, "num-skipped-b": 2} if index else {},
        "changed": 3,
        "skipped_parts": 2 if index else 0,
        "notes": (),
        "checks": (),
        "seconds": {"pass": 1.0, "numerics": 0.5},
    }
    figures: dict[str, Any] = {
        "size": Size(10**8 // (index + 1), 10**8),
        "fidelity": FidelityFigure(math.inf, 0.0, 0.0, 1.0, 0.0, 1.0, 32),
    }
    keys = ("size", "fidelity", "latency", "metric", "greedy", "rollback")
    figures |= {key: changes.pop(key) for key in keys if key in changes}
    known = {key: figure for key, figure in figures.items() if figure is not None}
    return Row(**{**values, **changes}, figures=known)


def _report(*rows: Row) -> Report:
    data = DataEntry("test.npz", "0" * 64, 32, False, True)
    return Report(
        created="2026-01-01T00:00:00+00:00",
        model=ModelEntry("m\x1b[31m.onnx", "0" * 64, 5, 20),
        calibration=None,
        evaluation=data,
        target=TargetEntry("ort-cpu", "vnni", "onnxruntime 1"),
        machine=Machine("CPU", "vnni", 2, 2, "Linux"),
        versions={"irtools": "0"},
        pipeline=",".join(row.text for row in rows[1:]),
        passes=(),
        settings=Settings(threads=2, goals="max-drop=1%").entry(),
        bench=BenchSettings(),
        rows=rows,
        result=ModelEntry("result", "1" * 64, 4, 20),
        kernels=KernelReport({"MatMul": 1}),
        verdicts=judge_run(rows, None, None, data),
        seconds=3.0,
    )


def test_document_follows_its_schema_and_has_no_infinities() -> None:
    report = _report(_row(0, "original"), _row(1, "int8", latency=_latency(1.1, 1.2, 1.3)))
    document = report.to_dict()
    jsonschema.validate(document, schema())
    assert document["rows"][0]["figures"]["fidelity"]["sqnr_db"] == "inf"
    assert (
        document["rows"][1]["figures"]["latency"]["results"][0]["speedup"]["is_significant"] is True
    )


def test_a_report_reads_back_equal() -> None:
    metric = MetricFigure("accuracy", 0.974, 0.96, 0.98, 100)
    report = _report(
        _row(0, "original", metric=metric),
        _row(1, "int8", latency=_latency(1.1, 1.2, 1.3), metric=metric),
        _row(2, "prune", rollback=Rollback(4, 7, 0.009, math.inf, "max-drop=1%", "accuracy", 6)),
    )
    assert Report.from_json(report.to_json()) == report
    assert report.rows[1].latency[0].speedup.value == 1.2 and report.rows[2].metric is None


def test_a_figure_that_is_not_installed_is_kept_as_data() -> None:
    document = _report(_row(0, "original")).to_dict()
    document["rows"][0]["figures"]["carbon"] = {"grams": 1.5}
    read = Report.from_dict(document)
    assert read.rows[0].carbon == {"grams": 1.5} and str(read)
    assert read.to_dict() == document


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the report is not JSON"),
        ("[]", "the report is not a document of format 'irtools-report', but list"),
        ('{"format": "irtools-report", "version": 3}', "has version 3, expected 4"),
        ('{"format": "irtools-report", "version": 4}', "does not follow its schema"),
    ],
)
def test_what_is_not_a_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Report.from_json(text)


def test_schema_refuses_what_it_does_not_know() -> None:
    document = {**_report(_row(0, "original")).to_dict(), "surprise": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_table_is_a_view_of_the_document() -> None:
    drawn = Rollback(41, 74, 0.009, 0.05, "max-drop=1%", "accuracy", 6)
    metric = MetricFigure("accuracy", 0.974, 0.96, 0.98, 100)
    text = str(
        _report(
            _row(0, "original", metric=metric),
            _row(1, "cleanup", latency=_latency(0.98, 1.01, 1.04), metric=metric),
            _row(2, "prune:ratio=0.5", rollback=drawn, metric=metric),
        )
    )
    assert "1.01x [0.98, 1.04] within noise" in text
    assert "prune:ratio=0.5 (41 of 74 kept)" in text
    assert "rolled back to 41 of 74 decisions, to keep max-drop=1%" in text
    assert "50.0 MB (2.00x)" in text and "0.9740 [0.9600, 0.9800]" in text
    assert "equal" in text and "100.00 %" in text
    assert "\x1b" not in text and "m\\x1b[31m.onnx" in text


def _decoder(prefill: Ratio | None, decode: Ratio | None) -> Latency:
    rest = (2.0, 2.5, 3.0, 500.0, 10**7, 0.1, 9, (2.0,))
    return Latency(
        (
            LatencyResult(
                "m", "prefill batch=1 sequence=8", *rest, prefill, 2.0, 1, "prefill", 4e3
            ),
            LatencyResult("m", "decode batch=1 past=8", *rest, decode, 2.0, 1, "decode", 31.234),
        )
    )


def test_decoders_have_two_speeds_and_a_text() -> None:
    text = GreedyText(8, 16, 32, 6, 0.9, 11, "texts.jsonl")
    report = _report(
        _row(0, "original", latency=_decoder(None, None)),
        _row(
            1,
            "int4",
            latency=_decoder(Ratio(0.8, 0.7, 0.9), Ratio(3.0, 2.9, 3.1)),
            greedy=text,
        ),
    )
    jsonschema.validate(report.to_dict(), schema())
    shown = str(report)
    assert "prefill tok/s" in shown and "decode tok/s" in shown and "latency:" not in shown
    assert "4000  0.80x [0.70, 0.90]" in shown and "31.2  3.00x [2.90, 3.10]" in shown
    assert "at prefill batch=1 sequence=8 and decode batch=1 past=8" in " ".join(shown.split())
    assert "6/8" in shown
    said = "\n".join(v.text for v in judge_run(report.rows, None, None, None))
    assert "the result is slower than the original in prefill: 0.80x" in said
    assert "3.00x faster in decode [2.90, 3.10]" in said
    assert "same greedy text for 6 of 8 prompts, the first other token at 11 of 32" in said
    # What it lost on prompts it gained on the tokens after them.
    assert "made the model slower" not in said


def test_a_decoder_that_gained_nothing_is_slower() -> None:
    slow, even = Ratio(0.8, 0.7, 0.9), Ratio(1.0, 0.95, 1.05)
    before = _decoder(None, None)
    assert is_slower(before, _decoder(slow, even)) and is_slower(before, _decoder(even, slow))
    assert not is_slower(before, _decoder(even, even))
    assert not is_slower(_decoder(slow, even), _decoder(slow, even))
    assert is_slower(_decoder(even, Ratio(3.0, 2.9, 3.1)), _decoder(even, Ratio(2.0, 1.9, 2.1)))


def test_a_runtime_that_rounds_unasked_is_named() -> None:
    report = _report(_row(0, "original"))
    assert "computes in float32" in str(report) and "exact float32" not in str(report)
    target = TargetEntry("some-cpu", "amx", "runtime 1", "bfloat16")
    text = " ".join(str(dataclasses.replace(report, target=target)).split())
    assert "isa amx, computes in bfloat16" in text
    assert "this runtime computes in bfloat16 by default" in text


def test_the_pass_that_lost_says_what_it_would_try() -> None:
    low = FidelityFigure(17.4, 0.1, 0.1, 1.0, 0.0, None, 32)
    rows = (
        _row(0, "original"),
        _row(1, "prune", remedies=("never=shown",)),
        _row(2, "int8", fidelity=low, remedies=("a=1, which", "b=2, which")),
        _row(3, "dce", fidelity=low),
    )
    said = [v.text for v in judge_run(rows, None, None, None)]
    assert "int8 may keep more with a=1, which; or b=2, which" in said
    assert not any("never" in text for text in said)
    assert not any("keep more" in v.text for v in judge_run(rows[:2], None, None, None))


@pytest.mark.parametrize(("sqnr", "near"), [(54.0, True), (28.0, False)])
def test_answers_that_swap_at_many_decibels_ask_for_no_finer_weights(
    sqnr: float, near: bool
) -> None:
    result = FidelityFigure(sqnr, 0.002, 0.1, 1.0, 0.0, 0.9688, 32)
    rows = (_row(0, "original"), _row(1, "int8", fidelity=result, remedies=("a=1, which",)))
    said = "\n".join(v.text for v in judge_run(rows, None, None, None))
    assert "agreement with the original is 96.88 %" in said
    assert ("though the outputs keep 54.0 dB" in said) == near
    assert ("may keep more" in said) != near


def test_verdicts_name_what_a_reader_must_not_overlook() -> None:
    synthetic = DataEntry("synthetic data", "0" * 64, 32, True, False)
    bad = FidelityFigure(12.0, 0.25, 1.0, 0.9, 0.1, 0.9, 32, nonfinite=3)
    rows = (
        _row(0, "original"),
        _row(1, "int8", latency=_latency(0.5, 0.6, 0.7), fidelity=bad),
    )
    kernels = KernelReport({}, int8=4, float_fallbacks=("fc1", "fc2", "fc3", "fc4"))
    said = "\n".join(v.text for v in judge_run(rows, kernels, synthetic, synthetic))
    assert "calibrated on synthetic data" in said
    assert "int8 made the model slower" in said
    assert "one side only: 3 output values" in said
    low = "agreement with the original is 90.00 %, the signal-to-noise ratio 12.0 dB; check"
    assert low in said
    assert "although meant to be int8: 4 nodes (fc1, fc2, fc3 and 1 more)" in said
    assert "slower than the original: 0.60x" in said


@pytest.mark.parametrize(("own", "blames"), [(0.91, False), (0.9, False), (0.95, True)])
def test_what_the_runtime_itself_rounds_is_not_put_down_to_passes(own: float, blames: bool) -> None:
    """OpenVINO computes in bfloat16 by default: the original's own row does not agree either."""
    result = FidelityFigure(21.0, 0.1, 1.0, 0.9, 0.1, 0.91, 32)
    before = dataclasses.replace(result, agreement=own)
    rows = (_row(0, "original", fidelity=before), _row(1, "cleanup", fidelity=result))
    said = "\n".join(v.text for v in judge_run(rows, None, None, None))
    assert ("agreement with the original is 91.00 %; check" in said) == blames
    assert ("91.00 %, no lower than before any pass" in said) == (not blames)


def test_a_pass_that_changed_nothing_says_why() -> None:
    idle = {"modified": False, "notes": ("a note of its own",)}
    rows = (
        _row(0, "original"),
        _row(1, "int8:min-size=9", counters={"num-skipped-small": 4}, **idle),
        _row(2, "fuse", counters={}, **idle),
        _row(3, "prune", skipped=True, **idle),
    )
    phrases = {"int8:min-size=9": {"num-skipped-small": "weights are small"}}
    said = [v.text for v in judge_run(rows, None, None, None, phrases)]
    assert said[:2] == [
        "int8 changed nothing: weights are small (4)",
        "fuse changed nothing",
    ]
    assert not any("prune changed nothing" in text for text in said)


def test_counts_give_way_to_what_a_pass_says_itself() -> None:
    notes = ("nothing pruned: no unit has only zeros as weights",)
    idle = _row(1, "prune", counters={"num-groups-blocked": 1}, notes=notes, modified=False)
    said = [v.text for v in judge_run((_row(0, "original"), idle), None, None, None)]
    assert said[0] == "prune changed nothing"


def test_equal_outputs_on_drawn_inputs_are_called_in_question() -> None:
    rows = (_row(0, "original"), _row(1, "cleanup"), _row(2, "int8:min-size=9"))
    (said,) = remark_on_equal(rows, [False, True], True)
    assert "every output is equal although int8 changed weights" in said.text
    assert not list(remark_on_equal(rows, [False, True], False)), "real inputs"
    assert not list(remark_on_equal(rows, [False, False], True)), "passes that keep the function"
    moved = (*rows[:2], _row(2, "int8", fidelity=FidelityFigure(40.0, 0.0, 0.0, 1.0, 0.0, 1.0, 32)))
    assert not list(remark_on_equal(moved, [False, True], True))
    idle = (*rows[:2], _row(2, "int8", modified=False))
    assert not list(remark_on_equal(idle, [False, True], True))


def test_a_result_that_was_never_compared_says_so() -> None:
    rows = (_row(0, "original", fidelity=None), _row(1, "int8", fidelity=None))
    said = [v.text for v in judge_run(rows, None, None, None)]
    assert any("was not compared with the original" in text for text in said)
    idle = (rows[0], _row(1, "int8", fidelity=None, modified=False))
    assert not any("not compared" in v.text for v in judge_run(idle, None, None, None))
    assert "\n\n" not in str(_report(*rows))


def test_where_no_inputs_run_one_warning_says_so() -> None:
    rows = (_row(0, "original", fidelity=None), _row(1, "int8", fidelity=None))
    said = [v.text for v in judge_run(rows, None, None, None, undrawn="nothing runs")]
    assert [text for text in said if "compared" in text] == [
        "numbers were not compared, only structure was verified: nothing runs"
    ]


def test_nodes_beside_the_device_are_named() -> None:
    mixed = KernelReport({}, providers={"CPUExecutionProvider": 2, "CUDAExecutionProvider": 8})
    said = [v.text for v in judge_run((_row(0, "original"),), mixed, None, None)]
    assert said == ["on the CPU, because the device has no kernel for it: 2 of 10 nodes"]
    plain = KernelReport({}, providers={"CPUExecutionProvider": 10})
    assert judge_run((_row(0, "original"),), plain, None, None) == ()


def test_a_form_that_the_target_is_slow_at_is_named() -> None:
    dynamic = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2,4] x, int8[4,3] w) => (int32[2,3] y) '
        "{ q, s, z = DynamicQuantizeLinear (x) y = MatMulInteger (q, w, z) }"
    )
    (said,) = remark_on_form(dynamic, find_target("openvino-cpu", check=False))
    assert "dynamic int8 does not suit openvino-cpu" in said.text and "(1 node)" in said.text
    assert "int8:mode=static" in said.text
    assert list(remark_on_form(dynamic, find_target("ort-cpu"))) == []
    plain = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Neg (x) }'
    )
    assert list(remark_on_form(plain, find_target("openvino-cpu", check=False))) == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (25_000, "the result: 4.00x smaller"),
        (99_900, "the result: 100 B smaller"),
        (100_400, "the result: 400 B larger"),
        (101_000, "the result: 1.01x larger"),
        (100_000, None),
    ],
)
def test_a_factor_that_rounds_to_one_is_told_in_bytes(after: int, told: str | None) -> None:
    rows = (_row(0, "original", size=Size(100_000, 0)), _row(1, "cleanup", size=Size(after, 0)))
    found = [v.text for v in _report(*rows).verdicts if v.text.startswith("the result: ")]
    assert found == ([] if told is None else [told])


def test_what_was_done_to_data_is_in_the_report() -> None:
    data = Dataset({"x": np.zeros((2, 3))}, notes=("cut", "cast"))
    said = judge_run(
        (_row(0, "original"),), None, None, None, remarks=tuple(remark_on_data(data, None, data))
    )
    assert [v.text for v in said] == ["cut", "cast"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, ""), (999, "999 B"), (1000, "1.0 kB"), (23_400_000, "23.4 MB"), (2 * 10**9, "2.0 GB")],
)
def test_sizes(size: int | None, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ünïcode 模型", "plain ünïcode 模型"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nirc: done", "a\\x0airc: done"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_names_are_made_harmless(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_plain_data_knows_numpy_and_nan() -> None:
    @dataclass(frozen=True)
    class Sample:
        a: float
        b: np.float32
        c: np.int64
        d: tuple[str, ...]

    found = plain_data(Sample(float("nan"), np.float32(0.5), np.int64(3), ("x",)))
    assert found == {"a": "nan", "b": 0.5, "c": 3, "d": ["x"]}
