"""Fashion-MNIST as image folders, and EfficientNet-Lite0 transferred to it.

Images are 28 x 28 in grey; the network gets them in 64 x 64 and three channels, by the
`preprocessor_config.json` that lies beside the folders.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.prepared.commands import irc
from benchmarks.prepared.convolutional import EfficientNetLite0, efficientnet_lite0
from benchmarks.prepared.exports import Tensors
from benchmarks.prepared.packages import cached, verify
from benchmarks.prepared.training import Recipe, train
from benchmarks.recording import ROOT
from irtools.data import InputSpec, read_images

DEBIAN_PACKAGE = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"
DIGEST = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
SIDE = 64
TRAINED_ON = 12_000
CALIBRATED_ON = 512
CLASSES = (
    "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot".split()  # noqa: SIM905
)
# (pixel - 127) / 128, as EfficientNet-Lite was trained.
PROCESSOR = {
    "size": {"height": SIDE, "width": SIDE},
    "rescale_factor": 1 / 128,
    "image_mean": [127 / 128] * 3,
    "image_std": [1.0] * 3,
}


def write_images(folder: Path) -> None:
    """Write `folder/{train,calibration,test}/CLASS/NUMBER.png` and how they are read."""
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps(CLASSES) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        source = _unpacked(Path(scratch)) / "usr/share/datasets/fashion-mnist"
        order = np.random.default_rng(0).permutation(60_000)
        train = order[:TRAINED_ON]
        _write_split(folder / "train", source, "train", train)
        _write_split(folder / "calibration", source, "train", train[:CALIBRATED_ON])
        _write_split(folder / "test", source, "t10k", np.arange(10_000))


def _unpacked(folder: Path) -> Path:
    subprocess.run(["apt-get", "download", "--quiet", DEBIAN_PACKAGE], check=True, cwd=folder)
    (package,) = folder.glob("*.deb")
    verify(package, DIGEST)
    subprocess.run(["dpkg-deb", "--extract", package, folder / "files"], check=True)
    return folder / "files"


def _write_split(folder: Path, source: Path, name: str, rows: np.ndarray) -> None:
    from PIL import Image

    pixels = _read(source / f"{name}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    labels = _read(source / f"{name}-labels-idx1-ubyte.gz", header=8)
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    for row in rows:
        Image.fromarray(pixels[row]).save(folder / CLASSES[labels[row]] / f"{row:05}.png")


def _read(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def load_images(folder: Path) -> Tensors:
    """Read a split as irtools reads it."""
    spec = InputSpec("pixel_values", np.dtype(np.float32), ("batch", 3, SIDE, SIDE))
    data = read_images(folder, [spec])
    assert data.labels is not None
    return {
        "pixel_values": torch.from_numpy(data.feeds["pixel_values"]),
        "labels": torch.from_numpy(data.labels),
    }


def fashion_classifier() -> nn.Module:
    """EfficientNet-Lite0 with ten classes; its weights come from a file of their own."""
    model = EfficientNetLite0()
    model._fc = nn.Linear(1280, len(CLASSES))
    return model


def make_weights(path: Path, images: Path, cache: Path) -> None:
    """Transfer the ImageNet weights: a new head, then every weight, and save the state."""
    from safetensors.torch import save_file

    recipe = Recipe(epochs=3, batch=64, learning_rate=1e-3, head_factor=3.0)
    torch.manual_seed(recipe.seed)
    model = efficientnet_lite0(cache)
    model._fc = nn.Linear(1280, len(CLASSES))
    data = load_images(images / "train")

    def loss(rows: torch.Tensor) -> torch.Tensor:
        logits = model(_flipped(data["pixel_values"][rows]))
        return nn.functional.cross_entropy(logits, data["labels"][rows])

    train(model, model._fc, len(data["labels"]), loss, recipe)
    print(f"accuracy on the test images: {accuracy(model, load_images(images / 'test')):.4f}")
    save_file(model.state_dict(), path)


def _flipped(images: torch.Tensor) -> torch.Tensor:
    """Half of the images, mirrored."""
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def accuracy(model: nn.Module, data: Tensors) -> float:
    """Share of the images whose class is right."""
    with torch.inference_mode():
        parts = [model(images).argmax(1) for images in data["pixel_values"].split(200)]
    return float((torch.cat(parts) == data["labels"]).double().mean())


def write_sample(folder: Path, images: Path, count: int = 64) -> None:
    """Copy some images of all classes, without classes: for networks that have other ones."""
    for split in ("calibration", "test"):
        (folder / split).mkdir(parents=True)
        files = sorted((images / split).rglob("*.png"))
        for file in files[:: len(files) // count][:count]:
            shutil.copyfile(file, folder / split / f"{file.parent.name}-{file.name}")


def prepare_sample(cache: Path) -> None:
    """Make the image folders, and a sample for networks that read images in their own way."""
    folder = cache / "fashion-mnist"
    images = cached(folder / "images", write_images)
    cached(folder / "sample", lambda path: write_sample(path, images))


def prepare(cache: Path) -> None:
    """Make the image folders, the transferred weights and the export of the classifier."""
    prepare_sample(cache)
    folder = cache / "fashion-mnist"
    images = folder / "images"

    def write_own_sample(path: Path) -> None:
        shutil.copytree(folder / "sample", path)
        shutil.copyfile(images / "preprocessor_config.json", path / "preprocessor_config.json")

    cached(folder / "sample-64", write_own_sample)
    weights = cached(
        folder / "efficientnet-lite0.safetensors", lambda path: make_weights(path, images, cache)
    )
    example = cached(folder / "example.npz", _write_example)
    source = "benchmarks.prepared.fashion_mnist:fashion_classifier"
    options = ("--weights", weights, "--example", example)
    cached(
        folder / "efficientnet-lite0.onnx",
        lambda path: irc("export", source, *options, "-o", path, folder=ROOT),
    )


def _write_example(path: Path) -> None:
    np.savez(path, pixel_values=np.zeros((1, 3, SIDE, SIDE), np.float32))
