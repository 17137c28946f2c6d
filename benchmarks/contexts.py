"""A decoder over the length of its context: reading, writing, memory and perplexity.

    python -m benchmarks run contexts [NAME...] [--lengths N,N] [--rounds N] [--write [NAME]]

SmolLM2 in 4 bits on both runtimes, its cache in every form that they have, next to the model that
onnxruntime-genai's builder makes. Each entrant reads real text of so many tokens in parts of 128,
as `begin_text` does, so that all but the first part read it from the cache; that gives the speed of
reading and the perplexity. Then it reads on token by token. Every block has a process of its own;
blocks of all entrants alternate. CPU time on one thread is counted, which other work on the machine
changes little. Ratios are against the cache as arrays on the same runtime.
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
from benchmarks.recording import DEFAULT_CACHE, about, add_names, add_write_option, prepare, store
from irtools.measure.memory import peak_memory
from irtools.measure.sandbox import run_isolated
from irtools.metrics import Perplexity
from irtools.model import Model
from irtools.targets import RunnerOptions, begin_text, find_target, lowered, text_decoder_of

SOURCE, PASSES = "smollm2", "cleanup,fuse,int4"
LENGTHS = "128,1024,4096,8192"
_PART = 128
_STEPS, _WARM_UP = 24, 4
_LEAST_TOKENS = 2048
"""Texts of fewer are read until there are so many in all."""
_CALIBRATION = 24
_FOLDER = Path("contenders", "contexts")
_GENAI = "onnxruntime-genai builder"


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
    "ORT, buffers int4": Entrant("ort-cpu", "kv:form=int4"),
    _GENAI: Entrant("ort-cpu", None),
    "OpenVINO, arrays": Entrant("openvino-cpu:stateful=false", is_base=True),
    "OpenVINO, variables u8": Entrant("openvino-cpu", "kv"),
    "OpenVINO, variables u4": Entrant("openvino-cpu", "kv:form=int4"),
}


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, ENTRANTS)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--lengths", default=LENGTHS, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    add_write_option(parser, "contexts")
    given = parser.parse_args(argv)
    cache = given.cache.resolve()
    for name in (SOURCE, "bbc"):
        prepare(name, cache)
    export_with_past(SOURCE, cache)
    files = {name: made(name, ENTRANTS[name], cache) for name in given.names}
    tokens = read_tokens(cache)
    rows: list[dict[str, Any]] = []
    for length in map(int, given.lengths.split(",")):
        blocks: dict[str, list[Mapping[str, float]]] = {name: [] for name in files}
        for _ in range(given.rounds):
            for name, path in files.items():
                arguments = (path, ENTRANTS[name].target, texts_of(tokens, length))
                blocks[name].append(run_isolated(block, *arguments, label=name))
        rows += (_row(name, length, found) for name, found in blocks.items())
        print("\n".join(table({"rows": rows})), flush=True)
    store(given.write, {**about("contexts"), "rows": rows})


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


def texts_of(tokens: np.ndarray, length: int) -> list[np.ndarray]:
    """Return texts of a length, [1, L] each: of short ones several."""
    count = max(_LEAST_TOKENS // length, 1)
    return [tokens[None, n * length : (n + 1) * length] for n in range(count)]


def block(path: Path, target: str, texts: Sequence[np.ndarray]) -> dict[str, float]:
    """Read texts and then token by token, in this process.

    Returns:
        `read_seconds` and `step_seconds` of CPU time, `tokens` that were read, the `loss` of
        `predicted` tokens in nats, `peak_bytes`, and `cache_bytes`, 0 where the runtime hides it.
    """
    precision = "f32" if target.startswith("openvino") else None
    options = RunnerOptions(threads=1, precision=precision)
    loss, predicted, seconds = 0.0, 0.0, 0.0
    with find_target(target).runner(path, options) as runner:
        decoder = text_decoder_of(runner)
        assert decoder is not None
        for ids in texts:
            text, before = begin_text(runner, decoder, 1), None
            for start in range(0, ids.shape[1], _PART):
                part = ids[:, start : start + _PART]
                begun = time.process_time()
                logits = text.read(part)
                seconds += time.process_time() - begun
                more = _loss(before, logits, part)
                loss, predicted = loss + more[0], predicted + more[1]
                before = logits[:, -1:]
        times = []
        for _ in range(_WARM_UP + _STEPS):
            begun = time.process_time()
            text.read(texts[-1][:, :1])
            times.append(time.process_time() - begun)
        return {
            "read_seconds": seconds,
            "tokens": sum(ids.shape[1] for ids in texts),
            "step_seconds": median(times[_WARM_UP:]),
            "loss": loss,
            "predicted": predicted,
            "peak_bytes": peak_memory(),
            "cache_bytes": text.cache_bytes or 0,
        }


def _loss(before: np.ndarray | None, logits: np.ndarray, ids: np.ndarray) -> tuple[float, float]:
    """Return the negative log-likelihood of a part and how many tokens it is of."""
    if before is None:
        rows = logits
    else:
        rows, ids = np.concatenate([before, logits], axis=1), np.pad(ids, ((0, 0), (1, 0)))
    ((total, count),) = Perplexity().per_sample({"logits": rows}, ids)
    return float(total), float(count)


def _row(name: str, length: int, blocks: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    first = blocks[0]
    return {
        "entrant": name,
        "runtime": ENTRANTS[name].target.partition(":")[0],
        "is_base": ENTRANTS[name].is_base,
        "length": length,
        "read_tokens_per_second": median(one["tokens"] / one["read_seconds"] for one in blocks),
        "step_ms": median(1e3 * one["step_seconds"] for one in blocks),
        "blocks_step_ms": [1e3 * one["step_seconds"] for one in blocks],
        "perplexity": float(np.exp(first["loss"] / first["predicted"])),
        "peak_bytes": max(one["peak_bytes"] for one in blocks),
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
