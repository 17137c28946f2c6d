"""A package with one pass to start from: it works, and its tests hold it to the contract."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

from irtools.errors import FileError, OptionError, UsageError
from irtools.files import staging_folder
from irtools.plugins import registry
from irtools.version import __version__

__all__ = ["write_starter"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_PROJECT = """\
[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "irtools-$name"
version = "0.1.0"
description = "A pass for irtools: $name"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["irtools-compiler>=$version"]

[project.optional-dependencies]
test = ["pytest>=9"]

# irtools finds the pass by this line.
[project.entry-points."irtools.passes"]
$name = "$module:$kind"

[tool.setuptools]
py-modules = ["$module"]
"""

_PASS = '''\
"""The pass `$name`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools import Exactness, Pass, PassContext, PassResult, option
from irtools.editing import Editor, can_forward


@dataclass(frozen=True)
class $kind(Pass):
    """Remove Dropout nodes: at inference they pass on what they get.

    Those with a training mode or with a mask that is read stay, as do those between an
    input and an output of the graph: one value cannot carry two public names.
    """

    name: ClassVar[str] = "$name"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar[dict[str, str]] = {
        "num-removed": "Dropout nodes removed",
        "num-kept": "Dropout nodes that had to stay",
    }

    keep: tuple[str, ...] = option((), "Names of nodes that stay.")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        editor = Editor(model, self.name)
        found = [node for node in model.graph.all_nodes() if node.op_type == "Dropout"]
        removed = sum(self._remove(editor, node) for node in found)
        counts = {"num-removed": removed, "num-kept": len(found) - removed}
        return PassResult(modified=removed > 0, counters=counts)

    def _remove(self, editor: Editor, node: ir.Node) -> bool:
        source, result = node.inputs[0], node.outputs[0]
        trains = len(node.inputs) > 2 and node.inputs[2] is not None
        masks = node.outputs[1:]
        read = any(mask.uses() or mask.is_graph_output() for mask in masks)
        if source is None or trains or read or node.name in self.keep:
            return False
        if not can_forward(result, source):
            return False
        editor.forward(result, source)
        editor.remove(node)
        return True
'''

_TEST = '''\
"""The pass `$name`: the contract, its case, and twins that it leaves alone."""

from __future__ import annotations

import pytest
from $module import $kind

from irtools.testing import check_pass, run_on_text

INNER = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y) { h = Dropout (x)  y = Relu (h) }
"""
ALONE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y) { y = Dropout (x) }
"""
WITH_MASK = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y, bool[batch, 4] mask) {
  h, mask = Dropout (x)
  y = Relu (h)
}
"""


def test_contract() -> None:
    changed = check_pass($kind(), {"inner": INNER, "mask": WITH_MASK})
    assert changed == ("inner",)


def test_a_dropout_is_removed() -> None:
    assert run_on_text($kind(), INNER) == (
        "ir 10, opset 20\\n"
        "graph (x: float32[batch, 4]) -> (y: float32[batch, 4])\\n"
        "  y = Relu(x)\\n"
    )


@pytest.mark.parametrize("source", [ALONE, WITH_MASK], ids=["alone", "mask"])
def test_what_stays(source: str) -> None:
    assert "Dropout" in run_on_text($kind(), source)
'''

_README = """\
# irtools-$name

A pass for irtools.

    pip install -e '.[test]'    # installs irtools too; the pass is found by name from now on
    pytest                      # the contract of irtools.testing, and cases
    irc passes $name
    irc optimize model.onnx --passes $name,int8

`$module.py` is the pass: its fields are its options, its docstring is its reference page.
`test_$module.py` has its tests. What a pass may do and ask for: docs/adding-a-pass.md of irtools.
"""


def write_starter(name: str, folder: Path) -> tuple[Path, ...]:
    """Write a package with one pass.

    Args:
        name: Of the pass: kebab-case, and not taken.
        folder: Does not exist, or is empty.

    Returns:
        The files: project, pass, its test and a README.

    Raises:
        OptionError: A name that no pass can have, or that one has already.
        UsageError: The folder is not empty.
        FileError: It cannot be written.
    """
    _check(name, folder)
    files = dict(_files(name))
    with staging_folder(folder.absolute().parent) as staging:
        made = staging / folder.name
        try:
            made.mkdir()
            for file, text in files.items():
                (made / file).write_text(text, encoding="utf-8")
            made.replace(folder)
        except OSError as error:
            raise FileError(f"cannot write {folder}: {error.strerror or error}") from error
    return tuple(folder / file for file in files)


def _check(name: str, folder: Path) -> None:
    if _NAME.fullmatch(name) is None:
        raise OptionError(
            f"{name!r} cannot be the name of a pass; expected words of small letters and digits "
            "joined by hyphens, as clip-weights"
        )
    if name in registry.names("irtools.passes") or name in registry.PRESETS:
        raise OptionError(f"there is a pass {name!r} already; choose another name")
    module = _module(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "irtools":
        raise OptionError(f"a module {module!r} would hide another one; choose another name")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; name another folder with -o")


def _files(name: str) -> Iterator[tuple[str, str]]:
    module = _module(name)
    kind = "".join(word.capitalize() for word in name.split("-"))
    words = {"name": name, "module": module, "kind": kind, "version": __version__}
    templates = {
        "pyproject.toml": _PROJECT,
        f"{module}.py": _PASS,
        f"test_{module}.py": _TEST,
        "README.md": _README,
    }
    for file, text in templates.items():
        yield file, Template(text).substitute(words)


def _module(name: str) -> str:
    return name.replace("-", "_")
