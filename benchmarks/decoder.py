"""A decoder from its checkpoint to 4 bits: memory, size, speed and text, beside other tools.

    python -m benchmarks run smollm2 [--cache DIR] [--json FILE] [--only PARTS]
    python -m benchmarks run llama-1b

Exports the checkpoint, runs our passes and the other tools, each in processes of its own whose
memory is watched from outside, then times all of them in turns: reading a prompt (prefill), and
one token more with a cache (decode). Ratios are taken within a round against ONNX Runtime in
float32. Of a model with real weights perplexity and greedy text are compared, too. What is made is
kept in the cache with its figures, so that a run can be continued. Prints Markdown tables, as
docs/benchmarks.md has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decoder_peers import PEERS, Source
from benchmarks.memory import Usage, watch
from benchmarks.recording import DEFAULT_CACHE, about, write_result
from irtools.analysis.decoder import CachedDecoder, find_decoder
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.cpu import cpu_quota
from irtools.measure.generate import GreedyText, Writing, compare_writings, write_greedily
from irtools.measure.shapes import bench_feeds
from irtools.measure.timing import Contender, measure
from irtools.metrics import Perplexity
from irtools.model import Model
from irtools.targets import Runner, RunnerOptions, find_target

FLOAT = "ORT fp32"


@dataclass(frozen=True)
class Made:
    """A contender on the disk.

    Attributes:
        files: The model first, then its weights.
        usage: What making it took; None where nothing was made.
        passes: Peak memory of each pass, for our own.
    """

    name: str
    target: str
    precision: str | None
    files: tuple[Path, ...]
    usage: Usage | None
    passes: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def options(self) -> RunnerOptions:
        """How it runs."""
        return RunnerOptions(threads=cpu_quota(), precision=self.precision)


@dataclass(frozen=True)
class Ours:
    """A run of `irc optimize`."""

    target: str
    precision: str | None
    passes: str


OURS: Mapping[str, Ours] = {
    "irtools fp32": Ours("ort-cpu", None, "cleanup,fuse"),
    "irtools int4": Ours("ort-cpu", None, "cleanup,fuse,int4"),
    "irtools int4, table too": Ours("ort-cpu", None, "cleanup,fuse,int4:embeddings=4"),
    "irtools int4 on OpenVINO bf16": Ours("openvino-cpu", "bf16", "cleanup,fuse,int4"),
    "irtools int4 on OpenVINO f32": Ours("openvino-cpu", "f32", "cleanup,fuse,int4"),
}
_TEXTS = {"smollm2": "bbc/bbc_test.jsonl"}
"""Real text for models with real weights."""
_TEXT_COUNT, _TEXT_TOKENS = 48, 256
_PROMPTS, _PROMPT_TOKENS, _NEW_TOKENS = 16, 32, 32


def main(argv: Sequence[str]) -> None:
    """Run one comparison and print its tables."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    known = {FLOAT, *OURS, *PEERS}
    if unknown := set(filter(None, arguments.only.split(";"))) - known:
        parser.error(f"--only: {sorted(unknown)[0]!r} is none of {'; '.join(sorted(known))}")
    cache = arguments.cache.resolve()
    folder = cache / "contenders" / arguments.model
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = cache / arguments.model / "checkpoint"
    exported = export(checkpoint, folder)
    source = Source(cache, checkpoint, exported.files[0])
    entries = [exported, *make_all(source, folder, arguments.only)]
    rows = [{"name": made.name, "size": made.size, **_costs(made)} for made in entries]
    if arguments.rounds:
        add_timings(rows, entries, arguments)
    print("\n".join((*cost_table(rows), "", *pass_table(rows), "", *speed_table(rows))), flush=True)
    if arguments.model in _TEXTS and not arguments.no_text:
        add_texts(rows, entries, read_texts(cache, arguments.model))
        print("\n".join(("", *speed_table(rows))))
    if arguments.json:
        write_result(arguments.json, document(arguments, rows))


def export(checkpoint: Path, folder: Path) -> Made:
    """Export a checkpoint that `benchmarks prepare` has prepared, unless it has been."""
    place = folder / "fp32"
    command = [_irc(), "export", str(checkpoint), "--with-past", "-o", str(place)]
    usage, _ = _once(place, command, folder / "fp32.log")
    return Made(FLOAT, "ort-cpu", None, _files(place), usage, {})


