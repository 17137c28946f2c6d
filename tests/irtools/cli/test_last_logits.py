"""`irc export --logits last`: a decoder of which the next token alone is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.model import Model
from irtools.targets import RunnerOptions, find_target
from irtools.testing import read_model

Irc = Callable[..., object]

DECODER = """
<ir_version: 10, opset_import: ["" : 20]>
decoder (int64[batch, sequence] input_ids, float[9, 8] table, float[8, 9] head)
  => (float[batch, sequence, 9] logits) { x = Gather(table, input_ids)  logits = MatMul(x, head) }
"""


@pytest.fixture
def decoder(tmp_path: Path, irc: Irc) -> Model:
    rng = np.random.default_rng(0)
    weights = {"table": rng.normal(size=(9, 8)), "head": rng.normal(size=(8, 9))}
    model = read_model(DECODER, {n: w.astype(np.float32) for n, w in weights.items()})
    model.save(tmp_path / "decoder.onnx")
    return model


def answers(model: Model, ids: np.ndarray) -> np.ndarray:
    with find_target("ort-cpu").runner(model, RunnerOptions(threads=1)) as runner:
        return runner.run({"input_ids": ids})["logits"]


def test_the_last_position_is_all_that_is_given(irc: Irc, decoder: Model) -> None:
    assert irc("export", "decoder.onnx", "--logits", "last", "-o", "last.onnx").code == 0
    last = Model.load("last.onnx")
    (output,) = last.ir.graph.outputs
    assert (output.name, str(output.shape)) == ("logits", "[batch,1,9]")
    ids = np.arange(10).reshape(2, 5) % 9
    assert np.array_equal(answers(last, ids), answers(decoder, ids)[:, -1:])


def test_sink_then_multiplies_one_row(irc: Irc, decoder: Model) -> None:
    irc("export", "decoder.onnx", "--logits", "last", "-o", "last.onnx")
    found = irc("optimize", "last.onnx", "--passes", "sink", "--no-bench", "-o", "sunk.onnx")
    assert "1 product or attention block of the last position alone" in found.out + found.err
    sunk = Model.load("sunk.onnx")
    assert [node.op_type for node in sunk.ir.graph] == ["Gather", "Gather", "MatMul"]
    ids = np.arange(10).reshape(2, 5) % 9
    assert np.allclose(answers(sunk, ids), answers(decoder, ids)[:, -1:], atol=1e-6)


def test_what_is_not_a_decoder_is_refused(irc: Irc) -> None:
    found = irc("export", "model.onnx", "--logits", "last", "-o", "last.onnx")
    assert found.code != 0 and not Path("last.onnx").exists()
    assert "expected an output logits [batch, sequence, vocabulary]" in found.err
    assert "Traceback" not in found.err
