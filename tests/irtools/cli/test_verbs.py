"""The smaller verbs."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, save

from irtools.errors import UnsupportedError
from irtools.measure.base import LatencyResult, Ratio
from irtools.plugins import registry
from irtools.targets import Isa, Target

from .conftest import write_model

_FAST = ("--no-bench", "--no-check")


def test_passes_lists_everything_that_is_registered(irc: Callable) -> None:
    found = irc("passes")
    for name in (*registry.names("irtools.passes"), *registry.PRESETS):
        assert name in found.out
    assert "cannot be loaded" not in found.out


def test_passes_explains_every_option(irc: Callable) -> None:
    document = json.loads(irc("passes", "int8", "--json").out)
    [mode] = [o for o in document["options"] if o["name"] == "mode"]
    assert "static" in mode["type"] and mode["help"]
    shown = irc("passes", "int8").out
    assert all(o["name"] in shown for o in document["options"])
    assert "cleanup,fuse" in irc("passes", "O2").out


def test_targets_say_what_is_missing(irc: Callable) -> None:
    rows = {row["name"]: row for row in json.loads(irc("targets", "--json").out)["targets"]}
    assert rows["ort-cpu"]["available"] and rows["ort-cpu"]["version"].startswith("onnxruntime")
    assert rows["ort-cuda"]["available"] or "install" in rows["ort-cuda"]["reason"]


def test_inspect(irc: Callable) -> None:
    document = json.loads(irc("inspect", "model.onnx", "--batch", "2", "--json", "-").out)
    assert document["ops"] == {"MatMul": 2, "Relu": 1, "Identity": 1}
    assert document["parameters"] == 2 * 64 * 512
    assert document["bytes_by_dtype"] == {"float32": 4 * document["parameters"]}
    assert document["flops"] == 2 * 2 * document["parameters"]
    assert document["hot_spots"][0]["share"] == pytest.approx(0.5)
    shown = irc("inspect", "model.onnx").out
    assert "x: float32[batch, 64]" in shown and "MatMul" in shown


def test_inspect_of_a_forest_that_gives_maps(irc: Callable, tmp_path: Path) -> None:
    """What is in attributes is not `0 parameters` alone, and a map has no type to print."""
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    )
    forest = helper.make_node("Forest", ["x"], ["p"], domain="acme", values=[1.0] * 2000)
    zip_map = helper.make_node(
        "ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    graph = helper.make_graph(
        [forest, zip_map],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 2])],
        [helper.make_value_info("maps", kind)],
    )
    opsets = [helper.make_opsetid(*one) for one in (("", 17), ("ai.onnx.ml", 3), ("acme", 1))]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "forest.onnx")
    shown = irc("inspect", "forest.onnx").out
    assert "2000 numbers in attributes of acme::Forest" in shown
    assert "maps: a map, or of a type that is not stated" in shown


def test_inspect_escapes_names(irc: Callable, tmp_path: Path) -> None:
    write_model(tmp_path / "odd.onnx", hidden="\x1b[2J[red]h")
    compared = irc("compare", "--layers", "odd.onnx", "odd.onnx")
    assert compared.code == 0
    assert "\x1b" not in compared.out and "\\x1b[2J[red]h" in compared.out


def test_compare_names_the_tensor_where_models_part(irc: Callable) -> None:
    assert irc("optimize", "model.onnx", "-p", "int8:mode=dynamic", *_FAST).code == 0
    same = irc("compare", "model.onnx", "model.onnx", "--data", "data.npz")
    assert same.code == 0 and "the models agree" in same.out
    found = irc(
        "compare", "--layers", "model.onnx", "model.opt.onnx", "--data", "data.npz", "--json", "-"
    )
    document = json.loads(found.out)
    assert document["diverges_at"] in {"h", *(t["name"] for t in document["layers"])}
    assert 10 < document["outputs"]["logits"]["sqnr_db"] < 60
    assert document["samples"] == 16


def test_bench_measures_in_turns(irc: Callable) -> None:
    found = irc(
        *("bench", "model.onnx", "model.onnx", "--batch", "1,2", "--rounds", "3"),
        *("--max-seconds", "1", "--json", "-"),
    )
    assert found.code == 0 and "median" in found.err
    results = json.loads(found.out)["results"]
    assert [(r["name"], r["shape"]) for r in results] == [
        ("model.onnx", "batch=1"),
        ("model.onnx (2)", "batch=1"),
        ("model.onnx", "batch=2"),
        ("model.onnx (2)", "batch=2"),
    ]
    assert all(r["median_ms"] > 0 and r["peak_bytes"] > 1e6 for r in results)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make up the times, which take seconds to measure."""

    def measure(contenders: dict, feeds: dict, *_: object) -> list[LatencyResult]:
        return [
            LatencyResult(name, shape, 1, 1, 1, 1, 1, 1, 3, (1.0,) * 3, speedup=Ratio(1, 1, 1))
            for shape in feeds
            for name in contenders
        ]

    monkeypatch.setattr("irtools.measure.contest.contest.measure", measure)


