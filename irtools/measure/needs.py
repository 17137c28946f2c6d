"""What work on a large model needs, said and checked before it starts.

The shares are those measured on the shape of Llama-3.2-1B in float32, 4.9 GB (docs/benchmarks.md):
an export takes 0.27 of the weights in memory that no file backs, and 1.34 where they are a pickle,
which is read as a whole; `optimize` that compares with the original 1.1, passes alone 0.34.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from irtools.errors import FileError
from irtools.files import scratch_place
from irtools.words import size_text

__all__ = ["Needs", "available_memory", "float32_bytes", "needs_of", "refuse_full_disks"]

LARGE = 1 << 30
"""Bytes of weights from which on needs are said."""

_EXPORT, _UNPICKLED, _COMPARED, _PASSES = 0.3, 1.35, 1.15, 0.35
_CODES = {"I32": 8, "U8": 2, "I8": 1}
"""Numbers in one element of a tensor of packed codes, about."""
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_HEADER_AT_MOST = 100_000_000
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Needs:
    """What a piece of work takes, about.

    Attributes:
        memory: Bytes at the peak that no file backs.
        disk: Bytes by the folder that they go to.
    """

    memory: int
    disk: Mapping[Path, int]

    def __str__(self) -> str:
        parts = [f"{size_text(self.memory)} of memory"]
        parts += [f"{size_text(size)} of disk in {folder}" for folder, size in self.disk.items()]
        *rest, last = parts
        return f"{', '.join(rest)} and {last}" if rest else last


def needs_of(
    source: str, out: Path, *, exports: bool, optimizes: bool = False, compares: bool = False
) -> Needs | None:
    """Return what work on a source takes; None where it is small, or its size is not known.

    Args:
        source: A checkpoint folder, a GGUF or an ONNX file.
        out: The folder that the result goes to.
        exports: The source is exported first.
        optimizes: Passes run.
        compares: The original is run, to compare with it.
    """
    weights = float32_bytes(Path(source))
    if weights < LARGE:
        return None
    pickled = _is_pickled(Path(source))
    shares = [_UNPICKLED if pickled else _EXPORT] if exports else []
    if optimizes:
        shares.append(_COMPARED if compares else _PASSES)
    # Weights that are not float32 are written as such, to be mapped, and those of the result once.
    copies = 1 + (not pickled and _stored_bytes(Path(source)) < weights)
    temporary = weights * (copies * exports + (optimizes and compares))
    places = {scratch_place(): temporary, out: weights}
    return Needs(round(max(shares, default=0) * weights), _joined(places))


def refuse_full_disks(needs: Needs) -> None:
    """Refuse work for which there is no room.

    Raises:
        FileError: A folder has less room than is needed.
    """
    for folder, size in needs.disk.items():
        free = shutil.disk_usage(_existing(folder)).free
        if free < size:
            raise FileError(
                f"this needs about {needs}, and {folder} has {size_text(free)} free: make room, or "
                "choose other places with -o and --work-dir"
            )


def available_memory(root: Path = Path("/")) -> int | None:
    """Return bytes of memory that can be had without pushing others out; None: not known.

    The least of what the system has available and what the control group has left.

    Args:
        root: Where /proc and /sys are.
    """
    found = [*_system(root), *_group(root / "sys/fs/cgroup")]
    return min(found, default=None)


def float32_bytes(source: Path) -> int:
    """Return the bytes that the weights of a source have in float32, about; 0: not known."""
    if source.is_dir():
        parts = sorted(source.glob("*.safetensors"))
        if parts:
            return 4 * sum(_numbers(part) for part in parts)
        return sum(path.stat().st_size for path in source.glob("*.bin"))
    if not source.is_file():
        return 0
    # Weights in a file of their own are called after the model.
    return sum(path.stat().st_size for path in source.parent.glob(f"{_plain(source.name)}*"))


def _plain(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _is_pickled(source: Path) -> bool:
    return source.is_dir() and not any(source.glob("*.safetensors"))


def _stored_bytes(source: Path) -> int:
    files = source.glob("*.safetensors") if source.is_dir() else [source]
    return sum(path.stat().st_size for path in files)


def _numbers(path: Path) -> int:
    """Return how many numbers a safetensors file holds, by its header; 0 where it has none."""
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return 0
        (length,) = struct.unpack("<Q", start)
        if length > _HEADER_AT_MOST:
            return 0
        try:
            header = json.loads(file.read(length))
            return sum(_count(entry) for name, entry in header.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return 0  # The frontend says what is wrong.


def _count(entry: Mapping[str, object]) -> int:
    kind, shape = entry["dtype"], entry["shape"]
    assert isinstance(shape, list)
    each = 1 if kind in _FLOATS else _CODES.get(str(kind), 0)
    return each * math.prod(shape)


def _joined(places: Mapping[Path, int]) -> dict[Path, int]:
    """Add up what goes to the same disk, under the first folder's name."""
    found: dict[int, tuple[Path, int]] = {}
    for folder, size in places.items():
        if size:
            disk = _existing(folder).stat().st_dev
            first, before = found.get(disk, (folder, 0))
            found[disk] = (first, before + size)
    return dict(found.values())


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one around it that exists."""
    return next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir()
    )


def _system(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _group(folder: Path) -> Iterator[int]:
    limit, used = (
        next(iter(_lines(folder / name)), "") for name in ("memory.max", "memory.current")
    )
    if limit.isdecimal() and used.isdecimal() and int(limit) < _NO_LIMIT:
        words = [line.split() for line in _lines(folder / "memory.stat")]
        idle = next((int(word[1]) for word in words if word[:1] == ["inactive_file"]), 0)
        yield max(0, int(limit) - int(used) + idle)


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()
