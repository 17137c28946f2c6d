"""Options read from source: the same as the imported class says, and nothing is imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from irtools.errors import PipelineSyntaxError
from irtools.passmanager import Pipeline, options_of
from irtools.passmanager.declared import UNREAD, declared_options
from irtools.plugins import registry


def test_the_source_says_what_the_class_says() -> None:
    for name, point in registry.plugins("irtools.passes").items():
        declared = declared_options(point.value)
        assert declared is not None, f"{name}: nothing is refused before it is imported"
        options = options_of(registry.load(point.group, name))
        assert list(declared) == [o.name for o in options]
        assert all(declared[o.name] in (o.type, UNREAD) for o in options)


@pytest.mark.parametrize(
    "text",
    ["cleanup,int8:calibrater=mse", "O3,int8:mode=statik", "int8:min_size=few", "fuse,cleenup"],
)
def test_what_is_misspelt_is_refused_before_anything_heavy_is_imported(text: str) -> None:
    code = (
        "import sys\n"
        "from irtools.passmanager import Pipeline\n"
        f"try: Pipeline.parse({text!r})\n"
        "except ValueError as error: print(error)\n"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, imported = done.stdout.splitlines()
    with pytest.raises(PipelineSyntaxError) as caught:
        Pipeline.parse(text)
    assert said == str(caught.value) and imported == "[]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prune:pattern=2of4", "pass 'prune' has no option 'pattern'; sparsify has one"),
        ("prune:method=magnitude", "pass 'prune' has no option 'method'; sparsify has one"),
        ("prune:bits=auto", "pass 'prune' has no option 'bits'; int4 and int8 have one"),
        ("prune:rato=0.5", "pass 'prune' has no option 'rato'; did you mean 'ratio'?"),
        ("trim-vocabulary:exclude=a", "pass 'trim-vocabulary' has no option 'exclude'; "),
    ],
)
def test_an_option_of_another_pass_is_named_with_it(text: str, said: str) -> None:
    with pytest.raises(PipelineSyntaxError) as caught:
        Pipeline.parse(text)
    assert str(caught.value).startswith(said)
    assert (" have one" in str(caught.value)) == (" have one" in said)


_MODULE = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from irtools import Pass, option
import irtools

Size = Literal["small", "large"]

@dataclass(frozen=True)
class Base(Pass):
    factor: float | None = option(None, "x")

@dataclass(frozen=True)
class Plain(Base):
    name: ClassVar[str] = "plain"
    kinds: tuple[str, ...] = option((), "x")
    size: Size = option("small", "x")
    big_one: Literal["a", 3] = "a"

@dataclass(frozen=True)
class Mixed(irtools.Pass):
    name: ClassVar[str] = "mixed"

class NoDataclass(Pass):
    name: ClassVar[str] = "bare"

@dataclass(frozen=True)
class Hidden(Pass):
    state: int = field(default=0, init=False)

Alias = Plain
"""


@pytest.mark.parametrize("name", ["Mixed", "NoDataclass", "Hidden", "Alias", "Absent"])
def test_what_syntax_does_not_explain_is_left_to_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "odd_passes.py").write_text(textwrap.dedent(_MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert declared_options(f"odd_passes:{name}") is None
    assert "odd_passes" not in sys.modules


def test_fields_of_bases_count_and_unread_types_are_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_passes.py").write_text(_MODULE)
    (tmp_path / "door.py").write_text("from own_passes import Plain as Front\n")
    (tmp_path / "broken.py").write_text("class Plain(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = declared_options("door:Front")
    assert found is not None and list(found) == ["factor", "kinds", "size", "big-one"]
    assert found["size"] is UNREAD and found["factor"] == float | None
    assert declared_options("broken:Plain") is None
    assert declared_options("no_such_module:Plain") is None
