"""Networks that take sounds or time series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.encoder import describe_encoder
from irtools.frontends.checkpoint.weights import open_checkpoint
from irtools.sources import load_source

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("name", "signal", "shapes", "axes"),
    [
        ("wav2vec2", "input_values", [(1, 176), (3, 387)], {0: "batch", 1: "samples"}),
        ("wav2vec2-bert", "input_features", [(1, 16, 16), (3, 37, 16)], {0: "batch", 1: "frames"}),
        ("ast", "input_values", [(1, 32, 16), (3, 32, 16)], {0: "batch"}),
        ("whisper-classifier", "input_features", [(1, 8, 40), (3, 8, 40)], {0: "batch"}),
        ("patchtst", "past_values", [(1, 32, 2), (3, 32, 2)], {0: "batch"}),
    ],
)
def test_what_a_network_is_fed(
    tiny: Callable[[str], Path],
    name: str,
    signal: str,
    shapes: list[tuple[int, ...]],
    axes: dict[int, str],
) -> None:
    source = describe_encoder(open_checkpoint(tiny(name)).module, tiny(name), "x", {})
    assert source.axes == {signal: axes}
    assert [trial.feeds[signal].shape for trial in source.trials()] == shapes


@pytest.mark.parametrize("name", ["wav2vec2", pytest.param("hubert", marks=pytest.mark.slow)])
def test_sounds_of_any_length(tiny: Callable[[str], Path], name: str) -> None:
    """Loading compares with torch at lengths that the exporter did not see."""
    (sound,) = load_source(str(tiny(name))).interface.inputs
    assert (sound.name, sound.shape) == ("input_values", ("batch", "samples"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav2vec2-bert", "ast", "whisper-classifier", "patchtst"])
def test_features_of_frames(tiny: Callable[[str], Path], name: str) -> None:
    load_source(str(tiny(name)))


def test_networks_that_need_more_are_refused(tiny: Callable[[str], Path]) -> None:
    module = open_checkpoint(tiny("time-series")).module
    with pytest.raises(UnsupportedError, match=r"takes past_values, past_time_features, .*; exp"):
        describe_encoder(module, tiny("time-series"), "x", {})
