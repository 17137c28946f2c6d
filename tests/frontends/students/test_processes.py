"""Training in several processes, as far as one CPU shows it: gloo, data parallel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch = pytest.importorskip("torch")

CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
num_machines: 1
num_processes: {processes}
machine_rank: 0
main_process_port: 0
mixed_precision: 'no'
use_cpu: true
"""


def distill(teacher: Path, data: tuple[str, str], folder: Path, *more: str) -> str:
    command = [sys.executable, "-m", "irtools.cli.main", "distill", "--teacher", str(teacher)]
    command += ["--student", "layers=0,2", "--train", data[0], "--evaluate", data[1], *more]
    command += ["--epochs", "1", "--no-cache", "--no-chain", "--threads", "1", "-o", "student"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def without_dropout(teacher: Path, folder: Path) -> Path:
    """Copy a checkpoint; processes draw dropout of their own."""
    shutil.copytree(teacher, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_two_processes_share_a_batch(teacher: Path, data: tuple[str, str], tmp_path: Path) -> None:
    """Half the batch in each of two processes gives the steps of one with the whole batch."""
    from safetensors.torch import load_file

    still = without_dropout(teacher, tmp_path / "teacher")
    folders = tmp_path / "one", tmp_path / "two"
    for folder, processes, batch in zip(folders, (1, 2), ("16", "8"), strict=True):
        folder.mkdir()
        (folder / "accelerate.yaml").write_text(CONFIG.format(processes=processes))
        more = ("--accelerate-config", "accelerate.yaml", "--batch-size", batch)
        said = distill(still, data, folder, *more)
        # One process tells the results.
        assert said.count("irc: wrote student/") == 1
        assert not (folder / "student.checkpoints").exists()
    one, two = (load_file(folder / "student" / "model.safetensors") for folder in folders)
    report = (folders[1] / "student" / "report.json").read_text()
    assert '"steps": 4' in report
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)
