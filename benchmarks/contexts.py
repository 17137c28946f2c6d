"""A decoder over the length of its context: reading, writing, memory and perplexity.

    python -m benchmarks run contexts [NAME...] [--lengths N,N] [--write [NAME] [--missing]]

SmolLM2 in 4 bits on both runtimes, its cache in every form that they have, next to the model that
onnxruntime-genai's builder makes. Each entrant reads one real text, as `begin_text` does: in parts
of 128, so that all but the first part read it from the cache, and the last tokens before each
length one by one. That gives the speed of reading, the time of a token and the perplexity at each
length; short lengths get further texts for their perplexity. A pass has a process of its own;
passes of all entrants alternate. CPU time on one thread is counted, which other work on the machine
changes little. Ratios are against the cache as arrays on the same runtime.

`--write` adds the rows of each pass to the stored result as soon as they are there, and `--missing`
leaves out what has its rows already: a table can be made in several runs on one machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import irtools
from benchmarks.commands import export_with_past
from benchmarks.decoder_peers import Source, genai_int4
from benchmarks.deployed import deployed
from benchmarks.prepared.packages import cached
from benchmarks.recording import (
    DEFAULT_CACHE,
    RESULTS,
    about,
    add_names,
    add_write_option,
    prepare,
    read_result,
    store,
)
from irtools.measure.memory import peak_memory
from irtools.measure.sandbox import run_isolated
from irtools.metrics import Perplexity
from irtools.model import Model
from irtools.targets import (
    RunnerOptions,
    TextState,
    begin_text,
    find_target,
    lowered,
    text_decoder_of,
)

SOURCE, PASSES = "smollm2", "cleanup,fuse,int4"
LENGTHS = "128,256,1024,4096,8192"
_PART = 128
_STEPS, _WARM_UP = 24, 4
_LEAST_TOKENS = 1024
"""Lengths below get further texts, until there are so many tokens in all."""
_CALIBRATION = 24
_FOLDER = Path("contenders", "contexts")
_GENAI = "onnxruntime-genai builder"
Stops = dict[int, dict[str, float]]
"""What was measured at each length."""


@dataclass(frozen=True)
class Entrant:
    """A form of the cache.

    Attributes:
        target: Target text.
        passes: What follows `PASSES`; None: another tool makes the model.
        is_base: Others on the same runtime are compared with it.
    """

    target: str
    passes: str | None = ""
    is_base: bool = False


ENTRANTS: Mapping[str, Entrant] = {
    "ORT, arrays": Entrant("ort-cpu:shared-cache=false", is_base=True),
    "ORT, buffers": Entrant("ort-cpu"),
    "ORT, buffers int8": Entrant("ort-cpu", "kv"),
    "ORT, buffers int4": Entrant("ort-cpu", "kv:form=int4:max-loss=none"),
    "ORT, buffers int4 or int8": Entrant("ort-cpu", "kv:form=int4"),
    _GENAI: Entrant("ort-cpu", None),
    "OpenVINO, arrays": Entrant("openvino-cpu:stateful=false", is_base=True),
    "OpenVINO, variables u8": Entrant("openvino-cpu", "kv"),
    "OpenVINO, keys u8 values u4": Entrant("openvino-cpu", "kv:form=int8-int4"),
    "OpenVINO, variables u4": Entrant("openvino-cpu", "kv:form=int4"),
}


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, ENTRANTS)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--lengths", default=LENGTHS, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--missing", action="store_true", help="leave out what the stored result has rows of"
    )
    add_write_option(parser, "contexts")
    given = parser.parse_args(argv)
    if given.missing and given.write is None:
        parser.error("--missing goes by a stored result: give --write")
    cache = given.cache.resolve()
    for name in (SOURCE, "bbc"):
        prepare(name, cache)
    export_with_past(SOURCE, cache)
    lengths = sorted(map(int, given.lengths.split(",")))
    tokens = read_tokens(cache)
    document = _earlier(given.write)
    names = [n for n in given.names if not (given.missing and _has(document, n, lengths))]
    files = {name: made(name, ENTRANTS[name], cache) for name in names}
    passes: dict[str, list[Stops]] = {name: [] for name in names}
    for _ in range(given.rounds):
        for name, path in files.items():
            arguments = (path, ENTRANTS[name].target, tokens, lengths)
            found = run_isolated(read_through, *arguments, label=name)
            # Keys come back from the other process as text.
            passes[name].append({int(length): stop for length, stop in found.items()})
            rows = [_row(name, length, passes[name]) for length in lengths]
            document["rows"] = merged(document["rows"], rows)
            store(given.write, document)
            times = (f"{row['step_ms']:.1f} ms at {row['length']:,}" for row in rows)
            print(f"{name}: {', '.join(times)}", flush=True)
    print("\n".join(table(document)))


def _earlier(name: str | None) -> dict[str, Any]:
    """Return the stored result of this machine and these versions; else one without rows."""
    fresh = {**about("contexts"), "rows": []}
    if name is None or not (RESULTS / f"{name}.json").is_file():
        return fresh
    found: dict[str, Any] = read_result(name)
    is_same = all(found.get(key) == fresh[key] for key in ("machine", "versions"))
    return found if is_same else fresh


def _has(document: Mapping[str, Any], name: str, lengths: Sequence[int]) -> bool:
    there = {row["length"] for row in document["rows"] if row["entrant"] == name}
    return there >= set(lengths)


def merged(
    rows: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return rows with those that were found in place of earlier ones, by length and entrant."""
    by_place = {(row["length"], row["entrant"]): row for row in (*rows, *found)}
    order = list(ENTRANTS)
    return [by_place[place] for place in sorted(by_place, key=lambda p: (p[0], order.index(p[1])))]


