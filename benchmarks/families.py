"""Tiny models of each family, exported as users export them, for the table in docs/fusion.md.

Every model has two layers and random weights; what counts is how its graph is written.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

__all__ = ["EXPORTERS", "FAMILIES", "Exporter", "Family", "export"]

LAYERS = 2
VOCABULARY = 99
BATCH, LENGTH, PAST = 2, 6, 3
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
IMAGE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
EAGER_ONLY = frozenset({"DebertaV2Model", "MPNetModel"})
"""Families of which Transformers has no other attention."""
Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        build: Makes the module for an attention implementation (`sdpa` or `eager`).
        inputs: Makes its inputs by name, in the order of `forward`.
        axes: Input to its dynamic axes.
        outputs: Names of the outputs.
        expected: Kind of fusion to how many of it the architecture has.
    """

    build: Callable[[str], Any]
    inputs: Callable[[], Mapping[str, Any]]
    axes: Axes
    expected: Mapping[str, int]
    outputs: Sequence[str] = ("output",)


@dataclass(frozen=True)
class Exporter:
    """A way to write a module to ONNX.

    Attributes:
        dynamo: torch.export, not TorchScript.
        opset: The opset that is asked for.
        attention: The attention implementation of Transformers.
    """

    dynamo: bool
    opset: int
    attention: str = "sdpa"


EXPORTERS = {
    "dynamo 20": Exporter(True, 20),
    "dynamo 23": Exporter(True, 23),
    "TorchScript 17": Exporter(False, 17),
    "eager, TorchScript 14": Exporter(False, 14, "eager"),
}


def export(name: str, exporter: Exporter) -> ir.Model:
    """Export a family; raises whatever the exporter raises."""
    import torch

    family = FAMILIES[name]
    torch.manual_seed(0)
    module = family.build(exporter.attention).eval()
    # Position embeddings and norms that are constant at the start would hide what reads them.
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    inputs = dict(family.inputs())
    with _quiet(), torch.inference_mode():
        if exporter.dynamo:
            return _dynamo(torch, family, module, inputs, exporter.opset)
        return _torchscript(torch, family, module, inputs, exporter.opset)


def _dynamo(
    torch: Any, family: Family, module: Any, inputs: dict[str, Any], opset: int
) -> ir.Model:
    names = {label for axes in family.axes.values() for label in axes.values()}
    dims = dict.fromkeys(names, torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(
        module,
        (),
        kwargs=inputs,
        dynamo=True,
        opset_version=opset,
        input_names=list(inputs),
        output_names=list(family.outputs),
        dynamic_shapes={
            name: {axis: dims[label] for axis, label in family.axes.get(name, {}).items()}
            for name in inputs
        },
        verbose=False,
    )
    return program.model


def _torchscript(
    torch: Any, family: Family, module: Any, inputs: dict[str, Any], opset: int
) -> ir.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(family.outputs),
            dynamic_axes={name: dict(axes) for name, axes in family.axes.items()},
        )
        model = ir.load(path)
        for value in model.graph.initializers.values():
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
        return model


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def _first_output(module: Any, names: Sequence[str], **fixed: Any) -> Any:
    """A module that takes `names` in this order and returns the first output."""
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

    arguments = ", ".join(names)
    passed = ", ".join(f"{name}={name}" for name in names)
    scope: dict[str, Any] = {"fixed": fixed}
    exec(  # torch reads the names of the inputs off the signature
        f"def forward(self, {arguments}):\n    return self.module({passed}, **fixed)[0]", scope
    )
    First.forward = scope["forward"]
    return First()


def _transformer(
    kind: str, config: str, names: Sequence[str], **options: Any
) -> Callable[[str], Any]:
    def build(attention: str) -> Any:
        import transformers

        made = getattr(transformers, config)(**options)
        if kind not in EAGER_ONLY:
            made._attn_implementation = attention
        fixed = {} if "pixel_values" in names else {"use_cache": False}
        if not hasattr(made, "use_cache"):
            fixed = {}
        return _first_output(getattr(transformers, kind)(made), names, **fixed)

    return build


def _tokens(names: Sequence[str]) -> Callable[[], Mapping[str, Any]]:
    def inputs() -> Mapping[str, Any]:
        import torch

        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH), generator=generator)
        mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
        mask[-1, -2:] = 0
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        return {name: known[name] for name in names}

    return inputs


