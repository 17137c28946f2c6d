"""Small checkpoints on disk, made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Decoders of one small size, in the words of each family.
_LLAMA = {
    "vocab_size": 131,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
_BERT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
_HALVES = {
    "vocab_size": 120,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
_WHISPER = {
    **_HALVES,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
_WAVES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 32,
}
_T5 = {
    "vocab_size": 120,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
_BART = {
    **_HALVES,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "num_labels": 3,
}
_GPT2 = {"vocab_size": 131, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", _LLAMA),
    "llama-tied": ("LlamaForCausalLM", _LLAMA | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2ForCausalLM", _LLAMA),
    # A window shorter than the texts of the check.
    "mistral": ("MistralForCausalLM", _LLAMA | {"sliding_window": 6}),
    "gpt2": ("GPT2LMHeadModel", _GPT2 | {"eos_token_id": 2, "bos_token_id": 1}),
    "bert": ("BertForSequenceClassification", _BERT),
    "bert-mlm": ("BertForMaskedLM", _BERT),
    "bert-ner": ("BertForTokenClassification", _BERT),
    "bert-qa": ("BertForQuestionAnswering", _BERT),
    "roberta": ("RobertaForSequenceClassification", _BERT | {"pad_token_id": 1}),
    "mpnet": ("MPNetModel", _BERT | {"pad_token_id": 1}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 97, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "albert": ("AlbertForMaskedLM", _BERT | {"embedding_size": 16}),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        _BERT
        | {
            "relative_attention": True,
            "position_buckets": 8,
            "max_relative_positions": -1,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "layoutlm": ("LayoutLMForTokenClassification", _BERT | {"max_2d_position_embeddings": 128}),
    "lilt": ("LiltModel", _BERT | {"max_2d_position_embeddings": 128, "hidden_size": 48}),
    "ernie": ("ErnieModel", _BERT | {"use_task_id": True, "task_type_vocab_size": 3}),
    "gemma3-sliding": (
        "Gemma3ForCausalLM",
        _LLAMA
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "vit": ("ViTForImageClassification", _VISION),
    "dinov2": ("Dinov2Model", _VISION),
    "clip": (
        "CLIPModel",
        {
            "text_config": _BERT
            | {"pad_token_id": 0, "eos_token_id": 96, "max_position_embeddings": 30},
            "vision_config": _VISION,
            "projection_dim": 24,
        },
    ),
    "clip-text": ("CLIPTextModel", _BERT | {"pad_token_id": 0, "eos_token_id": 96}),
    "clip-vision": ("CLIPVisionModel", _VISION),
    "blip": (
        "BlipForConditionalGeneration",
        {"text_config": _BERT | {"encoder_hidden_size": 32}, "vision_config": _VISION},
    ),
    "xlnet": (
        "XLNetForSequenceClassification",
        {"vocab_size": 97, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    ),
    "efficientnet": (
        "EfficientNetForImageClassification",
        {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128},
    ),
    "whisper": ("WhisperForConditionalGeneration", _WHISPER),
    "whisper-classifier": ("WhisperForAudioClassification", _WHISPER | {"num_labels": 3}),
    "wav2vec2": ("Wav2Vec2ForCTC", _WAVES),
    "hubert": ("HubertForSequenceClassification", _WAVES | {"num_labels": 3}),
    "wav2vec2-bert": (
        "Wav2Vec2BertForCTC",
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 32}
        | {"intermediate_size": 48, "feature_projection_input_dim": 16},
    ),
    "ast": (
        "ASTForAudioClassification",
        _VISION | {"max_length": 32, "num_mel_bins": 16, "time_stride": 8, "frequency_stride": 8},
    ),
    "patchtst": (
        "PatchTSTForPrediction",
        {"context_length": 32, "num_input_channels": 2, "patch_length": 8, "patch_stride": 8}
        | {"d_model": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 32},
    ),
    "time-series": (
        "TimeSeriesTransformerForPrediction",
        {"prediction_length": 4, "d_model": 16, "lags_sequence": [1], "encoder_layers": 1},
    ),
    "t5": ("T5ForConditionalGeneration", _T5),
    "t5-encoder": ("T5EncoderModel", _T5),
    "t5-classifier": ("T5ForSequenceClassification", _T5 | {"eos_token_id": 1, "num_labels": 3}),
    "bart-classifier": ("BartForSequenceClassification", _BART),
    "bart-qa": ("BartForQuestionAnswering", _BART | {"num_labels": 2}),
    "mbart-classifier": ("MBartForSequenceClassification", _BART),
}


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT classifier with three named classes."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        id2label={0: "sport", 1: "trade", 2: "crude"},
        label2id={"sport": 0, "trade": 1, "crude": 2},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    return folder


@pytest.fixture
def edited_config(bert_folder: Path, tmp_path: Path):
    """Return a function that copies the checkpoint with some config entries replaced."""

    def edit(**changes: object) -> Path:
        config = json.loads((bert_folder / "config.json").read_text()) | changes
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").write_bytes(
            (bert_folder / "model.safetensors").read_bytes()
        )
        return tmp_path

    return edit


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a random checkpoint of a family, once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name.replace("-", "_"))
            save_tiny(name, made[name])
        return made[name]

    return make


def save_tiny(name: str, folder: Path) -> None:
    """Write a random checkpoint whose weights are large enough to show a wrong result."""
    import torch
    import transformers

    architecture, sizes = TINY[name]
    network = getattr(transformers, architecture)
    torch.manual_seed(0)
    module = network(network.config_class(**sizes))
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    module.save_pretrained(folder)