def made(name: str, entrant: Entrant, cache: Path) -> Path:
    """Return the model of an entrant, made unless an earlier run has."""
    slug = name.lower().replace(",", "").replace(" ", "-")

    def make(path: Path) -> None:
        if entrant.passes is None:
            source = Source(cache, cache / SOURCE / "checkpoint", _source(cache))
            _make_genai(source, path)
            return
        model = Model.load(_base(cache, entrant.target.partition(":")[0]))
        if entrant.passes:
            data = _calibration(cache)
            deployed(model, entrant.passes, entrant.target, data).save(path)
        else:
            lowered(model, find_target(entrant.target)).save(path)

    return cached(cache / _FOLDER / f"{slug}.onnx", make)


def _source(cache: Path) -> Path:
    return cache / SOURCE / f"{SOURCE}-past.onnx"


def _base(cache: Path, runtime: str) -> Path:
    """Return the decoder in 4 bits for a runtime, its cache as the exporter wrote it."""

    def make(path: Path) -> None:
        found = irtools.optimize(
            Model.load(_source(cache)), PASSES, target=runtime, bench=None, check=False
        )
        found.model.save(path)

    return cached(cache / _FOLDER / f"{runtime}.base.onnx", make)


def _make_genai(source: Source, path: Path) -> None:
    """Let the builder make its model, and say in it that its cache may be one buffer."""
    import onnx

    folder = path.parent / "builder"
    folder.mkdir()
    genai_int4(source, folder / "model.onnx")
    proto = onnx.load(folder / "model.onnx")
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "kv_cache_dim":  # Which the builder leaves open.
                dim.dim_value = config["model"]["decoder"]["head_size"]
    onnx.helper.set_model_props(proto, {"shared_cache": "true"})
    onnx.save(proto, path)


def _calibration(cache: Path) -> Path:
    """Return token ids of training texts, cut to one length, for the scales of the cache."""

    def make(path: Path) -> None:
        tokens = _encode(cache, "bbc_calib.jsonl", _CALIBRATION)
        texts = np.stack([ids[:256] for ids in tokens if len(ids) >= 256])
        np.savez(path, input_ids=texts, attention_mask=np.ones_like(texts))

    return cached(cache / _FOLDER / "calibration.npz", make)


def read_tokens(cache: Path) -> np.ndarray:
    """Return the token ids of the test texts, one after the other."""
    return np.concatenate(_encode(cache, "bbc_test.jsonl", None))


def _encode(cache: Path, file: str, count: int | None) -> list[np.ndarray]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(cache / SOURCE / "checkpoint" / "tokenizer.json"))
    lines = (cache / "bbc" / file).read_text(encoding="utf-8").splitlines()
    ids = (tokenizer.encode(json.loads(line)["text"]).ids for line in lines[:count])
    return [np.array(one, np.int64) for one in ids]


