"""What a sample becomes in the child process that runs it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.model import Model

pytestmark = pytest.mark.ui


class _Heard:
    """A channel that keeps what is emitted."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def emit(self, message: object) -> None:
        self.messages.append(message)

    def receive(self) -> None:
        return None


def test_a_decoder_writes_token_by_token(cached_decoder: Model, tmp_path: Path) -> None:
    from irtools.ui.samples import try_sample

    words = {f"w{number}": number for number in range(61)}
    tokenizer = {
        "version": "1.0",
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    cached_decoder.save(tmp_path / "model.onnx")
    heard = _Heard()
    sample = {"kind": "text", "text": "w1 w2 w3", "new_tokens": 4}
    try_sample(heard, str(tmp_path / "model.onnx"), "ort-cpu", sample)
    *tokens, last = heard.messages
    assert len(tokens) == 4 and last["tokens_per_second"] > 0
    written = " ".join(f"w{one['token']}" for one in tokens)
    assert tokens[-1]["text"] == written
    assert [one["ms"] for one in tokens] == sorted(one["ms"] for one in tokens)


def test_an_image_is_read_from_memory(tmp_path: Path) -> None:
    from PIL import Image

    from irtools.ui.samples import try_sample

    text = (
        '<ir_version: 10, opset_import: ["" : 20]> m (uint8[batch,3,4,4] pixels) => '
        "(uint8[batch,3,4,4] same) { same = Identity(pixels) }"
    )
    ir.save(ir.from_onnx_text(text), tmp_path / "model.onnx")
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), (10, 20, 30), np.uint8)).save(stream, "png")
    heard = _Heard()
    sample = {"kind": "image", "image": stream.getvalue()}
    try_sample(heard, str(tmp_path / "model.onnx"), "ort-cpu", sample)
    (found,) = heard.messages
    assert found["outputs"][0]["shape"] == [1, 3, 4, 4]
    assert set(found["outputs"][0]["values"]) == {10, 20, 30}
