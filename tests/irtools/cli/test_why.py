"""`irc why` and `irc diff`: what they print and write, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.why_cases import CASES
from irtools.causes import Diagnosis, Finding
from irtools.causes.finding import Gap

Irc = Callable[..., Any]


@pytest.fixture
def pair(irc: Irc, tmp_path: Path) -> Irc:
    """`irc` in a folder with `a.onnx` and `b.onnx`, whose classes stand in another order."""
    made = CASES["classes in another order"](24)
    assert made.data is not None and made.data.labels is not None
    made.first.save(tmp_path / "a.onnx")
    made.second.save(tmp_path / "b.onnx")
    np.savez(tmp_path / "test.npz", **made.data.feeds, labels=made.data.labels)
    return irc


def test_why_prints_the_cause_first(pair: Irc, tmp_path: Path) -> None:
    words = ("why", "a.onnx", "b.onnx", "--evaluate", "test.npz", "--no-bench", "--json", "w.json")
    done = pair(*words)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[1].startswith("answers SQNR of the outputs")
    assert "accuracy -100.00 points" in lines[1]
    first = lines.index(next(line for line in lines if line.startswith("1. ")))
    assert lines[first].startswith("1. worse: the classes stand in another order: class 0 is 1")
    assert lines[first + 1] == "   100 % of what the answers lose"
    assert "   > irc inspect b.onnx" in lines
    document = json.loads((tmp_path / "w.json").read_text())
    assert document["format"] == "irtools-why" and document["findings"][0]["gap"] == "worse"
    assert document["findings"][0]["cause"] == "class-order"
    (module,) = document["modules"]
    assert module["module"] == "head" and module["after"]["bytes"] == 24 * 5 * 4


@pytest.mark.parametrize(("shares", "line"), [((0.7, 0.6), "130 %"), ((0.4, 0.6), None)])
def test_shares_of_more_than_all_are_explained(
    pair: Irc, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], line: str | None
) -> None:
    found = [
        Finding("x", Gap.SLOWER, "text", 1.0, (), "irc inspect b.onnx", share=share)
        for share in (*shares, 0.9)
    ]
    other = Finding("y", Gap.LARGER, "text", 1.0, (), "irc inspect b.onnx", share=0.9)
    made = Diagnosis((), (*found[:2], other, found[2]))
    monkeypatch.setattr("irtools.causes.diagnose", lambda facts: made)
    done = pair("why", "a.onnx", "b.onnx", "--no-bench", "--top", "3")
    assert done.code == 0, done.err
    said = [text for text in done.out.splitlines() if text.startswith("Shares of ")]
    begin = f"Shares of slower add up to {line}: causes overlap"
    assert said == [] if line is None else said[0].startswith(begin) and len(said) == 1


def test_why_says_that_there_is_no_difference(pair: Irc) -> None:
    done = pair("why", "a.onnx", "a.onnx", "--no-bench")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "The models do not differ beyond noise."


def test_diff_writes_files_and_the_line_that_opens_them(pair: Irc, tmp_path: Path) -> None:
    done = pair("diff", "a.onnx", "b.onnx", "-o", "out", "--no-bench")
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a.json", "b.json", "mapping.json", "modules.json", "bytes-a.json"} <= names
    assert "model-explorer out/a.json out/b.json --node_data_paths out/bytes-a.json" in done.err
    again = pair("diff", "a.onnx", "b.onnx", "-o", "out", "--no-bench")
    assert again.code == 2 and "--force" in again.err


@pytest.mark.parametrize(
    "words, wanted",
    [
        (("why", "a.onnx", "missing.onnx"), "missing.onnx"),
        (("why", "a.onnx", "b.onnx", "--tokenizer", "t"), "--tokenizer is for text"),
        (("diff", "a.onnx", "b.onnx"), "--output"),
        (("diff", "a.onnx", "b.onnx", "-o", "test.npz"), "is a file, expected a folder"),
    ],
)
def test_bad_input_ends_in_one_line(pair: Irc, words: tuple[str, ...], wanted: str) -> None:
    done = pair(*words)
    assert done.code in (2, 6) and wanted in done.err
    assert len(done.err.strip().splitlines()) == 1 and not done.out


def test_compiled_files_are_refused(pair: Irc, tmp_path: Path) -> None:
    (tmp_path / "c.ort").write_bytes(b"ORTM")
    done = pair("why", "a.onnx", "c.ort")
    assert done.code == 2 and "is compiled" in done.err
