"""`irc new-pass` writes a package that installs, and that passes its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from irtools.cli.main import run
from irtools.errors import OptionError, UsageError
from irtools.testing import write_starter


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package as the command writes it."""
    folder = tmp_path_factory.mktemp("packages") / "own"
    assert run(["new-pass", "drop-noise", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options]
    subprocess.run([*command, str(package)], check=True)
    return {**os.environ, "PYTHONPATH": str(site)}


def test_its_files(package: Path) -> None:
    files = {path.name for path in package.iterdir() if path.is_file()}
    assert files == {"pyproject.toml", "README.md", "drop_noise.py", "test_drop_noise.py"}


def test_its_own_tests_pass(package: Path, installed: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(
        [*command, str(package)], env=installed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_pass_is_found_by_name(installed: dict[str, str]) -> None:
    irc = [sys.executable, "-m", "irtools.cli.main"]
    done = subprocess.run(
        [*irc, "passes", "drop-noise"], env=installed, capture_output=True, text=True, check=True
    )
    assert "Remove Dropout nodes" in done.stdout and "keep" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DropNoise", "expected words of small letters"),
        ("drop--noise", "expected words of small letters"),
        ("../drop", "expected words of small letters"),
        ("int8", "there is a pass 'int8' already"),
        ("json", "a module 'json' would hide another one"),
        ("import", "a module 'import' would hide another one"),
    ],
)
def test_names_that_no_pass_can_have(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        write_starter(name, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_starter("drop-noise", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert all(path.is_file() for path in write_starter("drop-noise", tmp_path / "own"))
