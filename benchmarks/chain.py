"""From a teacher to a small student, link by link, on both runtimes in one run.

    python -m benchmarks run chain-r8 [--cache DIR] [--rounds N] [--json FILE]
    python -m benchmarks run chain-debian-tags
    python -m benchmarks run chain-r8 --make-only

Makes what the cache lacks with the commands of `irc` that it prints (fine-tuning, distillation,
exports), then every link, and runs all of them over the whole test split. Then the links are
timed alternately, one process alive at a time. Prints Markdown tables, as docs/benchmarks.md has
them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.recording import DEFAULT_CACHE, about, write_result
from irtools.data import DataSettings
from irtools.driver.chain import (
    Chain,
    ChainSource,
    ChainStage,
    judge_models,
    make_model,
    ratios_on_target,
    time_models,
)
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.cpu import cpu_quota
from irtools.model import Model, planned_size
from irtools.plugins import NullProgress
from irtools.report.plain import plain_data
from irtools.targets import find_target

ORT, OPENVINO = "ort-cpu", "openvino-cpu"
RUNTIMES = {ORT: "ORT", OPENVINO: "OpenVINO"}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json")


@dataclass(frozen=True)
class Row:
    """A link.

    Attributes:
        name: What it is.
        source: `teacher`, `hard-label` or `distilled`.
        pipeline: Passes that make it, TRAIN being the training texts; empty for the export itself.
        targets: Where it runs; an OpenVINO row computes in bf16 unless `precision` says f32.
        samples: Texts that ranges and refits are found on.
        precision: Arithmetic of OpenVINO.
    """

    name: str
    source: str
    pipeline: str = ""
    targets: Sequence[str] = (ORT, OPENVINO)
    samples: int = 512
    precision: str | None = None


@dataclass(frozen=True)
class ChainTask:
    """A teacher, how its students are trained, and the links.

    Attributes:
        folder: In the cache.
        data: Start of the names of the `.jsonl` files with texts and labels.
        base: Checkpoint that the teacher is fine-tuned from, or None where it is there.
        teacher: Its checkpoint.
        finetune: Options of `irc finetune` for the teacher.
        distill: Options of `irc distill` for both students; None: there are none.
        max_length: Tokens that texts are cut to.
        sequence: Tokens of the timed sample.
        metric: Name of the metric.
        rows: The links.
    """

    folder: str
    data: str
    base: str | None
    teacher: str
    finetune: str
    distill: str | None
    max_length: int
    sequence: int
    metric: str
    rows: Sequence[Row]


TEACHER = Row("teacher", "teacher", precision="f32")
STUDENTS = (
    Row("hard-label student", "hard-label", targets=(ORT,), precision="f32"),
    Row("distilled student", "distilled", precision="f32"),
    Row("distilled, quantized", "distilled", "cleanup,int8"),
    Row("distilled, pruned, quantized, fused", "distilled", "cleanup,prune:ratio=0.3,fuse,int8"),
)
TRIM = "cleanup,trim-vocabulary:keep=TRAIN:min-count=2:characters=used"
SMALL = "fuse,int8:embeddings=4"
TASKS = {
    "r8": ChainTask(
        folder="r8",
        data="r8",
        base=None,
        teacher="minilm-r8",
        finetune="",
        distill="--student layers=0,5 --temperature 2 --alpha 0.5 --epochs 4 --learning-rate 2e-4 "
        "--precision bf16",
        max_length=64,
        sequence=64,
        metric="accuracy",
        rows=(
            TEACHER,
            *STUDENTS,
            Row(
                "distilled, fewer tokens, pruned by 0.5, quantized, fused",
                "distilled",
                f"{TRIM},prune:ratio=0.5,fuse,int8",
            ),
            Row(
                "the same, tables in 4 bits",
                "distilled",
                f"{TRIM},prune:ratio=0.5,{SMALL}",
                targets=(ORT,),
            ),
            Row(
                "distilled, fewer tokens, pruned by 0.5, sunk, quantized, fused",
                "distilled",
                f"{TRIM},prune:ratio=0.5,fuse,sink,int8",
            ),
            Row(
                "distilled, fewer tokens, pruned by 0.65, sunk, quantized, fused",
                "distilled",
                f"{TRIM},prune:ratio=0.65:sequential=true,fuse,sink,int8",
            ),
            Row(
                "teacher, fewer tokens, tables in 4 bits",
                "teacher",
                f"{TRIM},{SMALL}",
                targets=(ORT,),
            ),
        ),
    ),
    "debian-tags": ChainTask(
        folder="debian-tags",
        data="debian_tags",
        base="minilm/checkpoint",
        teacher="minilm-debian",
        finetune="--epochs 3 --learning-rate 2e-4 --precision bf16",
        distill=None,
        max_length=48,
        sequence=32,
        metric="multilabel-f1-micro",
        rows=(
            TEACHER,
            Row("teacher, quantized", "teacher", "cleanup,fuse,int8"),
            Row("teacher, pruned, quantized", "teacher", "cleanup,prune:ratio=0.3,fuse,int8"),
        ),
    ),
}


class Workshop:
    """Makes what a task needs, or finds it in the cache."""

    def __init__(self, task: ChainTask, cache: Path, threads: int) -> None:
        self.task = task
        self.cache = cache
        self.threads = threads
        self.folder = cache / task.folder
        self.student = self.folder / "student"
        self.made = cache / "contenders" / f"chain-{task.folder}"
        self.train = self.folder / f"{task.data}_train.jsonl"
        self.test = self.folder / f"{task.data}_test.jsonl"

    def networks(self) -> dict[str, Path]:
        """Return the checkpoints of teacher and students."""
        task = self.task
        teacher, hard = self.folder / task.teacher, self.folder / "student-hard"
        data = f"--train {self.train} --evaluate {self.test} --max-length {task.max_length}"
        budget = f"{data} --threads {self.threads}"
        if task.base is not None and not teacher.exists():
            irc(f"finetune {self.cache / task.base} {task.finetune} {budget} --resume -o {teacher}")
        if task.distill is None:
            return {"teacher": teacher}
        if not self.student.exists():
            irc(
                f"distill --teacher {teacher} {task.distill} {budget} --resume --no-chain "
                f"-o {self.student} --hard-label-output {hard}"
            )
        return {"teacher": teacher, "distilled": self.student, "hard-label": hard}

    def exports(self) -> dict[str, Path]:
        """Return the networks as ONNX files, each in a folder with its tokenizer."""
        found = {}
        for name, network in self.networks().items():
            folder = self.made / name
            if not folder.exists():
                self.made.mkdir(parents=True, exist_ok=True)
                irc(f"export {network} -o {folder}/")
            (found[name],) = folder.glob("*.onnx")
        return found

    def chain(self) -> Chain:
        """Return the chain of all links, each made and in a folder with its tokenizer."""
        stages = tuple(self._stages())
        data = (str(self.train), str(self.test))
        chain = Chain(stages, *data, self.task.metric, None, threads=self.threads)
        return replace(chain, stages=tuple(self._made(stage, chain) for stage in stages))

    def _stages(self) -> Iterator[ChainStage]:
        exports = self.exports()
        for target in RUNTIMES:
            for row in self.task.rows:
                if target not in row.targets:
                    continue
                path = exports[row.source]
                settings = DataSettings(
                    tokenizer=path.parent, max_length=self.task.max_length, samples=row.samples
                )
                precision = row.precision if target == OPENVINO else None
                source = ChainSource(str(path), settings)
                yield ChainStage(row.name, find_target(target), source, row.pipeline, precision)

    def _made(self, stage: ChainStage, chain: Chain) -> ChainStage:
        """Return a stage whose source is the link itself, as it is in the cache."""
        if not stage.pipeline:
            return stage
        origin = Path(stage.source.source)
        path = self.made / slug(stage) / "model.onnx"
        if not path.exists():
            say(f"making {slug(stage)}: {stage.pipeline}")
            stage = replace(stage, pipeline=stage.pipeline.replace("TRAIN", str(self.train)))
            model = make_model(stage, Model.load(origin), chain, NullProgress())
            path.parent.mkdir(parents=True, exist_ok=True)
            files = {name: origin.parent / name for name in TOKENIZER}
            own = {n: file.read_bytes() for n, file in files.items() if file.exists()}
            for name, content in (own | dict(model.companions)).items():
                (path.parent / name).write_bytes(content)
            model.save(path)
        settings = replace(stage.source.data, tokenizer=path.parent)
        return replace(stage, source=ChainSource(str(path), settings))


def known_scores(folder: Path, chain: Chain, models: Sequence[Model]) -> list[Mapping[str, Any]]:
    """Return metric and agreement of every link; what `folder` knows is not run again."""
    places = [folder / f"{slug(stage)}.json" for stage in chain.stages]
    todo = [number for number, place in enumerate(places) if not place.exists()]
    if todo:
        chosen = sorted({0, *todo})
        part = replace(chain, stages=tuple(chain.stages[n] for n in chosen))
        found = judge_models(part, [models[n] for n in chosen], NullProgress())
        for number, score in zip(chosen, found, strict=True):
            say(f"{places[number].stem}: {score}")
            places[number].write_text(json.dumps(plain_data(score)))
    return [json.loads(place.read_text()) for place in places]


def slug(stage: ChainStage) -> str:
    """Return a name for files."""
    words = stage.name.replace(",", "").replace("-", " ").split()
    return "-".join([*words, stage.target.name.partition("-")[0]])


def irc(command: str) -> None:
    """Run `irc`, which says on stderr what it does."""
    say(f"irc {command}")
    subprocess.run([sys.executable, "-m", "irtools.cli.main", *shlex.split(command)], check=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> None:
    """Make, judge and time the links of one task."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=450, help="bound on all, as far as three rounds allow"
    )
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--make-only", action="store_true", help="time nothing")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    task = TASKS[arguments.task]
    deadline = time.monotonic() + arguments.seconds
    workshop = Workshop(task, arguments.cache.resolve(), arguments.threads)
    chain = workshop.chain()
    models = [Model.load(stage.source.source) for stage in chain.stages]
    scores = known_scores(workshop.made, chain, models)
    if not arguments.make_only:
        left = max(deadline - time.monotonic(), 1.0)
        bench = BenchSettings(sequence=(task.sequence,), rounds=arguments.rounds, max_seconds=left)
        chain = replace(chain, bench=bench)
    timed = ratios_on_target(chain, time_models(chain, models, NullProgress()))
    rows = [
        figures(stage, model, score, next(iter(latency), None))
        for stage, model, score, latency in zip(chain.stages, models, scores, timed, strict=True)
    ]
    report = {}
    if task.distill is not None:
        report = json.loads((workshop.student / "report.json").read_text())
    print("\n".join((*table(rows, task), "", *students(report), *recipes(task))))
    if arguments.json:
        write_result(arguments.json, document(arguments.task, rows, report))


