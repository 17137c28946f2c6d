"""Commands and GGUF files that are damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.gguf]


@pytest.mark.parametrize(
    ("verb", "rest"),
    [
        ("export", ()),
        ("inspect", ()),
        ("optimize", ("--passes", "cleanup")),
        ("finetune", ("--train", "t.jsonl", "--evaluate", "t.jsonl", "-o", "out")),
    ],
)
def test_damage_is_one_line(
    irc: Callable, tmp_path: Path, verb: str, rest: tuple[str, ...]
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1) + bytes(64))
    (tmp_path / "t.jsonl").write_text('{"text": "a", "label": 0}\n')
    before = sorted(tmp_path.iterdir())
    found = irc(verb, "m.gguf", *rest)
    assert found.code == 3 and found.out == ""
    assert f"says that it has {1 << 60} tensors" in found.err
    assert len(found.err.splitlines()) == 1 and sorted(tmp_path.iterdir()) == before
