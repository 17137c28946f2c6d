"""The models that must go the whole way, where they come from, and data for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irtools.data import Dataset, DataSettings, SyntheticSettings, load_dataset, synthesize
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

__all__ = ["DATA", "ENTRIES", "PARTS", "Entry", "read_data"]

PARTS = ("encoder", "decoder")
DATA = {
    "bbc": ("bbc/bbc_calib.jsonl", "bbc/bbc_test.jsonl"),
    "r8": ("r8/r8_calib.jsonl", "r8/r8_test.jsonl"),
    "prompt-injection": tuple(
        f"prompt-injection/prompt_injection_{split}.jsonl" for split in ("calib", "test")
    ),
    "albert": ("albert/reactions/calib.jsonl", "albert/reactions/test.jsonl"),
    "fashion-sample": ("fashion-mnist/sample/calibration", "fashion-mnist/sample/test"),
    "efficientnet-fashion": ("fashion-mnist/sample-64/calibration", "fashion-mnist/sample-64/test"),
}
"""What `benchmarks prepare` makes, to its files: to calibrate on, and to test on."""


@dataclass(frozen=True)
class Entry:
    """A model on its way.

    Attributes:
        artefact: What `benchmarks prepare` makes it.
        weights: Where its weights come from: `real`, `trained` (for some minutes) or `drawn`.
        data: A name in `DATA`; None: drawn from its signature.
        source: What is exported, in the cache, or `module:function`.
        options: Further arguments of `irc export`, `CACHE` being the cache.
        length: Most tokens of a text.
        samples: To calibrate on; half as many are tested on.
        prune: The pass that prunes; empty: this model is not pruned.
        quantize: The pass that quantizes.
        pair: An encoder and a decoder, each of which goes the way.
    """

    artefact: str
    weights: str
    data: str | None = "bbc"
    source: str = ""
    options: tuple[str, ...] = ()
    length: int = 64
    samples: int = 64
    prune: str = "prune:ratio=0.1"
    quantize: str = "int8"
    pair: bool = False

    def export_arguments(self, cache: Path) -> list[str]:
        """Return what `irc export` is given."""
        source = self.source or f"{self.artefact}/checkpoint"
        place = source if ":" in source else str(cache / source)
        return [place, *(option.replace("CACHE", str(cache)) for option in self.options)]

    @property
    def steps(self) -> tuple[str, ...]:
        """The passes in their order."""
        return tuple(step for step in ("cleanup", "fuse", self.prune, self.quantize) if step)


_PAST = ("--with-past",)
_EVENLY = "prune:ratio=0.1:scope=local"
"""Weighing layers against each other takes minutes for a large model."""
_BY_NORM = f"{_EVENLY}:importance=magnitude:refit=false"
"""Looks at no data: on weights that were drawn no unit matters more than another one."""
ENTRIES: Mapping[str, Entry] = {
    "minilm-r8": Entry("r8", "real", "r8", "r8/minilm-r8"),
    "bert-base": Entry("bert-base-uncased", "drawn", samples=16, prune=_BY_NORM),
    "roberta-base": Entry("roberta-base", "drawn", samples=16, prune=_BY_NORM),
    "mpnet-base": Entry("mpnet", "real"),
    "mpnet-base-unpruned": Entry("mpnet", "real", samples=32, prune=""),
    "distilbert-base": Entry("distilbert-base", "drawn", samples=16, prune=_BY_NORM),
    "albert": Entry("albert", "real", "albert", length=128),
    "deberta-v3-xsmall": Entry(
        "deberta-injection", "trained", "prompt-injection", "deberta-injection/network", length=32
    ),
    "vit-base": Entry("vit-base", "drawn", "fashion-sample", samples=16, prune=_BY_NORM),
    "dinov2-small": Entry("dinov2-small", "real", "fashion-sample"),
    "efficientnet-lite0": Entry(
        "efficientnet-fashion",
        "real",
        "efficientnet-fashion",
        "benchmarks.prepared.fashion_mnist:fashion_classifier",
        (
            *("--weights", "CACHE/fashion-mnist/efficientnet-lite0.safetensors"),
            *("--example", "CACHE/fashion-mnist/example.npz"),
        ),
    ),
    "resnet-50": Entry("resnet-50", "drawn", "fashion-sample", samples=16, prune=_BY_NORM),
    "smollm2-135m": Entry("smollm2", "real", options=_PAST, samples=32, prune=_EVENLY),
    "smollm2-135m-unpruned": Entry("smollm2", "real", options=_PAST, samples=32, prune=""),
    "smollm2-135m-weights": Entry(
        "smollm2",
        "real",
        options=_PAST,
        samples=32,
        prune="",
        quantize="int8:mode=weight-only",
    ),
    "llama-1b": Entry("llama-1b", "drawn", None, options=_PAST, samples=8, prune=_BY_NORM),
    "llama-1b-unpruned": Entry("llama-1b", "drawn", None, options=_PAST, samples=8, prune=""),
    "gpt2": Entry("gpt2", "drawn", options=_PAST, samples=8, prune=_BY_NORM),
    "whisper-tiny": Entry("whisper-tiny", "drawn", None, options=_PAST, samples=8, pair=True),
    "t5-small": Entry("t5-small", "drawn", options=_PAST, samples=32, prune=_EVENLY, pair=True),
}


def read_data(entry: Entry, part: str, export: Path, cache: Path) -> tuple[Dataset, Dataset]:
    """Return what to calibrate on and what to test on, without labels.

    Args:
        part: A `decoder` gets what the encoder makes of the texts.
        export: The folder of the exported model.
    """
    model = Model.load(export / ("encoder_model.onnx" if entry.pair else "model.onnx"))
    if entry.data is None:
        drawn = (SyntheticSettings(entry.samples, seed=seed) for seed in (0, 1))
        found = [synthesize(model, settings) for settings in drawn]
    else:
        given = DataSettings(max_length=entry.length, samples=entry.samples)
        found = [load_dataset(str(cache / name), model, given) for name in DATA[entry.data]]
    if part == "decoder":
        found = [_for_decoder(data, model, export / "decoder_model.onnx") for data in found]
    calibration, test = (dataclasses.replace(data, labels=None) for data in found)
    return calibration, test.spread(max(len(test) // 2, 1))


def _for_decoder(data: Dataset, encoder: Model, path: Path, tokens: int = 24) -> Dataset:
    """Return feeds for a decoder at its first tokens, with its source as the encoder reads it."""
    with find_target("ort-cpu").runner(encoder, RunnerOptions(threads=1)) as runner:
        parts = [runner.run(feeds) for feeds in data.batches(8, trim_padding=False)]
    feeds = {
        name.replace("present", "past_key_values"): np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }
    drawn = np.random.default_rng(0).integers(3, 30000, (len(data), tokens))
    feeds["input_ids"] = data.feeds.get("input_ids", drawn)[:, :tokens]
    if "attention_mask" in data.feeds:
        feeds["encoder_attention_mask"] = data.feeds["attention_mask"]
    wanted = Model.load(path).ir.graph.inputs
    for value in wanted:
        if value.name.endswith(("decoder.key", "decoder.value")):
            _, heads, _, width = value.shape
            feeds[value.name] = np.zeros((len(data), heads, 0, width), np.float32)
    return Dataset({value.name: feeds[value.name] for value in wanted}, source=data.source)