def _pixels() -> Mapping[str, Any]:
    import torch

    return {"pixel_values": torch.randn(BATCH, 3, 32, 32)}


def _encoder(kind: str, config: str, expected: Mapping[str, int], **options: Any) -> Family:
    names = ["input_ids", "attention_mask"]
    return Family(
        _transformer(kind, config, names, **{**TEXT, **options}),
        _tokens(names),
        {name: {0: "batch", 1: "sequence"} for name in names},
        expected,
    )


def _image(kind: str, config: str, expected: Mapping[str, int], **options: Any) -> Family:
    return Family(
        _transformer(kind, config, ["pixel_values"], **{**IMAGE, **options}),
        _pixels,
        {"pixel_values": {0: "batch"}},
        expected,
    )


LLAMA = {**TEXT, "num_key_value_heads": 2}


def _llama_with_past(attention: str) -> Any:
    """A decoder that takes and returns its cache, as [batch, heads, length, width] tensors."""
    import torch
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**LLAMA)
    config._attn_implementation = attention

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = LlamaForCausalLM(config)

        def forward(
            self,
            input_ids: Any,
            attention_mask: Any,
            past_key_0: Any,
            past_value_0: Any,
            past_key_1: Any,
            past_value_1: Any,
        ) -> Any:
            past = DynamicCache([(past_key_0, past_value_0), (past_key_1, past_value_1)])
            found = self.module(
                input_ids=input_ids,
                attention_mask=attention_mask,
                past_key_values=past,
                use_cache=True,
            )
            presents = [t for layer in past.layers for t in (layer.keys, layer.values)]
            return (found.logits, *presents)

    return Decoder()


def _past_inputs() -> Mapping[str, Any]:
    import torch

    tokens = _tokens(["input_ids"])()
    generator = torch.Generator().manual_seed(1)
    past = {
        f"past_{what}_{layer}": torch.randn(BATCH, 2, PAST, 8, generator=generator)
        for layer in range(LAYERS)
        for what in ("key", "value")
    }
    mask = torch.ones(BATCH, PAST + LENGTH, dtype=torch.long)
    mask[-1, :2] = 0
    return {**tokens, "attention_mask": mask, **past}


_PAST_AXES = {
    "input_ids": {0: "batch", 1: "sequence"},
    "attention_mask": {0: "batch", 1: "total"},
    **{
        f"past_{what}_{layer}": {0: "batch", 2: "past"}
        for layer in range(LAYERS)
        for what in ("key", "value")
    },
}
_PAST_OUTPUTS = (
    "logits",
    *(f"present_{what}_{layer}" for layer in range(LAYERS) for what in ("key", "value")),
)

T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "decoder_start_token_id": 0,
}
WHISPER = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 8,
    "max_source_positions": 16,
    "max_target_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def _seq2seq(kind: str, config: str, part: str, options: Mapping[str, Any]) -> Callable[[str], Any]:
    """The encoder, or the decoder over the encoder's output, of an encoder-decoder."""

    def build(attention: str) -> Any:
        import transformers

        made = getattr(transformers, config)(**options)
        made._attn_implementation = attention
        module = getattr(transformers, kind)(made)
        if part == "encoder":
            encoder = module.get_encoder()
            name = "input_features" if "Whisper" in kind else "input_ids"
            names = [name] if "Whisper" in kind else [name, "attention_mask"]
            return _first_output(encoder, names)
        names = ["input_ids", "encoder_hidden_states"]
        names += [] if "Whisper" in kind else ["encoder_attention_mask"]
        return _first_output(module.get_decoder(), names, use_cache=False)

    return build


def _decoder_inputs(*, masked: bool, length: int) -> Callable[[], Mapping[str, Any]]:
    def inputs() -> Mapping[str, Any]:
        import torch

        generator = torch.Generator().manual_seed(2)
        states = torch.randn(BATCH, length, 32, generator=generator)
        mask = torch.ones(BATCH, length, dtype=torch.long)
        mask[-1, -2:] = 0
        found = {**_tokens(["input_ids"])(), "encoder_hidden_states": states}
        return {**found, "encoder_attention_mask": mask} if masked else found

    return inputs


def _features() -> Mapping[str, Any]:
    import torch

    return {"input_features": torch.randn(BATCH, 8, 32)}


_DECODER_AXES = {
    "input_ids": {0: "batch", 1: "sequence"},
    "encoder_hidden_states": {0: "batch", 1: "source"},
    "encoder_attention_mask": {0: "batch", 1: "source"},
}

