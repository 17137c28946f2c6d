"""Encoder-decoders become two models, checked one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import UnsupportedError
from irtools.sources import LoadOptions, find_frontend, load_source

pytestmark = pytest.mark.torch


def test_parts_are_encoder_and_decoder(tiny: Callable[[str], Path]) -> None:
    for name, parts in (("whisper", ("encoder", "decoder")), ("llama", ())):
        folder = str(tiny(name))
        assert find_frontend(folder).parts(folder, LoadOptions()) == parts


def test_one_model_cannot_be_had(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedError, match=r"two models: irc export .* -o DIR/"):
        load_source(str(tiny("t5")))


def test_the_encoder_gives_what_the_decoder_takes(tiny: Callable[[str], Path]) -> None:
    # Both are compared with torch: the decoder token by token against one run over all tokens.
    encoder, decoder = (
        load_source(str(tiny("whisper")), LoadOptions(part=part, with_past=True))
        for part in ("encoder", "decoder")
    )
    given = {v.name.replace("present", "past_key_values"): v for v in encoder.interface.outputs}
    taken = {v.name: v for v in decoder.interface.inputs}
    cross = [name for name in taken if ".encoder." in name]
    assert len(cross) == 4
    assert all(taken[name].shape == given[name].shape for name in cross)
    assert taken["past_key_values.1.decoder.value"].shape == ("batch", 4, "past_sequence", 8)
    assert not any("proj_out" in name for name in encoder.ir.graph.initializers)
    assert not any("encoder.layers" in name for name in decoder.ir.graph.initializers)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["whisper", "t5"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("with_past", [False, True])
def test_families_equal_torch(
    tiny: Callable[[str], Path], family: str, part: str, with_past: bool
) -> None:
    model = load_source(str(tiny(family)), LoadOptions(part=part, with_past=with_past))
    assert model.ir.metadata_props["part"] == part
    if part == "encoder" and family == "t5":
        assert model.interface.outputs[0].shape == ("batch", "sequence", 32)
