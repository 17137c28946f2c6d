"""Decoders with a cache: one graph that reads a prompt and goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.errors import ModelError, OptionError
from irtools.frontends.checkpoint import decoder
from irtools.model import Model
from irtools.sources import LoadOptions, load_source
from irtools.targets import RunnerOptions, find_target

pytestmark = pytest.mark.torch

CACHED = LoadOptions(with_past=True)


@pytest.fixture(scope="module")
def llama(tiny: Callable[[str], Path]) -> Model:
    return load_source(str(tiny("llama")), CACHED)


def test_interface_is_named_and_dynamic(llama: Model) -> None:
    past = [f"past_key_values.{n}.{what}" for n in (0, 1) for what in ("key", "value")]
    cache = ("batch", 2, "past_sequence", 8)
    assert [(v.name, v.shape) for v in llama.interface.inputs] == [
        ("input_ids", ("batch", "sequence")),
        ("attention_mask", ("batch", "past_sequence + sequence")),
        ("position_ids", ("batch", "sequence")),
        *((name, cache) for name in past),
    ]
    grown = ("batch", 2, "past_sequence + sequence", 8)
    assert [(v.name, v.shape) for v in llama.interface.outputs] == [
        ("logits", ("batch", "sequence", 131)),
        *((name.replace("past_key_values", "present"), grown) for name in past),
    ]


def test_what_generation_needs_is_in_the_metadata(llama: Model) -> None:
    found = llama.ir.metadata_props
    assert found["task"] == "text-generation"
    assert found["model_type"] == "llama"
    assert [json.loads(found[f"{n}_token_id"]) for n in ("bos", "eos", "pad")] == [1, 2, 0]
    assert "id2label" not in found


@pytest.mark.parametrize(
    "family",
    [
        # Its window is shorter than the texts of the check.
        pytest.param("mistral", marks=pytest.mark.slow),
        pytest.param("llama-tied", marks=pytest.mark.slow),
        pytest.param("qwen2", marks=pytest.mark.slow),
        pytest.param("gpt2", marks=pytest.mark.slow),
    ],
)
def test_families_equal_torch_in_prefill_and_decode(
    tiny: Callable[[str], Path], family: str
) -> None:
    # load_source compares prefill, decode and a longer continuation, padding included.
    model = load_source(str(tiny(family)), CACHED)
    assert model.interface.inputs[-1].name == "past_key_values.1.value"


def test_greedy_text_equals_that_of_transformers(llama: Model, tiny: Callable[[str], Path]) -> None:
    import torch
    from transformers import LlamaForCausalLM

    module = LlamaForCausalLM.from_pretrained(tiny("llama")).eval()
    prompt = np.array([[0, 0, 5, 9, 17], [3, 8, 1, 77, 40]])
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.inference_mode():
        wanted = module.generate(
            torch.from_numpy(prompt),
            attention_mask=torch.from_numpy(mask),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        ).numpy()
    past = {
        v.name: np.zeros((2, 2, 0, 8), np.float32)
        for v in llama.interface.inputs
        if "past" in v.name
    }
    ids, text = prompt, prompt
    with find_target("ort-cpu").runner(llama, RunnerOptions(exact=True)) as runner:
        for _ in range(9):
            positions = np.maximum(mask.cumsum(1) - 1, 0)[:, -ids.shape[1] :]
            feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
            found = runner.run(feeds | past)
            ids = found["logits"][:, -1:].argmax(-1)
            past = {name: found[name.replace("past_key_values", "present")] for name in past}
            text = np.concatenate([text, ids], 1)
            mask = np.concatenate([mask, np.ones((2, 1), np.int64)], 1)
    np.testing.assert_array_equal(text, wanted)


def test_a_wrong_cache_is_noticed(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(cache: object) -> list:
        return [tensor * 1.1 for tensor in tensors_in(cache)]

    tensors_in = decoder.tensors_in
    monkeypatch.setattr(decoder, "tensors_in", scaled)
    with pytest.raises(ModelError, match=r"'logits' differs .* 1 token after 5"):
        load_source(str(tiny("llama")), CACHED)


def test_only_text_generation_has_a_cache(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(OptionError, match=r"'text-classification'.*--with-past"):
        load_source(str(tiny("bert")), CACHED)


@pytest.mark.slow
def test_without_a_cache_a_decoder_reads_whole_texts(tiny: Callable[[str], Path]) -> None:
    model = load_source(str(tiny("llama")))
    assert [v.name for v in model.interface.inputs] == ["input_ids", "attention_mask"]
    assert [v.name for v in model.interface.outputs] == ["logits"]
