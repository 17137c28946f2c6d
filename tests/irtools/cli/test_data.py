"""Data on the command line: what is refused, and how text is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

_FAST = ("--no-bench", "--no-check")
_RNG = np.random.default_rng(3)
_X = _RNG.standard_normal((8, 64)).astype(np.float32)


def _with(value: float) -> np.ndarray:
    x = _X.copy()
    x[5, 7] = value
    return x


_BAD = {
    "constant": ({"x": np.full((8, 64), 0.5, np.float32)}, "input 'x' is 0.5 everywhere"),
    "repeated": ({"x": np.repeat(_X[:1], 8, axis=0)}, "all 8 samples are the same in 'x'"),
    "nan": (
        {"x": _with(np.nan)},
        "input 'x' holds 1 NaN or infinite value, the first in sample 5",
    ),
    "infinite": ({"x": _with(np.inf)}, "input 'x' holds 1 NaN or infinite value"),
    "width": (
        {"x": _X[:, :32]},
        "input 'x' has shape [8, 32], the model takes x float32[batch,64]",
    ),
    "rank": ({"x": _X[0]}, "input 'x' has shape [64], the model takes x float32[batch,64]"),
    "type": ({"x": _X.astype(np.int64)}, "input 'x' is int64, the model takes float32"),
    "empty": ({"x": _X[:0]}, "holds no samples; the model takes x float32[batch,64]"),
    "absent": ({"y": _X}, "has no array for input x float32[batch,64]; it holds y"),
}


@pytest.mark.parametrize("case", _BAD)
@pytest.mark.parametrize("verb", ["optimize", "plan"])
def test_bad_calibration_data(irc: Callable, tmp_path: Path, verb: str, case: str) -> None:
    arrays, said = _BAD[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    found = irc(verb, "model.onnx", "--passes", "int8", "--calibrate", "bad.npz")
    assert found.code == 3
    assert found.err.startswith("irc: bad.npz") and found.err.count("\n") == 1
    assert said in found.err
    assert not (tmp_path / "model.opt.onnx").exists()


@pytest.fixture
def text(irc: Callable, tmp_path: Path) -> Callable:
    """`irc` in a folder with a model of text, data in unusual columns and a tokenizer elsewhere."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a", "mat"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    (tmp_path / "tok").mkdir()
    tokenizer.save(str(tmp_path / "tok" / "mine.json"))
    rows = [
        {"one": "the cat sat on a mat"[: 8 + i], "two": "a mat", "answer": i % 2} for i in range(12)
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ir.save(_text_model(), tmp_path / "text.onnx")
    return irc


def _text_model() -> ir.Model:
    numbers = np.random.default_rng(0).standard_normal(20)
    return ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
            => (float[batch, 2] logits)
            <float[10, 2] table = {{{", ".join(f"{n:.6f}" for n in numbers)}}},
             int64[1] one = {{1}}> {{
          e = Gather (table, input_ids)
          logits = ReduceMean <keepdims = 0> (e, one)
        }}"""
    )


_READ = ("--tokenizer", "tok/mine.json", "--text", "one", "--label", "answer")


def test_columns_and_tokenizer_are_named(text: Callable) -> None:
    call = ("optimize", "text.onnx", "-p", "cleanup", "--evaluate", "d.jsonl", "--json", "-")
    assert "say which columns hold text" in text(*call, *_FAST, "-o", "a.onnx").err
    found = text(*call, *_READ, *_FAST, "-o", "a.onnx")
    assert found.code == 0
    report = json.loads(found.out)
    assert (
        report["evaluation"]["labelled"]
        and report["rows"][0]["figures"]["metric"]["name"] == "accuracy"
    )
    pairs = text(*call, *_READ, "--text", "two", *_FAST, "-o", "b.onnx")
    assert json.loads(pairs.out)["evaluation"]["sha256"] != report["evaluation"]["sha256"]


def test_samples_bound_calibration_and_nothing_else(text: Callable) -> None:
    found = text(
        *("optimize", "text.onnx", "-p", "int8:mode=static", "--json", "-", *_READ, *_FAST),
        *("--calibrate", "d.jsonl", "--evaluate", "d.jsonl", "--samples", "4"),
    )
    assert found.code == 0
    report = json.loads(found.out)
    assert report["evaluation"]["samples"] == 12
    assert report["calibration"] is None or report["calibration"]["samples"] == 4


@pytest.mark.parametrize("verb", [("compare", "text.onnx", "text.onnx"), ("bench", "text.onnx")])
def test_other_verbs_read_text_too(text: Callable, verb: tuple[str, ...]) -> None:
    more = ("--rounds", "3", "--max-seconds", "1") if verb[0] == "bench" else ()
    read = ("--data", "d.jsonl", *_READ, "--max-length", "4", *more)
    assert text(*verb, *read, "--json", "-").code == 0
    lost = text(*verb, *read, "--tokenizer", "none.json")
    assert lost.code == 3 and "there is none at none.json" in lost.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tokenizer", "tok"), "--tokenizer is for text"),
        (("--max-length", "9", "--calibrate", "data.npz"), "--max-length is for text"),
        (("--label", "y"), "--label is for data"),
        (("--calibrate", "d.jsonl", *("--text", "a") * 3), "more than two columns"),
        (("--max-length", "0"), "--max-length"),
    ],
)
def test_options_that_nothing_would_read(
    text: Callable, options: tuple[str, ...], said: str
) -> None:
    for verb in ("optimize", "plan"):
        found = text(verb, "text.onnx", "-p", "int8", *options)
        assert found.code == 2 and said in found.err


def test_a_metric_needs_labels(irc: Callable, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=_X)
    call = ("optimize", "model.onnx", "-p", "cleanup", "--metric", "accuracy", *_FAST)
    unlabelled = irc(*call, "--evaluate", "plain.npz")
    assert unlabelled.code == 3 and unlabelled.err.count("\n") == 1
    assert "plain.npz has no labels, and metric 'accuracy' needs them" in unlabelled.err
    nothing = irc(*call)
    assert nothing.code == 2 and "needs data to be measured on" in nothing.err


def test_real_samples_serve_where_none_can_be_drawn(irc: Callable, tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[n,64] x) => (float[n,64] y) '
        "<float thousand = {1000.0}, float[4] table = {1.0, 2.0, 3.0, 4.0}> "
        "{ z = Identity (x) s = Mul (z, thousand) i = Cast <to = 7> (s) y = Gather (table, i) }"
    )
    ir.save(model, tmp_path / "places.onnx")
    call = ("optimize", "places.onnx", "-p", "cleanup", "--no-bench", "--json", "-", "-o")
    alone = json.loads(irc(*call, "a.onnx").out)
    assert alone["rows"][1]["checks"] == ["verifier"]
    places = _RNG.integers(0, 4, (8, 64)).astype(np.float32)
    np.savez(tmp_path / "real.npz", x=(places + 0.5) / 1000)
    found = json.loads(irc(*call, "b.onnx", "--evaluate", "real.npz").out)
    assert found["rows"][1]["checks"] == ["verifier", "numerics"]
    assert found["rows"][1]["figures"]["fidelity"]["samples"] == 8


def test_rows_of_flags_are_judged_as_several_labels(irc: Callable, tmp_path: Path) -> None:
    flags = (_RNG.random((8, 64)) > 0.5).astype(np.int64)
    np.savez(tmp_path / "flags.npz", x=_X, labels=flags)
    found = irc(
        *("optimize", "model.onnx", "-p", "cleanup", "--evaluate", "flags.npz", "--json", "-"),
        *_FAST,
    )
    metric = json.loads(found.out)["rows"][0]["figures"]["metric"]
    assert metric["name"] == "multilabel-f1-micro" and 0 < metric["value"] < 1


def test_perplexity_takes_its_labels_from_the_input(irc: Callable, tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g (int64[batch, sequence] input_ids) => (float[batch, sequence, 10] logits)
            <float[10, 10] table = {{{", ".join(["0.0"] * 100)}}}> {{
          logits = Gather (table, input_ids)
        }}"""
    )
    ir.save(model, tmp_path / "lm.onnx")
    np.savez(tmp_path / "ids.npz", input_ids=_RNG.integers(0, 10, (4, 6)))
    found = irc(
        *("optimize", "lm.onnx", "-p", "cleanup", "--evaluate", "ids.npz"),
        *("--metric", "perplexity", "--json", "-", *_FAST),
    )
    metric = json.loads(found.out)["rows"][0]["figures"]["metric"]
    assert metric["name"] == "perplexity" and metric["value"] == pytest.approx(10)
