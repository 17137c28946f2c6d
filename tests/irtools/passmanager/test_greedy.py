"""A decoder that has to write the original's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.decoder import find_decoder
from irtools.data import Dataset, fit_dataset
from irtools.errors import VerificationError
from irtools.instruments import Greedy, Numerics
from irtools.instruments.budget import Budget
from irtools.instruments.greedy import choose_prompts
from irtools.measure.effort import Effort, Workload
from irtools.measure.generate import GreedyText
from irtools.model import Model
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.passmanager.step import Step


@dataclass(frozen=True)
class _Edit(Pass):
    """Add noise to a weight."""

    name: ClassVar[str] = "edit"
    weight: str = "head"
    noise: float = 0.0

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        value = model.graph.initializers[self.weight]
        assert value.const_value is not None
        old = value.const_value.numpy()
        new = old + np.random.default_rng(0).normal(0, self.noise, old.shape)
        value.const_value = ir.tensor(new.astype(np.float32), name=self.weight)
        return PassResult(modified=True)


@dataclass(frozen=True)
class _Promise(_Edit):
    """The same, but it says that it does not."""

    name: ClassVar[str] = "promise"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED


@dataclass(frozen=True)
class _ForgetPast(Pass):
    """Make attention see half of what is in the cache; a prompt is read as before."""

    name: ClassVar[str] = "forget-past"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        past = next(v for v in model.graph.inputs if v.name == "past_key_values.0.value")
        join = next(u.node for u in past.uses())
        half = ir.val("half", const_value=ir.tensor(np.float32(0.5), name="half"))
        model.graph.register_initializer(half)
        node = ir.node("Mul", [past, half])
        node.outputs[0].name = "halved"
        model.graph.insert_before(join, node)
        join.replace_input_with(0, node.outputs[0])
        return PassResult(modified=True)


def _run(model: Model, ctx: PassContext, *passes: Pass) -> tuple[Step, ...]:
    greedy = Greedy(ctx.target, 1, new_tokens=12)
    return PassManager(Pipeline(*passes), (greedy,)).run(model, ctx)


def test_the_same_text_is_a_check_that_held(cached_decoder: Model, ctx: PassContext) -> None:
    steps = _run(cached_decoder, ctx, _Promise())
    found = steps[1].figures.get(GreedyText)
    assert found is not None and found.source == "synthetic data"
    assert (found.prompts, found.new_tokens, found.equal) == (8, 12, 8)
    assert found.first_difference is None
    assert steps[1].figures.checks == ["greedy-text"]
    assert steps[0].figures.get(GreedyText) is None


def test_another_text_is_an_error_where_the_same_is_promised(
    cached_decoder: Model, ctx: PassContext
) -> None:
    with pytest.raises(VerificationError, match=r"promise.*greedy text of \d of 8 prompts differs"):
        _run(cached_decoder, ctx, _Promise(noise=0.2))


def test_another_text_is_a_figure_after_a_lossy_pass(
    cached_decoder: Model, ctx: PassContext
) -> None:
    steps = _run(cached_decoder, ctx, _Edit(noise=0.2), _Promise())
    found = steps[1].figures.get(GreedyText)
    assert found is not None and 0 < found.share < 1
    assert found.first_difference is not None and found.first_difference > 0
    # What comes after it promises to be equal to it, not to the original.
    assert steps[2].figures.get(GreedyText) == found and steps[2].figures.checks == []


def test_no_more_is_written_than_there_is_time_for(cached_decoder: Model, ctx: PassContext) -> None:
    effort = Effort("no time", seconds=1e-9)
    greedy = Greedy(ctx.target, 1, new_tokens=12, budget=Budget(effort, Workload()))
    steps = PassManager(Pipeline(_Promise()), (greedy,)).run(cached_decoder, ctx)
    found = steps[1].figures.get(GreedyText)
    assert found is not None and (found.new_tokens, found.equal) == (4, 8)
    assert [note for note in steps[0].figures.notes if "4 of 12 new tokens" in note]


def test_a_tie_is_no_error(cached_decoder: Model, ctx: PassContext) -> None:
    tied = cached_decoder.clone()
    head = tied.ir.graph.initializers["head"]
    assert head.const_value is not None
    weights = head.const_value.numpy().copy()
    weights[:, 1::2] = weights[:, :-1:2] * np.float32(1 + 1e-7)
    head.const_value = ir.tensor(weights, name="head")
    steps = _run(tied, ctx, _Promise(noise=1e-6))
    found = steps[1].figures.get(GreedyText)
    assert found is not None and found.equal < 8
    assert any("two best tokens tie there" in note for note in steps[1].figures.notes)


def test_numbers_are_compared_with_a_cache_too(cached_decoder: Model, ctx: PassContext) -> None:
    manager = PassManager(Pipeline(_ForgetPast()), (Numerics(ctx.target, 1),))
    with pytest.raises(VerificationError, match=r"forget-past.*numerics.*changed"):
        manager.run(cached_decoder, ctx)


def test_other_models_write_nothing(classifier: Model, ctx: PassContext) -> None:
    (first,) = PassManager(Pipeline(), (Greedy(ctx.target, 1),)).run(classifier, ctx)
    assert first.figures.get(GreedyText) is None and not first.figures.notes


def test_a_decoder_without_a_cache_writes_too(plain_decoder: Model, ctx: PassContext) -> None:
    steps = _run(plain_decoder, ctx, _Promise(), _Edit(noise=1.0))
    assert steps[1].figures.checks == ["greedy-text"]
    found = steps[2].figures.get(GreedyText)
    assert found is not None and found.new_tokens == 12 and found.equal < 8


def test_prompts_are_the_beginnings_of_texts(cached_decoder: Model) -> None:
    ids = np.arange(80).reshape(4, 20) % 61
    mask = np.ones((4, 20), np.int64)
    mask[1, 5:] = 0  # Padding after, and before.
    mask[2, :4] = 0
    data = fit_dataset(Dataset({"input_ids": ids, "attention_mask": mask}), cached_decoder)
    decoder = find_decoder(cached_decoder.ir)
    assert decoder is not None
    found, source = choose_prompts(cached_decoder, decoder, data, 0)
    assert source == "memory"
    np.testing.assert_array_equal(found[:2], ids[:2, :5])
    np.testing.assert_array_equal(found[2], ids[2, 4:9])
