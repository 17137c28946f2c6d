"""What a student is made of, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from irtools.errors import FileError, ModelError, OptionError, UsageError
from irtools.frontends.students.networks.spec import (
    CheckpointFolder,
    ChosenLayers,
    PrunedModel,
    Shrunk,
    parse_student,
)
from irtools.students import AdapterSettings, TrainingSettings, parse_losses


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("layers=0,2,5", ChosenLayers((0, 2, 5))),
        ("layers=3", ChosenLayers((3,))),
        ("hidden=192,layers=3", Shrunk(hidden=192, layers=3)),
        ("layers=3,hidden=192,heads=6,ffn=768", Shrunk(192, 3, 6, 768)),
    ],
)
def test_text(text: str, wanted: object) -> None:
    assert parse_student(text) == wanted


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "small.onnx").write_text("")
    assert parse_student(str(tmp_path)) == CheckpointFolder(tmp_path)
    assert parse_student(str(tmp_path / "small.onnx")) == PrunedModel(tmp_path / "small.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layers=0,2,2", "once and in ascending order"),
        ("layers=2,0", "once and in ascending order"),
        ("layers=0,two", "'two' is no number"),
        ("depth=3", "'depth=3' is not understood"),
        ("hidden=192,layers=3,4", "layers is one number"),
        ("hidden=0", "at least 1"),
        ("hidden=8,hidden=9", "not understood"),
    ],
)
def test_bad_text(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_student(text)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        parse_student(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        parse_student(str(tmp_path))
    (tmp_path / "note.txt").write_text("")
    with pytest.raises(UsageError, match="neither"):
        parse_student(str(tmp_path / "note.txt"))


def test_losses() -> None:
    assert parse_losses("soft=0.5,hard=0.25,cosine=1") == {"soft": 0.5, "hard": 0.25, "cosine": 1}
    for text, said in (
        ("soft=1,hidde=1", "no loss 'hidde'"),
        ("soft", "has no weight"),
        ("soft=x", "has no weight"),
        ("soft=-1", "expected 0 or more"),
        ("soft=1,soft=2", "'soft' has two weights"),
        ("soft=0,hard=0", "nothing to learn"),
    ):
        with pytest.raises(OptionError, match=said):
            parse_losses(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": 0},
        {"warmup": 1},
        {"save_steps": 0},
        {"weight_decay": -0.1},
        {"weight_decay": float("nan")},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_a_budget_makes_sense(wrong: dict) -> None:
    with pytest.raises(OptionError):
        TrainingSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0}, {"alpha": float("nan")}])
def test_an_adapter_makes_sense(wrong: dict) -> None:
    with pytest.raises(OptionError):
        AdapterSettings(**wrong)
