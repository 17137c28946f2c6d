"""Predicted errors: what they say of a rotation before it is made."""

from __future__ import annotations

import numpy as np

from irtools.analysis.orthogonal import Rotation
from irtools.analysis.shapes import SymbolicShapes
from irtools.data import Dataset
from irtools.passes.rotation.choose import Choice, candidates, choose
from irtools.passes.rotation.evidence import StreamEvidence, collect
from irtools.passes.rotation.find import StreamSettings, find_streams
from irtools.passmanager import PassContext
from irtools.scaling import Rounding

from .networks import TOKENS, WIDTH, Network, make

INT8 = Rounding()
INT4 = Rounding(activation_levels=0, weight_levels=8, block=32)


def evidence_of(network: Network, rounding: Rounding) -> tuple[StreamEvidence, Choice]:
    model = make(network)
    drawn = np.random.default_rng(1).integers(0, TOKENS, (16, 6))
    ctx = PassContext.for_model(model, calibration=Dataset({"ids": drawn}))
    (stream,) = find_streams(
        model.ir, SymbolicShapes.of(model.ir), StreamSettings(max_cost=1)
    ).found
    evidence = collect(stream, model.ir, ctx.statistics)
    assert evidence is not None
    rotations = [Rotation(WIDTH, seed) for seed in range(4)]
    return evidence, choose(evidence, model.ir, rotations, rounding, ctx.statistics)


def test_large_channels_let_eight_bits_gain() -> None:
    _, choice = evidence_of(Network(blocks=2), INT8)
    assert choice.gain_db > 3


def test_even_channels_gain_little() -> None:
    _, choice = evidence_of(Network(blocks=2, outliers=0), INT8)
    assert choice.gain_db < 2


def test_powers_are_those_of_normalized_values() -> None:
    evidence, _ = evidence_of(Network(blocks=2), INT4)
    # A normalization by the root mean square leaves a mean square of 1 over all channels.
    assert np.allclose([known.power.mean() for known in evidence.norms], 1, atol=1e-3)
    assert set(np.argsort(-evidence.power)[:3]) == {0, 1, 2}


def test_candidates_mix_all_channels_or_those_alike_in_power() -> None:
    evidence, _ = evidence_of(Network(blocks=2), INT4)
    wide = candidates(evidence, 64, 4, seed=7)
    assert [(r.block, r.seed, bool(r.order)) for r in wide] == [
        (0, 7, False),
        (32, 7, True),
        (0, 8, False),
        (32, 8, True),
    ]
    assert [r.block for r in candidates(evidence, WIDTH, 3, seed=0)] == [0, 0, 0]
