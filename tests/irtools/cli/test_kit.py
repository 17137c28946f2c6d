"""Models that are timed elsewhere: `irc bench --kit` and `--on`, and `irc report --merge`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from irtools.measure.base import LatencyResult

_FAST = ("--no-bench", "--no-check", "-o", "model.opt.onnx", "--force")


def test_a_kit_is_packed_and_merged(irc: Callable) -> None:
    assert irc("optimize", "model.onnx", "-p", "cleanup", *_FAST, "--json", "r.json").code == 0
    found = irc("bench", "model.onnx", "model.opt.onnx@ort-cpu:isa=arm-dot", "--kit", "kit.zip")
    assert found.code == 0 and "there: python kit.zip -o result.json" in found.err
    _answer(Path("kit.zip"))
    found = irc("report", "r.json", "--merge", "result.json", "-o", "merged.json")
    assert found.code == 0, found.err
    merged = json.loads(Path("merged.json").read_text(encoding="utf-8"))
    jsonschema.validate(merged, json.loads(irc("report", "--schema").out))
    assert [one["machine"]["name"] for one in merged["elsewhere"]] == ["board"]
    for form in ("table", "markdown", "html"):
        assert "on board (A76, 4 threads" in irc("report", "merged.json", "--format", form).out
    again = irc("report", "merged.json", "--merge", "result.json", "--format", "json")
    assert len(json.loads(again.out)["elsewhere"]) == 1
    assert irc("optimize", "model.onnx", "-p", "cleanup,int8", *_FAST, "--json", "o.json").code == 0
    found = irc("report", "o.json", "--merge", "result.json")
    assert found.code == 3 and found.err.count("\n") == 1
    assert "result.json is about other models: model.onnx, model.opt.onnx" in found.err


def _answer(kit: Path) -> None:
    """Write `result.json` as the kit would, with invented times; it runs in another test."""
    with zipfile.ZipFile(kit) as packed:
        document = json.loads(packed.read("kit.json"))
    times = {"medians": [0.002] * 3, "p90": 0.003, "p99": 0.004, "mean": 0.002, "runs": 9}
    more = {"peak_bytes": 10, "load_seconds": 0.1, "first_seconds": 0.2}
    models = [
        {k: one[k] for k in ("name", "target", "sha256", "files")} for one in document["models"]
    ]
    result = {
        "format": "irtools-kit-result",
        "version": 1,
        "kit": document["kit"],
        "machine": {"name": "board", "cpu": "A76", "cores": 4, "system": "Linux", "threads": 4},
        "versions": {"onnxruntime": "1.20"},
        "models": models,
        "results": [{"name": m["name"], "shape": "batch=1", **times, **more} for m in models],
    }
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")


def test_what_is_timed_elsewhere_is_told(irc: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from irtools.driver import elsewhere
    from irtools.measure.kit import Host, KitTimes, OtherMachine, TimedModel

    def run(host: Host, kit: Path, identity: str, seconds: float) -> KitTimes:
        assert host.name == "board" and kit.stat().st_size > 0
        here = LatencyResult("model.onnx", "batch=1", 7.25, 8.0, 9.0, 1.0, 10, 0.1, 3, (7.25,) * 3)
        model = TimedModel("model.onnx", "ort-cpu:isa=arm-dot", "0" * 64, ())
        return KitTimes(
            identity, OtherMachine("board", "A76", 4, "Linux", 4), {}, (model,), (here,)
        )

    monkeypatch.setattr(elsewhere, "run_on", run)
    line = ("bench", "model.onnx", "--target", "ort-cpu:isa=arm-dot")
    found = irc(*line, "--on", "ssh://board", "--json", "-")
    assert found.code == 0 and "timed on board: A76, 4 threads" in found.err
    document = json.loads(found.out)
    assert document["timed_on"]["cpu"] == "A76" and document["results"][0]["median_ms"] == 7.25
    assert irc(*line, "--on", "board").code == 2
    assert irc(*line, "--on", "ssh://board", "--kit", "kit.zip").code == 2
    assert irc(*line, "--kit", "kit.zip", "--evaluate", "data.npz").code == 2
    found = irc(*line)
    assert found.code == 2 and "time it there with --kit or --on" in found.err
