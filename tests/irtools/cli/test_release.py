"""`irc verify`, `irc build --check` and the gate, as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as Xml

import msgspec
import numpy as np
import pytest

from irtools.builds import gate as gate_module
from irtools.builds.records import Manifest, read_record
from irtools.errors import UsageError
from irtools.measure.base import Ratio
from irtools.measure.wire import decode, encode

from .conftest import build_file, change

CONFIG = build_file('main = "cleanup"')


def _listed_with(release: str, old: str, new: str) -> None:
    """Change a text in the list of a release, as if it had been built so."""
    change(old, new, f"{release}/irtools.json")
    path = Path(release) / "irtools.json"
    path.write_text(read_record(Manifest, path).sealed()[1], encoding="utf-8")


@pytest.fixture
def built(irc: Callable) -> Callable:
    """A release in `release/`."""
    Path("irc.toml").write_text(CONFIG, encoding="utf-8")
    assert irc("build").code == 0
    return irc


def test_a_release_holds(built: Callable) -> None:
    found = built("verify", "release")
    assert found.code == 0, found.err
    assert "files" in found.out and "11 files as written" in found.out
    document = json.loads(built("verify", "release", "--json").out)
    outcomes = {one["what"]: one["outcome"] for one in document["findings"]}
    assert outcomes == {"files": "ok", "signature": "not checked", "mlp/main/avx2": "ok"}


def test_the_history_of_a_model_is_told(built: Callable) -> None:
    found = built("inspect", "release/mlp/main/avx2/model.onnx")
    assert found.code == 0
    assert "irtools 0.1.0: cleanup for ort-cpu:isa=avx2, from " in found.out


def test_what_fails_is_told_to_the_job(irc: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("irc.toml").write_text(CONFIG.replace('"cleanup"', '"cleanup:x=1"'), encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert irc("build", "--junit", "missing/gate.xml").code == 6
    assert irc("build", "--junit", "gate.xml").code == 2
    text = Path("summary.md").read_text(encoding="utf-8")
    assert text.startswith("### irc build: failed") and "irc.toml:7:1: pipelines.main: " in text
    assert Xml.parse("gate.xml").getroot().get("failures") == "1"


def test_a_summary_that_cannot_be_written_is_told(
    built: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "missing/summary.md")
    line = "irc: the summary of the job was not written: missing/summary.md: No such file"
    found = built("build")
    assert found.code == 0 and line in found.err
    change('"cleanup"', '"cleanup:x=1"')
    found = built("build")
    assert found.code == 2 and line in found.err and "pipelines.main: " in found.err


def test_every_changed_byte_is_found(built: Callable) -> None:
    for name in json.loads(Path("release/irtools.json").read_text())["files"]:
        path = Path("release") / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = built("verify", "release")
        assert found.code == 5 and f"{name} has other bytes than were written" in found.err
        path.write_bytes(content)
    Path("release/more.txt").write_text("x")
    assert "more.txt is not of this release" in built("verify", "release").err
    Path("release/more.txt").unlink()
    Path("release/README.md").unlink()
    assert "README.md is missing" in built("verify", "release").err


def _rehash(name: str) -> None:
    """Let the manifest say that a file is as it should be."""
    from irtools.files import file_hash

    listed = json.loads(Path("release/irtools.json").read_text(encoding="utf-8"))["files"][name]
    _listed_with("release", listed["sha256"], file_hash(Path("release") / name))


def test_other_numbers_are_found(built: Callable) -> None:
    name = "mlp/main/avx2/samples.npz"
    path = Path("release") / name
    content = decode(path.read_bytes())
    for outputs in content["outputs"]:
        outputs["logits"] = outputs["logits"] * np.float32(1.05)
    path.write_bytes(encode(content))
    _rehash(name)
    found = built("verify", "release")
    assert found.code == 5 and "dB over 4 samples" in found.err and "expected" in found.err
    path.write_bytes(b"nothing")
    _rehash(name)
    assert "does not hold samples" in built("verify", "release").err


def test_what_is_no_release_is_told(built: Callable) -> None:
    found = built("verify", "missing")
    assert found.code == 6 and "missing is not a release: it has no irtools.json" in found.err
    path = Path("release/irtools.json")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"main": "model.onnx"', '"main": "../../../../model.onnx"'))
    found = built("verify", "release")
    assert found.code == 3 and "which is not a file of the release" in found.err
    path.write_text('{"format": "irtools-release", "version": 9}')
    found = built("verify", "release")
    assert found.code == 3 and "version 9, expected 1" in found.err
    assert built("verify", "release", "--key", "missing.pub").code == 6
    found = built("inspect", "release")
    assert found.code == 3 and "it is a release: give the model file of one of its" in found.err


def test_every_changed_byte_of_the_list_is_found(built: Callable) -> None:
    path = Path("release/irtools.json")
    content = path.read_bytes()
    for place in (20, len(content) // 2, content.index(b'"sha256"') + 15, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        found = built("verify", "release")
        assert found.code == 3 and found.err.startswith("irc: release/irtools.json "), found.err
    path.write_bytes(content.replace(b'"original_bytes": ', b'"original_bytes": 1'))
    assert "has other bytes than were written" in built("verify", "release").err
    path.write_bytes(content)
    assert built("verify", "release").code == 0


def test_the_same_inputs_give_the_same_bytes(built: Callable) -> None:
    found = built("build", "--check")
    assert found.code == 0, found.err
    assert "mlp/main/avx2: the same bytes twice, and as irc.lock says (2 files)" in found.err
    lock = Path("irc.lock")
    text = lock.read_text(encoding="utf-8")
    digest = json.loads(text)["builds"]["mlp/main/avx2"]["files"]["model.onnx"]
    lock.write_text(text.replace(digest, "0" * 64), encoding="utf-8")
    found = built("build", "--check")
    assert found.code == 5
    assert "gave other bytes: mlp/main/avx2/model.onnx differs from irc.lock" in found.err


def test_the_same_bytes_pass_the_gate_and_are_not_measured(built: Callable) -> None:
    shutil.copytree("release", "old")
    found = built("build", "--baseline", "old")
    assert found.code == 0 and "the same bytes" in found.err
    assert "nothing is worse than in old" in found.err
    # The release that is there may be the baseline of the one that takes its place.
    change('"cleanup"', '"cleanup,int8"')
    assert built("build", "--baseline", "release").code in (0, 5)


def _spoilt(flips: int) -> None:
    """Let the model of `irc.toml` be wrong on some samples, and of the same size."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load("model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            array = numpy_helper.to_array(tensor).copy()
            array[:, :flips] *= -1
            tensor.CopyFrom(numpy_helper.from_array(array, "w2"))
    onnx.save(model, "model.onnx")