def test_bench_compares_accuracy_sample_by_sample(irc: Callable, untimed: None) -> None:
    """The labels are what the model says, so that the one that changes answers is worse."""
    assert irc("optimize", "model.onnx", "-p", "int8:mode=dynamic", *_FAST).code == 0
    call = ("bench", "model.onnx", "model.opt.onnx")
    found = irc(*call, "--evaluate", "data.npz", "--samples", "32", "--json", "-")
    assert found.code == 0 and "difference" in found.err and "agreement" in found.err
    document = json.loads(found.out)
    assert (document["version"], document["data"]) == (4, {"source": "data.npz", "samples": 32})
    first, second = document["contenders"]
    assert first["evaluation"]["value"] == 1.0 and first["difference"] is None
    assert second["difference"]["value"] == second["evaluation"]["value"] - 1
    assert second["difference"]["is_significant"] in (True, False)
    assert 10 < second["fidelity"]["sqnr_db"] < 60 and second["file_bytes"] < first["file_bytes"]
    assert [r["name"] for r in document["results"]] == ["model.onnx", "model.opt.onnx"]
    assert document["results"][1]["speedup"] is not None


@pytest.mark.slow
@pytest.mark.openvino
def test_bench_runs_each_model_on_its_own_target(irc: Callable, untimed: None) -> None:
    assert irc("compile", "model.onnx", "-t", "openvino-cpu", "-o", "net.xml").code == 0
    sources = ("model.onnx@ort-cpu", "net.xml@openvino-cpu", "model.onnx@openvino-cpu")
    found = irc("bench", *sources, "--evaluate", "data.npz", "--json", "-")
    contenders = json.loads(found.out)["contenders"]
    assert [c["name"] for c in contenders] == [*sources]
    assert [c["target"].partition(":")[0] for c in contenders] == [
        *("ort-cpu", "openvino-cpu", "openvino-cpu")
    ]
    assert all(c["fidelity"]["agreement"] > 0.9 for c in contenders)
    assert contenders[1]["evaluation"]["value"] > 0.9


def test_bench_says_in_a_line_what_it_cannot_compare(irc: Callable, tmp_path: Path) -> None:
    x = np.zeros((4, 64), np.float32)
    np.savez(tmp_path / "bare.npz", x=x)
    np.savez(tmp_path / "other.npz", z=x, labels=np.zeros(4, np.int64))
    write_model(tmp_path / "narrow.onnx")
    model = ir.load(tmp_path / "narrow.onnx")
    model.graph.outputs[0].name = "scores"
    ir.save(model, tmp_path / "narrow.onnx")
    (tmp_path / "net.xml").write_text("<net/>")
    (tmp_path / "model.ort").write_bytes(b"\0\0\0\0ORTM")
    evaluate = ("--evaluate", "data.npz")
    for call, code, said in (
        (("model.onnx@ort-gpu",), 2, "there is no target 'ort-gpu'"),
        (("model.onnx@",), 2, "there is no target ''"),
        (("model.onnx@ort-tensorrt",), 4, "ort-tensorrt"),
        (("model.onnx", "net.xml@ort-cpu"), 2, "net.xml is a compiled file of openvino-cpu"),
        (("model.onnx", "model.ort@openvino-cpu"), 2, "model.ort is a compiled file of ort-cpu"),
        (("model.onnx", "--evaluate", "other.npz"), 3, "model.onnx: other.npz has no array for"),
        (("model.onnx", "narrow.onnx", *evaluate), 2, "narrow.onnx gives scores, and model.onnx"),
        (("model.onnx", "--metric", "accuracy"), 2, "--metric is measured on --evaluate"),
        (("model.onnx", "--samples", "3"), 2, "--samples is for --evaluate"),
        (
            ("model.onnx", "--metric", "accuracy", "--evaluate", "bare.npz"),
            3,
            "bare.npz has no labels, and metric 'accuracy' needs them",
        ),
        (("model.onnx", *evaluate, "--metric", "acuracy"), 2, "did you mean 'accuracy'?"),
        (("nowhere.onnx@ort-cpu",), 6, "nowhere.onnx"),
    ):
        if "openvino-cpu" in str(call) + said and find_spec("openvino") is None:
            continue
        found = irc("bench", *call, "--json", "out.json")
        assert (found.code, found.out) == (code, "") and said in found.err, (call, found)
        lines = [line for line in found.err.splitlines() if not line.startswith(" ")]
        assert len([line for line in lines if line.startswith("irc: ")]) <= 1
    assert not (tmp_path / "out.json").exists()


