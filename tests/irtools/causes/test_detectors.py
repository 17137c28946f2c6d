"""Detectors that no prepared pair shows, and what must not set them off."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest

from benchmarks.why_cases import CASES
from benchmarks.why_graphs import chain, read, weights
from irtools.causes import (
    Cause,
    ChosenClasses,
    Facts,
    Finding,
    Gap,
    RecordedFacts,
    Subject,
    Threads,
    Times,
    diagnose,
)
from irtools.measure.base import Ratio
from irtools.measure.divergence import Comparison, TensorFidelity
from irtools.measure.profile import NodeProfile, Profile
from irtools.metrics import Fidelity
from irtools.model import Model, planned_size
from irtools.targets import KernelReport, find_target


def facts_of(first: Model, second: Model | None = None, **given: object) -> RecordedFacts:
    """Return facts about two models, of which nothing is known but what is given."""
    second = first if second is None else second
    subjects = (Subject(n, m, planned_size(m.ir)) for n, m in (("a", first), ("b", second)))
    facts = RecordedFacts(*subjects, find_target("ort-cpu:isa=vnni"))
    return dataclasses.replace(facts, **given)  # type: ignore[arg-type]


def profile(**times: float) -> Profile:
    """Return a profile of nodes by `operator__node`."""
    rows = [key.split("__") for key in times]
    nodes = tuple(
        NodeProfile(name.replace("_", "/"), op, "", ms, 0.0)
        for (op, name), ms in zip(rows, times.values(), strict=True)
    )
    return Profile("ort-cpu", "", "", 1, 1, sum(times.values()), (), nodes)


def level(db: float, nonfinite: int = 0) -> Fidelity:
    """Return the fidelity of a tensor."""
    return Fidelity(db, 0.1, 1.0, 0.9, None, None, 4, nonfinite)


def compared(output: float, **levels: float | Fidelity) -> Comparison:
    """Return a comparison of tensors, in the order of the model."""
    layers = tuple(
        TensorFidelity(n, "Relu", n, db if isinstance(db, Fidelity) else level(db))
        for n, db in levels.items()
    )
    return Comparison(4, "", 60.0, {"a2": level(output)}, layers, 0, None, None)


def causes(facts: Facts) -> list[str]:
    """Return the causes that are found, the first one first."""
    return [finding.cause for finding in diagnose(facts).findings]


def slower(first: float, second: float) -> Times:
    """Return times with a narrow interval."""
    ratio = first / second
    return Times("batch=1", first, second, Ratio(ratio, 0.98 * ratio, 1.02 * ratio))


@pytest.fixture(scope="module")
def line() -> Model:
    """Three products with a Relu after each."""
    return chain(weights(3, 8))


def test_the_layer_that_adds_the_noise_is_named(line: Model) -> None:
    facts = facts_of(line, comparison=compared(18, p0=60, a0=60, p1=20, a1=20, p2=19))
    (finding,) = diagnose(facts).findings
    assert finding.subjects == ("p1", "p1") and finding.share == pytest.approx(0.63, abs=0.05)
    assert finding.text == "SQNR falls from 60.0 dB to 20.0 dB at p1 (Relu)"


def test_a_tensor_in_another_scale_adds_no_noise(line: Model) -> None:
    facts = facts_of(line, comparison=compared(50, p0=60, a0=-5, p1=55, a1=54, p2=52))
    assert causes(facts) == []


def test_numbers_that_are_not_finite_come_first(line: Model) -> None:
    facts = facts_of(line, comparison=compared(3, a0=50, a1=level(5, nonfinite=7)))
    assert causes(facts)[0] == "not-finite"


def test_attention_that_is_several_kernels_again() -> None:
    text = "s = Softmax(x) y = Relu(s)"
    model = read("net", "float[n, 4] x", "float[n, 4] y", ["[block/A] " + text], {})
    facts = facts_of(
        model,
        times=slower(1, 2),
        kernels=(KernelReport(fused_attention=1), KernelReport(fused_attention=0)),
        profiles=(profile(Attention__block_A=1.0), profile(Softmax__block_A=2.0)),
    )
    assert causes(facts)[0] == "lost-fusion"


def test_sizes_that_were_fixed_and_are_open() -> None:
    lines = ["[block/S] t = Sigmoid(x) y = Relu(t)"]
    fixed = read("net", "float[1, 4] x", "float[1, 4] y", lines, {})
    opened = read("net", "float[n, 4] x", "float[n, 4] y", lines, {})
    profiles = profile(Sigmoid__block_S=1.0), profile(Sigmoid__block_S=1.0, Shape__q=0.5)
    facts = facts_of(fixed, opened, times=slower(1, 1.5), profiles=profiles)
    finding = diagnose(facts).findings[0]
    assert finding.cause == "open-sizes" and "--fix x.0=1" in finding.command
    assert "open-sizes" not in causes(dataclasses.replace(facts, second=facts.first))


def test_float_weights_of_a_quantized_model() -> None:
    matrix = weights(1, 64)[0]
    stored = {"q": np.ones((64, 64), np.int8), "s": np.array(0.1, np.float32)}
    lines = ["v = DequantizeLinear(q, s) h = MatMul(x, v) y = MatMul(h, w)"]
    form = ("float[n, 64] x", "float[n, 64] y")
    mixed = read("net", *form, lines, {**stored, "w": matrix})
    plain = read("net", *form, ["y = MatMul(x, w)"], {"w": matrix})
    assert causes(facts_of(mixed)) == ["float-weights"]
    assert causes(facts_of(plain)) == []


def test_wider_weights_are_named_by_module() -> None:
    pair = CASES["one weight of few steps"](64)
    found = diagnose(facts_of(pair.second, pair.first))
    wide = [finding for finding in found.findings if finding.cause == "wider-weights"]
    assert {finding.subjects for finding in wide} == {("layer.0",), ("layer.1",), ("layer.2",)}
    assert sum(finding.share or 0 for finding in wide) == pytest.approx(1, abs=0.1)


def test_flipped_samples_gather_in_a_class(line: Model) -> None:
    first = tuple([0, 1, 2, 3] * 10)
    second = tuple(3 if one == 2 and n < 24 else one for n, one in enumerate(first))
    facts = facts_of(
        line, comparison=compared(20), decisions=ChosenClasses(first, second, 4, first, "samples")
    )
    (finding,) = diagnose(facts).findings
    assert finding.cause == "losing-class" and finding.subjects == ("2",)
    assert finding.text == "class 2 loses most: 6 of its 10 samples are decided otherwise"
    assert "accuracy 100.00 % -> 85.00 %" in finding.evidence


def test_classes_that_are_merely_worse_stand_in_no_other_order(line: Model) -> None:
    draw = np.random.default_rng(0)
    first = tuple(map(int, draw.integers(0, 4, 60)))
    second = tuple(map(int, draw.integers(0, 4, 60)))
    facts = facts_of(line, comparison=compared(0), decisions=ChosenClasses(first, second, 4))
    assert "class-order" not in causes(facts)


def test_threads_within_the_quota_are_no_cause(line: Model) -> None:
    facts = facts_of(line, times=slower(1, 2), threads=Threads(4, 4))
    assert causes(facts) == []
    assert causes(dataclasses.replace(facts, threads=Threads(8, 4, 1.2)))[0] == "threads-over-quota"


def test_a_difference_within_noise_is_none(line: Model) -> None:
    noisy = Times("batch=1", 1.0, 1.1, Ratio(0.91, 0.8, 1.05))
    found = diagnose(facts_of(line, times=noisy, comparison=compared(float("inf"))))
    assert found.is_equal and "within noise" in found.differences[0].text


def test_a_package_brings_a_detector(line: Model) -> None:
    class Mine(Cause):
        name: ClassVar[str] = "mine"
        gap: ClassVar[Gap] = Gap.LARGER

        def find(self, facts: Facts) -> Iterator[Finding]:
            yield self.finding("too large", 10.0, "ten bytes", command="irc inspect b")

    found = diagnose(facts_of(line), [Mine()])
    assert [finding.cause for finding in found.findings] == []  # Less than 2 % of the model.
    big = dataclasses.replace(facts_of(line), second=Subject("b", line, 40))
    assert [finding.share for finding in diagnose(big, [Mine()]).findings] == [0.25]


def test_a_weight_that_was_pruned_or_is_another_one() -> None:
    lines = ["[up/A] h = MatMul(x, w) [act/R] a = Relu(h) [down/B] y = MatMul(a, v)"]
    form = ("float[n, 64] x", "float[n, 64] y")
    w, v = weights(2, 64)
    first = read("net", *form, lines, {"w": w, "v": v})
    half = w.copy()
    half[:, ::2] = 0
    cases = {
        "50 % of its numbers became zero and the others stayed as they were: pruned": half,
        "it holds the numbers of v, another weight of A": v,
        "its numbers are other ones": w + v,
    }
    for said, array in cases.items():
        second = read("net", *form, lines, {"w": array, "v": v})
        found = diagnose(facts_of(first, second, comparison=compared(3))).findings
        coarse = next(one for one in found if one.cause == "coarse-weights")
        assert coarse.text.endswith(said), coarse.text
        assert ("--passes cleanup,fuse,prune" in coarse.command) == (array is half)


def test_a_class_that_gains_by_flips_does_not_lose(line: Model) -> None:
    truth = tuple([0, 1, 2, 3] * 10)
    wrong = tuple(3 if one == 0 and n < 16 else one for n, one in enumerate(truth))
    facts = facts_of(
        line, comparison=compared(20), decisions=ChosenClasses(wrong, truth, 4, truth, "samples")
    )
    assert "losing-class" not in causes(facts)
    back = dataclasses.replace(facts, decisions=ChosenClasses(truth, wrong, 4, truth, "samples"))
    assert "losing-class" in causes(back)


def test_many_other_answers_are_a_loss_unless_they_are_better_ones(line: Model) -> None:
    draw = np.random.default_rng(2)
    truth = tuple(map(int, draw.integers(0, 4, 200)))
    first = tuple(map(int, draw.integers(0, 4, 200)))
    other = tuple((one + 1) % 4 if n % 8 == 0 else one for n, one in enumerate(first))
    better = tuple(truth[n] if n % 8 == 0 else one for n, one in enumerate(first))
    for second, lags in ((other, True), (better, False)):
        chosen = ChosenClasses(first, second, 4, truth, "samples")
        found = diagnose(facts_of(line, comparison=compared(3), decisions=chosen))
        assert [one.lags for one in found.differences if one.gap is Gap.WORSE] == [lags]
