"""What large work needs is said, and refused where a disk has no room."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from irtools.cli.needs import say_needs
from irtools.errors import FileError
from irtools.measure import needs as subject
from irtools.measure.needs import Needs, available_memory, float32_bytes, needs_of


def checkpoint(folder: Path, *shapes: list[int], dtype: str = "BF16") -> Path:
    """Write the header of a checkpoint, without its weights."""
    folder.mkdir()
    entries = {f"w{i}": {"dtype": dtype, "shape": shape} for i, shape in enumerate(shapes)}
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return a checkpoint of one billion numbers in 16 bits."""
    return checkpoint(tmp_path / "one-b", [1_000_000, 999], [1_000_000])


def test_weights_are_counted_in_float32_by_headers_alone(large: Path, tmp_path: Path) -> None:
    assert float32_bytes(large) == 4_000_000_000
    assert float32_bytes(checkpoint(tmp_path / "codes", [10, 100], dtype="I32")) == 4 * 8000
    (tmp_path / "m.onnx").write_bytes(b"x" * 10)
    (tmp_path / "m.onnx.data").write_bytes(b"x" * 100)
    assert float32_bytes(tmp_path / "m.onnx") == 110
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\xff" * 12)
    assert float32_bytes(tmp_path / "cut") == float32_bytes(tmp_path / "absent") == 0


def test_an_export_maps_weights_and_a_comparison_holds_them(large: Path, tmp_path: Path) -> None:
    export = needs_of(str(large), tmp_path, exports=True)
    passes = needs_of(str(large), tmp_path, exports=False, optimizes=True)
    compared = needs_of(str(large), tmp_path, exports=False, optimizes=True, compares=True)
    assert export is not None and passes is not None and compared is not None
    assert export.memory == 1_200_000_000
    assert (passes.memory, compared.memory) == (1_400_000_000, 4_600_000_000)
    assert sum(export.disk.values()) == 12_000_000_000
    assert sum(passes.disk.values()) == 4_000_000_000


def test_a_pickle_is_read_as_a_whole_and_float32_is_mapped_as_it_is(tmp_path: Path) -> None:
    for name, file in (("pickled", "pytorch_model.bin"), ("wide", "model.safetensors")):
        folder = checkpoint(tmp_path / name, [1000, 1000, 300], dtype="F32")
        (folder / "model.safetensors").rename(folder / file)
        with (folder / file).open("r+b") as stream:
            stream.truncate(1_200_001_000)
    pickled = needs_of(str(tmp_path / "pickled"), tmp_path, exports=True)
    wide = needs_of(str(tmp_path / "wide"), tmp_path, exports=True)
    assert pickled is not None and wide is not None
    assert pickled.memory > 1_600_000_000 > 400_000_000 > wide.memory
    assert sum(wide.disk.values()) == 2_400_000_000


def test_small_models_need_nothing_worth_a_line(tmp_path: Path) -> None:
    assert needs_of(str(checkpoint(tmp_path / "small", [10, 10])), tmp_path, exports=True) is None


def usage(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(
        subject.shutil, "disk_usage", lambda place: SimpleNamespace(total=free, used=0, free=free)
    )


def test_needs_are_said_and_short_memory_is_a_warning(
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage(monkeypatch, 10**12)
    monkeypatch.setattr(subject, "available_memory", lambda: 1_000_000_000)
    say_needs(str(large), tmp_path / "new" / "out", exports=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "irc: needs about 1.2 GB of memory and 12.0 GB of disk in" in said
    assert "warning: 1.0 GB of memory are available" in said


def test_a_full_disk_is_refused_before_the_work(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage(monkeypatch, 3_000_000_000)
    with pytest.raises(FileError, match=r"12\.0 GB of disk in .* has 3\.0 GB free: make room"):
        say_needs(str(large), tmp_path, exports=True)


def test_memory_of_a_control_group_counts(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    5000000 kB\n")
    assert available_memory(tmp_path) == 5_120_000_000
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1500\n")
    (group / "memory.stat").write_text("anon 900\ninactive_file 100\n")
    (group / "memory.max").write_text("2000\n")
    assert available_memory(tmp_path) == 600
    (group / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 5_120_000_000


def test_needs_read_as_a_sentence() -> None:
    text = str(Needs(2_000_000_000, {Path("/a"): 1_000_000_000, Path("/b"): 3_000_000_000}))
    assert text == "2.0 GB of memory, 1.0 GB of disk in /a and 3.0 GB of disk in /b"