def test_a_path_with_an_at_sign_is_a_path(irc: Callable, tmp_path: Path) -> None:
    from irtools.driver.contenders import split_target

    write_model(tmp_path / "a@ort-cpu")
    assert split_target("a@ort-cpu") == ("a@ort-cpu", None)
    assert split_target("a@ort-cpu@openvino-cpu") == ("a@ort-cpu", "openvino-cpu")
    assert split_target("model.onnx@ort-cpu:isa=avx2") == ("model.onnx", "ort-cpu:isa=avx2")
    assert split_target("module:net@ort-cpu") == ("module:net", "ort-cpu")
    assert split_target("who@where") == ("who@where", None)
    assert split_target("@ort-cpu") == ("@ort-cpu", None)


def test_compile(irc: Callable, tmp_path: Path) -> None:
    found = irc("compile", "model.onnx", "-o", "deploy", "--json", "-")
    assert found.code == 0
    files = json.loads(found.out)["files"]
    assert files and all(Path(path).is_file() for path in files)
    assert irc("compile", "model.onnx", "-o", "deploy").code == 2


def test_compile_to_the_format_of_the_runtime(irc: Callable, tmp_path: Path) -> None:
    by_suffix = irc("compile", "model.onnx", "-o", "small.ort")
    assert by_suffix.code == 0 and "irc: wrote small.ort" in by_suffix.err
    assert irc("compile", "model.onnx", "--format", "ort", "-o", "deploy/").code == 0
    content = (tmp_path / "small.ort").read_bytes()
    assert content[4:8] == b"ORTM" and (tmp_path / "deploy/model.ort").stat().st_size > 250_000
    for refused, code, said in (
        (("-o", "small.ort"), 2, "small.ort exists"),
        (("-o", "x.onnx", "--format", "ort"), 2, "does not go with the output x.onnx"),
        (("-o", "x.ort", "-t", "openvino-cpu"), 2, "writes no .ort, only .xml"),
        (("-o", "y/", "-t", "openvino-cpu", "--format", "ort"), 2, "writes no .ort"),
    ):
        if "openvino-cpu" in refused and find_spec("openvino") is None:
            continue
        found = irc("compile", "model.onnx", *refused)
        assert found.code == code and said in found.err
    assert not list(tmp_path.glob("x.*"))


def test_a_compiled_file_is_timed_and_compared(irc: Callable) -> None:
    assert irc("compile", "model.onnx", "-o", "small.ort").code == 0
    bench = ("--rounds", "3", "--max-seconds", "1", "--json", "-")
    found = irc("bench", "model.onnx", "small.ort", *bench)
    assert [r["name"] for r in json.loads(found.out)["results"]] == ["model.onnx", "small.ort"]
    same = json.loads(irc("compare", "model.onnx", "small.ort", "--json", "-").out)
    assert same["diverges_at"] is None and same["outputs"]["logits"]["relative_l2"] < 1e-6
    for call, said in (
        (("compare", "small.ort", "model.onnx"), "small.ort is compiled"),
        (("compare", "model.onnx", "small.ort", "--layers"), "--layers needs"),
    ):
        refused = irc(*call)
        assert refused.code == 2 and said in refused.err
    assert irc("inspect", "small.ort").code == 3
    assert "irc compile" in irc("optimize", "model.onnx", "-p", "cleanup", "-o", "a.ort").err


