"""A release that writes text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.builds.build import BuildSettings, build
from irtools.builds.config import read_config
from irtools.builds.load import LoadedModel, load
from irtools.builds.watch import Watch
from irtools.cli.main import run
from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target
from irtools.testing.models import mlp


def _loaded(folder: Path) -> LoadedModel:
    runner = find_target("ort-cpu").runner(folder / "model.onnx", RunnerOptions(threads=1))
    return LoadedModel("llm/int4/ort-cpu", "ort-cpu", folder, runner)


def test_a_release_writes_text(
    tmp_path: Path, talks: Callable[..., Path], cached_decoder: Model
) -> None:
    with _loaded(talks(tmp_path / "d", cached_decoder, eos_token_id=60)) as model:
        pieces = list(model.generate("w5 w9 w30", new_tokens=5, raw=True))
        again = list(model.generate("w5 w9 w30", new_tokens=2, raw=True))
    assert len(pieces) == 5 and all(piece.strip().startswith("w") for piece in pieces)
    assert again == pieces[:2]


_CONFIG = """
[models.llm]
source = "model.onnx"
[pipelines]
clean = "cleanup"
[targets]
cpu = "ort-cpu"
[measuring]
bench = "none"
check = false
"""


def test_a_release_is_opened_by_the_command(
    tmp_path: Path,
    talks: Callable[..., Path],
    cached_decoder: Model,
    capfd: pytest.CaptureFixture[str],
) -> None:
    project = talks(tmp_path / "project", cached_decoder, eos_token_id=60)
    (project / "irc.toml").write_text(_CONFIG, encoding="utf-8")
    build(read_config(project / "irc.toml"), BuildSettings(), Watch())
    release = project / "release"
    assert list(release.rglob("genai_config.json"))
    with load(release) as model:
        text = "".join(model.generate("w5 w9 w30", new_tokens=5, raw=True))
    arguments = ("generate", str(release), "--prompt", "w5 w9 w30", "--raw", "--new-tokens", "5")
    assert run(arguments) == 0
    assert capfd.readouterr().out == text + "\n"
    assert run((*arguments, "--target", "ort-cpu")) == 2


def test_another_model_is_named(tmp_path: Path, talks: Callable[..., Path]) -> None:
    with (
        _loaded(talks(tmp_path / "d", mlp())) as model,
        pytest.raises(UnsupportedError, match="llm/int4/ort-cpu does not write text"),
    ):
        model.generate("w5", raw=True)
