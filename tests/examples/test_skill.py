"""Every command of the skill for agents runs, in the order in which it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.cli.main import run

_SKILL = Path(__file__).parents[2] / "examples" / "skill" / "SKILL.md"
_ENDS_WITH = {"compare": (0, 5)}
"""Exit codes that are answers."""


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", _SKILL.read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def _write_model(folder: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((32, 64)).astype(np.float32)
    second = rng.standard_normal((64, 4)).astype(np.float32) / 8
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> m (float[batch,32] x) => '
        "(float[batch,4] logits) { h = MatMul(x, first)  r = Relu(h)  logits = MatMul(r, second) }"
    )
    model = ir.from_onnx_text(_with_weights(text, first=first, second=second))
    ir.save(model, folder / "model.onnx")
    x = rng.standard_normal((2000, 32)).astype(np.float32)
    logits = np.maximum(x @ first, 0) @ second
    best = np.sort(logits, axis=-1)
    clear = np.argsort(best[:, -2] - best[:, -1])[:600]  # Samples near a border decide nothing.
    np.savez(folder / "data.npz", x=x[clear], labels=logits[clear].argmax(axis=-1))


def _with_weights(text: str, **weights: np.ndarray) -> str:
    made = ", ".join(
        f"float[{array.shape[0]},{array.shape[1]}] {name} = {{{', '.join(map(str, array.flat))}}}"
        for name, array in weights.items()
    )
    return text.replace(" { ", f" <{made}> {{ ", 1)


@pytest.mark.slow
def test_every_command_of_the_skill_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = _commands()
    assert {command[1] for command in commands} > {"inspect", "optimize", "compare", "report"}
    for program, verb, *rest in commands:
        assert program == "irc"
        assert run([verb, *rest]) in _ENDS_WITH.get(verb, (0,)), f"irc {verb} {' '.join(rest)}"
    assert (tmp_path / "small.md").read_text(encoding="utf-8").startswith("#")


def test_the_skill_says_when_to_use_it() -> None:
    head = _SKILL.read_text(encoding="utf-8").split("---")[1]
    assert "name: irtools" in head and len(head.partition("description: ")[2]) > 100
