"""GGUF files that are damaged or hostile end in one line, at once and with little memory."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irtools.checkpoints import Gguf
from irtools.errors import ModelError, UnsupportedError

pytestmark = pytest.mark.gguf

HUGE = 1 << 60


def array_of(kind: int, length: int) -> bytes:
    return struct.pack("<IIQ", 9, kind, length)


def text_of(length: int) -> bytes:
    return struct.pack("<IQ", 8, length)


def nested(depth: int) -> bytes:
    return struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "pairs": ({"pairs": HUGE}, f"has {HUGE} metadata entries, and its .* room for at most"),
    "count": ({"count": HUGE}, f"has {HUGE} tensors, and its .* room for at most"),
    "array": ({"metadata": {"a": array_of(4, HUGE)}}, f"has {HUGE} numbers in 'a'"),
    "bytes": ({"metadata": {"a": array_of(0, HUGE)}}, f"has {HUGE} numbers in 'a'"),
    "texts": ({"metadata": {"a": array_of(8, HUGE)}}, f"has {HUGE} texts in 'a'"),
    "text": ({"metadata": {"a": text_of(HUGE)}}, f"the text of 'a' takes {HUGE} bytes"),
    "nested": ({"metadata": {"a": nested(100_000)}}, "'a' is an array of arrays"),
    "kind": ({"metadata": {"a": struct.pack("<I", 99)}}, "'a' is of the unknown type 99"),
    "key": ({"metadata": {"": 1}}, "a metadata key of 0 bytes"),
    "alignment": ({"metadata": {"general.alignment": 3}}, "the alignment 3; expected a power"),
    "zero": ({"metadata": {"general.alignment": 0}}, "the alignment 0; expected a power"),
    "offset": ({"offsets": {"w": 1 << 62}}, "ends at byte .* and the file has"),
    "unaligned": ({"offsets": {"w": 4}}, "offset 4, which is not a multiple of the alignment 32"),
    "overlap": ({"offsets": {"v": 0}}, "lies over tensor"),
    "sizes": ({"tensors": {"w": ("F32", (1 << 40, 1 << 40), b"")}}, "ends at byte"),
    "empty": ({"tensors": {"w": ("F32", (0, 4), b"")}}, "expected no empty axis"),
    "rank": ({"tensors": {"w": ("F32", (1,) * 9, b"")}}, "has 9 axes, expected 1 to 4"),
    "rows": ({"tensors": {"w": ("Q4_0", (2, 33), b"")}}, "whole blocks of 32"),
    "nan": (
        {"tensors": {"w": ("Q4_0", (1, 32), b"\x00\x7e" + bytes(16))}},
        "holds numbers that are not finite",
    ),
}


@pytest.fixture
def sound(gguf_bytes: Callable[..., Any]) -> Any:
    tensors = {"w": ("F32", (4, 4), bytes(64)), "v": ("F32", (4,), bytes(16))}
    return gguf_bytes({"a": "text", "b": [1, 2]}, tensors)


def test_the_sound_file_is_read(sound: Any, tmp_path: Path) -> None:
    found = Gguf.open(sound.write(tmp_path / "m.gguf"))
    assert found.metadata == {"a": "text", "b": [1, 2]} and list(found.tensors) == ["w", "v"]


@pytest.mark.parametrize("case", sorted(CASES))
def test_damage_is_named(sound: Any, tmp_path: Path, case: str) -> None:
    changes, said = CASES[case]
    file = dataclasses.replace(sound, **changes).write(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=said) as caught:
        Gguf.open(file).tensor("w")
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_names_appear_once(sound: Any, tmp_path: Path) -> None:
    raw = sound.build()
    (tmp_path / "m.gguf").write_bytes(raw.replace(b"\0v", b"\0w", 1))
    with pytest.raises(ModelError, match="has the tensor 'w' twice"):
        Gguf.open(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(raw.replace(b"\0b", b"\0a", 1))
    with pytest.raises(ModelError, match="has the metadata key 'a' twice"):
        Gguf.open(tmp_path / "m.gguf")


def test_a_file_that_is_cut_off_anywhere_is_refused(sound: Any, tmp_path: Path) -> None:
    raw = sound.build()
    # The last 16 bytes fill up the data.
    for length in (*range(0, len(raw) - 16, 7), len(raw) - 17):
        (tmp_path / "m.gguf").write_bytes(raw[:length])
        with pytest.raises(ModelError):
            Gguf.open(tmp_path / "m.gguf")


def test_other_forms_are_told_apart(sound: Any, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelError, match="does not begin with GGUF"):
        Gguf.open(file)
    with pytest.raises(UnsupportedError, match="is GGUF version 1; versions 2 and 3"):
        Gguf.open(dataclasses.replace(sound, version=1).write(file))
    with pytest.raises(UnsupportedError, match="byte order is that of another machine"):
        Gguf.open(dataclasses.replace(sound, version=3 << 24).write(file))
    with pytest.raises(UnsupportedError, match="one of 3 parts; merge them"):
        Gguf.open(dataclasses.replace(sound, metadata={"split.count": 3}).write(file))
    for kind, said in (("IQ1_S", "the type IQ1_S; read are"), (99, "the type number 99")):
        tensors = {"w": (kind, (1, 256), bytes(50))}
        with pytest.raises(UnsupportedError, match=said):
            Gguf.open(dataclasses.replace(sound, tensors=tensors).write(file))
