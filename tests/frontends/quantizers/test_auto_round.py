"""`irc export --quantizer autoround`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import DataError, OptionError
from irtools.frontends.quantizers import quantized_module
from irtools.passes.quantization.ranges.grids import find_grid
from irtools.sources import QuantizerRequest

from .conftest import write_ids
from .test_neural_compressor import kept_db, logits, network

pytestmark = [pytest.mark.torch, pytest.mark.autoround]

QUICK = "autoround:iters=2:group_size=16"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token ids of eight texts; two of them end in padding."""
    return write_ids(tmp_path_factory.mktemp("texts"), 12, padded=2)


def request(text: str, data: Path | None = None) -> QuantizerRequest:
    return QuantizerRequest.parse(text, data=None if data is None else str(data))


def test_its_only_method_goes_without_its_name() -> None:
    assert request("autoround") == request("autoround:signround")
    assert request("autoround:bits=3").options == (("bits", "3"),)
    with pytest.raises(OptionError, match="autoround has no method 'gptq'; it has signround"):
        request("autoround:gptq")
    with pytest.raises(OptionError, match="autoround:signround: iters is '0', expected a whole"):
        request("autoround:iters=0")
    with pytest.raises(OptionError, match="no option 'iter'; did you mean 'iters'"):
        request("autoround:iter=3")


@pytest.mark.slow
def test_weights_lie_on_grids_that_are_found(
    tiny: Callable[[str], Path],
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tiny("llama")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    module = network(folder)
    capfd.readouterr()
    found, notes = quantized_module(module, folder, request(QUICK, texts))
    # It leaves layers alone whose widths 32 does not divide.
    assert notes[:3] == (
        "autoround: 4 Linears in 4 bits",
        "autoround left 10 Linears inside of blocks as they are",
        "autoround: 6 samples of 12 tokens, 2 shorter ones left out",
    )
    assert notes[3].startswith("autoround:signround keeps ")
    layers = [layer for layer in found.modules() if type(layer).__name__ == "Linear"]
    grids = [find_grid(layer.weight.numpy(), 0) for layer in layers]
    kept = [grid for grid in grids if grid is not None]
    assert len(kept) == 4 and all(grid.bits == 4 for grid in kept)
    # It keeps what it says, and what it writes, to itself.
    said = capfd.readouterr()
    assert not said.out and not said.err
    assert not list(tmp_path.iterdir())
    assert kept_db(logits(found, texts), logits(network(folder), texts)) > 10


def test_what_it_cannot_do_says_so(tiny: Callable[[str], Path], texts: Path) -> None:
    with pytest.raises(DataError, match="autoround:signround chooses weights by data: give --cal"):
        quantized_module(network(tiny("llama")), tiny("llama"), request(QUICK))
    with pytest.raises(DataError, match="seqlen is 99, and the longest calibration text has 12"):
        text = f"{QUICK}:seqlen=99"
        quantized_module(network(tiny("llama")), tiny("llama"), request(text, texts))
