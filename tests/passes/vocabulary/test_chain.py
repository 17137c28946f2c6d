"""A chain whose last link has a vocabulary of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from irtools import optimize
from irtools.data import DataSettings
from irtools.driver.chain import Chain, ChainSource, ChainStage, measure_chain, ratios_on_target
from irtools.driver.contenders import read_for_contenders
from irtools.measure.base import LatencyResult
from irtools.measure.contest import Contest, ContestSettings
from irtools.measure.timing import Contender
from irtools.model import Model
from irtools.targets import find_target


def _chain(task: Path, *pipelines: str) -> Chain:
    target = find_target("ort-cpu")
    source = ChainSource(str(task / "model.onnx"), DataSettings(tokenizer=task))
    stages = [ChainStage("baseline", target, source)]
    stages += [ChainStage(pipeline, target, source, pipeline) for pipeline in pipelines]
    half, data = (str(task / "data" / name) for name in ("half.jsonl", "all.jsonl"))
    return Chain(tuple(stages), half, data, "accuracy", bench=None, threads=1)


def test_a_link_reads_text_with_its_own_tokenizer(task: Path) -> None:
    pipeline = "trim-vocabulary"
    baseline, trimmed = measure_chain(_chain(task, pipeline))
    data = task / "data"
    report = optimize(
        task / "model.onnx",
        pipeline,
        calibration=data / "half.jsonl",
        evaluation=data / "all.jsonl",
        data=DataSettings(tokenizer=task),
        bench=None,
        threads=1,
    ).report
    for link, row in zip((baseline, trimmed), report.rows, strict=True):
        assert row.metric is not None
        assert row.fidelity is not None
        assert link.score.evaluation.value == row.metric.value
        assert link.score.agreement == pytest.approx(row.fidelity.agreement)
    assert trimmed.file_bytes < baseline.file_bytes
    assert baseline.score.agreement == 1


def test_models_with_tokenizers_of_their_own_are_compared(task: Path, tmp_path: Path) -> None:
    data = task / "data"
    made = optimize(
        task / "model.onnx",
        "trim-vocabulary",
        calibration=data / "half.jsonl",
        data=DataSettings(tokenizer=task),
        bench=None,
        check=False,
        threads=1,
    ).model
    made.save(tmp_path / "small.onnx")
    for name, content in made.companions.items():
        (tmp_path / name).write_bytes(content)
    models = (Model.load(task / "model.onnx"), Model.load(tmp_path / "small.onnx"))
    contenders = {str(n): Contender(model, "ort-cpu") for n, model in enumerate(models)}
    samples = read_for_contenders(str(data / "half.jsonl"), contenders, DataSettings())
    ids = [own.feeds["input_ids"].max() for own in samples.values()]
    assert ids[1] < ids[0]
    settings = ContestSettings(bench=None, metric="accuracy", isolation="none")
    small = Contest(contenders, samples, settings).run().standings[1]
    assert small.fidelity is not None and small.fidelity.agreement == 1
    assert small.difference is not None and (small.difference.low, small.difference.high) == (0, 0)


def _timed(name: str, milliseconds: float) -> tuple[LatencyResult, ...]:
    blocks = (milliseconds, milliseconds, milliseconds)
    return (LatencyResult(name, "batch=1", milliseconds, 0, 0, 0, 0, 0, 3, blocks),)


def test_ratios_are_those_of_one_runtime(task: Path) -> None:
    source = ChainSource(str(task / "model.onnx"))
    targets = [find_target(name, check=False) for name in ("ort-cpu", "openvino-cpu")]
    stages = tuple(ChainStage(name, t, source) for t in targets for name in ("baseline", "small"))
    chain = Chain(stages, "", "", "accuracy")
    timed = [_timed(str(n), ms) for n, ms in enumerate((8.0, 2.0, 6.0, 2.0))]
    found = [result.speedup for (result,) in ratios_on_target(chain, timed)]
    assert found[0] is None
    assert found[2] is None
    assert found[1] is not None
    assert found[1].value == pytest.approx(4)
    assert found[3] is not None
    assert found[3].value == pytest.approx(3)
