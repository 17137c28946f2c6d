"""What smoothing gains: int8 without it and with it, next to NNCF, which smooths as well.

    python -m benchmarks run smoothing [--models NAME,...] [--no-timing] [--write [NAME]]

Encoders with trained weights: sentence embeddings of MiniLM-L6 and MPNet on BBC news, and
MiniLM-L6 fine-tuned for R8. Every contender calibrates on the same 128 texts of 64 tokens and is
compared with float32 on others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contest import ContestTask, Ours, add_contest_options, chosen_contest, timed_as
from benchmarks.exported import exported
from benchmarks.peers import FLOAT, Peer, nncf_onnx, nncf_openvino
from benchmarks.recording import about, add_write_option, prepare, store
from benchmarks.tasks import minilm_r8, timed_text
from irtools.data import Dataset, DataSettings, load_dataset
from irtools.measure.base import BenchSettings
from irtools.model import Model
from irtools.report.plain import plain_data

LENGTH = 64
CALIBRATION, TEST = 128, 128

OURS = (
    Ours("int8, not smoothed", "cleanup,fuse,int8:smooth=false"),
    Ours("int8, not smoothed, more in float32", "cleanup,fuse,int8:smooth=false:outlier-floor=26"),
    Ours("int8, default", "cleanup,fuse,int8"),
    Ours("int8, nothing in float32", "cleanup,fuse,int8:outliers=0"),
    Ours("int8, OpenVINO f32", "cleanup,fuse,int8", "openvino-cpu", "f32"),
)
PEERS = (
    FLOAT[0],
    Peer("NNCF on ORT", "ort-cpu", None, nncf_onnx),
    Peer("NNCF on OpenVINO f32", "openvino-cpu", "f32", nncf_openvino),
)


def embedding(name: str, cache: Path) -> ContestTask:
    """Sentence embeddings of a checkpoint, on BBC news."""
    model = exported(name, cache)
    prepare("bbc", cache)
    calibration, test = (
        _texts(cache / "bbc" / f"bbc_{split}.jsonl", model, samples)
        for split, samples in (("calib", CALIBRATION), ("test", TEST))
    )
    bench = BenchSettings(sequence=(LENGTH,))
    return ContestTask(
        f"smoothing-{name}", model, calibration, test, timed_text(test, LENGTH), OURS, PEERS, bench
    )


def classifier(cache: Path) -> ContestTask:
    """Classes of R8."""
    return replace(minilm_r8(cache, LENGTH), name="smoothing-r8", ours=OURS, peers=PEERS)


def _texts(path: Path, model: Path, samples: int) -> Dataset:
    settings = DataSettings(samples=samples, max_length=LENGTH)
    found = load_dataset(str(path), Model.load(model), settings)
    return Dataset(found.feeds, source=path.name)  # Classes of news are not what it embeds.


MODELS: Mapping[str, Callable[[Path], ContestTask]] = {
    "minilm": lambda cache: embedding("minilm", cache),
    "minilm-r8": classifier,
    "mpnet": lambda cache: embedding("mpnet", cache),
}
_TITLES = {
    "minilm": "MiniLM-L6, embeddings",
    "minilm-r8": "MiniLM-L6, R8",
    "mpnet": "MPNet, embeddings",
}


def main(argv: Sequence[str]) -> None:
    """Make and compare the contenders of each model; with --write, store them for docs/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_contest_options(parser)
    parser.add_argument("--models", default=",".join(MODELS), help="default: %(default)s")
    add_write_option(parser, "smoothing")
    given = parser.parse_args(argv)
    cache, rows = given.cache.resolve(), {}
    for name in given.models.split(","):
        task = MODELS[name](cache)
        print(f"{name}: {len(task.test)} samples", file=sys.stderr)
        rows[name] = chosen_contest(task, given).rows(timed_as(task.bench, given))
    document = plain_data(
        {**about("smoothing"), "pipelines": {row.name: row.pipeline for row in OURS}, "rows": rows}
    )
    print("\n".join(table(document)))
    store(given.write, document)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| model | contender | SQNR dB | agreement | ms | faster than ORT fp32 |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, rows in document["rows"].items():
        for row in rows[1:]:
            agreement, ratio = row["agreement"], row.get("speedup")
            cells = (
                _TITLES[name],
                row["name"],
                f"{row['sqnr_db']:.1f}",
                f"{agreement:.2%}" if name == "minilm-r8" else "",
                f"{row['median_ms']:.2f}" if "median_ms" in row else "",
                "{:.2f} [{:.2f}, {:.2f}]".format(*ratio) if ratio else "",
            )
            yield f"| {' | '.join(cells)} |"


VIEWS = {"table": table}
