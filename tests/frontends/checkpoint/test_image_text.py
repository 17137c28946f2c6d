"""Networks that take images and texts: the scores of each with each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.encoder import describe_encoder
from irtools.frontends.checkpoint.image_text import describe_image_text, takes_both
from irtools.frontends.checkpoint.weights import open_checkpoint
from irtools.frontends.torch.check import relative_l2
from irtools.sources import load_source

pytestmark = pytest.mark.torch


def test_inputs_keep_to_the_position_table_and_differ_in_number(
    tiny: Callable[[str], Path],
) -> None:
    module = open_checkpoint(tiny("clip")).module
    assert takes_both(module)
    source = describe_image_text(module, tiny("clip"), "x", {})
    first, second = source.trials()
    assert first.feeds["input_ids"].shape == (1, 16)
    assert second.feeds["input_ids"].shape == (3, 30)
    assert second.feeds["pixel_values"].shape == (4, 3, 32, 32)
    assert {name: array.shape for name, array in second.wanted.items()} == {
        "logits_per_image": (4, 3),
        "logits_per_text": (3, 4),
        "text_embeds": (3, 24),
        "image_embeds": (4, 24),
    }


@pytest.mark.slow
def test_clip_equals_torch_and_both_batches_are_named(tiny: Callable[[str], Path]) -> None:
    interface = load_source(str(tiny("clip"))).interface
    assert [(v.name, v.shape) for v in interface.inputs] == [
        ("input_ids", ("text_batch", "sequence")),
        ("attention_mask", ("text_batch", "sequence")),
        ("pixel_values", ("image_batch", 3, 32, 32)),
    ]
    assert [(v.name, v.shape) for v in interface.outputs] == [
        ("logits_per_image", ("image_batch", "text_batch")),
        ("logits_per_text", ("text_batch", "image_batch")),
        ("text_embeds", ("text_batch", 24)),
        ("image_embeds", ("image_batch", 24)),
    ]


def test_a_tower_in_a_classifier_says_how_large_images_are(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    import transformers

    config = transformers.CLIPConfig.from_pretrained(tiny("clip"))
    module = transformers.CLIPForImageClassification(config).eval()
    source = describe_encoder(module, tmp_path, "x", {})
    assert source.inputs(2, 0)["pixel_values"].shape == (2, 3, 32, 32)


def test_networks_that_do_not_compare_are_refused(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedError, match="takes images and texts together"):
        load_source(str(tiny("blip")))


def test_the_mask_of_xlnet_is_the_one_that_it_makes_itself(tiny: Callable[[str], Path]) -> None:
    import torch

    module = open_checkpoint(tiny("xlnet")).module
    source = describe_encoder(module, tiny("xlnet"), "x", {})
    assert source.outputs == ("logits",)
    inputs = source.inputs(3, 20)
    assert {"input_ids", "attention_mask", "token_type_ids"} == set(inputs)
    with torch.inference_mode():
        wanted = module(**inputs).logits.numpy()
    assert relative_l2(wanted, source.run(inputs)["logits"].numpy()) < 1e-6