def test_a_loss_of_the_metric_is_red_everywhere(
    built: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("release", "old")
    before = Path("release/irtools.json").read_bytes()
    lock = Path("irc.lock").read_bytes()
    _spoilt(32)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    found = built("build", "--baseline", "old", "--junit", "gate.xml", "--markdown", "gate.md")
    assert found.code == 5
    assert "worse than old: mlp/main/avx2: accuracy 1.0000 -> 0." in found.err
    assert "nothing was released" in found.err
    # The release and the lock are as they were.
    assert Path("release/irtools.json").read_bytes() == before
    assert Path("irc.lock").read_bytes() == lock
    markdown = Path("gate.md").read_text(encoding="utf-8")
    assert markdown == Path("summary.md").read_text(encoding="utf-8")
    assert markdown.startswith("### irc build: failed") and "❌ worse" in markdown
    suite = Xml.parse("gate.xml").getroot()
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["accuracy"] and suite.get("failures") == "1"


def test_a_larger_model_and_a_slower_one_are_red(
    built: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    change('"cleanup"', '"cleanup,int8"')
    assert built("build").code == 0
    shutil.copytree("release", "old")
    change('"cleanup,int8"', '"cleanup"')
    found = built("build", "--baseline", "old")
    assert found.code == 5 and "size 6" in found.err and "worse" in found.err

    class Timed:
        def __init__(self, *args: object, **options: object) -> None: ...

        def run(self) -> object:
            from types import SimpleNamespace as Space

            def standing(ms: float, ratio: Ratio | None) -> object:
                result = Space(shape="batch=1", median_ms=ms, speedup=ratio)
                return Space(latency=(result,), evaluation=None, difference=None)

            return Space(standings=(standing(1, None), standing(2, Ratio(0.5, 0.48, 0.52))))

    monkeypatch.setattr(gate_module, "Contest", Timed)
    found = built("build", "--baseline", "old")
    assert "latency batch=1" in found.err and "0.50x [0.48, 0.52]" in found.err


def test_a_baseline_of_another_model_is_refused(built: Callable) -> None:
    shutil.copytree("release", "old")
    change("[models.mlp]", "[models.other]")
    found = built("build", "--baseline", "old")
    assert found.code == 2 and "old does not go with irc.toml: it has mlp/main/avx2" in found.err
    change("[models.other]", "[models.mlp]")
    path = Path("old/irtools.json")
    before = path.read_bytes()
    _listed_with("old", "float32[batch, 64]", "float32[batch, 65]")
    change('"cleanup"', '"cleanup,int8"')
    found = built("build", "--baseline", "old")
    assert found.code == 2 and "old is a baseline of another model: mlp/main/avx2 has" in found.err
    assert built("build", "--baseline", "missing").code == 6
    path.write_bytes(before)
    old, new = ((read_record(Manifest, path).builds[0]) for _ in range(2))
    named = [msgspec.structs.replace(one, task=t) for one, t in ((old, "a"), (new, "b"))]
    with pytest.raises(UsageError, match="has the task a, and now b"):
        gate_module.check_same_model(*named, Path("old"))
    gate_module.check_same_model(old, named[1], Path("old"))


@pytest.mark.parametrize("damage", ["byte", "end", "missing"])
def test_a_damaged_baseline_is_refused_before_anything_is_built(
    built: Callable, damage: str
) -> None:
    shutil.copytree("release", "old")
    (Path("old") / "notes.txt").write_text("a note")
    assert built("build", "--baseline", "old").code == 0
    file = Path("old/mlp/main/avx2/model.onnx")
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[:-1] + (b"" if damage == "end" else b"\xff"))
    found = built("build", "--baseline", "old")
    assert found.code == 3 and found.err.startswith("irc: old/mlp/main/avx2/model.onnx ")
    assert found.err.count("\n") == 1
