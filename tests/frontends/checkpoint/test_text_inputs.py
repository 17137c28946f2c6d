"""Inputs of texts next to ids, mask and types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from irtools.frontends.checkpoint.text_inputs import (
    TextInput,
    draw_extras,
    further_inputs,
    note_on_left_out,
)


@pytest.mark.parametrize(
    ("config", "name", "wanted"),
    [
        ({"max_2d_position_embeddings": 64}, "bbox", TextInput(64, 4, is_box=True)),
        ({"model_type": "bros"}, "bbox", TextInput(1000, 4, is_box=True, is_share=True)),
        ({"use_task_id": True, "task_type_vocab_size": 3}, "task_type_ids", TextInput(3)),
        ({"n_langs": 5}, "langs", TextInput(5)),
        (
            {"max_depth": 7, "max_xpath_tag_unit_embeddings": 9},
            "xpath_tags_seq",
            TextInput(9, 7),
        ),
        ({"enable_shape": True, "shape_vocab_size": 11}, "input_shape_ids", TextInput(11)),
    ],
)
def test_a_network_with_a_table_for_it_takes_it(
    config: dict[str, Any], name: str, wanted: TextInput
) -> None:
    found = further_inputs(SimpleNamespace(**{"model_type": "x", **config}), [name, "input_ids"])
    assert found == {name: wanted}


def test_a_table_that_is_switched_off_is_not_read() -> None:
    config = SimpleNamespace(model_type="ernie", use_task_id=False, n_langs=1)
    assert further_inputs(config, ["task_type_ids", "langs"]) == {}


def test_what_is_left_out_is_named() -> None:
    parameters = ["input_ids", "inputs_embeds", "bbox", "entity_ids", "kwargs"]
    note = note_on_left_out("LukeModel", parameters, ["input_ids", "bbox"])
    assert note == "left out of the export, as if not given: entity_ids of LukeModel"
    assert note_on_left_out("BertModel", ["input_ids", "position_ids"], ["input_ids"]) == ""


@pytest.mark.torch
def test_boxes_are_boxes_and_empty_at_padding() -> None:
    import torch

    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    extras = {
        "bbox": TextInput(64, 4, is_box=True),
        "langs": TextInput(5),
        "share": TextInput(10, 4, is_box=True, is_share=True),
    }
    texts = {"input_ids": mask, "attention_mask": mask}
    found = draw_extras(torch, extras, lambda b, s: texts, 2, 3)
    left, top, right, bottom = found["bbox"].unbind(-1)
    assert bool((left <= right).all() and (top <= bottom).all() and (right < 64).all())
    assert found["bbox"][1, 1:].sum() == 0 and found["langs"].shape == (2, 3)
    assert found["share"].dtype == torch.float32 and float(found["share"].max()) <= 1
