"""`irc init`, `irc build` and `irc cache` as a user types them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from irtools.errors import FileError

from .conftest import build_file, change

CONFIG = build_file('clean = "cleanup"\nint8 = "cleanup,int8"')


@pytest.fixture
def build(irc: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    Path("irc.toml").write_text(CONFIG, encoding="utf-8")
    return lambda *args: irc("build", *args)


def _origins(err: str) -> list[str]:
    rows = [line for line in err.splitlines() if line.startswith("mlp/")]
    return [row.rpartition("│")[2].strip() for row in rows]


def test_what_changed_is_made_again_and_nothing_else(build: Callable) -> None:
    first = build()
    assert first.code == 0, first.err
    assert _origins(first.err) == ["built", "built"]
    stamps = {path: path.stat().st_mtime_ns for path in Path("release").rglob("*")}
    lock = Path("irc.lock").read_bytes()
    assert _origins(build().err) == ["unchanged", "unchanged"]
    # Nothing was even written.
    assert stamps == {path: path.stat().st_mtime_ns for path in Path("release").rglob("*")}
    # Another pipeline, another target: one build each. Back again: from the cache.
    change('"cleanup,int8"', '"cleanup,int8:mode=dynamic"')
    assert _origins(build().err) == ["unchanged", "built"]
    assert Path("irc.lock").read_bytes() != lock
    change('"cleanup,int8:mode=dynamic"', '"cleanup,int8"')
    assert _origins(build().err) == ["unchanged", "from the cache"]
    assert Path("irc.lock").read_bytes() == lock
    change('avx2 = "ort-cpu:isa=avx2"', 'vnni = "ort-cpu:isa=vnni"')
    assert _origins(build().err) == ["built", "built"]
    # A page of the release that is not about builds.
    change('source = "model.onnx"', 'source = "model.onnx"\nlicense = "MIT"')
    assert _origins(build().err) == ["unchanged", "unchanged"]
    assert 'license: "MIT"' in Path("release/README.md").read_text(encoding="utf-8")
    # Data.
    with np.load("data.npz") as data:
        np.savez("data.npz", x=data["x"] * 2, labels=data["labels"])
    assert _origins(build().err) == ["built", "built"]


def test_a_release_that_was_damaged_is_written_again(build: Callable) -> None:
    change('clean = "cleanup"\n', "")
    assert build().code == 0
    file = Path("release/mlp/int8/avx2/model.onnx")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"x")
    found = build()
    assert "model.onnx has other bytes than were written" in found.err
    assert _origins(found.err) == ["from the cache"] and file.read_bytes() == content
    # The cache as well.
    [kept] = Path("cache").rglob("build/*/*/model.onnx")
    kept.write_bytes(b"")
    file.unlink()
    found = build()
    assert "is damaged (model.onnx has 0 of" in found.err
    assert _origins(found.err) == ["built"] and file.read_bytes() == content


def test_what_a_killed_build_left_goes_though_nothing_is_built(build: Callable) -> None:
    change('clean = "cleanup"\n', "")
    assert build().code == 0
    left = Path(".irtools-staging-killed")
    (left / "files").mkdir(parents=True)
    (left / ".irc-lock").touch()  # That no process holds.
    assert _origins(build().err) == ["unchanged"] and not left.exists()


def test_a_source_that_changes_during_its_build_is_told(
    build: Callable, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.builds import make

    real, content = make.make_build, Path("model.onnx").read_bytes()

    def changing(*args: object) -> object:
        found = real(*args)  # type: ignore[arg-type]
        Path("model.onnx").write_bytes(content + b"\x42\x00")
        return found

    change('clean = "cleanup"\n', "")
    monkeypatch.setattr(make, "make_build", changing)
    found = build("--track", "kept:x")
    assert kept[-1].startswith("mlp/int8/avx2 ends: its source or data changed")
    assert found.code == 3 and "changed while it was built: build again" in found.err
    assert not Path("release").exists() and not list(Path("cache").rglob("build/*/*"))
    monkeypatch.setattr(make, "make_build", real)
    Path("model.onnx").write_bytes(content)
    assert build().code == 0


def test_a_release_that_is_replaced_meanwhile_is_not_mixed_in(
    build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irtools.builds import filling

    assert build().code == 0
    real = filling.copy_files

    def replaced(names: list[str], source: Path, folder: Path) -> None:
        real(names, source, folder)
        if source.parts[0] == "release" and "model.onnx" in names:
            (folder / "model.onnx").write_bytes(b"of another release")

    monkeypatch.setattr(filling, "copy_files", replaced)
    change("check = false", "check = false\n[release]\nversion = '2'")
    found = build()
    assert _origins(found.err) == ["from the cache", "from the cache"]
    assert Path("release/mlp/int8/avx2/model.onnx").stat().st_size > 1000


def test_the_release_says_what_it_is(build: Callable) -> None:
    assert build("-o", "out").code == 0
    names = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")}
    assert {"README.md", "irtools.json", "report.json", "report.md", "provenance.json"} <= names
    assert {"sbom.cdx.json", "mlp/int8/avx2/model.onnx", "mlp/int8/avx2/samples.npz"} <= names
    manifest = json.loads(Path("out/irtools.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == names - {"irtools.json"}
    model = onnx.load("out/mlp/int8/avx2/model.onnx")
    [run] = json.loads({p.key: p.value for p in model.metadata_props}["irtools.history"])
    assert run["pipeline"] == "cleanup,int8" and run["target"] == "ort-cpu:isa=avx2"
    assert run["source"] == manifest["builds"][0]["source_sha256"]


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        (
            "evaluate =",
            "evalute =",
            2,
            "irc.toml:5:1: there is no key 'evalute' in [data.all]; did",
        ),
        ('"cleanup,int8"', '"cleanup,int9"', 2, "irc.toml:8:1: pipelines.int8: there is no pass"),
        ("isa=avx2", "isa=avx9", 2, "irc.toml:10:1: targets.avx2: isa is 'avx9', expected"),
        (
            '"model.onnx"',
            '"modl.onnx"',
            6,
            "irc.toml:3:1: models.mlp.source: cannot read 'modl.onnx': th",
        ),
        ('"data.npz"', '"dta.npz"', 6, "irc.toml:5:1: data.all.evaluate: no data at dta.npz"),
        (
            '"data.npz"',
            '"data.npz"\ntokenizer = "no"',
            6,
            "irc.toml:6:1: data.all.tokenizer: cannot read no",
        ),
        (
            '"model.onnx"',
            '"model.onnx"\nadapters = ["x", "no=1"]',
            6,
            "irc.toml:4:1: models.mlp.adapters: cannot read x",
        ),
        (
            '"model.onnx"',
            '"model.onnx"\nadapters = ["irc.toml=x"]',
            2,
            "irc: irc.toml:4:1: models.mlp.adapters: 'irc.toml=x' is neither DIR nor",
        ),
        (
            '"model.onnx"',
            '"model.onnx"\nmetric = "acuracy"',
            2,
            "irc: irc.toml:4:1: models.mlp.metric: there is no metric 'acuracy'; did you",
        ),
        (
            "check = false",
            'check = false\nfigures = ["enrgy"]',
            2,
            "irc: irc.toml:15:1: measuring.figures: there is no figure 'enrgy'; did you mean 'en",
        ),
        (
            "[measuring]",
            '[goals]\nmax-drop = { acuracy = "1%" }\n[measuring]',
            2,
            "irc: irc.toml:11:2: goals: there is no metric 'acuracy'; did you mean 'accuracy'?",
        ),
        ('"model.onnx"', '"model.onnx"\npart = "encoder"', 2, "file, and has no part 'encoder'"),
        (
            '"model.onnx"',
            '"tomllib:loads"',
            2,
            "irc: irc.toml:3:1: models.mlp.source: ",
        ),
        (
            "[models.mlp]",
            '[models."report.md"]',
            2,
            "irc: irc.toml:2:9: models.report.md: a file of the release has this name",
        ),
    ],
)
def test_what_cannot_be_built_leaves_nothing(
    build: Callable, old: str, new: str, code: int, line: str
) -> None:
    change(old, new)
    found = build()
    assert found.code == code and line in found.err
    assert not Path("release").exists() and not Path("irc.lock").exists()
    assert not list(Path().glob(".irtools*"))


@pytest.mark.parametrize("folder", [".", "../{name}", "models", "data"])
def test_a_folder_that_builds_read_from_is_never_replaced(build: Callable, folder: str) -> None:
    for name in ("models", "data"):
        Path(name).mkdir()
    Path("model.onnx").rename("models/model.onnx")
    Path("data.npz").rename("data/data.npz")
    change('"model.onnx"', '"models/model.onnx"')
    change('"data.npz"', '"data/data.npz"')
    place = folder.format(name=Path.cwd().name)
    for option in ("--force", "--dry-run"):
        found = build("-o", place, option)
        assert found.code == 2 and f"would replace the folder {place}, which holds" in found.err
    assert Path("models/model.onnx").exists() and Path("data/data.npz").exists()


def test_what_does_not_exist_is_said_before_the_first_build(build: Callable) -> None:
    change('"cleanup,int8"', '"cleanup,int9"')
    for arguments in ((), ("--dry-run",)):
        found = build(*arguments)
        assert found.code == 2 and "pipelines.int8: there is no pass 'int9'" in found.err
        assert "build 1 of 2" not in found.err


def test_of_several_builds_one_may_fail(build: Callable) -> None:
    change('int8 = "cleanup,int8"', 'int8 = {passes = "cleanup,int8", goals = {max-size="1%"}}')
    found = build()
    assert found.code == 5
    assert "1 of 2 builds failed and the release stays as it was" in found.err
    change(', goals = {max-size="1%"}', "")
    assert _origins(build().err) == ["from the cache", "built"]


def test_a_folder_with_other_files_is_not_replaced(build: Callable) -> None:
    Path("release").mkdir()
    Path("release/notes.txt").write_text("mine")
    found = build()
    assert found.code == 2 and "not a release" in found.err
    assert Path("release/notes.txt").read_text() == "mine"
    assert build("--force").code == 0
    Path("release/notes.txt").write_text("mine")
    found = build()
    assert found.code == 2 and "release/notes.txt is not of the release" in found.err


def test_a_locked_build_refuses_what_has_changed(build: Callable) -> None:
    found = build("--locked")
    assert found.code == 5 and "--locked needs irc.lock" in found.err
    assert build().code == 0
    assert build("--locked").code == 0
    change('"cleanup,int8"', '"cleanup,int8:mode=dynamic"')
    found = build("--locked")
    assert found.code == 5 and "mlp/int8/avx2 has another pipeline (" in found.err
    change("check = false", "check = false\nseed = 3")
    found = build("--locked")
    assert "mlp/clean/avx2 has another settings (measuring); mlp/int8/avx2 has" in found.err
    Path("irc.lock").write_text('{"format": "irtools-lock", "version": 0}')
    found = build("--locked")
    assert found.code == 3 and "has version 0, expected 1" in found.err


def test_a_dry_run_says_what_would_be_built_and_why(build: Callable) -> None:
    found = build("--dry-run")
    assert found.code == 0 and _origins(found.err) == ["to be built", "to be built"]
    assert not Path("release").exists() and not Path("irc.lock").exists()
    assert build().code == 0
    change('"cleanup,int8"', '"cleanup,int8:mode=dynamic"')
    found = build("--dry-run")
    assert _origins(found.err) == ["unchanged", "to be built: another pipeline"]
    assert build("--dry-run", "--locked").code == 5
    change('"cleanup,int8:mode=dynamic"', '"cleanup,int8"')
    assert build("--dry-run", "--locked").code == 0


def test_without_the_cache_nothing_is_kept(build: Callable) -> None:
    assert build("--no-cache").code == 0
    assert not Path("cache").exists()
    assert _origins(build("--no-cache").err) == ["unchanged", "unchanged"]


def test_init_writes_what_build_reads(irc: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    found = irc("init", "model.onnx", "--evaluate", "data.npz", "--passes", "O1")
    assert found.code == 0 and "wrote irc.toml; next: irc build" in found.err
    text = Path("irc.toml").read_text(encoding="utf-8")
    assert 'source = "model.onnx"' in text and '\nmax-drop = "1%"' in text
    found = irc("init", "model.onnx")
    assert found.code == 2 and "irc.toml exists" in found.err
    assert irc("init", "missing.onnx", "--force").code == 6
    found = irc("init", "", "--force")
    assert found.code == 6 and "the name of the source is empty" in found.err
    found = irc("init", "model.onnx", "--evaluate", "dta.npz", "--force")
    assert found.code == 6 and "dta.npz does not exist" in found.err
    Path("other").mkdir()
    found = irc("init", "model.onnx", "--config", "other/irc.toml", "--calibrate", "synthetic")
    assert found.code == 0 and "next: irc build --config other/irc.toml" in found.err
    assert irc("init", "model.onnx", "-p", "O9", "--force").code == 2
    Path("sub").mkdir()
    assert irc("init", "model.onnx", "--config", "sub/my.toml").code == 0
    assert 'source = "../model.onnx"' in Path("sub/my.toml").read_text(encoding="utf-8")
    assert Path("irc.toml").read_text(encoding="utf-8") == text
    assert irc("build", "--config", "sub/my.toml").code == 0
    assert Path("sub/release/model/O3/ort-cpu/model.onnx").exists()


def test_the_cache_is_shown_checked_and_trimmed(build: Callable, irc: Callable) -> None:
    assert build().code == 0
    found = irc("cache")
    assert found.code == 0 and "build         2 entries" in found.out
    next(Path("cache").rglob("build/*/*/model.onnx")).write_bytes(b"")
    found = irc("cache", "--check")
    assert "1 damaged entry removed" in found.err and "build           1 entry" in found.out
    Path("cache/irtools/store-0").mkdir()
    assert "store-0: of another version" in irc("cache").out
    shown = json.loads(irc("cache", "--trim", "1GB", "--json").out)
    assert shown["kinds"]["build"]["entries"] == 1
    assert irc("cache", "--trim", "much").code == 2
    found = irc("cache", "--clear")
    assert "freed" in found.err and "0 B of at most" in found.out and "store-0" not in found.out


@dataclass
class _Kept:
    """A tracker that keeps what it gets."""

    name: ClassVar[str] = "kept"
    told: ClassVar[list[str]] = []
    place: str | None

    def check(self) -> None:
        """Nothing is in the way."""

    def start(self, run: Any) -> Any:
        within = "" if run.parent is None else f" within {run.parent.name}"
        _Kept.told.append(f"{run.name}{within} begins: {run.parameters.get('pipeline', '')}")
        return _KeptRun(run.name, str(self.place))


@dataclass
class _KeptRun:
    name: str
    place: str

    def row(self, row: Any) -> None:
        assert row.metrics
        _Kept.told.append(f"{self.name}: {row.text}")

    def tag(self, name: str, value: str) -> None:
        _Kept.told.append(f"{self.name}: {name} is {value}")

    def end(self, end: Any) -> None:
        _Kept.told.append(f"{self.name} ends: {end.failure or sorted(end.files)}")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from irtools.plugins import registry

    real = registry.load
    monkeypatch.setattr(
        registry, "load", lambda group, name: _Kept if name == "kept" else real(group, name)
    )
    _Kept.told.clear()
    return _Kept.told


def test_builds_that_are_made_are_tracked_once(
    build: Callable, irc: Callable, kept: list[str]
) -> None:
    change('clean = "cleanup"\n', "")
    change("[measuring]", '[tracking]\nto = ["kept:here"]\n[measuring]')
    found = build("--track", "kept:there", "--track", "kept:here")
    assert "mlp/int8/avx2: tracked by kept, here" in found.err and found.code == 0
    assert "tracked by kept, there" in found.err
    assert kept[:2] == ["mlp/int8/avx2 begins: cleanup,int8"] * 2
    assert kept[-1] == "mlp/int8/avx2 ends: ['report.json', 'report.md']"
    told = len(kept)
    assert build().code == 0 and len(kept) == told
    # What is tracked decides no build.
    change('"kept:here"', '"nope"')
    found = build()
    assert found.code == 2 and "irc.toml:11:1: tracking.to: there is no tracker 'nope'" in found.err
    assert irc("optimize", "model.onnx", "-p", "cleanup", "--track", "nope").code == 2


def test_several_builds_are_parts_of_one_run(build: Callable, kept: list[str]) -> None:
    change("[measuring]", '[release]\nname = "all"\n[tracking]\nto = ["kept:x"]\n[measuring]')
    assert build().code == 0
    clean, int8 = "mlp/clean/avx2", "mlp/int8/avx2"
    assert [one for one in kept if " begins" in one or " ends" in one] == [
        "all begins: ",
        f"{clean} within all begins: cleanup",
        f"{clean} ends: ['report.json', 'report.md']",
        f"{int8} within all begins: cleanup,int8",
        f"{int8} ends: ['report.json', 'report.md']",
        "all ends: ['report.md']",
    ]
    rows = [one for one in kept if one.startswith(f"{int8}: ")]
    assert rows[:3] == [f"{int8}: {text}" for text in ("original", "cleanup", "int8")]


@pytest.mark.parametrize("several", [False, True])
def test_a_build_that_comes_to_nothing_is_tracked_as_failed(
    build: Callable, kept: list[str], monkeypatch: pytest.MonkeyPatch, *, several: bool
) -> None:
    def full(root: Path, place: Path) -> None:
        raise FileError(f"cannot write {place}: no space left")

    module = importlib.import_module("irtools.builds.build")
    monkeypatch.setattr(module, "publish_release", full)
    more = 'more = "cleanup,remove-dead-code"' if several else ""
    change('int8 = "cleanup,int8"', more)
    change("[measuring]", '[release]\nname = "all"\n[measuring]')
    assert build("--track", "kept:x").code == 6
    ended = [one for one in kept if " ends" in one]
    failure = "cannot write release: no space left"
    assert ended[-1] == f"{'all' if several else 'mlp/clean/avx2'} ends: {failure}"
    assert len(ended) == (3 if several else 1), ended


def test_a_run_that_fails_is_tracked_as_failed(irc: Callable, kept: list[str]) -> None:
    run = ("optimize", "model.onnx", "-p", "cleanup", "--no-bench", "--no-check")
    found = irc(*run, "--track", "kept:x", "-o", "small.onnx")
    assert found.code == 0 and "model: tracked by kept, x" in found.err
    assert kept[0] == "model begins: cleanup" and "model: cleanup" in kept
    kept.clear()
    found = irc(*run, "--max-size", "1kB", "--track", "kept:x", "-o", "other.onnx")
    assert found.code == 5 and "model: tracked as failed by kept, x" in found.err
    assert kept[-1].startswith("model ends: the result does not keep max-size=1.0kB")
