"""Padding is not computed; results at tokens stay as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import irtools
from irtools.data import Batch, put_at_padding
from irtools.errors import VerificationError
from irtools.instruments import check_outputs
from irtools.measure.contest.scoring import Tally
from irtools.metrics import FidelityMeter
from irtools.model import Interface, Model, PaddedOutput, padded_outputs, verify
from irtools.passmanager import Exactness, PassContext, PassResult, Pipeline
from irtools.targets import RunnerOptions, find_target

from .conftest import (
    CAUSAL,
    FIRST,
    FUSED,
    JOINED,
    TURNED_BY_COUNT,
    TURNED_BY_LOOKUP,
    TURNED_BY_STATES,
    WRITTEN,
    block,
    decibels,
    feeds,
    sqnr,
)
from .test_exports import EXACT, GRAPHS, with_head

HIDDEN = "y = Identity(hidden)"
ENCODERS = [path for path in GRAPHS if "vit" not in path.stem]

Run = Callable[..., PassResult]


@pytest.fixture
def run(make_context: Callable[..., PassContext]) -> Run:
    """Runs passes on a model; returns what `unpad` answered."""

    def apply(model: ir.Model, text: str, target: str) -> PassResult:
        answer = None
        for step in Pipeline.parse(text):
            result = step.run(model, make_context(target))
            answer = result if step.name == "unpad" else answer
        assert answer is not None
        return answer

    return apply


def answers(model: ir.Model, target: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = RunnerOptions(threads=1, exact=True)
    with find_target(target).runner(Model(model), options) as runner:
        return dict(runner.run(arrays))


@pytest.mark.parametrize(
    ("attention", "products"),
    [
        pytest.param(WRITTEN, 6, id="written"),  # Q, K, V, O and two.
        pytest.param(FUSED, 6, id="fused"),
        pytest.param(TURNED_BY_COUNT, 6, id="turned by count"),
        pytest.param(TURNED_BY_STATES, 7, id="turned by states"),
        pytest.param(TURNED_BY_LOOKUP, 5, id="turned by lookup"),  # Not Q and K.
    ],
)
def test_products_take_tokens_alone(attention: str, products: int, target: str, run: Run) -> None:
    before = block(attention, FIRST)
    after = before.clone()
    done = run(after, "unpad", target)
    verify(after, interface=Interface.of(before))
    assert done.modified and done.counters["num-unpadded-products"] == products
    for batch, length in ((1, 5), (3, 7), (5, 2)):
        assert sqnr(before, after, target, batch, length) >= EXACT


@pytest.mark.parametrize("order", ["unpad", "cleanup,fuse,unpad", "unpad,cleanup,fuse"])
@pytest.mark.parametrize("path", ENCODERS, ids=lambda path: path.stem)
def test_exports(
    path: Path,
    order: str,
    target: str,
    run: Run,
    encoder_feeds: Callable[..., dict[str, np.ndarray]],
) -> None:
    """Whatever form of mask an exporter writes, alone and in texts of many lengths."""
    before = with_head(path)
    after = before.clone()
    prepared = order.replace("unpad", "lift-constants,fold-constants:exact=true,hoist-shapes,unpad")
    done = run(after, prepared, target)
    verify(after, interface=Interface.of(before))
    assert done.counters["num-unpadded-products"] >= 12  # of two blocks
    for batch, length in ((1, 8), (4, 9)):
        arrays = encoder_feeds(before, batch, length, seed=batch)
        expected, found = (answers(model, target, arrays)["scores"] for model in (before, after))
        assert decibels(expected, found) >= EXACT


@pytest.mark.parametrize(
    ("reading", "shape", "number"),
    [(HIDDEN, "N,S,16", 0.0), ("s = MatMul(hidden, column)  y = Squeeze(s, third)", "N,S", -1e4)],
    ids=["states", "scores"],
)
def test_results_hold_a_noted_number_at_padding(
    reading: str, shape: str, number: float, target: str, run: Run
) -> None:
    before = block(WRITTEN, reading, f"float[{shape}] y")
    after = before.clone()
    done = run(after, "unpad", target)
    noted = padded_outputs(after)
    assert noted == {"y": PaddedOutput("mask", 0.0, number)}
    assert f"at padding y is {number:g} from now on" in done.notes
    arrays = feeds(before, 4, 6)
    real = arrays["mask"].astype(bool)
    assert not real.all()
    expected, found = (answers(model, target, arrays)["y"] for model in (before, after))
    assert decibels(expected[real], found[real]) >= EXACT
    assert (found[~real] == number).all()


def test_checks_compare_what_a_noted_result_holds(run: Run) -> None:
    """Whatever the mask is called; without the note the same model would be refused."""
    before = Model(block(WRITTEN, HIDDEN, "float[N,S,16] y"))
    arrays = feeds(before.ir, 8, 6)
    data = irtools.Dataset(arrays)
    done = irtools.optimize(before, "unpad", evaluation=data, bench=None)
    (row,) = [row for row in done.rows if row.text == "unpad"]
    assert "numerics" in row.checks
    first, second = (answers(model.ir, "ort-cpu", arrays) for model in (before, done.model))
    for wanted, found in ((first, second), (second, first)):
        meter = FidelityMeter()
        tally = Tally(data, (), meter, padded_outputs(before.ir, done.model.ir))
        tally.add(Batch(arrays, None, np.arange(8)), found, wanted)
        assert meter.result().sqnr_db >= EXACT
    unnoted = done.model.clone()
    unnoted.ir.metadata_props.clear()
    found = answers(unnoted.ir, "ort-cpu", arrays)
    with pytest.raises(VerificationError):
        check_outputs(answers(before.ir, "ort-cpu", arrays), found, Exactness.REASSOCIATED)


@pytest.mark.parametrize("attention", [WRITTEN, FUSED, JOINED], ids=["written", "fused", "joined"])
@pytest.mark.parametrize("reading", [FIRST, HIDDEN], ids=["first", "states"])
def test_padding_in_front_and_between(attention: str, reading: str, target: str, run: Run) -> None:
    """The first position is computed even where it is padding, for what reads it."""
    before = block(attention, reading, "float[N,4] y" if reading == FIRST else "float[N,S,16] y")
    after = before.clone()
    assert run(after, "unpad", target).modified
    mask = np.array([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    arrays = feeds(before, 4, 5) | {"mask": mask}
    expected, found = (answers(model, target, arrays) for model in (before, after))
    expected = put_at_padding(expected, arrays, padded_outputs(after))
    assert decibels(expected["y"], found["y"]) >= EXACT


def test_a_text_does_not_depend_on_its_batch(target: str, run: Run) -> None:
    after = block(WRITTEN, FIRST)
    run(after, "unpad", target)
    arrays = feeds(after, 4, 7)
    together = answers(after, target, arrays)["y"]
    for row, length in enumerate(arrays["mask"].sum(axis=1)):
        alone = {name: array[row : row + 1, :length] for name, array in arrays.items()}
        assert decibels(together[row], answers(after, target, alone)["y"][0]) >= EXACT


@pytest.mark.parametrize(
    ("attention", "reading", "outputs", "reason"),
    [
        pytest.param(
            WRITTEN,
            "m = ReduceMean<keepdims=0>(hidden, second)  y = MatMul(m, head)",
            "float[N,4] y",
            "read by ReduceMean",
            id="a mean without the mask",
        ),
        pytest.param(
            "attended = Mul(x, scale)",
            FIRST,
            "float[N,4] y",
            "no input and no comparison",
            id="no mask",
        ),
        pytest.param(
            CAUSAL,
            f"n = Shape(mask)  {HIDDEN}",
            "float[N,S,16] y, int64[2] n",
            "no input says what is padding in the result y",
            id="a mask that hides nothing",
        ),
    ],
)
def test_why_padding_is_computed(
    attention: str, reading: str, outputs: str, reason: str, run: Run
) -> None:
    model = block(attention, reading, outputs)
    model.graph.inputs[:] = [value for value in model.graph.inputs if tuple(value.uses())]
    text = Model(model.clone()).text()
    done = run(model, "unpad", "ort-cpu")
    assert not done.modified and Model(model).text() == text
    assert any(note.startswith("padding is computed: ") and reason in note for note in done.notes)
