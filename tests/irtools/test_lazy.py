"""Modules that are executed when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

_START = "import sys; from irtools.lazy import defer_symbolic_algebra; defer_symbolic_algebra(); "


def _run(script: str) -> str:
    call = [sys.executable, "-c", _START + script]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("import onnx_ir; print('sympy.core' in sys.modules)", "False"),
        ("import onnx_ir as ir; print(ir.SymbolicDim('n') + 2)", "n + 2"),
        ("import onnx_ir as ir; print(ir.SymbolicDim('max(n, 3)') * 2)", "2*Max(3, n)"),
        ("import sympy.core.numbers, sympy; print(sympy.Integer(3) + 1)", "4"),
        ("from sympy import *; print(Symbol('x') + 1)", "x + 1"),
        ("import sympy\ntry:\n sympy.absent\nexcept AttributeError as e: print(e)", "absent"),
    ],
)
def test_sympy_waits_until_it_is_used_and_then_is_whole(script: str, printed: str) -> None:
    found = _run(script)
    assert found.endswith(printed) or (printed == "absent" and "absent" in found)


def test_defer_leaves_alone_what_is_loaded_or_not_there() -> None:
    assert (
        _run(
            "import json; from irtools.lazy import defer; defer('json'); "
            "defer('no_such_module'); defer('json.no_such'); print(json.dumps([]))"
        )
        == "[]"
    )


def test_a_build_where_nothing_changed_needs_no_onnx() -> None:
    """What `irc build` imports until it knows what is to be made, and to say how it went."""
    script = "import irtools.builds.build, irtools.builds.views; print('onnx' in sys.modules)"
    assert _run(script) == "False"