POST_NORM = {"attention": LAYERS, "layer-norm": 2 * LAYERS + 1, "gelu": LAYERS}

FAMILIES: Mapping[str, Family] = {
    "BERT": _encoder("BertModel", "BertConfig", POST_NORM),
    "RoBERTa": _encoder("RobertaModel", "RobertaConfig", POST_NORM),
    "MPNet": _encoder("MPNetModel", "MPNetConfig", POST_NORM, relative_attention_num_buckets=32),
    "DistilBERT": _encoder(
        "DistilBertModel",
        "DistilBertConfig",
        POST_NORM,
        dim=32,
        n_layers=LAYERS,
        n_heads=4,
        hidden_dim=48,
    ),
    "ALBERT": _encoder(
        "AlbertModel", "AlbertConfig", POST_NORM, embedding_size=16, hidden_act="gelu"
    ),
    "DeBERTa-v2": _encoder(
        "DebertaV2Model",
        "DebertaV2Config",
        POST_NORM,  # The norm of the position embeddings is computed at compile time.
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
        hidden_act="gelu",
    ),
    "ViT": _image("ViTModel", "ViTConfig", POST_NORM),
    "DINOv2": _image("Dinov2Model", "Dinov2Config", POST_NORM, mlp_ratio=2),
    "GPT-2": _encoder(
        "GPT2Model",
        "GPT2Config",
        {"attention": LAYERS, "layer-norm": 2 * LAYERS + 1},
        n_embd=32,
        n_layer=LAYERS,
        n_head=4,
        n_positions=64,
    ),
    "Llama": _encoder(
        "LlamaForCausalLM",
        "LlamaConfig",
        {"attention": LAYERS, "rms-norm": 2 * LAYERS + 1, "rotary": 2 * LAYERS},
        num_key_value_heads=2,
    ),
    "Llama with cache": Family(
        _llama_with_past,
        _past_inputs,
        _PAST_AXES,
        {"attention": LAYERS, "rms-norm": 2 * LAYERS + 1, "rotary": 2 * LAYERS},
        _PAST_OUTPUTS,
    ),
    "T5 encoder": Family(
        _seq2seq("T5ForConditionalGeneration", "T5Config", "encoder", T5),
        _tokens(["input_ids", "attention_mask"]),
        {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")},
        {"attention": LAYERS, "rms-norm": 2 * LAYERS + 1},
    ),
    "T5 decoder": Family(
        _seq2seq("T5ForConditionalGeneration", "T5Config", "decoder", T5),
        _decoder_inputs(masked=True, length=LENGTH + 2),
        _DECODER_AXES,
        {"attention": 2 * LAYERS, "rms-norm": 3 * LAYERS + 1},
    ),
    "Whisper encoder": Family(
        _seq2seq("WhisperForConditionalGeneration", "WhisperConfig", "encoder", WHISPER),
        _features,
        {"input_features": {0: "batch"}},
        {"attention": LAYERS, "layer-norm": 2 * LAYERS + 1, "gelu": LAYERS + 2},
    ),
    "Whisper decoder": Family(
        _seq2seq("WhisperForConditionalGeneration", "WhisperConfig", "decoder", WHISPER),
        _decoder_inputs(masked=False, length=16),
        {key: _DECODER_AXES[key] for key in ("input_ids", "encoder_hidden_states")},
        {"attention": 2 * LAYERS, "layer-norm": 3 * LAYERS + 1, "gelu": LAYERS},
    ),
}


KINDS = {
    "attention": "Attention",
    "layer-norm": "LayerNormalization",
    "rms-norm": "RMSNormalization",
    "gelu": "Gelu",
    "rotary": "RotaryEmbedding",
}
"""Kind of fusion to the operator that it makes."""


def counted(model: ir.Model) -> dict[str, int]:
    """Return how many of each kind a model has as one operator."""
    kinds = [node.op_type for node in model.graph.all_nodes() if node.domain == ""]
    return {kind: kinds.count(operator) for kind, operator in KINDS.items()}


def row(name: str, exporter: str, found: Mapping[str, int] | None) -> str:
    """Return a line of the table; None where the exporter refuses the family."""
    wanted = FAMILIES[name].expected
    cells = [
        "-" if kind not in wanted else f"{found[kind]}/{wanted[kind]}" if found else "no export"
        for kind in KINDS
    ]
    return f"| {name} | {exporter} | {' | '.join(cells)} |"