def make_all(source: Source, folder: Path, only: str) -> Iterator[Made]:
    """Yield our own models and those of other tools, each made unless it is there."""
    for name, ours in OURS.items():
        if not _wanted(name, only):
            continue
        place = folder / _slug(name)
        command = [_irc(), "optimize", str(source.model), "--passes", ours.passes]
        command += ["--target", ours.target, "--no-bench", "--no-check"]
        command += ["-o", str(place / "model.onnx"), "--json", str(place / "report.json")]
        usage, report = _once(place, command, folder / f"{place.name}.log")
        yield Made(name, ours.target, ours.precision, _files(place), usage, _peaks(report))
    for name, peer in PEERS.items():
        if not _wanted(name, only):
            continue
        place = folder / _slug(peer.make.__name__)
        target = place / f"model{peer.suffix}"
        paths = (source.cache, source.checkpoint, source.model, target)
        command = [sys.executable, "-m", "benchmarks.decoder_peers", name, *map(str, paths)]
        usage, _ = _once(place, command, folder / f"{place.name}.log")
        yield Made(name, peer.target, peer.precision, _files(place), usage, {})


def add_timings(
    rows: list[dict[str, Any]], entries: Sequence[Made], arguments: argparse.Namespace
) -> None:
    """Time all contenders in turns and add the figures."""
    settings = BenchSettings(
        sequence=(arguments.prompt,),
        past=(arguments.past,),
        rounds=arguments.rounds,
        max_seconds=arguments.seconds,
        block_seconds=arguments.block,
    )
    found = measure(
        {e.name: Contender(e.files[0], e.target, e.options) for e in entries},
        bench_feeds(Model.load(entries[0].files[0]), settings),
        settings,
    )
    for row in rows:
        row["timings"] = [_timing(r) for r in found if r.name == row["name"]]


def _timing(result: LatencyResult) -> dict[str, Any]:
    ratio = result.speedup
    return {
        "shape": result.shape,
        "phase": result.phase,
        "median_ms": result.median_ms,
        "tokens_per_second": result.tokens_per_second,
        "speedup": None if ratio is None else [ratio.value, ratio.low, ratio.high],
        "blocks_ms": list(result.block_medians_ms),
        "load_seconds": result.load_seconds,
        "peak_bytes": result.peak_bytes,
    }


def read_texts(cache: Path, name: str) -> list[np.ndarray]:
    """Return the token ids of real texts, [1, T] each."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(cache / name / "checkpoint" / "tokenizer.json"))
    lines = (cache / _TEXTS[name]).read_text(encoding="utf-8").splitlines()
    chosen = lines[:: max(len(lines) // _TEXT_COUNT, 1)][:_TEXT_COUNT]
    texts = (tokenizer.encode(json.loads(line)["text"]).ids for line in chosen)
    return [np.array([ids[:_TEXT_TOKENS]], np.int64) for ids in texts]


def add_texts(
    rows: list[dict[str, Any]], entries: Sequence[Made], texts: Sequence[np.ndarray]
) -> None:
    """Add perplexity and how much of the float model's greedy text each writes."""
    decoder = find_decoder(Model.load(entries[0].files[0]).ir)
    assert decoder is not None
    prompts = np.concatenate([ids[:, :_PROMPT_TOKENS] for ids in texts[:_PROMPTS]])
    original: Writing | None = None
    for row, entry in zip(rows, entries, strict=True):
        with find_target(entry.target).runner(entry.files[0], entry.options) as runner:
            row["perplexity"] = _perplexity(runner, decoder, texts)
            writing = write_greedily(runner, decoder, prompts, _NEW_TOKENS)
        original = original or writing
        greedy = compare_writings(original, writing, _PROMPT_TOKENS, "BBC news")
        row["greedy"] = dataclasses.asdict(greedy)


def _perplexity(runner: Runner, decoder: CachedDecoder, texts: Sequence[np.ndarray]) -> float:
    metric = Perplexity()
    sums = []
    for ids in texts:
        found = runner.run(decoder.feeds(ids, decoder.empty(1)), [decoder.logits])
        sums.append(metric.per_sample(found, ids))
    return metric.finish(np.concatenate(sums))


