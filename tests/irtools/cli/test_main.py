"""Start-up time, errors and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from irtools.cli.advice import ADVICE, ALIASES, advice
from irtools.cli.main import VERBS
from irtools.errors import DataError, IrtoolsError, MissingExtraError
from irtools.passes.cleanup.cleanup import Cleanup

_FAST = ("--no-bench", "--no-check")
_HEAVY = ("onnxruntime", "torch", "transformers", "openvino", "onnx", "onnxscript")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from irtools.cli.main import run; run(['--help']); "
        f"print([m for m in {_HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(irc: Callable, verb: str) -> None:
    found = irc(verb, "--help")
    assert found.code == 0 and "Usage: irc " + verb in found.out


def test_without_a_verb_irc_shows_its_help(irc: Callable) -> None:
    found = irc()
    assert found.code == 2 and found.out == ""
    assert found.err.startswith("Usage: irc") and "\n  optimize " in found.err


def test_a_reader_that_leaves_early_is_no_failure(irc: Callable, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "irtools.cli.main", "inspect", "model.onnx"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr is not None and process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["optimise", "model.onnx"], "did you mean 'optimize'"),
        (["optimize", "model.onnx", "--passes", "cleenup"], "did you mean 'cleanup'"),
        (["optimize", "model.onnx", "--passes", "int8:mod=static"], "did you mean 'mode'"),
        (["optimize", "model.onnx", "--passes", "int8:mode=statik"], "static"),
        (["optimize", "model.onnx", "--passes", "cleanup,int8:min_size=-1"], "(column 14 of"),
        (["optimize", "model.onnx", "--passes", "cleanup", "--evalute", "x"], "--evaluate"),
        (["optimize", "model.onnx", "--passes", "cleanup", "-t", "ort-gpu"], "ort-cpu"),
        (["optimize", "model.onnx", "--passes", "cleanup", "-t", "ort-cpu:isa=avx3"], "avx2"),
        (["optimize", "model.onnx", "--max-latency", "10"], "10ms"),
        (["optimize", "model.onnx", "--passes", "cleanup", "--max-drop", "200%"], "0.01 or 1%"),
        (["optimize", "model.onnx", "--passes", "cleanup", "--metric", "acuracy"], "accuracy"),
        (["passes", "cleenup"], "did you mean 'cleanup'"),
        (["plan", "model.onnx", "-p", "cleanup"], "makes no plan"),
    ],
)
def test_misspellings_are_refused_with_the_nearest_name(
    irc: Callable, args: list[str], hint: str
) -> None:
    found = irc(*args)
    assert found.code == 2 and hint in found.err
    assert len(found.err.splitlines()) == 1 and found.out == ""


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ("autotune", "--max-drop"),
        ("Quantize", "--passes int8"),
        ("quantise", "--passes int8"),
        ("prune", "--passes prune"),
        ("serve", "irc serves no models"),
        ("web", "irc ui DIR"),
        ("package", "irc compile"),
        ("benchmark", "irc bench"),
        ("pull", "downloads nothing"),
    ],
)
def test_words_of_other_tools_get_an_answer(irc: Callable, word: str, instead: str) -> None:
    found = irc(word, "model.onnx", "--bits", "8")
    assert found.code == 2 and found.out == ""
    assert f"there is no command {word.lower()!r}: " in found.err and instead in found.err
    assert "did you mean" not in found.err and len(found.err.splitlines()) == 1


def test_no_advice_hides_a_verb_or_names_one_that_is_not_there() -> None:
    text = " ".join(str(advice(word)) for word in ADVICE)
    named = set(re.findall(r"\birc ([a-z][a-z-]*)\b", text)) - {"downloads", "has", "serves"}
    assert named and named <= set(VERBS)
    assert not set(VERBS) & {*ADVICE, *ALIASES}
    assert set(ALIASES.values()) <= set(ADVICE)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("bert-base-uncased", "`hf download bert-base-uncased --local-dir ./bert-base-uncased`"),
        ("owner/tiny-v1.5", "`hf download owner/tiny-v1.5 --local-dir ./tiny-v1.5`"),
        ("https://huggingface.co/owner/tiny", "`hf download owner/tiny --local-dir ./tiny`"),
        ("https://x.org/net.onnx", "curl -LO"),
        ("s3://bucket/net.onnx", "an address"),
        ("hf://owner/tiny", "an address"),
    ],
)
@pytest.mark.parametrize("verb", [("inspect",), ("optimize", "--passes", "cleanup"), ("export",)])
def test_what_lies_elsewhere_is_not_downloaded(
    irc: Callable, verb: tuple[str, ...], source: str, said: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    found = irc(verb[0], source, *verb[1:])
    assert found.code == 6 and found.out == ""
    assert "irc downloads nothing" in found.err and said in found.err
    assert len(found.err.splitlines()) == 1 and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("source", ["absent.onnx", "absent.pt", "here/absent", "./absent/x"])
def test_a_path_is_not_taken_for_a_name(irc: Callable, source: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    found = irc("inspect", source)
    assert found.code == 6 and "hf download" not in found.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.gguf", "does not begin with GGUF"),
        ("model.tflite", "tf2onnx"),
        ("saved_model.pb", "tf2onnx"),
        ("model.keras", "tf2onnx"),
        ("model.pth", "config.json"),
        ("model.bin", "config.json"),
        ("model.xml", "OpenVINO"),
    ],
)
def test_other_formats_say_how_onnx_is_made_of_them(
    irc: Callable, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / name).write_bytes(b"\xff\x00\xfe" * 100)
    found = irc("inspect", name)
    assert found.code == 3 and said in found.err and len(found.err.splitlines()) == 1


def test_the_suffix_does_not_decide_what_a_file_is(irc: Callable, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").rename(tmp_path / "model.pb")
    assert irc("inspect", "model.pb").code == 0


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", 3, "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", 3, "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", 3, ""),
        (None, 6, "bad.onnx"),
    ],
)
def test_what_is_no_model(
    irc: Callable, tmp_path: Path, content: bytes | None, code: int, said: str
) -> None:
    if content is not None:
        (tmp_path / "bad.onnx").write_bytes(content)
    found = irc("optimize", "bad.onnx", "--passes", "cleanup")
    assert found.code == code and said in found.err
    assert not (tmp_path / "bad.opt.onnx").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("no"), 3), (MissingExtraError("this", "torch"), 4), (MemoryError(), 7)],
)
def test_exit_codes_follow_the_error(
    irc: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Cleanup, "run", fail)
    found = irc("optimize", "model.onnx", "--passes", "cleanup", *_FAST)
    assert found.code == code
    last = found.err.splitlines()[-1]
    assert last.startswith("irc: pass 1 of 1 (cleanup): ")
    assert "reproduce" not in last or not isinstance(error, IrtoolsError)


def test_a_bug_in_a_pass_leaves_a_reproducer(
    irc: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(Cleanup, "run", fail)
    found = irc("optimize", "model.onnx", "--passes", "cleanup", *_FAST)
    assert found.code == 70
    last = found.err.splitlines()[-1]
    assert last.startswith("irc: internal error: pass 1 of 1 (cleanup): KeyError")
    [folder] = tmp_path.glob("irc-reproducer-*")
    assert f"irc reproduce {folder}" in last

    again = irc("reproduce", str(folder))
    assert again.code == 70 and "irc: reproduced" in again.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    healed = irc("reproduce", str(folder))
    assert healed.code == 0 and "not reproduced" in healed.err


def test_a_bug_outside_passes_is_written_down(
    irc: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("irtools.sources.lookup.find_frontend", fail)
    found = irc("inspect", "model.onnx")
    assert found.code == 70 and "irc: internal error: KeyError" in found.err
    [folder] = tmp_path.glob("irc-crash-*")
    assert json.loads((folder / "crash.json").read_text())["arguments"] == ["inspect", "model.onnx"]
    assert "KeyError" in (folder / "traceback.txt").read_text()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this machine has what the error is about",
)
@pytest.mark.parametrize("target", ["ort-cuda", "ort-tensorrt"])
def test_an_absent_device_is_said_before_any_work(irc: Callable, target: str) -> None:
    found = irc("optimize", "model.onnx", "--passes", "cleanup,fp16", "--target", target)
    assert found.code == 4 and found.err.count("\n") == 1
    assert "pip install onnxruntime-gpu" in found.err


def test_names_cannot_speak_to_the_terminal(irc: Callable) -> None:
    found = irc("optimize", "no\x1b[31m\nirc: fine", "--passes", "cleanup")
    assert found.code == 6
    assert "\x1b" not in found.err and len(found.err.splitlines()) == 1


def test_sigterm_ends_with_143_and_leaves_nothing(irc: Callable, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "irtools.cli.main", "bench", "model.onnx", "model.onnx"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "benchmark" in process.stderr.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and "stopped by SIGTERM" in err
    assert time.monotonic() - started < 10
    assert list(scratch.glob("ir*")) == []
