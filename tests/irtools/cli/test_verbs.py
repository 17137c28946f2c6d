"""The smaller verbs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.passmanager import registry

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
    assert document["parts_at"] in {"h", *(t["name"] for t in document["layers"])}
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


def test_compile(irc: Callable, tmp_path: Path) -> None:
    found = irc("compile", "model.onnx", "-o", "deploy", "--json", "-")
    assert found.code == 0
    files = json.loads(found.out)["files"]
    assert files and all(Path(path).is_file() for path in files)
    assert irc("compile", "model.onnx", "-o", "deploy").code == 2


@pytest.mark.openvino
def test_compile_for_openvino(irc: Callable, tmp_path: Path) -> None:
    assert irc("compile", "model.onnx", "-t", "openvino-cpu", "-o", "deploy/").code == 0
    assert {path.suffix for path in (tmp_path / "deploy").iterdir()} >= {".xml", ".bin"}


def test_export_refuses_options_that_an_onnx_file_has_no_use_for(irc: Callable) -> None:
    found = irc("export", "model.onnx", "-o", "copy.onnx", "--opset", "18")
    assert found.code == 2 and "ONNX file already" in found.err
    assert irc("export", "model.onnx", "-o", "copy.onnx").code == 0
