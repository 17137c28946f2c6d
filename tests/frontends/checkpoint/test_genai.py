"""Decoders of other families than Llama, as onnxruntime-genai opens them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from irtools.cli.main import run as irc
from irtools.targets import RunnerOptions, begin_text, find_target, text_decoder_of

pytestmark = [
    pytest.mark.torch,
    pytest.mark.genai,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

Writes = Callable[[Path, Sequence[int], int], list[int]]
_PROMPT, _LENGTH = [5, 9, 30], 12


def test_genai_writes_what_we_write_with_a_gpt2(
    tiny: Callable[[str], Path], by_genai: Writes, tmp_path: Path
) -> None:
    """Its sizes have other names, and its cache is arrays until it is fused."""
    plain, fused = tmp_path / "plain", tmp_path / "fused"
    assert irc(["export", str(tiny("gpt2")), "--with-past", "-o", f"{plain}/"]) == 0
    command = ["optimize", str(plain / "model.onnx"), "--passes", "cleanup,fuse", "--no-bench"]
    assert irc([*command, "--no-check", "--target", "ort-cpu", "-o", f"{fused}/"]) == 0
    written = by_genai(plain, _PROMPT, _LENGTH)
    assert written == _by_us(plain, len(written))
    assert by_genai(fused, _PROMPT, _LENGTH) == written == _by_us(fused, len(written))


def _by_us(folder: Path, count: int) -> list[int]:
    with find_target("ort-cpu").runner(folder / "model.onnx", RunnerOptions(threads=1)) as runner:
        decoder = text_decoder_of(runner)
        assert decoder is not None
        text, ids, found = begin_text(runner, decoder, 1), np.array([_PROMPT]), []
        for _ in range(count):
            found.append(int(text.read(ids)[0, -1].argmax()))
            ids = np.array([[found[-1]]])
    return found