def read_through(path: Path, target: str, tokens: np.ndarray, lengths: Sequence[int]) -> Stops:
    """Read a text, and stop at each of some lengths, in this process.

    Args:
        path: The model.
        target: What runs it.
        tokens: The text, [N]; at least as long as the longest length.
        lengths: Where to stop, ascending.

    Returns:
        For each length: `read_seconds` of CPU time of `tokens` that were read in parts,
        `step_seconds` of one token, the `loss` of `predicted` tokens in nats, `peak_bytes`, and
        `cache_bytes`, 0 where the runtime hides it.
    """
    precision = "f32" if target.startswith("openvino") else None
    options = RunnerOptions(threads=1, precision=precision)
    found: Stops = {}
    with find_target(target).runner(path, options) as runner:
        decoder = text_decoder_of(runner)
        assert decoder is not None
        reader = _Reader(begin_text(runner, decoder, 1))
        for length in lengths:
            parts = length - _WARM_UP - _STEPS
            reader.read(tokens[reader.position : parts], _PART)
            times = reader.read(tokens[parts:length], 1)
            found[length] = {
                "read_seconds": reader.seconds,
                "tokens": reader.read_in_parts,
                "step_seconds": median(times[_WARM_UP:]),
                "loss": reader.loss,
                "predicted": reader.predicted,
                "peak_bytes": peak_memory(),
                "cache_bytes": reader.text.cache_bytes or 0,
            }
        for length, further in further_texts(tokens, lengths):
            other = _Reader(begin_text(runner, decoder, 1))
            other.read(further, _PART)
            found[length]["loss"] += other.loss
            found[length]["predicted"] += other.predicted
    return found


def further_texts(tokens: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the texts, [L], that short lengths have after the first, with their lengths."""
    for length in lengths:
        for n in range(1, _LEAST_TOKENS // length):
            yield length, tokens[n * length : (n + 1) * length]


@dataclass
class _Reader:
    """A text that is read on, and what was seen on the way.

    Attributes:
        text: The text.
        position: Tokens that were read.
        read_in_parts: Those of them that were read several at a time, and their `seconds`.
        loss: Of `predicted` tokens, in nats.
        before: Scores after the last token, [1, 1, V].
    """

    text: TextState
    position: int = 0
    read_in_parts: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    predicted: float = 0.0
    before: np.ndarray | None = None

    def read(self, tokens: np.ndarray, size: int) -> list[float]:
        """Read on in parts of a size; returns CPU seconds of each."""
        times = []
        for start in range(0, len(tokens), size):
            part = tokens[None, start : start + size]
            begun = time.process_time()
            logits = self.text.read(part)
            times.append(time.process_time() - begun)
            loss, predicted = _loss(self.before, logits, part)
            self.loss, self.predicted = self.loss + loss, self.predicted + predicted
            self.before = logits[:, -1:]
        self.position += len(tokens)
        if size > 1:
            self.read_in_parts += len(tokens)
            self.seconds += sum(times)
        return times


def _loss(before: np.ndarray | None, logits: np.ndarray, ids: np.ndarray) -> tuple[float, float]:
    """Return the negative log-likelihood of a part and how many tokens it is of."""
    if before is None:
        rows = logits
    else:
        rows, ids = np.concatenate([before, logits], axis=1), np.pad(ids, ((0, 0), (1, 0)))
    ((total, count),) = Perplexity().per_sample({"logits": rows}, ids)
    return float(total), float(count)


def _row(name: str, length: int, passes: Sequence[Stops]) -> dict[str, Any]:
    stops = [one[length] for one in passes]
    first = stops[0]
    return {
        "entrant": name,
        "runtime": ENTRANTS[name].target.partition(":")[0],
        "is_base": ENTRANTS[name].is_base,
        "length": length,
        "read_tokens_per_second": median(one["tokens"] / one["read_seconds"] for one in stops),
        "step_ms": median(1e3 * one["step_seconds"] for one in stops),
        "blocks_step_ms": [1e3 * one["step_seconds"] for one in stops],
        "perplexity": float(np.exp(first["loss"] / first["predicted"])),
        "peak_bytes": max(one["peak_bytes"] for one in stops),
        "cache_bytes": first["cache_bytes"],
    }


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table over the length of the context."""
    heads = ["context", "cache", "read tokens/s", "CPU ms a token", "against arrays"]
    yield "| " + " | ".join([*heads, "perplexity", "difference", "cache MB", "peak MB"]) + " |"
    yield "| --- " * 9 + "|"
    rows = document["rows"]
    bases = {(row["runtime"], row["length"]): row for row in rows if row["is_base"]}
    for row in rows:
        base = bases.get((row["runtime"], row["length"]))
        cells = [f"{row['length']:,}", row["entrant"], f"{row['read_tokens_per_second']:.0f}"]
        cells += [f"{row['step_ms']:.1f}", "", f"{row['perplexity']:.3f}", ""]
        if base is not None and base is not row:
            cells[4] = f"{base['step_ms'] / row['step_ms']:.2f}"
            cells[6] = f"{row['perplexity'] - base['perplexity']:+.3f}"
        cells.append(f"{row['cache_bytes'] / 1e6:.1f}" if row["cache_bytes"] else "")
        yield "| " + " | ".join([*cells, f"{row['peak_bytes'] / 1e6:.0f}"]) + " |"


VIEWS = {"table": table}
