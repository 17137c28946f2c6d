"""irtools against its peers on a real task: one command makes data and model, and measures.

    python -m benchmarks run minilm-r8 [--cache DIR] [--rounds N] [--json FILE]
    python -m benchmarks run deberta-injection
    python -m benchmarks run efficientnet-fashion
    python -m benchmarks run bert-base

What the cache lacks is prepared first (`benchmarks prepare`): packages, training, export. Then
every contender is made, runs over the whole test split, and is timed alternately with the others.
Prints a Markdown table, as docs/benchmarks.md has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.contest import (
    ContestTask,
    Ours,
    add_contest_options,
    chosen_contest,
    margins,
    table,
    timed_as,
)
from benchmarks.peers import CONVOLUTIONAL_PEERS, DEBERTA_PEERS, ENCODER_PEERS, FIXED_PEERS, Feeds
from benchmarks.recording import prepare, write_result
from irtools.data import Dataset, DataSettings, load_dataset
from irtools.measure.base import BenchSettings
from irtools.model import Model

INT8 = (
    Ours("irtools int8", "cleanup,fuse,int8"),
    Ours("irtools int8, dynamic", "cleanup,fuse,int8:mode=dynamic"),
    Ours("irtools int8, OpenVINO f32", "cleanup,fuse,int8", "openvino-cpu", "f32"),
    Ours("irtools int8, OpenVINO bf16", "cleanup,fuse,int8", "openvino-cpu", "bf16"),
)
FIXED = (
    Ours("irtools int8, fixed sizes", "cleanup,fuse,int8", fixed=True),
    Ours(
        "irtools int8, OpenVINO bf16, fixed sizes",
        "cleanup,fuse,int8",
        "openvino-cpu",
        "bf16",
        True,
    ),
)


def minilm_r8(cache: Path, sequence: int | None) -> ContestTask:
    """MiniLM-L6 fine-tuned on R8."""
    folder, length = cache / "r8", sequence or 64
    model = prepared("r8", cache, folder / "minilm-r8.onnx")
    test = encoded(folder / "r8_test.npz")
    pruned = Ours("irtools prune 1.5x, int8", "cleanup,prune:speedup=1.5,fuse,int8")
    return ContestTask(
        "minilm-r8",
        model,
        encoded(folder / "r8_calib.npz").take(128),
        test,
        timed_text(test, length),
        (*INT8, *FIXED, pruned),
        (*ENCODER_PEERS, *FIXED_PEERS),
        BenchSettings(sequence=(length,)),
    )


def bert_base(cache: Path, sequence: int | None) -> ContestTask:
    """The shape of BERT-base, with drawn weights and tokens."""
    length = sequence or 128
    data = random_texts(64, length)
    return ContestTask(
        "bert-base",
        prepared("bert-base", cache, cache / "bert-base" / "bert-base.onnx"),
        data.select(np.arange(32)),
        data.select(np.arange(32, 64)),
        timed_text(data, length),
        (*INT8, *FIXED),
        (*ENCODER_PEERS, *FIXED_PEERS),
        BenchSettings(sequence=(length,)),
    )


def deberta_injection(cache: Path, sequence: int | None) -> ContestTask:
    """DeBERTa-v3-xsmall's shape, trained on prompt injection from scratch."""
    length = sequence or 64
    model = prepared("deberta-injection", cache, cache / "deberta-injection/export/model.onnx")
    source = Model.load(model)
    settings = DataSettings(tokenizer=model.parent, max_length=32)
    data = cache / "prompt-injection"
    calibration, test = (
        load_dataset(str(data / f"prompt_injection_{split}.jsonl"), source, settings)
        for split in ("calib", "test")
    )
    fused = Ours("irtools fp32, fused", "cleanup,fuse")
    pruned = Ours("irtools prune 1.5x, int8", "cleanup,prune:speedup=1.5,fuse,int8")
    return ContestTask(
        "deberta-injection",
        model,
        calibration.take(128),
        test,
        timed_text(test, length),
        (fused, *INT8, pruned),
        DEBERTA_PEERS,
        BenchSettings(sequence=(length,)),
    )


def efficientnet_fashion(cache: Path, _: int | None) -> ContestTask:
    """EfficientNet-Lite0, transferred to Fashion-MNIST in 64 x 64."""
    folder = cache / "fashion-mnist"
    model = prepared("efficientnet-fashion", cache, folder / "efficientnet-lite0.onnx")
    source = Model.load(model)
    calibration, test = (
        load_dataset(str(folder / "images" / split), source) for split in ("calibration", "test")
    )
    # The batch size of the test does not depend on the one that is timed.
    one = {name: array[:1] for name, array in test.feeds.items()}
    return ContestTask(
        "efficientnet-fashion",
        model,
        calibration,
        test.spread(5000),
        ("batch=1", one),
        tuple(row for row in INT8 if "dynamic" not in row.name),
        CONVOLUTIONAL_PEERS,
        BenchSettings(),
    )


TASKS: Mapping[str, Callable[[Path, int | None], ContestTask]] = {
    "minilm-r8": minilm_r8,
    "bert-base": bert_base,
    "deberta-injection": deberta_injection,
    "efficientnet-fashion": efficientnet_fashion,
}


VIEWS = {
    "table": lambda found: table(found["rows"]),
    "margins": lambda found: margins(found["rows"]),
}


def prepared(name: str, cache: Path, file: Path) -> Path:
    """Return a file that `benchmarks prepare` makes, made where it is missing."""
    if not file.exists():
        prepare(name, cache)
    return file


def encoded(path: Path) -> Dataset:
    """Return the samples of an `.npz` of the preparation."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    labels = arrays.pop("labels")
    return Dataset(arrays, labels, path.name)


def random_texts(count: int, length: int) -> Dataset:
    """Return seeded token ids without padding, for models with random weights."""
    rng = np.random.default_rng(0)
    ids = rng.integers(999, 30000, (count, length))
    ones, zeros = np.ones_like(ids), np.zeros_like(ids)
    feeds = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
    return Dataset(feeds, source="random tokens")


def timed_text(data: Dataset, length: int) -> tuple[str, Feeds]:
    """Return real tokens that fill a length, without padding: the longest text, repeated."""
    mask = data.feeds["attention_mask"]
    row = int(np.argmax(mask.sum(axis=1)))
    real = int(mask[row].sum())
    feeds = {
        name: np.resize(array[row, :real], (1, length)).astype(array.dtype)
        for name, array in data.feeds.items()
    }
    return f"batch=1 sequence={length}", feeds


def main(argv: Sequence[str]) -> None:
    """Run one comparison and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", choices=list(TASKS))
    add_contest_options(parser)
    parser.add_argument("--seq", type=int, help="tokens that texts are timed at")
    parser.add_argument("--seconds", type=float, default=1500, help="bound on the timing")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    task = TASKS[arguments.task](arguments.cache.resolve(), arguments.seq)
    contest = chosen_contest(task, arguments)
    rows = contest.rows(timed_as(replace(task.bench, max_seconds=arguments.seconds), arguments))
    print("\n".join(table(rows)))
    print("\n".join(("", *margins(rows))))
    if arguments.json:
        write_result(arguments.json, contest.document(rows))