def test_what_does_not_run_is_not_written(
    irc: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(target: Target, path: Path, *_: object) -> dict[str, np.ndarray]:
        if path.suffix == ".ort":
            raise UnsupportedError("no kernel")
        return {}

    monkeypatch.setattr("irtools.measure.probe.probe", fail)
    found = irc("compile", "model.onnx", "-o", "small.ort")
    assert found.code == 5 and "small.ort does not run: no kernel" in found.err
    assert not (tmp_path / "small.ort").exists()


def test_what_the_model_itself_cannot_do_is_no_reason(irc: Callable, tmp_path: Path) -> None:
    """No number of rows of 4 makes 7 x 7."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n,4] x) => (float[7,7] y) '
        "<int64[2] never = {7, 7}> { y = Reshape (x, never) }"
    )
    ir.save(model, tmp_path / "never.onnx")
    found = irc("compile", "never.onnx", "-o", "never.ort")
    assert found.code == 0 and "note: loaded, but not run" in found.err
    assert (tmp_path / "never.ort").is_file()


def test_an_artifact_is_run_in_sizes_that_suit_the_model(irc: Callable, tmp_path: Path) -> None:
    """Drawn images of 64 x 64 are too small for this one."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n,3,h,w] x) => (float[n,3,200,200] y) '
        "<int64[4] to = {0, 3, 200, 200}> { y = Reshape (x, to) }"
    )
    ir.save(model, tmp_path / "large.onnx")
    found = irc("compile", "large.onnx", "-o", "large.ort")
    assert found.code == 0 and "inputs are drawn with h=w=200" in found.err
    given = irc("compile", "large.onnx", "-o", "l.ort", "--size", "h=100", "--size", "w=400")
    assert given.code == 0 and "inputs are drawn" not in given.err
    wrong = irc("compile", "large.onnx", "-o", "m.ort", "--size", "height=100")
    assert wrong.code == 2 and "open are n (x axis 0), h (x axis 2), w (x axis 3)" in wrong.err


def test_profile(irc: Callable) -> None:
    call = ("inspect", "model.onnx", "--profile", "--runs", "3", "--batch", "4")
    measured = json.loads(irc(*call, "--json", "-").out)["profile"]
    assert (measured["target"], measured["shape"], measured["runs"]) == ("ort-cpu", "batch=4", 3)
    assert {op["op"] for op in measured["ops"]} >= {"MatMul"}
    assert sum(op["share"] for op in measured["ops"]) == pytest.approx(1)
    assert [n["node"] for n in measured["nodes"] if n["op"] == "MatMul"][:1] != []
    assert measured["run_ms"] > 0
    shown = irc(*call, "--data", "data.npz", "--top", "1")
    assert shown.code == 0 and "x 4x64; data.npz" in shown.out and "measured node" in shown.out
    idle = irc("inspect", "model.onnx", "--runs", "3")
    assert idle.code == 2 and "--runs is for --profile" in idle.err
    assert json.loads(irc("inspect", "model.onnx", "--json", "-").out)["profile"] is None


def test_where_nothing_can_be_drawn_the_option_is_named(irc: Callable, tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n,4] x) => (float[n,4096] y) '
        "<int64[3] never = {7, 7, 7}> { r = Reshape (x, never) y = MatMul (x, w) "
        "z = Identity (r) }"
    )
    weight = ir.tensor(np.ones((4, 4096), np.float32), name="w")
    model.graph.register_initializer(ir.val("w", const_value=weight))
    ir.convenience.replace_all_uses_with(model.graph[1].inputs[1], model.graph.initializers["w"])
    ir.save(model, tmp_path / "scalar.onnx")
    for call in (("compare", "scalar.onnx", "scalar.onnx"), ("bench", "scalar.onnx")):
        found = irc(*call)
        assert found.code == 3 and "no inputs were found on which the model runs" in found.err
        assert "--data FILE" in found.err
    assert "--data FILE" in irc("inspect", "scalar.onnx", "--profile").err
    static = irc("plan", "scalar.onnx", "-p", "int8:mode=static")
    assert static.code == 3 and "give data (--calibrate)" in static.err


