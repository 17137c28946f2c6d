"""Training in several processes, as far as one CPU shows it: gloo, data parallel, by torchrun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from irtools.cli.main import run

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch = pytest.importorskip("torch")

# `accelerate launch` starts one process on a machine without GPUs, whatever its file says.
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


STUDENTS = {
    "outputs": ["--student", "layers=0,2"],
    "learned maps": ["--student", "hidden=16,layers=2", "--loss", "soft=1,embedding=1,hidden=1"],
    "no look at the outputs": ["--student", "layers=0,2", "--loss", "attention=1"],
}


def distilling(
    kind: str, teacher: Path, data: tuple[str, str], batch: int, output: Path
) -> list[str]:
    command = ["distill", "--teacher", str(teacher), *STUDENTS[kind]]
    command += ["--train", data[0], "--evaluate", data[1], "--epochs", "1"]
    command += ["--batch-size", str(batch), "--no-cache", "--no-chain", "--threads", "1"]
    return [*command, "-o", str(output)]


def without_dropout(teacher: Path, folder: Path) -> Path:
    """Copy a checkpoint; processes draw dropout of their own."""
    shutil.copytree(teacher, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", STUDENTS)
def test_two_processes_share_a_batch(
    kind: str, teacher: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    """Half the batch in each of two processes gives the steps of one with the whole batch."""
    from safetensors.torch import load_file

    still = without_dropout(teacher, tmp_path / "teacher")
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(distilling(kind, still, data, 16, one)) == 0
    done = subprocess.run(
        [*TORCHRUN, "-m", "irtools.cli.main", *distilling(kind, still, data, 8, two)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # One process reports the results.
    assert done.stderr.count("irc: wrote ") == 1
    assert not two.with_suffix(".checkpoints").exists()
    for folder in (one, two):
        report = json.loads((folder / "report.json").read_text())
        assert [student["steps"] for student in report["students"]] == [0, 4, 4]
    wanted, found = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, tensor in wanted.items():
        if name.endswith("key.bias"):
            continue  # No gradient but rounding, for softmax does not see it; Adam makes it large.
        # The steps move weights by 1e-4 or so; where a gradient is almost 0, Adam doubles rounding.
        assert (found[name] - tensor).square().mean().sqrt() < 1e-5, name
