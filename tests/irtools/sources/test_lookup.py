"""Which frontend reads a source."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

from irtools.errors import FileError
from irtools.model import Model
from irtools.plugins import registry
from irtools.sources import LoadOptions, find_frontend


class Toy:
    """Reads files that end in .toy, as a package from outside would."""

    name: ClassVar[str] = "zoo"
    summary: ClassVar[str] = "for tests"
    takes_any_file: ClassVar[bool] = False

    def accepts(self, source: str) -> bool:
        return source.endswith(".toy")

    def load(self, source: str, options: LoadOptions) -> Model:
        raise NotImplementedError

    def parts(self, source: str, options: LoadOptions) -> tuple[str, ...]:
        return ()

    def companions(self, source: str) -> tuple[Path, ...]:
        return ()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = registry.plugins
    own = {"zoo": EntryPoint("zoo", f"{__name__}:Toy", "irtools.frontends")}

    def found(group: str) -> Mapping[str, EntryPoint]:
        return {**plugins(group), **(own if group == "irtools.frontends" else {})}

    monkeypatch.setattr(registry, "plugins", found)


def test_a_frontend_from_outside_is_asked_before_the_one_that_takes_any_file(
    tmp_path: Path,
) -> None:
    for name, expected in (("a.toy", "zoo"), ("a.onnx", "onnx"), ("a.dat", "onnx")):
        (tmp_path / name).write_bytes(b"\0" * 16)
        assert find_frontend(str(tmp_path / name)).name == expected


def test_code_is_told_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_frontend("module:function").name == "torch"
    Path("module:function").write_bytes(b"\0")
    assert find_frontend("module:function").name == "onnx"
    with pytest.raises(FileError, match="not a file or folder here"):
        find_frontend("nothing")