@pytest.mark.openvino
def test_openvino_files_are_run_and_profiled(irc: Callable) -> None:
    on = ("-t", "openvino-cpu")
    assert irc("compile", "model.onnx", *on, "-o", "net.xml").code == 0
    same = irc("compare", "model.onnx", "net.xml", *on)
    assert same.code == 0 and "the models agree" in same.out
    measured = json.loads(
        irc("inspect", "model.onnx", "--profile", "--runs", "3", *on, "--json", "-").out
    )["profile"]
    assert any(op["op"].startswith("FullyConnected") for op in measured["ops"])


@pytest.mark.openvino
def test_compile_for_openvino(irc: Callable, tmp_path: Path) -> None:
    assert irc("compile", "model.onnx", "-t", "openvino-cpu", "-o", "deploy/").code == 0
    assert {path.suffix for path in (tmp_path / "deploy").iterdir()} >= {".xml", ".bin"}


def test_export_refuses_options_that_an_onnx_file_has_no_use_for(irc: Callable) -> None:
    found = irc("export", "model.onnx", "-o", "copy.onnx", "--opset", "18")
    assert found.code == 2 and "ONNX file already" in found.err
    assert irc("export", "model.onnx", "-o", "copy.onnx").code == 0


@pytest.mark.parametrize("verb", [("bench",), ("inspect", "--profile")])
def test_another_machine_is_not_timed(irc: Callable, verb: tuple[str, ...]) -> None:
    foreign = "avx2" if Isa.detect() is Isa.AMX else "amx"
    outcome = irc(*verb, "model.onnx", "-t", f"ort-cpu:isa={foreign}")
    assert outcome.code == 2 and outcome.out == ""
    assert f"needs times, and ort-cpu:isa={foreign} is not this CPU" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "stale.onnx"),
        ("plan", "stale.onnx", "--passes", "int8:min-size=0"),
        ("compare", "stale.onnx", "stale.onnx", "--samples", "2"),
        ("compile", "stale.onnx", "-o", "made"),
        ("optimize", "stale.onnx", "--passes", "cleanup", "-o", "out.onnx", *_FAST),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_verb_says_that_declared_shapes_were_dropped(
    irc: Callable, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Once, where the same file is given twice."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,4] x) => (float[n,4] y) '
        "<float[9,4] a, float[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}> "
        "{ a = Relu(x) y = MatMul(a, w) }"
    )
    ir.save(model, tmp_path / "stale.onnx")
    found = irc(*arguments)
    assert (found.out + found.err).count("1 declared shape contradicts the operators") == 1


@pytest.mark.tune
def test_targets_of_a_search_are_checked_in_one_line(irc: Callable, tmp_path: Path) -> None:
    run = ("tune", "model.onnx", "--trials", "1", "-o", "best/")
    for targets, said in (
        (("ort-cpu", "ort-cpu"), "is given twice: give different ones"),
        (("ort-cpu", "ort-cp"), "did you mean 'ort-cpu'"),
        (("ort-cpu:isa=vnni", "ort-cpu:isa=arm-dot"), "the objective latency needs times"),
    ):
        found = irc(*run, *(word for target in targets for word in ("-t", target)))
        assert found.code == 2 and said in found.err and found.err.count("\n") == 1, found.err
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("kind", ["series", "parallel:size=64", "houlsby"])
def test_bottlenecks_are_refused_with_the_reason(irc, tmp_path: Path, kind: str) -> None:
    given = ("--train", "a.jsonl", "--evaluate", "b.jsonl", "--adapter", kind, "-o", "out/")
    found = irc("finetune", "base", *given)
    assert found.code == 2 and f"{kind} is a bottleneck" in found.err
    assert "Traceback" not in found.err and not (tmp_path / "out").exists()
    other = irc("finetune", "base", *given[:5], "lorax", *given[6:])
    assert other.code == 2 and "is a bottleneck" not in other.err
