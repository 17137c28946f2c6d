"""Weights spread over two processes: FSDP and ZeRO, stopped and resumed, end as one would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irtools.cli.main import run
from irtools.errors import UsageError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: 1
num_processes: 2
mixed_precision: 'no'
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: BertLayer
  fsdp_state_dict_type: FULL_STATE_DICT
"""
ZERO = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
num_machines: 1
num_processes: 2
mixed_precision: 'no'
deepspeed_config:
  zero_stage: {}
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: false
  zero3_save_16bit_model: true
"""
zero = pytest.mark.zero
KINDS = [
    pytest.param(FSDP, id="fsdp"),
    pytest.param(ZERO.format(2), id="zero-2", marks=zero),
    pytest.param(ZERO.format(3), id="zero-3", marks=zero),
]


def command(base: Path, data: tuple[str, str], batch: int, output: Path) -> list[str]:
    given = ["finetune", str(base), "--train", data[0], "--evaluate", data[1], "--epochs", "3"]
    given += ["--save-steps", "2", "--batch-size", str(batch), "--threads", "1"]
    return [*given, "-o", str(output)]


@pytest.fixture(scope="module")
def base(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without dropout, which each process would draw by itself."""
    folder = tmp_path_factory.mktemp("base") / "bert"
    shutil.copytree(teacher, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def alone(base: Path, data: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes with the whole batch."""
    made = tmp_path_factory.mktemp("alone") / "tuned"
    assert run(command(base, data, 16, made)) == 0
    return made


@pytest.mark.slow
@pytest.mark.parametrize("config", KINDS)
def test_two_processes_end_as_one_does(
    config: str, base: Path, alone: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    (tmp_path / "accelerate.yaml").write_text(config)
    made, held = tmp_path / "tuned", tmp_path / "tuned.checkpoints" / "finetuned" / "checkpoints"
    line = [sys.executable, "-m", "irtools.cli.main", *command(base, data, 8, made)]
    line += ["--accelerate-config", str(tmp_path / "accelerate.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "said").open("w+") as said:
        started = subprocess.Popen(line, env=environment, stderr=said)
        # The library writes the state last: then the checkpoint is whole, with ten steps to go.
        while not (held / "checkpoint-2" / "trainer_state.json").exists():
            assert started.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.02)
        started.send_signal(signal.SIGTERM)
        assert started.wait() == 143
    assert not made.exists()
    sharded = [*held.glob("checkpoint-2/global_step2/*optim_states.pt")]
    sharded += held.glob("checkpoint-2/optimizer.bin")
    assert len(sharded) == (2 if "DEEPSPEED" in config else 1), "the optimizer is another one's"

    done = subprocess.run([*line, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((made / "report.json").read_text())
    assert report["result"]["steps"] == 12 and "training 1/12" not in done.stderr
    wanted, found = (load_file(folder / "model.safetensors") for folder in (alone, made))
    for name, tensor in wanted.items():
        if not name.endswith("key.bias"):  # No gradient but rounding, which Adam makes large.
            assert (found[name] - tensor).square().mean().sqrt() < 1e-6, name


def test_the_first_fsdp_is_refused_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import DistributedType

    from irtools.frontends.students.training.sharding import shard_on_cpus

    class State:
        distributed_type = DistributedType.MULTI_CPU

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="FSDP of version 1 needs GPUs: on CPUs set fsdp_version"):
        shard_on_cpus(State)
    monkeypatch.setenv("FSDP_VERSION", "2")
    shard_on_cpus(State)
    assert State.distributed_type is DistributedType.MULTI_GPU


def test_deepspeed_is_an_extra(
    base: Path, data: tuple[str, str], tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "zero.yaml").write_text(ZERO.format(2))
    find = __import__("importlib.util", fromlist=["find_spec"]).find_spec
    monkeypatch.setattr(
        "irtools.cli.launch.find_spec", lambda name: None if name == "deepspeed" else find(name)
    )
    given = command(base, data, 8, tmp_path / "out")
    assert run([*given, "--accelerate-config", str(tmp_path / "zero.yaml")]) == 4
    assert "pip install 'irtools-compiler[zero]'" in capsys.readouterr().err
