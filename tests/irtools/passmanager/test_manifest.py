"""The manifest says what the classes say, and nothing of anyone else's."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from irtools.passmanager.manifest import GROUPS, MANIFEST, described, make_manifest, pass_document
from irtools.plugins import registry


def test_it_is_up_to_date() -> None:
    assert MANIFEST.read_text(encoding="utf-8") == make_manifest(), "run `make docs` and commit it"


@pytest.mark.parametrize("group", GROUPS)
def test_it_has_all_that_we_register(group: str) -> None:
    own = [n for n, p in registry.plugins(group).items() if p.value.startswith("irtools.")]
    assert own and all(described(group, name) for name in own)


def test_it_says_what_a_class_says() -> None:
    found = registry.load("irtools.passes", "int8")
    document = json.loads(json.dumps(pass_document("int8", found)))
    assert described("irtools.passes", "int8") == document


def test_a_plug_in_that_takes_a_name_of_ours_is_not_described_as_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = {"int8": EntryPoint("int8", "theirs.passes:Int8", "irtools.passes")}
    monkeypatch.setattr(registry, "plugins", lambda group: theirs)
    assert described("irtools.passes", "int8") is None
    assert described("irtools.passes", "cleanup") is None


def test_listing_passes_imports_none() -> None:
    code = (
        "import sys; from irtools.cli.main import run; run(['passes']); run(['passes', '--json'])\n"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_list_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    from irtools.cli.main import run

    assert run(["passes"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    column = {len(row) - len(row.split(None, 1)[1]) for row in rows}
    assert len(rows) > 20 and len(column) == 1


def test_a_pass_with_choices_of_other_packages_is_asked_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert described("irtools.passes", "store") is not None
    plugins = registry.plugins

    def grown(group: str) -> object:
        return {"foreign": object()} if group == "irtools.forms" else plugins(group)

    monkeypatch.setattr(registry, "plugins", grown)
    assert described("irtools.passes", "store") is None
    assert described("irtools.passes", "int8") is not None
