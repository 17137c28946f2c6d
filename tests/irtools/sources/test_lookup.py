"""Which frontend reads a source."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

from irtools.errors import FileError, ModelError
from irtools.model import Model
from irtools.plugins import registry
from irtools.sources import Claim, LoadOptions, find_frontend, load_source
from irtools.testing import TINY_MODELS


class Toy:
    """Reads files that end in .toy, as a package from outside would."""

    name: ClassVar[str] = "zoo"
    summary: ClassVar[str] = "for tests"

    def accepts(self, source: str) -> Claim:
        return "own" if source.endswith(".toy") else None

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


def test_a_frontend_from_outside_comes_before_the_one_that_reads_any_file(
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


def test_frontends_after_the_one_that_claims_a_source_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    load = registry.load

    def noted(group: str, name: str) -> object:
        asked.append(name)
        return load(group, name)

    monkeypatch.setattr(registry, "load", noted)
    (tmp_path / "a.onnx").write_bytes(b"\0")
    find_frontend(str(tmp_path / "a.onnx"))
    assert asked[-1] == "onnx" and not {"torch", "transformers", "zoo"} & set(asked)


def test_of_several_files_one_is_taken_and_said(tmp_path: Path) -> None:
    """As Optimum leaves them: what it exported, and what it quantized next to it."""
    model = TINY_MODELS["mlp"]()
    for name in ("model.onnx", "model_quantized.onnx"):
        model.save(tmp_path / name)
    taken = load_source(str(tmp_path))
    assert taken.notes == (
        f"model.onnx of {tmp_path} is taken, next to it is model_quantized.onnx",
    )
    assert not load_source(str(tmp_path / "model_quantized.onnx")).notes
    (tmp_path / "model.onnx").rename(tmp_path / "decoder_model.onnx")
    named = r"holds 2 models \(decoder_model.onnx, model_quantized.onnx\): name one of them"
    with pytest.raises(ModelError, match=named):
        load_source(str(tmp_path))
