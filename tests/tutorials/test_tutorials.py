"""The tutorials of docs/: every command and all code runs, in the order in which it is written."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from irtools.cli.main import run

PAGES = Path(__file__).parents[2] / "docs" / "tutorials"
_BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)
_QUICK = {
    "optimize": ("--no-bench",),
    "bench": ("--rounds", "3", "--max-seconds", "3"),
}
"""What is added to commands so that nothing is timed: the tutorials do not depend on it."""

_ANSWERS = {"compare": (0, 5)}
"""Exit codes that are answers."""

pytestmark = pytest.mark.slow


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Return what runs a page in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = ModuleType("tutorial")
    monkeypatch.setitem(sys.modules, "tutorial", module)

    def run_page(name: str) -> Path:
        blocks = _BLOCK.findall((PAGES / f"{name}.md").read_text(encoding="utf-8"))
        assert blocks
        for kind, text in blocks:
            if kind == "python":
                exec(compile(text, f"{name}.md", "exec"), module.__dict__)
            else:
                for line in text.replace("\\\n", " ").splitlines():
                    _command(shlex.split(line))
        return tmp_path

    yield run_page
    sys.modules.pop("my_data", None)


def _command(words: list[str]) -> None:
    program, *rest = words
    if program == "cp":
        shutil.copytree(rest[-2], rest[-1])
        return
    assert program == "irc"
    code = run([*rest, *_QUICK.get(rest[0], ())])
    assert code in _ANSWERS.get(rest[0], (0,)), " ".join(words)


@pytest.mark.torch
@pytest.mark.serving
def test_bert_to_server(follow: Callable[[str], Path], write_bert: Callable[[Path], None]) -> None:
    write_bert(Path.cwd())
    folder = follow("bert-to-server")
    assert (folder / "release" / "irtools.json").is_file() and (folder / "server/app.py").is_file()


@pytest.mark.torch
def test_own_data(
    follow: Callable[[str], Path],
    write_bert: Callable[[Path], None],
    write_classifier: Callable[[Path], None],
) -> None:
    write_bert(Path.cwd())
    write_classifier(Path.cwd())
    assert run(["export", "my-bert", "-o", "bert/"]) == 0
    assert (follow("own-data") / "from-python.onnx").is_file()


def test_own_pass(follow: Callable[[str], Path]) -> None:
    assert (follow("own-pass") / "drop-idle-clips" / "pyproject.toml").is_file()


def test_ci(follow: Callable[[str], Path], write_classifier: Callable[[Path], None]) -> None:
    write_classifier(Path.cwd())
    folder = follow("ci")
    assert (folder / "irc.lock").is_file() and "testsuite" in (folder / "irc.xml").read_text()


def test_accuracy_drop(follow: Callable[[str], Path]) -> None:
    assert (follow("accuracy-drop") / "better.onnx").is_file()


@pytest.mark.torch
def test_decoder(follow: Callable[[str], Path], write_llama: Callable[[Path], None]) -> None:
    write_llama(Path.cwd())
    assert (follow("decoder") / "llm4" / "tokenizer.json").is_file()
