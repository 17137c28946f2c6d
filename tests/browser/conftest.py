"""A server in a process of its own, and a browser that reaches nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools import optimize

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

_TEXT = (
    '<ir_version: 10, opset_import: ["" : 20]> m '
    "(int64[batch,sequence] input_ids) => (float[batch,2] logits) <{weights}> "
    "{{ word = Gather(words, input_ids)  mean = ReduceMean <keepdims = 0> (word, one)  "
    "logits = MatMul(mean, head) }}"
)
_TOKENIZER = """{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
"post_processor": null, "decoder": null,
"model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3, "film": 4},
"unk_token": "[UNK]"}}"""


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        process: Its process.
        address: With the token.
        base: Without.
    """

    process: subprocess.Popen[str]
    address: str
    base: str


def _tensor(name: str, array: np.ndarray, kind: str) -> str:
    sizes = ",".join(map(str, array.shape))
    return f"{kind}[{sizes}] {name} = {{{', '.join(map(str, array.ravel()))}}}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of texts with its tokenizer and the names of its classes."""
    folder = tmp_path_factory.mktemp("browser")
    words = np.array([[0, 0], [0, 0], [0, 4], [4, 0], [0.1, 0.1]], np.float32)
    weights = (
        _tensor("words", words, "float"),
        _tensor("head", np.eye(2, dtype=np.float32), "float"),
        _tensor("one", np.array([1]), "int64"),
    )
    model = ir.from_onnx_text(_TEXT.format(weights=", ".join(weights)))
    ir.save(model, folder / "model.onnx")
    shutil.copy(folder / "model.onnx", folder / "same.onnx")
    (folder / "tokenizer.json").write_text(_TOKENIZER, encoding="utf-8")
    (folder / "classes.json").write_text('["negative", "positive"]', encoding="utf-8")
    (folder / "irc.toml").write_text("", encoding="utf-8")
    for name, passes in (("first", "cleanup"), ("second", "cleanup,fuse")):
        found = optimize(folder / "model.onnx", passes, bench=None, check=False)
        text = found.report.to_json()
        (folder / f"{name}.report.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "irtools.cli.main", "ui", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http\S+", line)
            assert found is not None, line
            yield Server(process, found[0], found[0].partition("/#")[0])
        finally:
            process.kill()


@pytest.fixture
def window(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Open a context: `window(width=400, dark=True)`; whatever is not on loopback fails."""
    opened: list[Any] = []

    def open_(width: int = 1400, dark: bool = False) -> BrowserContext:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        context.route(
            re.compile(r"^(?!http://(127\.0\.0\.1|localhost):)"), lambda route: route.abort()
        )
        opened.append(context)
        return context

    yield open_
    for context in opened:
        context.close()
