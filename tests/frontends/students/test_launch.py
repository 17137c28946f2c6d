"""`--accelerate-config`: the processes of accelerate, and its errors in our own words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irtools.cli.main import run

pytestmark = pytest.mark.torch
pytest.importorskip("torch")
precision = pytest.importorskip("irtools.frontends.students.training.precision")

ONE_PROCESS = """
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
use_cpu: true
num_machines: 1
num_processes: 1
mixed_precision: 'no'
"""


def command(teacher: Path, data: tuple[str, str], folder: Path, text: str) -> list[str]:
    config = folder / "accelerate.yaml"
    config.write_text(text)
    given = ["distill", "--teacher", str(teacher), "--student", "layers=0,2", "--train", data[0]]
    given += ["--evaluate", data[1], "--no-cache", "--no-chain", "--threads", "1"]
    return [*given, "--accelerate-config", str(config), "-o", str(folder / "student")]


def process(given: list[str]) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "irtools.cli.main", *given]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("text", ["x: [", "", "no_such_key: 1"])
def test_a_file_that_is_no_config(
    text: str, teacher: Path, data: tuple[str, str], tmp_path: Path, capsys
) -> None:
    assert run(command(teacher, data, tmp_path, text)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "accelerate.yaml is not a config of accelerate: " in line


def test_the_precision_is_that_of_the_config_or_of_the_option(
    teacher: Path, data: tuple[str, str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(precision, "_bf16_is_fast", lambda: True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    given = [*command(teacher, data, tmp_path, ONE_PROCESS), "--epochs", "1", "--warmup", "0"]
    found = []
    for more in ([], ["--precision", "fp32", "--force"]):
        assert run([*given, *more]) == 0
        report = json.loads((tmp_path / "student" / "report.json").read_text())
        weights = (tmp_path / "student" / "model.safetensors").read_bytes()
        found.append((report["training"]["precision"], weights))
    assert [arithmetic for arithmetic, _ in found] == ["bf16", "fp32"]
    assert found[0][1] != found[1][1]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    assert run([*given, "--force"]) == 2


@pytest.mark.slow
def test_the_exit_code_is_that_of_the_command(
    teacher: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    given = command(teacher, data, tmp_path, ONE_PROCESS)
    with process([*given, "--student", "layers=7"]) as started:
        said = started.communicate()[1]
    # Before it, accelerate reports the defaults that it chose.
    assert said.splitlines()[-1] == "irc: the teacher has layers 0 to 2, and no layer 7"
    assert "Traceback" not in said
    assert started.returncode == 2


@pytest.mark.slow
def test_stopping_the_command_stops_what_it_launched(
    teacher: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    given = command(teacher, data, tmp_path, ONE_PROCESS)
    with process([*given, "--epochs", "1000", "--save-steps", "5"]) as started:
        assert started.stderr is not None
        said = ""
        while "training the" not in said:
            said += started.stderr.readline()
        started.send_signal(signal.SIGTERM)
        said += started.stderr.read()
    assert started.returncode == 143
    assert "--resume goes on" in said
    assert "Traceback" not in said
    # Reading ended, so no process is left that has the pipe.
    assert (tmp_path / "student.checkpoints" / "job.json").is_file()
