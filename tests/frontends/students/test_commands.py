"""`irc distill` and `irc finetune` as a person uses them: clear lines, nothing half written."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.cli.main import run

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

QUICK = ("--epochs", "0.5", "--batch-size", "8", "--threads", "1", "--no-cache")


@pytest.fixture
def distill(teacher: Path, data: tuple[str, str], tmp_path: Path, monkeypatch) -> Callable:
    """Return a function that runs `irc distill` in a folder of its own, and gives its exit code."""
    monkeypatch.chdir(tmp_path)

    def go(*more: str, student: str = "layers=0,2") -> int:
        given = ("--teacher", str(teacher), "--student", student)
        paths = ("--train", data[0], "--evaluate", data[1], "-o", "student")
        return run(["distill", *given, *paths, *QUICK, *more])

    return go


def test_a_stopped_training_says_how_to_go_on(
    distill: Callable, tmp_path: Path, monkeypatch, capsys
) -> None:
    from irtools.cli.console import LineProgress

    def stop(self: object, label: str, done: int, total: int) -> None:
        if "training the distilled" in label:
            raise KeyboardInterrupt

    monkeypatch.setattr(LineProgress, "step", stop)
    assert distill("--no-chain") == 130
    *_, first, last = filter(None, capsys.readouterr().err.splitlines())
    assert "student.checkpoints; the same command with --resume goes on" in first
    assert last == "irc: stopped"
    assert {path.name for path in tmp_path.iterdir()} == {"student.checkpoints"}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert distill("--no-chain", "--resume") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"student"}


def test_the_gain_of_an_error_says_that_less_is_better() -> None:
    from irtools.cli.verbs.distill import gain_text
    from irtools.metrics import Difference, Evaluation
    from irtools.students import DistillResult, TrainedNetwork

    def text(metric: str, larger: bool) -> str:
        evaluation = Evaluation(metric, 0.5, 0.4, 0.6, 10, larger)
        trained = TrainedNetwork("distilled", None, None, evaluation)
        return gain_text(DistillResult(trained, trained, trained, Difference(-0.2, -0.3, -0.1)))

    assert text("mse", False).endswith("-0.2000 [-0.3000, -0.1000], less is better")
    assert text("accuracy", True).endswith("-0.2000 [-0.3000, -0.1000]")


@pytest.mark.slow
def test_students_and_the_chain(distill: Callable, tmp_path: Path, capsys) -> None:
    more = ("-t", "ort-cpu", "--no-bench", "--hard-label-output", "hard", "--report-json", "-")
    assert distill(*more) == 0
    out, said = capsys.readouterr()
    document = json.loads(out)
    assert [s["name"] for s in document["students"]] == ["teacher", "hard-label", "distilled"]
    links = [
        "baseline",
        "hard-label",
        "distilled",
        "distilled, quantized",
        "distilled, pruned, quantized, fused",
    ]
    assert [link["name"] for link in document["chain"]] == links
    sizes = [link["file_bytes"] for link in document["chain"]]
    assert sizes[1] < sizes[0]
    # The runtime computes what torch computes.
    for link, student in zip(document["chain"], document["students"], strict=False):
        assert link["score"]["evaluation"]["value"] == student["evaluation"]["value"]
    assert document["chain"][0]["score"]["agreement"] == 1
    assert "distilled against hard-label" in said
    assert all(link in said for link in links)
    files = {path.name for path in (tmp_path / "student").iterdir()}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert files == wanted | {"report.json"}
    assert json.loads((tmp_path / "student" / "report.json").read_text()) == document
    mode = (tmp_path / "student" / "model.safetensors").stat().st_mode
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {path.name for path in tmp_path.iterdir()} == {"student", "hard", "plain"}


def test_an_existing_folder_is_not_touched(distill: Callable, tmp_path: Path, capsys) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.txt").write_text("mine")
    assert distill("--no-chain") == 2
    assert "student exists: give another folder with -o, or --force" in capsys.readouterr().err
    assert distill("--no-chain", "--force") == 0
    assert (tmp_path / "student" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "student" / "config.json").is_file()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--loss", "soft=1", "--alpha", "0.5"), 2, "leave out --alpha"),
        (("--loss", "sfot=1"), 2, "there is no loss 'sfot'"),
        (("--layer-map", "a"), 2, "no list of layers"),
        (("--layer-map", "0,2"), 2, "layer-map is for the loss hidden or attention or relation"),
        (("--relation-heads", "2"), 2, "relation-heads is for the loss relation"),
        (("--hard-label-output", "student"), 2, "student is to be two things"),
        (("--hard-label-output", "./student/"), 2, "student is to be two things"),
        (("--hard-label-output", "student.checkpoints"), 2, "one inside the other"),
        (("--checkpoints", "student"), 2, "one inside the other"),
        (("--checkpoints", "student/work"), 2, "one inside the other"),
        (("--checkpoints", "."), 2, "one inside the other"),
        (("--metric", "mse"), 3, "mse needs a number per output"),
        (("--temperature", "0"), 2, "temperature is 0"),
        (("--weight-decay", "nan"), 2, "weight-decay is nan"),
        (("--seed", "-1"), 2, "not in the range"),
        (("--loss", "hidden=1", "--layer-map", "0,7"), 2, "expected 2 numbers"),
        (("-t", "nowhere"), 2, "nowhere"),
        (("--passes", "prnue"), 2, "prnue"),
        (("--precision", "fp16"), 4, "needs a GPU"),
        (("--accelerate-config", "none.yaml"), 6, "no accelerate config none.yaml"),
        (("--metric", "acuracy", "--no-chain"), 2, "accuracy"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    distill: Callable, tmp_path: Path, capsys, more: tuple[str, ...], code: int, said: str
) -> None:
    if "fp16" in more and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert distill(*more) == code
    lines = [x for x in capsys.readouterr().err.splitlines() if "outputs of the teacher" not in x]
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(tmp_path.iterdir())


def test_finetune(
    teacher: Path, data: tuple[str, str], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["finetune", str(teacher), "--train", data[0], "--evaluate", data[1], "-o", "out"]
    budget = ["--epochs", "0.5", "--batch-size", "8", "--threads", "1"]
    assert run([*given, "--learning-rate", "0"]) == 2
    assert "learning-rate is 0" in capsys.readouterr().err
    assert run([*given, *budget, "--metric", "mse"]) == 3
    assert "mse needs a number per output" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert run([*given, "--rank", "4"]) == 2
    assert "--rank needs --adapter" in capsys.readouterr().err
    adapter = ["--adapter", "qlora", "--rank", "4", "--adapter-output", "adapter"]
    assert run([*given, *budget, *adapter]) == 0
    said = capsys.readouterr().err
    assert "merged, in NF4 again" in said
    assert "nf4 weight error: " in said
    assert "simulated in float32" in said
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["format"] == "irtools-finetune"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "adapter"}