def cost_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what making each contender took."""
    yield "| model | size MB | seconds | peak MB | of it no file | largest child MB | together MB |"
    yield "| --- " * 7 + "|"
    for row in rows:
        if row["usage"] is not None:
            usage = Usage(**row["usage"])
            sizes = (usage.peak, usage.anonymous, usage.child, usage.together)
            cells = [row["name"], _megabytes(row["size"]), f"{usage.seconds:.0f}"]
            yield "| " + " | ".join([*cells, *map(_megabytes, sizes)]) + " |"


def pass_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the peak memory of each of our passes."""
    yield "| model | pass | peak MB | seconds |"
    yield "| --- " * 4 + "|"
    for row in rows:
        for text, figures in row["passes"].items():
            peak = "" if figures["peak"] is None else _megabytes(figures["peak"])
            yield f"| {row['name']} | {text} | {peak} | {figures['seconds']:.1f} |"


def speed_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield speed, and text where it was compared."""
    timed = any("timings" in row for row in rows)
    texts = any("perplexity" in row for row in rows)
    if not timed and not texts:
        return
    heads = ["model", "size MB"]
    if timed:
        heads += ["prefill tokens/s", "against fp32", "decode tokens/s", "against fp32", "peak MB"]
    heads += ["perplexity", "equal greedy texts", "equal tokens"] * texts
    yield "| " + " | ".join(heads) + " |"
    yield "| --- " * len(heads) + "|"
    for row in rows:
        cells = [row["name"], _megabytes(row["size"])]
        for timing in row.get("timings", ()):
            ratio = timing["speedup"]
            text = "1" if ratio is None else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio)
            cells += [f"{timing['tokens_per_second']:.1f}", text]
        if timed:
            cells.append(_megabytes(max(timing["peak_bytes"] for timing in row["timings"])))
        if texts:
            greedy = GreedyText(**row["greedy"])
            cells += [f"{row['perplexity']:.3f}", f"{greedy.equal} of {greedy.prompts}"]
            cells.append(f"{greedy.share:.1%}")
        yield "| " + " | ".join(cells) + " |"


def document(arguments: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return everything that a reader needs to judge the tables."""
    return {
        "task": arguments.model,
        **about(arguments.model),
        "prompt": arguments.prompt,
        "past": arguments.past,
        "rows": list(rows),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", choices=["smollm2", "llama-1b"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--only", default="", help="names that take part, by semicolons")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the prompt")
    parser.add_argument("--past", type=int, default=256, help="tokens in the cache")
    parser.add_argument("--rounds", type=int, default=5, help="0: no timing")
    parser.add_argument("--block", type=float, default=0.7, help="seconds of a block")
    parser.add_argument("--seconds", type=float, default=1500, help="bound on the timing")
    parser.add_argument("--no-text", action="store_true", help="no perplexity, no greedy text")
    parser.add_argument("--json", type=Path)
    return parser


def _once(place: Path, command: Sequence[str], log: Path) -> tuple[Usage | None, Path]:
    """Run a command that fills a folder, unless an earlier run has; its figures lie beside."""
    note = place.with_suffix(".usage.json")
    if not note.exists():
        print(f"making {place.name}", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        if "export" not in command:
            place.mkdir()
        note.write_text(json.dumps(dataclasses.asdict(watch(command, log))), encoding="utf-8")
    return Usage(**json.loads(note.read_text(encoding="utf-8"))), place / "report.json"


def _peaks(report: Path) -> dict[str, Any]:
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    return {
        row["text"]: {
            "peak": row.get("peak_bytes", {}).get("pass"),
            "seconds": row["seconds"].get("pass", 0.0),
        }
        for row in rows[1:]
    }


def _costs(made: Made) -> dict[str, Any]:
    usage = None if made.usage is None else dataclasses.asdict(made.usage)
    return {
        "target": made.target,
        "precision": made.precision,
        "usage": usage,
        "passes": dict(made.passes),
    }


def _files(place: Path) -> tuple[Path, ...]:
    found = [p for p in sorted(place.iterdir()) if p.name.startswith("model.")]
    return tuple(sorted(found, key=lambda path: path.suffix not in (".onnx", ".xml")))


def _irc() -> str:
    return str(Path(sys.executable).with_name("irc"))


def _wanted(name: str, only: str) -> bool:
    return not only or name in only.split(";")


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-").replace("_", "-")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}"


VIEWS = {
    "costs": lambda found: cost_table(found["rows"]),
    "passes": lambda found: pass_table(found["rows"]),
    "speed": lambda found: speed_table(found["rows"]),
}
