"""What a training in two processes takes of memory in each: data parallel, FSDP and ZeRO.

    python -m benchmarks run sharding [NAME...] [--write [NAME]]

A random BERT is trained for a few steps on CPUs (gloo), by `irc finetune`. What is reported is the
peak of each training process: VmHWM, read from the outside while it runs, which has torch, Python
and the activations in it, too. `states` is what the weights, gradients and Adam's two moments take
of it in float32 by themselves: 16 bytes for each parameter, over the processes that share them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recording import about, add_names, add_write_option, store

_FSDP = """
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: BertLayer
  fsdp_state_dict_type: FULL_STATE_DICT
"""
_ZERO = """
distributed_type: DEEPSPEED
deepspeed_config:
  zero_stage: {}
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: false
  zero3_save_16bit_model: true
"""
_COMMON = """
compute_environment: LOCAL_MACHINE
num_machines: 1
num_processes: 2
mixed_precision: 'no'
"""
# Bytes per parameter that a process keeps: weights, gradients, moments; each whole or a half.
KINDS: Mapping[str, tuple[str | None, int]] = {
    "one process": (None, 16),
    "data parallel": ("torchrun", 16),
    "FSDP": (_FSDP, 8),
    "ZeRO-2": (_ZERO.format(2), 4 + 6),
    "ZeRO-3": (_ZERO.format(3), 8),
}


def main(argv: Sequence[str]) -> None:
    """Train with each and print the table; with --write, store it for docs/guide.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, KINDS)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=4)
    add_write_option(parser, "sharding")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = _prepare(folder, given.hidden, given.layers)
        rows = [_trained(folder, kind, parameters) for kind in given.names]
    document = {**about("sharding"), "parameters": parameters, "rows": rows}
    print("\n".join(table(document)))
    store(given.write, document)


def _prepare(folder: Path, hidden: int, layers: int) -> int:
    """Write a random checkpoint and data; returns its number of parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8000,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        num_labels=2,
    )
    network = BertForSequenceClassification(config)
    network.save_pretrained(folder / "bert")
    words = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "bert" / "tokenizer.json"))
    (folder / "bert" / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    rows = (json.dumps({"text": f"{w} {w}", "label": w}) for w in ("good", "bad") * 8)
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    return sum(one.numel() for one in network.parameters())


def _trained(folder: Path, kind: str, parameters: int) -> dict[str, Any]:
    config, bytes_each = KINDS[kind]
    data = str(folder / "rows.jsonl")
    given = ["finetune", str(folder / "bert"), "--train", data, "--evaluate", data]
    given += ["--batch-size", "2", "--epochs", "1", "--threads", "1", "--force"]
    given += ["--save-steps", "1000", "-o", str(folder / kind.replace(" ", "-"))]
    line = [sys.executable, "-m", "irtools.cli.main", *given]
    if config == "torchrun":
        line[1:2] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    elif config is not None:
        (folder / "accelerate.yaml").write_text(_COMMON + config)
        line += ["--accelerate-config", str(folder / "accelerate.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
        peaks: dict[int, int] = {}
        while process.poll() is None:
            for pid in _tree(process.pid):
                peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit((folder / "log").read_text(errors="replace")[-3000:])
    number = 1 if config is None else 2
    largest = sorted(peaks.values())[-number:]
    return {"kind": kind, "peaks": largest, "states": bytes_each * parameters}


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and those below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _peak(pid: int) -> int:
    """Return the largest resident size of a process so far, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of peaks."""
    yield f"| {document['parameters'] / 1e6:.1f} M parameters | peak of a process | states of it |"
    yield "| --- | --- | --- |"
    for row in document["rows"]:
        peaks = " and ".join(f"{peak / 1e6:,.0f} MB" for peak in row["peaks"])
        yield f"| {row['kind']} | {peaks} | {row['states'] / 1e6:,.0f} MB |"


VIEWS = {"table": table}
