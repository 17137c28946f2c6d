"""`unpad` together with other passes, in any order; and what int8 makes of the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model import Interface, Model, verify
from irtools.passmanager import PassContext, Pipeline
from irtools.targets import RunnerOptions, find_target

from .conftest import FIRST, FUSED, WRITTEN, block, decibels, feeds

EXACT, EIGHT_BITS, SIXTEEN_BITS = 110.0, 15.0, 40.0
STATIC = "int8:mode=static:min-size=0"
MAKES_OTHER_WEIGHTS = ("prune", "int8", "fp16")


def made(model: ir.Model, text: str, target: str = "ort-cpu:isa=vnni") -> tuple[ir.Model, int]:
    """Run a pipeline, with data; returns the model and the products that compute tokens alone."""
    after, found = model.clone(), 0
    for step in Pipeline.parse(text.replace("unpad", "hoist-shapes,unpad")):
        data = Dataset(feeds(after, 16, 9))
        ctx = PassContext.for_model(Model(after), target, calibration=data, threads=1)
        counters = step.run(after, ctx).counters
        verify(after, interface=Interface.of(model))
        found += counters.get("num-unpadded-products", 0)
    return after, found


def answer(model: ir.Model, arrays: Mapping[str, np.ndarray], *, exact: bool = True) -> np.ndarray:
    options = RunnerOptions(threads=1, exact=exact)
    with find_target("ort-cpu").runner(Model(model), options) as runner:
        return runner.run(arrays)["y"]


@pytest.mark.parametrize(
    ("order", "least"),
    [
        ("cleanup,fuse,unpad", EXACT),
        ("unpad,cleanup,fuse", EXACT),
        ("unpad,sink", EXACT),
        ("sink,unpad", EXACT),
        ("fuse,sink,unpad,cleanup", EXACT),
        ("fuse,unpad,sink,cleanup", EXACT),
        ("fuse,unpad,int8:mode=weight-only:min-size=0", EIGHT_BITS),
        ("int8:mode=weight-only:min-size=0,unpad", EIGHT_BITS),
        ("fuse,unpad,int8:mode=dynamic:min-size=0", EIGHT_BITS),
        (f"fuse,unpad,{STATIC}", EIGHT_BITS),
        (f"fuse,{STATIC},unpad", EIGHT_BITS),
        ("fuse,unpad,fp16:min-size=1", SIXTEEN_BITS),
        ("fp16:min-size=1,unpad", SIXTEEN_BITS),
    ],
)
def test_any_order(order: str, least: float) -> None:
    before = block(WRITTEN, FIRST)
    after, products = made(before, order)
    assert products >= (2 if "sink" in order else 6)
    arrays = feeds(before, 5, 7)
    assert decibels(answer(before, arrays), answer(after, arrays)) >= least


def test_pruned_weights_are_the_same() -> None:
    """Pruning is lossy; what it leaves computes the same, tokens alone or not."""
    before = block(WRITTEN, FIRST)
    pruned, _ = made(before, "fuse,prune:ratio=0.5")
    after, products = made(before, "fuse,prune:ratio=0.5,unpad")
    assert products == 6
    arrays = feeds(before, 5, 7)
    assert decibels(answer(pruned, arrays), answer(after, arrays)) >= EXACT


def test_neurons_are_pruned_after_it() -> None:
    """Attention by length hides the heads; the feed-forward network is as it was."""
    before = block(WRITTEN, FIRST)
    after, _ = made(before, "fuse,unpad,prune:ratio=0.5")
    assert after.graph.initializers["w1"].shape == (16, 16)
    assert decibels(answer(before, feeds(before, 5, 7)), answer(after, feeds(before, 5, 7))) > 10


def test_ranges_of_all_positions_stay(make_context: Callable[..., PassContext]) -> None:
    model, _ = made(block(WRITTEN, FIRST), "fuse,int8:mode=dynamic:min-size=0")
    (step,) = Pipeline.parse("unpad")
    done = step.run(model, make_context("ort-cpu"))
    assert not done.modified
    assert done.notes == (
        "padding is computed: int8 takes ranges of all positions, padding included: give unpad "
        "before it",
    )


@pytest.mark.parametrize("attention", [WRITTEN, FUSED], ids=["written", "fused"])
def test_eight_bits_of_a_token_are_the_same_bits(attention: str) -> None:
    """Scales are constants, so nothing else of the batch decides how a token is rounded."""
    before, _ = made(block(attention, FIRST), STATIC)
    after, products = made(before, "unpad")
    assert products == 6
    for batch, length in ((1, 5), (8, 9), (32, 20)):
        arrays = feeds(before, batch, length)
        both = [answer(model, arrays, exact=False) for model in (before, after)]
        np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("attention", [WRITTEN, FUSED], ids=["written", "fused"])
@pytest.mark.parametrize("bits", [8, 32])
def test_a_text_does_not_depend_on_its_batch(attention: str, bits: int) -> None:
    text = f"{STATIC},unpad" if bits == 8 else "unpad"
    model, _ = made(block(attention, FIRST), text)
    arrays = feeds(model, 16, 20)
    together = answer(model, arrays, exact=bits == 32)
    for row, length in enumerate(arrays["mask"].sum(axis=1)):
        for width in (length, 20):
            own = {name: array[row : row + 1, :width] for name, array in arrays.items()}
            alone = answer(model, own, exact=bits == 32)[0]
            if bits == 8:
                np.testing.assert_array_equal(alone, together[row])
            else:
                assert decibels(together[row], alone) >= EXACT
