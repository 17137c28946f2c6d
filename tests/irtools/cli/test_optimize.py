"""The main job, as a user calls it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from irtools.model import Model
from irtools.passes.quantization.int8 import Int8
from irtools.report.document import schema

_FAST = ("--no-bench", "--no-check")


def test_without_data_and_output_name(irc: Callable, tmp_path: Path) -> None:
    before = (tmp_path / "model.onnx").read_bytes()
    found = irc("optimize", "model.onnx", "--passes", "cleanup,int8", *_FAST)
    assert found.code == 0 and found.out == ""
    assert "irc: wrote model.opt.onnx" in found.err
    small, original = Model.load("model.opt.onnx"), Model.load("model.onnx")
    assert small.interface.inputs == original.interface.inputs
    assert small.interface.outputs == original.interface.outputs
    assert small.weight_bytes < 0.5 * original.weight_bytes
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_report_follows_its_schema(irc: Callable) -> None:
    found = irc(
        *("optimize", "model.onnx", "--passes", "cleanup,int8", "--calibrate", "data.npz"),
        *("--evaluate", "data.npz", "--max-drop", "5%", "--json", "-", "-o", "small.onnx"),
        "--no-bench",
    )
    assert found.code == 0
    report = json.loads(found.out)
    jsonschema.validate(report, schema())
    assert [row["text"] for row in report["rows"]] == ["original", "cleanup", "int8"]
    assert report["rows"][0]["figures"]["metric"]["value"] == 1.0
    assert report["rows"][1]["checks"] == ["verifier", "numerics"]
    assert report["calibration"]["source"].endswith("data.npz")
    assert report["result"]["sha256"] == Model.load("small.onnx").fingerprint()
    assert set(report["artifact"]["files"]) == {"small.onnx"}


def test_benchmarked_rows_have_ratios(irc: Callable) -> None:
    found = irc("optimize", "model.onnx", "--passes", "cleanup", "--json", "report.json")
    assert found.code == 0 and "faster" in found.err
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, schema())
    original, cleaned = (row["figures"]["latency"]["results"][0] for row in report["rows"])
    assert original["speedup"] is None and original["median_ms"] > 0
    ratio = cleaned["speedup"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]


def test_a_folder_gets_the_artifact_and_the_report(irc: Callable, tmp_path: Path) -> None:
    found = irc("optimize", "model.onnx", "--passes", "cleanup", "-o", "out/", *_FAST)
    assert found.code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.onnx", "report.json"}
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, schema())


def test_what_a_folder_lacks_for_generation_is_said(
    irc: Callable, tmp_path: Path, talks: Callable[..., Path], cached_decoder: Model
) -> None:
    talks(tmp_path / "llm", cached_decoder, eos_token_id=None)
    found = irc("optimize", "llm/model.onnx", "--passes", "cleanup", "-o", "out/", *_FAST)
    assert found.code == 0
    assert "irc: note: no genai_config.json for onnxruntime-genai: config.json next" in found.err


def test_existing_output_and_the_input_are_safe(irc: Callable, tmp_path: Path) -> None:
    (tmp_path / "taken.onnx").write_text("mine")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "model.onnx")
    optimize = ("optimize", "model.onnx", "--passes", "cleanup", *_FAST, "-o")
    assert irc(*optimize, "taken.onnx").code == 2
    assert (tmp_path / "taken.onnx").read_text() == "mine"
    for same in ("model.onnx", "./model.onnx", "link.onnx"):
        found = irc(*optimize, same, "--force")
        assert found.code == 2 and "is the input" in found.err
    assert irc(*optimize, "no/such/folder.onnx").code == 6
    assert irc(*optimize, "taken.onnx", "--force").code == 0
    assert Model.load(tmp_path / "taken.onnx").interface


def test_same_input_same_bytes(irc: Callable, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        assert irc("optimize", "model.onnx", "-p", "cleanup,int8", "-o", name, *_FAST).code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_pipeline_from_a_file(irc: Callable, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[[pass]]\nname = "int8"\nmode = "dynamic"\n')
    found = irc("optimize", "model.onnx", "--pipeline", "p.toml", "--json", "-", *_FAST)
    assert json.loads(found.out)["pipeline"] == "int8:mode=dynamic"
    assert irc("optimize", "model.onnx", "--pipeline", "no.toml").code == 6


def test_sensitivity_ranks_measures_and_advises(irc: Callable) -> None:
    ranked = ("sensitivity", "model.onnx", "-p", "cleanup,int8:mode=static:min-size=0")
    found = irc(*ranked, "--calibrate", "data.npz", "--measure", "1", "--top", "1")
    assert found.code == 0
    assert "measured alone" in found.out and "1 more row: --top 2" in found.out
    found = irc(*ranked, "--json", "-")
    document = json.loads(found.out)
    assert document["format"] == "irtools-sensitivity" and len(document["rows"]) == 2
    assert sum(row["share"] for row in document["rows"]) == pytest.approx(1)
    refused = irc("sensitivity", "model.onnx", "-p", "cleanup")
    assert refused.code == 2 and "makes no plan" in refused.err


def test_a_plan_is_printed_edited_and_replayed(irc: Callable, tmp_path: Path) -> None:
    found = irc("plan", "model.onnx", "-p", "cleanup,int8:mode=dynamic", "--json", "-")
    assert found.code == 0
    plan = json.loads(found.out)
    assert plan["pass"] == "int8:mode=dynamic" and len(plan["decisions"]) == 2
    plan["decisions"] = plan["decisions"][:1]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    passes = ("-p", "cleanup,int8:mode=dynamic", "--plan", "plan.json")
    replayed = irc("optimize", "model.onnx", *passes, "--json", "-", *_FAST)
    assert replayed.code == 0
    half = json.loads(replayed.out)["rows"][-1]["figures"]["size"]["weight_bytes"]
    whole = Model.load("model.onnx").weight_bytes
    assert 0.5 * whole < half < 0.75 * whole
    wrong = irc(
        "optimize", "model.onnx", "-p", "cleanup", "--plan", "plan.json", "-o", "b.onnx", *_FAST
    )
    assert wrong.code == 2 and "not in the pipeline" in wrong.err


def test_bisect_limit_and_ir_prints(irc: Callable, tmp_path: Path) -> None:
    found = irc(
        *("optimize", "model.onnx", "-p", "cleanup,int8", "--bisect-limit", "1"),
        *("--print-ir-after", "cleanup", "--dump-ir", "ir", *_FAST),
    )
    assert found.code == 0
    assert "BISECT: running pass (1) cleanup" in found.err
    assert "BISECT: NOT running pass (2) int8" in found.err and "int8 (not run)" in found.err
    assert [path.name for path in (tmp_path / "ir").iterdir()] == ["01-cleanup.after.txt"]
    assert "Identity" not in (tmp_path / "ir/01-cleanup.after.txt").read_text(encoding="utf-8")


def test_a_wreck_is_not_written(
    irc: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir as ir

    from irtools.passmanager import PassResult

    def ruin(self: Int8, model: ir.Model, ctx: object) -> PassResult:
        value = model.graph.initializers["w2"]
        assert value.const_value is not None
        value.const_value = ir.tensor(-value.const_value.numpy(), name="w2")
        return PassResult(modified=True)

    monkeypatch.setattr(Int8, "run", ruin)
    call = ("optimize", "model.onnx", "-p", "int8", "--evaluate", "data.npz", "--no-bench")
    found = irc(*call)
    assert found.code == 5 and "accuracy falls from 1.0000" in found.err
    assert not (tmp_path / "model.opt.onnx").exists()
    guarded = irc(*call, "--max-drop", "5%")
    assert guarded.code == 0 and "int8 (dropped)" in guarded.err


def test_data_that_does_not_fit(irc: Callable, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", y=np.zeros((4, 64), np.float32))
    found = irc("optimize", "model.onnx", "-p", "int8", "--calibrate", "other.npz")
    assert found.code == 3 and "input x" in found.err


def test_one_axis_has_one_size(irc: Callable) -> None:
    found = irc("optimize", "model.onnx", "-p", "cleanup", "--fix", "N=1", "--fix", "N=2")
    assert found.code == 2 and "N is both 1 and 2" in found.err


def test_without_checks_and_benchmark_no_model_runs(
    irc: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a runner was asked for")

    monkeypatch.setattr("irtools.backends.onnxruntime.target.OrtCpu.runner", refuse)
    found = irc("optimize", "model.onnx", "--passes", "cleanup,fp16", *_FAST, "--json", "r.json")
    assert found.code == 0
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, schema())
    assert report["kernels"] is None
    assert all(not {"fidelity", "latency"} & row["figures"].keys() for row in report["rows"])


def test_data_given_for_evaluation_is_used_without_checks_too(irc: Callable) -> None:
    found = irc(
        *("optimize", "model.onnx", "--passes", "cleanup", "--evaluate", "data.npz"),
        *(*_FAST, "--json", "r.json"),
    )
    assert found.code == 0
    rows = json.loads(Path("r.json").read_text(encoding="utf-8"))["rows"]
    assert rows[-1]["figures"]["metric"]["value"] == 1.0 and rows[-1]["checks"] == ["verifier"]


def test_rows_come_as_passes_finish_and_the_time_left_from_the_start(irc: Callable) -> None:
    found = irc("optimize", "model.onnx", "--passes", "cleanup,fp16", "--no-bench")
    assert found.code == 0
    lines = found.err.splitlines()
    assert lines[0].startswith("irc: 0 of 2 passes done, about ")
    rows = [line for line in lines if line.startswith(("irc: original,", "irc: cleanup,"))]
    assert len(rows) == 2 and "size" in rows[0]
    assert lines.index(rows[1]) < next(
        number for number, line in enumerate(lines) if line.startswith("irc: pass fp16")
    )


def test_effort_is_in_the_report(irc: Callable) -> None:
    found = irc(
        *("optimize", "model.onnx", "--passes", "cleanup", "--effort", "2m", "--no-bench"),
        *("--evaluate", "data.npz", "--json", "r.json"),
    )
    assert found.code == 0
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert report["measuring"]["effort"] == "120 s" and report["measuring"]["timed"] == "none"
    assert report["measuring"]["seconds_per_sample"] > 0
    assert (
        report["rows"][-1]["figures"]["fidelity"]["inherited"]
        and "=: of the model before" in found.err
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--effort", "much"), "expected quick, normal, thorough or seconds"),
        (("--bench", "each", "--no-bench"), "exclude each other"),
    ],
)
def test_what_contradicts_itself_is_refused(
    irc: Callable, options: tuple[str, ...], said: str
) -> None:
    found = irc("optimize", "model.onnx", "--passes", "cleanup", *options)
    assert found.code == 2 and said in found.err and len(found.err.splitlines()) <= 4


def test_the_originals_outputs_are_kept_where_one_says(irc: Callable, tmp_path: Path) -> None:
    command = (
        *("optimize", "model.onnx", "--passes", "cleanup", "--evaluate", "data.npz", "--force"),
        "--no-bench",
    )
    assert irc(*command, "--cache-dir", "kept").code == 0
    assert any((tmp_path / "kept").iterdir())
    assert irc(*command, "--cache-dir", "none", "--no-cache").code == 0
    assert not (tmp_path / "none").exists()


def test_a_size_is_a_goal(irc: Callable, much: str) -> None:
    found = irc(
        *("optimize", "model.onnx", "--max-size", "30%", "--max-drop", "5%", "--no-bench"),
        *("--calibrate", "data.npz", "--evaluate", much, "--json", "report.json"),
    )
    assert found.code == 0
    assert "goal max-size=0.3x: kept, " in found.err
    assert "chosen by 600 samples of much.npz, quoted on the other 600" in found.err
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, schema())
    assert report["settings"]["goals"] == ["max-drop=5%", "max-size=0.3x"]
    assert report["tried"][0]["outcome"] == "taken"
    assert report["rows"][0]["figures"]["metric"]["samples"] == 600
    command = shlex.split(report["command"])
    assert command[:2] == ["irc", "optimize"]
    again = irc(*command[1:], "--no-bench", "-o", "again.onnx")
    assert again.code == 0
    first, second = Path("model.opt.onnx").read_bytes(), Path("again.onnx").read_bytes()
    assert first == second


def test_nothing_is_written_where_no_pipeline_will_do(irc: Callable, tmp_path: Path) -> None:
    found = irc("optimize", "model.onnx", "--max-size", "1kB", "--no-bench", "-o", "out/")
    assert found.code == 5 and not (tmp_path / "out").exists()
    assert "irc: no pipeline keeps max-size=1.0kB" in found.err
    for text in ("exact passes", "4-bit weights", "next: ", "--calibrate DATA --max-size 1.0kB"):
        assert text in found.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--speedup", "3", "--no-bench"), 2, "--speedup needs the benchmark"),
        (("--speedup", "3", "--bench", "none"), 2, "--speedup needs the benchmark"),
        (("--speedup", "fast"), 2, "speedup is 'fast', expected a factor"),
        (("--max-latency", "10ms", "-t", "ort-cpu:isa=arm"), 2, "max-latency needs times"),
        (("--max-drop", "1%", "--max-drop", "2%"), 2, "two goals for one figure"),
        (("--max-drop", "1%", "--evaluate", "data.npz"), 3, "at least 466 samples"),
        (("--min-metric", "1.5", "--evaluate", "data.npz"), 2, "accuracy is 1.0000"),
        (("--holdout", "data.npz"), 2, "--holdout goes with --evaluate"),
        (("--drop-slower",), 2, "--drop-slower is for a pipeline"),
        (("--bisect-limit", "1"), 2, "--bisect-limit is for a pipeline"),
        (("--target", "auto", "--passes", "cleanup"), 2, "target auto is for a search"),
    ],
)
def test_goals_that_make_no_sense(
    irc: Callable, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    found = irc("optimize", "model.onnx", *options)
    assert (found.code, said in found.err) == (code, True), found.err
    assert len(found.err.strip().splitlines()) <= 2
    assert not (tmp_path / "model.opt.onnx").exists()


@pytest.mark.parametrize("goal", ["--max-size", "--speedup", "--max-latency", "--max-memory"])
def test_a_goal_that_is_given_twice_is_refused(irc: Callable, goal: str) -> None:
    found = irc("optimize", "model.onnx", goal, "50%", goal, "40%")
    assert found.code == 2 and found.err.count("\n") == 1
    assert f"two goals for one figure: {goal} 50% and {goal} 40%; give one of" in found.err