def figures(
    stage: ChainStage, model: Model, score: Mapping[str, Any], latency: LatencyResult | None
) -> dict[str, Any]:
    """Return what is known of a link."""
    return {
        "name": stage.name,
        "target": stage.target.name,
        "precision": stage.precision,
        "size": planned_size(model.ir),
        **score,
        "latency": None if latency is None else plain_data(latency),
    }


def table(rows: Sequence[Mapping[str, Any]], task: ChainTask) -> Iterator[str]:
    """Yield a Markdown table; ratios are against the first row of the same runtime."""
    yield f"| link | runtime | size MB | smaller | ms | faster | {task.metric} | agreement |"
    yield "| --- " * 8 + "|"
    for row in rows:
        latency = row["latency"] or {}
        ratio = latency.get("speedup")
        cells = (
            row["name"],
            RUNTIMES[row["target"]],
            f"{row['size'] / 1e6:.1f}",
            f"{rows[0]['size'] / row['size']:.1f}",
            f"{latency['median_ms']:.2f}" if latency else "",
            "{value:.2f} [{low:.2f}, {high:.2f}]".format(**ratio) if ratio else "1" * bool(latency),
            f"{row['evaluation']['value']:.2%}",
            f"{row['agreement']:.2%}",
        )
        yield "| " + " | ".join(cells) + " |"


