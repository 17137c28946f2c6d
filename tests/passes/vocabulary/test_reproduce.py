"""What a failed `trim-vocabulary` leaves is enough to see it fail again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.cli.main import run as irc
from irtools.instruments import Recipe
from irtools.passes.cleanup.cleanup import Cleanup
from irtools.passes.vocabulary import trim

FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Let the pass fail where it writes its files, and note what it had found until then."""
    calls: list[tuple[object, ...]] = []

    def fail(tokenizer: object, kept: list[int], others: dict[str, bytes]) -> None:
        calls.append((kept, others))
        raise KeyError("oops")

    monkeypatch.setattr(trim, "renumbered_files", fail)
    return calls


@pytest.fixture
def failed(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the pass on texts; returns the folder that it leaves."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(passes: str) -> Path:
        data = str(task / "data" / "half.jsonl")
        command = ("optimize", str(task / "model.onnx"), "--passes", passes)
        command += ("--calibrate", data, "--evaluate", data, "--max-length", "6")
        command += ("--no-bench", "--no-check", "-o", str(tmp_path / "out.onnx"))
        assert irc(command) == 70
        (folder,) = tmp_path.glob("irc-reproducer-*")
        return folder

    return run


def test_the_pass_finds_the_same_tokenizer_texts_and_labels(
    failed: Callable[..., Path],
    seen: list[tuple[object, ...]],
    task: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = failed("trim-vocabulary")
    for name in FILES:
        assert (folder / name).read_bytes() == (task / name).read_bytes()
    rows = [json.loads(line) for line in (folder / "evaluation.jsonl").read_text().splitlines()]
    given = (task / "data" / "half.jsonl").read_text().splitlines()
    assert rows == [json.loads(line) for line in given]
    assert Recipe.read(folder).max_length == 6
    assert irc(("reproduce", str(folder))) == 70
    assert "irc: reproduced; it was: " in capfd.readouterr().err
    assert len(seen) == 2 and seen[0] == seen[1]


def test_what_an_earlier_pass_wrote_counts(
    failed: Callable[..., Path], task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass after the trim sees the new tokenizer, not the one next to the source."""

    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(Cleanup, "run", fail)
    folder = failed("trim-vocabulary,cleanup")
    old, new = (json.loads((f / "config.json").read_text())["vocab_size"] for f in (task, folder))
    assert new < old
    assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) == new


def test_another_failure_is_not_called_the_same(
    failed: Callable[..., Path],
    seen: list[tuple[object, ...]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = failed("trim-vocabulary")
    (folder / "tokenizer.json").write_text("{}")
    assert irc(("reproduce", str(folder))) == 3
    assert "it failed in another way; it was: " in capfd.readouterr().err
    assert len(seen) == 1