def students(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield teacher and students with their metric, as `irc distill` found it."""
    if not report.get("students"):
        return
    for student in report["students"]:
        found = student["evaluation"]
        yield (
            f"- {student['name']}: {student['parameters'] / 1e6:.1f} M parameters, "
            f"{found['value']:.2%} [{found['low']:.2%}, {found['high']:.2%}]"
        )
    gain = report["gain"]
    yield (
        f"- distilled less hard-label: {100 * gain['value']:+.2f} points "
        f"[{100 * gain['low']:+.2f}, {100 * gain['high']:+.2f}]"
    )


def recipes(task: ChainTask) -> Iterator[str]:
    """Yield the passes of every link."""
    for row in task.rows:
        if row.pipeline:
            yield f"- {row.name}: `{row.pipeline}` on {row.samples} texts"


def document(
    task: str, rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that a reader needs to judge the table."""
    return {
        "task": task,
        **about(f"chain-{task}"),
        "pipelines": {row.name: row.pipeline for row in TASKS[task].rows},
        "students": report.get("students"),
        "gain": report.get("gain"),
        "rows": list(rows),
    }


VIEWS = {
    "table": lambda found: table(found["rows"], TASKS[found["task"]]),
    "students": students,
    "recipes": lambda found: recipes(TASKS[found["task"]]),
}
